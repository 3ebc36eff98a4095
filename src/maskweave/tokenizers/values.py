"""Values of one modality to network tensors and back, by value type. The entry says everything: sizes, range, mean and deviation.

Everything that comes in is checked here, once; what doesn't fit is refused with what was found and what is expected.

Dimension letters: B batch, C channels, K classes; *size is the value's lattice, one to three axes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import DENSE_TYPES, Modality, Value

RANGE_TOLERANCE = 1e-4
"""Share of a map's range by which rounding may carry a value outside; it is clipped."""
UNIT_TOLERANCE = 0.02
"""How far a direction's length may be from 1; half precision stays well within."""
LENGTH_EPSILON = 1e-6
VARIANCE_EPSILON = 1e-6

_ACCEPTED = {
    "image": ("u", "uint8, 0 to 255"),
    "map": ("fiu", "numbers"),
    "direction": ("f", "floats"),
    "features": ("fiu", "numbers"),
    "classes": ("iu", "whole numbers"),
    "binary": ("biu", "true or false, or 0 and 1"),
    "vector": ("fiu", "numbers"),
}


def value_shape(value: Value) -> tuple[int, ...]:
    """Shape of one value as checked arrays hold it: (*size, C); (*size) for classes and binary; (C,) for vectors."""
    return value.size if value.type in ("classes", "binary") else (*value.size, value.channels)


def check_values(modality: Modality, values: Sequence[Any] | np.ndarray | Tensor, first: int = 0) -> np.ndarray:
    """Stack a batch of values into one array (B, *value_shape), checked: the same numbers, in the smallest common type.

    Args:
        values: a list of arrays or tensors, or one with a batch axis in front. A single channel's axis may be left out.
        first: number of the first value, for messages.

    Raises:
        BadSample: wrong shape or type, NaN or infinite numbers, a class id or a number outside the entry's range, directions not of length 1.
    """
    value = modality.value
    if value.type not in _ACCEPTED:
        raise MaskweaveError(
            f"{modality.name}: values of type {value.type!r} are not arrays; this needs {', '.join(_ACCEPTED)}"
        )
    shape = value_shape(value)
    if isinstance(values, (np.ndarray, Tensor)):  # one check for all of them
        array = _array(modality, values, first)
        if array.shape[1:] != shape and (*array.shape[1:], 1) != shape:
            raise _bad(modality, first, f"an array of shape {array.shape[1:]}", _wanted(value))
        batch = array.reshape(len(array), *shape)
    else:
        items = []
        for number, item in enumerate(values, first):
            array = _array(modality, item, number)
            if array.shape != shape and (*array.shape, 1) != shape:
                raise _bad(modality, number, f"an array of shape {array.shape}", _wanted(value))
            items.append(array.reshape(shape))
        batch = np.stack(items) if items else np.zeros((0, *shape), np.uint8)
    _check_numbers(modality, batch, first)
    return batch


def to_tensor(modality: Modality, values: Sequence[Any] | np.ndarray | Tensor, first: int = 0) -> Tensor:
    """A batch of values as the tokenizer's network takes it.

    Images and maps are scaled to [-1, 1] (images by mean and deviation where the entry has them), maps without a range are standardized,
    binary becomes -1 and 1, directions, features and vectors stay as they are: float32 (B, C, *size), vectors (B, C). Classes stay
    indices: int64 (B, *size).

    Raises:
        BadSample: as `check_values`.
    """
    value = modality.value
    batch = check_values(modality, values, first)
    if value.type == "classes":
        return torch.from_numpy(batch.astype(np.int64))
    if value.type == "binary":
        batch = batch[..., None]
    if value.tails is not None:
        batch = np.stack([standardized(value, item) for item in batch]) if len(batch) else batch
    x = torch.from_numpy(scale(value, batch))
    return x if value.type == "vector" else x.movedim(-1, 1).contiguous()


def from_output(modality: Modality, output: Tensor) -> np.ndarray:
    """The network's output (B, C, *size) — (B, K, *size) logits of classes, (B, 1, *size) logits of binary — as values.

    Images come rounded to uint8, maps clipped to their range (in relative units where they have none), directions of length 1, classes by
    arg-max (the smallest integer type that holds them), binary by sign; a map's single channel has no axis.
    """
    value = modality.value
    output = output.detach()
    if value.type == "classes":
        return output.argmax(1).cpu().numpy().astype(np.min_scalar_type(len(value.classes) - 1))
    if value.type == "binary":
        return (output[:, 0] > 0).cpu().numpy()
    x = output.float().movedim(1, -1) if value.type in DENSE_TYPES else output.float()
    if value.type == "direction":
        return F.normalize(x, dim=-1, eps=LENGTH_EPSILON).contiguous().cpu().numpy()
    return unscale(value, x.contiguous().cpu().numpy())


def scale(value: Value, array: np.ndarray) -> np.ndarray:
    """Values (…, C) to the network's numbers, float32."""
    factor_C, shift_C = _affine(value)
    out = array.astype(np.float32)  # a copy, so the rest works in place
    out *= factor_C
    out += shift_C
    if value.range is not None:
        np.clip(out, -1, 1, out=out)
    return out


