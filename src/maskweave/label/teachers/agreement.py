"""Where two teachers agree: a weight (`weight:` of an entry) or a mask (`valid:`) for the labels of the first.

Numbers: 1 / (1 + (d / s)²) at each point, where d is their difference and s the median distance of the first map from its median, so that points
whose difference is as large as the map's own variation weigh one half. With `align: true`, the second map is fitted to the first by a
scale and an offset first (least squares), as for relative depth. Classes: 1 where they are equal, otherwise 0. Directions: the cosine of their
angle, at least 0.
"""

from collections.abc import Sequence

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.modality.derivation import AgreementDerivation
from maskweave.modality.entry import Modality
from maskweave.values.array import as_numbers
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.geometry import nearest_along_axes
from maskweave.values.map import Map

LEAST = 1e-9


class Agreement(TaskTeacher):
    """Agreement of two labels as a map of one channel, 0 to 1, or of classes as a binary map.

    Raises:
        MaskweaveError: the labels or the entry have other types.
    """

    def __init__(self, settings: AgreementDerivation, entry: Modality, first: Modality, second: Modality):
        self.settings, self.names, self.notes = settings, (first.name, second.name), []
        self.value = first.value
        fits = isinstance(entry.value, Map) and entry.value.channels == 1
        fits = fits or (isinstance(entry.value, Binary) and isinstance(first.value, Classes))
        same = first.value.type == second.value.type and first.value.classes == second.value.classes
        if not (fits and same and isinstance(first.value, (Map, Classes, Direction)) and len(first.value.size) == 2):
            raise MaskweaveError(
                f"{entry.name!r}: derive.by: agreement compares two planes of maps, classes or directions of one type, and gives a map of one channel with "
                f"range [0, 1] (of classes also type binary); found type {entry.value.type!r} from {first.value.type!r} and {second.value.type!r}"
            )
        self.provenance = {"with": second.name, "align": settings.align}

    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        return [TeacherLabel(self._agree(*(as_numbers(sample[n], n) for n in self.names))) for sample in samples]

    def _agree(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        second = nearest_along_axes(second, first.shape[:2])
        if isinstance(self.value, Classes):
            return (first == second) & (first >= 0)
        if isinstance(self.value, Direction):
            return np.nan_to_num((first * second).sum(-1).clip(0, 1)).astype(np.float32)
        a, b = (np.asarray(x, np.float64).reshape(*first.shape[:2], -1) for x in (first, second))
        known = np.isfinite(a) & np.isfinite(b)
        if self.settings.align and known.sum() > 1:
            scale, offset = np.polyfit(b[known], a[known], 1) if np.ptp(b[known]) > LEAST else (0.0, a[known].mean())
            b = b * scale + offset
        spread = max(float(np.median(np.abs(a[known] - np.median(a[known])))), LEAST) if known.any() else 1.0
        weight = np.where(known, 1 / (1 + ((a - b) / spread) ** 2), 0.0)
        return weight.mean(axis=-1).astype(np.float32)
