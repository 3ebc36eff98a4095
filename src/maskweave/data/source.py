"""The interface of every data set: samples by index."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from maskweave.errors import BadSample
from maskweave.limits import ReadingLimits, limited_to
from maskweave.values.base import TextLabels

MAX_KEY_CHARACTERS = 1000


@runtime_checkable
class Source(Protocol):
    """A map-style data set: sample i is always the same. Samples can be read in any order and in any process.

    A source may have a method `text_labels(text) -> Sequence[str]`. It converts a text to the labels that scores compare in place of its words.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities of the samples; a sample may lack some of them."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns sample i: values by modality, in the Python form of each entry's value type. Missing modalities are left out.

        Raises:
            BadSample: this sample is not usable.
            IndexError: i is not from 0 to len - 1.
        """
        ...

    def key(self, i: int) -> str:
        """The stable name of sample i, unique in the data set."""
        ...


def check_key(key: str, where: str) -> str:
    """Return `key`, a sample's name such as `holiday/beach_01`, if it is safe to use as a path inside a folder or tar.

    Raises:
        BadSample: it is empty, too long, absolute, contains `..`, backslashes or control characters, or is not UTF-8.
    """
    fault = ""
    if not key or len(key) > MAX_KEY_CHARACTERS:
        fault = f"has {len(key)} characters; expected 1 to {MAX_KEY_CHARACTERS}"
    elif key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        fault = "leads out of its folder; expected a plain relative path without '..'"
    elif "\\" in key or any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in key):
        fault = "has a backslash, a control character or bytes that are not UTF-8"
    if fault:
        raise BadSample(f"{where}: the name {key[:80]!r} {fault}; rename it")
    return key


def text_labels_of(source: Source) -> TextLabels | None:
    """The source's `text_labels`; None if it has none, so that words are compared."""
    labels: TextLabels | None = getattr(source, "text_labels", None)
    return labels


class Subset:
    """Some samples of a source, in a given order.

    Args:
        indices: a sequence or an array, which is kept as it is.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self.source, self.indices = source, indices
        self.text_labels = text_labels_of(source)

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[int(self.indices[i])]

    def key(self, i: int) -> str:
        return self.source.key(int(self.indices[i]))


class LimitedSource:
    """A source whose files are read within limits, in any process."""

    def __init__(self, source: Source, limits: ReadingLimits):
        self.source, self.limits = source, limits
        self.text_labels = text_labels_of(source)

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        with limited_to(self.limits):
            return self.source[i]

    def key(self, i: int) -> str:
        return self.source.key(i)
