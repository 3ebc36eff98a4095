"""The largest numbers that entries, recipes and bundles may contain, so that typos fail before anything is allocated; and the largest files.

Every limit of a number is far above published models. To raise them, set the environment variable `MASKWEAVE_LIMIT_FACTOR`, which multiplies
all of them.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar

from maskweave.errors import MaskweaveError, shown

FACTOR_SETTING = "MASKWEAVE_LIMIT_FACTOR"

NAME_BYTES = 100
"""Bytes of a name, which is also used as a folder name; not multiplied, because file systems have their own limit."""
MODALITY_ID = 2**16
TOKENS = 2**18
"""Tokens of one modality: the size of its grid, or its max_tokens."""
VOCABULARY = 2**20
"""Ids of a vocabulary or of a codebook."""
WIDTH = 2**15
DEPTH = 2**10
HEADS = 2**10
REGISTERS = 2**12
MLP_RATIO = 64
POSITION_NUMBERS = 2**28
"""Positions of all modalities times the width."""
CODE_WIDTH = 2**13
"""Width of the latent that a quantizer takes."""
QUANTIZERS = 64
"""Levels of a residual quantizer."""
DIFFUSION_STEPS = 2**16
DIFFUSION_WIDTH = 2**13
DIFFUSION_LEVELS = 16
DIFFUSION_LAYERS = 64
DIFFUSION_PATCH = 2**10

SEED = 2**62
"""Torch takes 64-bit seeds, and some seeds are derived by addition; not multiplied."""
PROCESSES = 2**10
"""Processes or threads on one machine."""
SAMPLES = 2**36
"""Samples of a data set."""
SHARD_SIZE = 2**24
COPIES = 2**10
"""Augmented versions of a sample in a token store."""
STEPS = 2**36
"""Updates of a training run."""
BATCH_SIZE = 2**20
ACCUMULATE = 2**20
GUIDANCE = 10_000
"""Weight of guidance, also below 0. Published weights are 1 to 20; far above, differences of logits overflow."""
ENSEMBLE = 2**16
"""Members of an ensemble."""
SAMPLED_TOKENS = 2**20
"""Inputs or targets of one sample."""
BATCH_TOKENS = 2**28
"""Inputs and targets of all samples of a batch."""


MOST_MB = 2**20
"""Largest limit of a file, in MB; not multiplied."""
VALUE_SETTING = "MASKWEAVE_MAX_VALUE_MB"
TEXT_SETTING = "MASKWEAVE_MAX_TEXT_MB"


@dataclass(frozen=True)
class ReadingLimits:
    """How large files may be that are read. A limit that is set replaces that of its environment variable."""

    settings: ClassVar[Mapping[str, str]] = {}
    """What users call the limits that they can set here."""

    value_mb: int | None = None
    """Memory in MB that one picture, array or other value may take while it is read, in each process that reads samples. By default `MASKWEAVE_MAX_VALUE_MB`, or 1024."""
    text_mb: int | None = None
    """Size in MB of a YAML or JSON file of the data, such as annotations or a split. By default `MASKWEAVE_MAX_TEXT_MB`, or 64. Annotations of COCO may have 2048 MB or this, whichever is more."""

    def __post_init__(self) -> None:
        for key in ("value_mb", "text_mb"):
            number = getattr(self, key)
            is_whole = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (is_whole and 1 <= number <= MOST_MB):
                raise MaskweaveError(
                    f"{key} is {shown(number)}; expected a whole number of megabytes, 1 to {MOST_MB:,}"
                )

    @property
    def are_set(self) -> bool:
        return self.value_mb is not None or self.text_mb is not None


class RecipeLimits(ReadingLimits):
    """The limits of a recipe."""

    settings: ClassVar[Mapping[str, str]] = {"value_mb": "limits.value_mb", "text_mb": "limits.text_mb"}


class ImportLimits(ReadingLimits):
    """The limits of `maskweave data import`."""

    settings: ClassVar[Mapping[str, str]] = {"value_mb": "--max-value-mb"}


_in_force: ContextVar[ReadingLimits] = ContextVar("limits in force", default=ReadingLimits())  # noqa: B039 - it is frozen


def limits_in_force() -> ReadingLimits:
    """Returns the limits of the files that are read here."""
    return _in_force.get()


def use_limits(limits: ReadingLimits) -> None:
    """Sets the limits of files for this thread, as a new one does not know those of the thread that starts it."""
    _in_force.set(limits)


@contextlib.contextmanager
def limited_to(limits: ReadingLimits) -> Iterator[None]:
    """Context in which files are read within these limits. Other threads need `use_limits`."""
    before = _in_force.set(limits)
    try:
        yield
    finally:
        _in_force.reset(before)


def setting_in_force(key: str) -> str:
    """Returns the setting of the limit in force, for messages. If none is set: those that can be.

    Args:
        key: `value_mb` or `text_mb`.
    """
    limits = limits_in_force()
    name = {"value_mb": VALUE_SETTING, "text_mb": TEXT_SETTING}[key]
    own, variable = limits.settings.get(key, ""), f"the environment variable {name}"
    if getattr(limits, key) is not None:
        return own or f"{key} of {type(limits).__name__}"
    return f"{own} or {variable}" if own and not os.environ.get(name, "").strip() else variable


def check_most(key: str, number: float, most: float, fixed: bool = False) -> None:
    """Refuse a number above its limit.

    Args:
        key: name of the number in the message, with its location.
        fixed: the limit is not multiplied.

    Raises:
        MaskweaveError: the number is above the limit.
    """
    if fixed and number > most:
        raise MaskweaveError(f"{key} is {shown(number)}; expected at most {most:,}")
    if number > most and number > most * limit_factor():
        raise MaskweaveError(
            f"{key} is {shown(number)}; expected at most {most * limit_factor():,}, a limit that stops typos before they fill the memory; "
            f"if the number is intended, set the environment variable {FACTOR_SETTING}, which multiplies all such limits"
        )


def whole_setting(name: str, default: int) -> int:
    """Returns the whole number, 1 or more, in an environment variable, or the default if it is not set.

    Raises:
        MaskweaveError: the value is something else.
    """
    setting = os.environ.get(name, "").strip() or str(default)
    if not (setting.isascii() and setting.isdecimal() and len(setting) < 10 and int(setting) >= 1):
        raise MaskweaveError(f"{name} is {shown(setting)}; expected a whole number of 1 or more")
    return int(setting)


def limit_factor() -> int:
    """Returns the value of `MASKWEAVE_LIMIT_FACTOR`, or 1 if it is not set.

    Raises:
        MaskweaveError: the value is not a whole number of 1 or more.
    """
    return whole_setting(FACTOR_SETTING, 1)
