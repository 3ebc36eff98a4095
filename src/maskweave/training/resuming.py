"""What may change when a run resumes: one policy, for the recipe in a run folder and for the settings in a checkpoint.

Refused is whatever changes which samples or tokens are seen, or the architecture. Everything else may change, and the change is told once.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from reprlib import Repr
from typing import Any, NamedTuple

from maskweave.families.base import families

HANDLING = ("log_every", "validate_every", "checkpoint_every", "keep", "workers", "threads", "compile", "device")
"""Settings of a training that say how it is carried out."""
COURSE = (
    "steps",
    "learning_rate",
    "warmup",
    "final_learning_rate",
    "schedule",
    "betas",
    "weight_decay",
    "clip",
    "lazy_embeddings",
    "precision",
    "ema",
)
"""Settings of a training that say how the weights follow from the samples."""
FREE = (
    *(f"train.{key}" for key in (*HANDLING, *COURSE)),
    *(f"tokenizers.train.{key}" for key in HANDLING),  # another course would give other tokens
    "tokenizers.jobs",
    "data.workers",
    "data.limit",
    "tuning.layer_decay",
    "tuning.stochastic_depth",
    "evaluate.*",
    "catalog",  # where the entries stand, and which of them: the entries themselves are compared
    "modalities",
)
"""Patterns of the dotted keys of recipes, of all kinds, that may change. All others are refused."""

_shown = Repr()
_shown.maxstring = _shown.maxother = 80


class Change(NamedTuple):
    """One key in which two recipes differ."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {_shown.repr(self.was)} and is {_shown.repr(self.now)}"


def is_free(key: str) -> bool:
    """Whether a dotted key may change when a run resumes."""
    of_families = (f"model.{pattern}" for family in families() for pattern in family.resumable)
    return any(fnmatchcase(key, pattern) for pattern in (*FREE, *of_families))


def changes(found: Any, wanted: Any, key: str = "") -> Iterator[Change]:
    """The dotted keys in which two plain recipes differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in {**found, **wanted}:
            yield from changes(found.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif found != wanted:
        yield Change(key, found, wanted)
