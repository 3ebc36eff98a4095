"""What may change when a run resumes. The same policy applies to the recipe in a run folder and to the settings in a checkpoint.

Changes of the samples or tokens that training uses, or of the architecture, are refused. All other changes are allowed and reported once.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from maskweave.errors import shown
from maskweave.families.base import families

HANDLING = (
    *("log_every", "validate_every", "checkpoint_every", "keep", "async_checkpoints", "workers", "threads", "compile", "static_shapes", "device"),
    *("parallel", "reshard_after_forward", "activation_checkpointing"),
)  # fmt: skip
"""Training settings that do not affect the weights."""
COURSE = (
    "steps",
    "learning_rate",
    "warmup",
    "final_learning_rate",
    "schedule",
    "betas",
    "weight_decay",
    "clip",
    "skip_nonfinite",
    "lazy_embeddings",
    "precision",
    "ema",
    "seed",
    "early_stopping*",
)
"""Training settings that affect the weights, but not which samples are used."""
SPLIT = ("batch_size", "accumulate", "processes")
"""Training settings that split the samples of a step. Their product may not change once there is a checkpoint; checked by `checkpoints.check_split`."""
FREE = (
    *(f"train.{key}" for key in (*HANDLING, *COURSE, *SPLIT)),
    *(f"tokenizers.train.{key}" for key in HANDLING),  # COURSE would change the tokens
    "tokenizers.jobs",
    "data.workers",
    "data.limit",
    "tuning.layer_decay",
    "tuning.stochastic_depth",
    "evaluate.*",
    "limits*",
    "catalog",  # the entries themselves are compared instead
    "modalities",
)
"""Patterns of dotted recipe keys that may change, for recipes of all kinds. Changes of other keys are refused."""


MAX_KEY = 100
"""Characters of a key in a change. The keys in a file may be of any length, and few lines of YAML may repeat one many times."""


class Change(NamedTuple):
    """A key whose value differs between two recipes."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {shown(self.was)} and is {shown(self.now)}"


def is_free(key: str) -> bool:
    """Whether a dotted key may change when a run resumes."""
    if not key.startswith("model."):
        return any(fnmatchcase(key, pattern) for pattern in FREE)
    return any(fnmatchcase(key, f"model.{pattern}") for family in families() for pattern in family.resumable)


def changes(found: Any, wanted: Any, key: str = "") -> Iterator[Change]:
    """Yields the changes between two recipes given as plain values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in {**found, **wanted}:
            short = str(name)[:MAX_KEY]
            yield from changes(found.get(name), wanted.get(name), f"{key}.{short}" if key else short)
    elif found != wanted:
        yield Change(key, found, wanted)
