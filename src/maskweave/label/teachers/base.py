"""Teachers: networks, or functions, that compute the values of an entry from the values of another.

A teacher is called with a batch of samples and returns one label for each, with its confidence.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from maskweave.errors import BadSample
from maskweave.generate.request import Sample


class TeacherLabel(NamedTuple):
    """A label and how sure the teacher is."""

    value: Any
    """What the entry's value type checks."""
    confidence: Any = None
    """0 to 1: one number, one for each item of a list, or an array (H, W) for the points of a dense value; None: the teacher does not tell."""


class TaskTeacher(ABC):
    """A teacher, opened for one entry."""

    provenance: dict[str, Any]
    """Where the labels come from: model, revision, license, versions; goes into the record of the labels."""
    notes: list[str]
    """What the user should know, such as classes that are left out."""

    @abstractmethod
    def __call__(self, samples: Sequence[Sample]) -> Sequence[TeacherLabel | BadSample | None]:
        """Returns a label for each sample; None: it has none; BadSample: it cannot be computed.

        Args:
            samples: with values of all modalities that the entry's `derive` reads, at their own size.

        Raises:
            BadSample: for one of the samples; then they are passed again one by one.
        """
