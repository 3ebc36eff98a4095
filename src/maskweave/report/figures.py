"""Figures of values, drawn by their value types, with legends."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.values.lettering import message

GAP = 6


def draw(
    modality: Modality,
    value: Any,
    size: tuple[int, int] | float = (144, 144),
    over: Any = None,
    span: tuple[float, float] | None = None,
    reference: Any = None,
) -> np.ndarray:
    """Draws a picture of one value, uint8 (height, width, 3); see `ValueType.draw`.

    Args:
        value: in its Python form; None draws a tile with the word "missing".
        size: (height, width) in pixels, or a factor of the value's own size (128×128 if it has none).
        over: picture, uint8 (H, W, 3), drawn under boxes, instances, people and points.
        span: lowest and highest value of a map's colors, or of a curve's axis; the entry's range by default.
        reference: value whose principal components are used to color features or a map of several channels, so that two figures can be compared.

    Raises:
        MaskweaveError: the value's shape does not fit its modality.
    """
    v = modality.value
    height, width = size if isinstance(size, tuple) else (max(1, round(s * size)) for s in v.natural_size())
    if value is None:
        return message("missing", (height, width))
    try:
        return v.draw(value, (height, width), over if v.sees_color else None, span, reference)
    except MaskweaveError as error:
        raise MaskweaveError(f"{modality.name}: {error}") from error


def with_legend(modality: Modality, value: Any, size: tuple[int, int], over: Any = None) -> np.ndarray:
    """Draws one value with its legend below, uint8 (size[0] or more, size[1], 3); arguments and errors as in `draw`."""
    figure = draw(modality, value, size, over)
    beneath = None if value is None else modality.value.legend(None, [value], size[1])
    if beneath is None:
        return figure
    page = np.full((size[0] + GAP + len(beneath), size[1], 3), 255, dtype=np.uint8)
    page[: size[0]] = figure
    page[size[0] + GAP :, : beneath.shape[1]] = beneath
    return page


def common_span(modality: Modality, values: Sequence[Any], truths: Sequence[Any]) -> tuple[float, float] | None:
    """Returns a common value range for figures that are compared: the truth's if it is known, so that an outlying prediction does not wash
    out the colors; for curves, the range of all values, so that no curve is cut off."""
    shown = [*values, *truths] if modality.value.curve else truths or values
    return modality.value.span([value for value in shown if value is not None])
