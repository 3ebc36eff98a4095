"""Scenes that are larger than an entry's size, read window by window from arrays and files.

Shapes: H and W rows and columns of a scene, h and w of a tile, C channels.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.modality.entry import Modality
from maskweave.values.files import read_value
from maskweave.values.formats import split_ending
from maskweave.values.formats.numpy_rows import NpyRows

Window = Callable[[int, int, int, int], Any]
"""Returns rows y0 to y1 and columns x0 to x1 as a checked value; None if nothing in it is known."""


def is_plane(modality: Modality) -> bool:
    """Whether its values have rows and columns."""
    return len(modality.value.size) == 2


class Plane(NamedTuple):
    """A dense input of a scene."""

    name: str
    modality: Modality
    shape: tuple[int, int]
    """H and W."""
    window: Window

    @property
    def size(self) -> tuple[int, int]:
        """h and w of a tile."""
        height, width = self.modality.value.size
        return height, width

    def known(self, value: Any) -> np.ndarray:
        """Which points (h, w) of a tile have a known channel."""
        if value is None:
            return np.zeros(self.size, bool)
        flags = self.modality.value.known(value)
        return np.any(flags.reshape(*flags.shape[:2], -1), axis=-1)

    def tile(self, y: int, x: int) -> Any:
        """Returns the value of the tile that starts at a point, of the entry's size; None if nothing in it is known. Points beyond the scene are unknown; types without
        unknown points repeat the last ones."""
        (H, W), (h, w) = self.shape, self.size
        value = self.window(y, min(y + h, H), x, min(x + w, W))
        if value is None or value.shape[:2] == (h, w):
            return value
        more = [(0, h - value.shape[0]), (0, w - value.shape[1]), *[(0, 0)] * (value.ndim - 2)]
        if self.modality.value.has_unknown:
            kind = self.modality.value
            return np.pad(value, more, constant_values=kind.padding)  # type: ignore[attr-defined]
        return np.pad(value, more, mode="edge")


def open_plane(value: Any, modality: Modality) -> Plane:
    """Opens a dense input of a scene: an array or anything with `shape` that is read by slices, a PIL image, or a file. `.npy` and TIFF files are read by windows, except turned, transparent and other
    TIFF photographs whose points are not stored as they are shown.

    Raises:
        MaskweaveError: no such file, a wrong number of axes, or a scene that is smaller than a tile though its values have no unknown points.
    """
    where = f"input {modality.name!r}"
    if isinstance(value, (str, os.PathLike)):
        plane = _open_file(Path(value), modality, where)
    else:
        if not hasattr(value, "shape"):
            value = modality.value.from_python(value, where)
        plane = _of_array(value, modality, where)
    (H, W), (h, w) = plane.shape, plane.size
    if (h > H or w > W) and not modality.value.has_unknown:
        raise MaskweaveError(
            f"{where}: the scene is {H}×{W}, smaller than a tile of {h}×{w}, and the entry has no unknown points to fill it up; resize it, or generate without tiles"
        )
    return plane


def _of_array(array: Any, modality: Modality, where: str) -> Plane:
    if len(array.shape) not in (2, 3) or min(array.shape[:2]) < 1:
        raise MaskweaveError(
            f"{where}: found an array of shape {tuple(array.shape)}; expected (height, width) or (height, width, channels)"
        )

    def window(y0: int, y1: int, x0: int, x1: int) -> Any:
        found = np.asarray(array[y0:y1, x0:x1])
        value = modality.value.check(
            modality.value.from_python(found, where), f"{where}, rows {y0} to {y1}, columns {x0} to {x1}"
        )
        return None if modality.value.is_missing(value) else value

    return Plane(modality.name, modality, (int(array.shape[0]), int(array.shape[1])), window)


def _open_file(path: Path, modality: Modality, where: str) -> Plane:
    if not path.is_file():
        raise MaskweaveError(f"{where}: {shown(str(path)[:200])}: no such file; give an existing one")
    ending = split_ending(path.name)[1]
    if ending == "npy" and not (rows := NpyRows(path)).fortran:
        return _of_array(rows, modality, f"{where}: {path}")
    if ending in ("tif", "tiff") and _by_windows(path, modality):
        from maskweave.values.formats import tiff

        def window(y0: int, y1: int, x0: int, x1: int) -> Any:
            content = tiff.crop(path, (y0, y1), (x0, x1))
            return modality.value.read(content, ending, f"{where}: {path}, rows {y0} to {y1}, columns {x0} to {x1}")

        return Plane(modality.name, modality, tiff.plane_shape(path), window)
    found = read_value(path, modality.value, f"{where}: {path}")
    if found is None:
        raise MaskweaveError(f"{where}: {path}: the file holds no value; leave the input out, or give another file")
    return _of_array(found, modality, f"{where}: {path}")


def _by_windows(path: Path, modality: Modality) -> bool:
    """Whether a part of a TIFF file, read alone, is that part of the whole; photographs that are turned, transparent or have a palette are not."""
    from maskweave.values.formats import tiff

    return not modality.value.reads_photograph("tif") or tiff.is_plain_photograph(path)