def standardized(value: Value, array: np.ndarray) -> np.ndarray:
    """A map (*size) or (*size, C) of an entry with `tails` in relative units, float32, as `Value.tails` says.

    What is in relative units already stays as it is, up to rounding.
    """
    assert value.tails is not None
    axes = tuple(range(len(value.size)))
    low = np.quantile(array, value.tails, axes, method="lower", keepdims=True)
    high = np.quantile(array, 1 - value.tails, axes, method="higher", keepdims=True)
    inside = (array >= low) & (array <= high)
    mean = np.mean(array, axes, np.float64, keepdims=True, where=inside)
    variance = np.var(array, axes, np.float64, keepdims=True, where=inside)
    return ((array - mean) / np.sqrt(variance + VARIANCE_EPSILON)).astype(np.float32)


def unscale(value: Value, array: np.ndarray) -> np.ndarray:
    """The reverse of `scale` for images (uint8, rounded and clipped), maps (clipped to their range), features and vectors."""
    factor_C, shift_C = _affine(value)
    out = (array - shift_C) / factor_C
    if value.type == "image":
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)
    if value.range is not None:
        out = np.clip(out, *value.range)
    out = out.astype(np.float32)
    return out[..., 0] if value.type == "map" and value.channels == 1 else out


def normalize_rows(modality: Modality, rows: np.ndarray) -> np.ndarray:
    """Rows (…, row_width) of checked raw values, uint8 for images, as float32 for the network.

    So a data set can keep its rows small and scale only those that are drawn.

    Raises:
        MaskweaveError: class maps, whose indices are not quantities, cannot be rows.
    """
    value = modality.value
    if value.type == "classes":
        raise MaskweaveError(
            f"{modality.name}: class indices cannot be used as raw numbers; make it a modality of kind 'grid'"
        )
    return scale(value, rows.reshape(-1, value.channels)).reshape(rows.shape)


def _affine(value: Value) -> tuple[np.ndarray, np.ndarray]:
    """Per channel, or for all: factor and shift that take a value to the network's number."""
    if value.type == "image" and value.mean:
        deviation = np.asarray(value.deviation, np.float32)
        return 1 / (255 * deviation), -np.asarray(value.mean, np.float32) / deviation
    low, high = {"image": (0.0, 255.0), "map": value.range or (-1.0, 1.0), "binary": (0.0, 1.0)}.get(
        value.type, (-1.0, 1.0)
    )
    return np.asarray([2 / (high - low)], np.float32), np.asarray([-(high + low) / (high - low)], np.float32)


def _array(modality: Modality, value: Any, number: int) -> np.ndarray:
    """One value as an array of an accepted type."""
    kinds, wanted = _ACCEPTED[modality.value.type]
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray):
        raise _bad(modality, number, f"a {type(value).__name__}", _wanted(modality.value))
    if value.dtype.kind not in kinds or (modality.value.type == "image" and value.dtype != np.uint8):
        raise _bad(modality, number, f"an array of {value.dtype}", wanted)
    return value


def _check_numbers(modality: Modality, batch: np.ndarray, first: int) -> None:
    """Refuse numbers that the entry doesn't allow; cheap tests over the batch first, the culprit is looked for only then."""
    value = modality.value
    if not batch.size:
        return

    def refuse(bad: np.ndarray, found: str, wanted: str) -> BadSample:
        per_value = bad.reshape(len(batch), -1)
        row = int(per_value.any(1).argmax())
        at = batch[row].reshape(per_value.shape[1], -1)[per_value[row].argmax()]
        shown = ", ".join(f"{v:.6g}" for v in np.atleast_1d(at)[:4])
        return _bad(
            modality,
            first + row,
            f"{found} ({shown}) at {int(per_value[row].sum())} of {per_value.shape[1]} points",
            wanted,
        )

    if batch.dtype.kind == "f" and not np.isfinite(batch.sum(dtype=np.float64)) and not np.isfinite(batch).all():
        raise refuse(~np.isfinite(batch), "NaN or infinite numbers", "finite ones; fill or leave out what is unknown")
    low, high = None, None
    if value.type == "map" and value.range is not None:
        slack = RANGE_TOLERANCE * (value.range[1] - value.range[0])
        low, high = value.range[0] - slack, value.range[1] + slack
        wanted = (
            f"{value.range[0]:g} to {value.range[1]:g} {value.unit}".rstrip() + "; clip the values or widen value.range"
        )
    elif value.type == "classes":
        low, high = 0, len(value.classes) - 1
        wanted = f"0 to {high} ({len(value.classes)} classes)"
    elif value.type == "binary":
        low, high, wanted = 0, 1, "true or false, or 0 and 1"
    if low is not None and high is not None and batch.dtype != bool and (batch.min() < low or batch.max() > high):
        raise refuse(
            (batch < low) | (batch > high),
            "class ids out of range" if value.type == "classes" else "numbers out of range",
            wanted,
        )
    if value.type == "direction":
        x = batch.astype(np.float32, copy=False)
        squared = np.einsum("...c,...c->...", x, x)
        if squared.min() < (1 - UNIT_TOLERANCE) ** 2 or squared.max() > (1 + UNIT_TOLERANCE) ** 2:
            raise refuse(
                np.abs(np.sqrt(squared) - 1) > UNIT_TOLERANCE,
                "vectors not of length 1",
                "unit vectors; divide each by its length",
            )


def _wanted(value: Value) -> str:
    shape = value_shape(value)
    optional = f" (or {value.size})" if value.channels == 1 and len(shape) > len(value.size) > 0 else ""
    return f"shape {shape}{optional}, {_ACCEPTED[value.type][1]}; resize or convert it, or correct the entry"


def _bad(modality: Modality, number: int, found: str, wanted: str) -> BadSample:
    return BadSample(f"{modality.name}: value {number} of the batch is {found}, expected {wanted}")
