"""Attributes by which NetCDF, and files that follow it, say how numbers are packed: https://cfconventions.org, section 8.1."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskweave.errors import BadSample, shown
from maskweave.values.formats.base import Stored, as_floats


def decoded(array: np.ndarray, attributes: Mapping[str, Any], where: str) -> Stored:
    """Returns the array with `_FillValue` and `missing_value` as missing points, and `scale_factor` and `add_offset` applied.

    Raises:
        BadSample: a scale or offset is not a finite number.
    """
    if str(attributes.get("_Unsigned", "")).lower() == "true" and array.dtype.kind == "i":
        array = array.view(array.dtype.str.replace("i", "u"))
    known = np.ones(array.shape, bool)
    for name in ("_FillValue", "missing_value"):
        for fill in np.atleast_1d(_numbers(attributes.get(name))):
            known &= array != fill.astype(array.dtype) if np.isfinite(fill) else np.isfinite(array)
    scale, offset = (
        _one(attributes, name, default, where) for name, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    if (scale, offset) != (1.0, 0.0):
        floats = as_floats(array)
        array = floats * floats.dtype.type(scale) + floats.dtype.type(offset)
    return Stored(array, None if known.all() else known)


def _numbers(value: Any) -> np.ndarray:
    """Returns the numbers of an attribute; none if it is no number."""
    array = np.asarray([] if value is None or isinstance(value, (str, bytes)) else value)
    return array if array.dtype.kind in "biuf" else np.zeros(0)


def _one(attributes: Mapping[str, Any], name: str, default: float, where: str) -> float:
    if attributes.get(name) is None:
        return default
    found = _numbers(attributes[name]).reshape(-1)
    if len(found) != 1 or not np.isfinite(found[0]) or (name == "scale_factor" and found[0] == 0):
        raise BadSample(f"{where}: found the attribute {name} {shown(attributes[name])}; expected one finite number")
    return float(found[0])
