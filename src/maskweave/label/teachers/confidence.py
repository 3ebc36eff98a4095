"""Filters of labels by the teacher's confidence (`derive.confidence` of an entry)."""

from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.label.teachers.base import TeacherLabel
from maskweave.modality.derivation import Confidence
from maskweave.modality.entry import Modality
from maskweave.values.geometry import nearest_along_axes


def confident(label: TeacherLabel, limits: Confidence, entry: Modality) -> Any:
    """Returns what is left of a label; None if nothing is.

    Of a list with a confidence for each item, the items of at least `drop_below` are left, which may be none: an empty list says that nothing
    was found. Other labels are dropped if their (mean) confidence is below it. Points below `unknown_below` become unknown.

    Raises:
        MaskweaveError: the teacher does not tell the confidence that is needed.
    """
    value, confidence = label.value, label.confidence
    if confidence is None:
        raise MaskweaveError(
            f"{entry.name!r}: derive.confidence is set, but its teacher does not tell how sure it is; remove it, or choose another teacher"
        )
    if isinstance(value, list) and np.ndim(confidence) == 1:
        if limits.unknown_below is not None:
            raise MaskweaveError(f"{entry.name!r}: derive.confidence.unknown_below is for dense labels; use drop_below")
        least = limits.drop_below or 0.0
        return [item for item, sure in zip(value, confidence, strict=True) if sure >= least]
    if limits.drop_below is not None and float(np.mean(confidence)) < limits.drop_below:
        return None
    if limits.unknown_below is not None:
        if np.ndim(confidence) != 2:
            raise MaskweaveError(
                f"{entry.name!r}: derive.confidence.unknown_below needs the confidence of each point, which its teacher does not tell; use drop_below"
            )
        checked = entry.value.check(value, entry.name)
        known = nearest_along_axes(np.asarray(confidence) >= limits.unknown_below, np.shape(checked)[:2])
        value = entry.value.hide(checked, known)
        if entry.value.is_missing(value):
            return None
    return value
