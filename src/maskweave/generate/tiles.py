"""Scenes of any size by tiles: a model of a fixed size predicts overlapping tiles, which are blended.

A scene is read and its outputs are finished strip by strip, so beyond the outputs, memory grows only with the scene's width. Tiles blend by weights that fall linearly
towards their borders: maps by the weighted mean, classes by the weighted mean of probabilities, or of votes where a model gives only classes.

Modalities may differ in resolution. Positions are counted in steps: the tile is `steps` steps high or wide, and every modality has a whole number of points per step.

Shapes: H and W rows and columns of a scene, h and w of a tile, C channels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave import limits, system
from maskweave.config import whole_number
from maskweave.errors import FullDisk, MaskweaveError, shown
from maskweave.files import is_full_disk, make_folder
from maskweave.generate.places import Place
from maskweave.generate.scenes import Plane, is_plane, open_plane
from maskweave.modality.catalogs import Catalog
from maskweave.progress import progress
from maskweave.values.base import ValueType

OVERLAP = 0.25
Predict = Callable[[Sequence[dict[str, Any]], Sequence[int]], Sequence[Mapping[str, np.ndarray]]]
"""Maps samples of the entries' sizes and the numbers of their tiles to arrays (h, w, C) by output, NaN where unknown."""


class Output(NamedTuple):
    """What is predicted at each tile."""

    size: tuple[int, int]
    """h and w."""
    channels: int
    """Of the arrays that are blended."""
    finish: Callable[[np.ndarray], np.ndarray]
    """Maps blended rows (n, W, C), NaN where nothing is known, to rows of the output."""


@dataclass
class Tiled:
    """A blended scene; `tiled[NAME]` is a target's value in the Python form of its type, with the scene's size."""

    catalog: Catalog = field(repr=False)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """By target; memory maps if a folder was given."""
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """(H, W) bool by target: False where all dense inputs are unknown, and so the target is. Types without unknown points have 0 there."""
    tiles: int = 0
    """Number of predicted tiles."""
    places: dict[str, Place] = field(default_factory=dict)
    """Where the frame of each view is, if an input was a georeferenced TIFF file."""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]


class TileLayout(NamedTuple):
    """Positions of the tiles along one axis, in steps."""

    steps: int
    """Steps of a tile."""
    starts: list[int]
    overlap: int
    """Least overlap of neighbors."""

    @classmethod
    def of(cls, sizes: Sequence[int], points: int, size: int, overlap: float) -> "TileLayout":
        """Place tiles along an axis.

        Args:
            sizes: points of a tile, of each modality.
            points, size: points of the scene and of a tile, of the finest input.
            overlap: share of a tile that neighbors share, 0 to below 1.
        """
        steps = math.gcd(*sizes)
        extent = -(-points * steps // size)  # rounded up
        stride = max(1, math.floor(steps * (1 - overlap) + 1e-9))
        last = max(0, extent - steps)
        starts = [*range(0, last, stride), last]
        return cls(steps, starts, max(0, steps - stride))


def predict_tiles(
    catalog: Catalog,
    scene: Mapping[str, Any],
    outputs: Mapping[str, Output],
    predict: Predict,
    *,
    overlap: float = OVERLAP,
    batch_size: int = 8,
    folder: Path | None = None,
    title: str = "tiles",
) -> Tiled:
    """Predicts a scene tile by tile and blends the outputs.

    Tiles at the last row and column are moved inwards; if a scene is smaller than a tile, the rest of the tile is unknown. An input that is unknown in a complete tile is
    missing there, and a tile without any dense input is not predicted.

    Args:
        scene: planes as arrays (also memory maps and other arrays that are read by slices) or files, at least one; other values, such as a caption, hold for all tiles.
        outputs: by name.
        folder: where outputs are kept as memory maps, NAME.npy; by default they are in memory.

    Raises:
        MaskweaveError: no plane, planes that do not show the same frame, a scene that is smaller than a tile though its values have no unknown points, or wrong options.
    """
    if not isinstance(overlap, Real) or not 0 <= overlap < 1:
        raise MaskweaveError(f"overlap must be a share of a tile from 0 to below 1, found {shown(overlap)}")
    batch_size = whole_number("batch_size", batch_size, 1, limits.BATCH_SIZE)
    planes = {name: open_plane(value, catalog[name]) for name, value in scene.items() if is_plane(catalog[name])}
    if not planes:
        raise MaskweaveError(f"tiles need an input with rows and columns, found {', '.join(scene) or 'no inputs'}")
    rest = {name: value for name, value in scene.items() if name not in planes}
    finest = max(planes.values(), key=lambda plane: math.prod(plane.size))
    layouts = []
    for axis in (0, 1):
        sizes = [*(p.size[axis] for p in planes.values()), *(o.size[axis] for o in outputs.values())]
        layouts.append(TileLayout.of(sizes, finest.shape[axis], finest.size[axis], overlap))
    _check_frames(planes, finest)
    canvases = {}
    for name, output in outputs.items():
        shape = _scaled(finest, output.size)
        canvases[name] = Canvas(output, shape, layouts, folder / f"{name}.npy" if folder else None)
    count = 0
    rows, columns = layouts
    with progress(title, len(rows.starts) * len(columns.starts)) as bar:
        for i, row in enumerate(rows.starts):
            cells = _cells(planes, rest, layouts, i)
            while batch := list(islice(cells, batch_size)):
                usable = [cell for cell in batch if cell.sample is not None]
                samples = [cell.sample for cell in usable if cell.sample is not None]
                found = predict(samples, [cell.number for cell in usable]) if samples else []
                for cell, arrays in zip(usable, found, strict=True):
                    for name, canvas in canvases.items():
                        canvas.add(arrays[name], cell.column, cell.known)
                count += len(usable)
                bar.advance(len(batch))
            for canvas in canvases.values():
                canvas.finish(row, rows.starts[i + 1] if i + 1 < len(rows.starts) else None)
    if not count:
        raise MaskweaveError("the scene has no tile with a known point; check its missing values")
    known = {name: canvas.known for name, canvas in canvases.items()}
    return Tiled(
        catalog, {name: canvas.out for name, canvas in canvases.items() if canvas.out is not None}, known, count
    )


class _Cell(NamedTuple):
    number: int
    column: int
    """Start, in steps."""
    sample: dict[str, Any] | None
    """None: no dense input has a known point."""
    known: np.ndarray
    """Which points of the finest input are known in any dense input, bool (h, w)."""


def _cells(
    planes: Mapping[str, Plane], rest: Mapping[str, Any], layouts: Sequence[TileLayout], row: int
) -> Iterator[_Cell]:
    """Yields the tiles of one row."""
    rows, columns = layouts
    for j, column in enumerate(columns.starts):
        sample, known = {}, []
        for name, plane in planes.items():
            unit = [size // layout.steps for size, layout in zip(plane.size, layouts, strict=True)]
            value = plane.tile(rows.starts[row] * unit[0], column * unit[1])
            of_points = plane.known(value)
            if of_points.any():
                sample[name] = value
                known.append(of_points)
        number = row * len(columns.starts) + j
        if not known:
            yield _Cell(number, column, None, np.zeros((1, 1), bool))
            continue
        size = max((k.shape for k in known), key=math.prod)
        together = np.any([_to_size(k, (size[0], size[1])) for k in known], axis=0)
        yield _Cell(number, column, {**sample, **rest}, together)


def _to_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask at another size, by the nearest point."""
    if mask.shape == size:
        return mask
    at = [np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(size, mask.shape, strict=True)]
    return mask[np.ix_(*at)]


class Canvas:
    """Collects the tiles of one output: a strip of weighted sums as high as a tile, and the finished rows."""

    def __init__(self, output: Output, shape: tuple[int, int], layouts: Sequence[TileLayout], file: Path | None):
        self.output, self.shape, self.file = output, shape, file
        self.units = [size // layout.steps for size, layout in zip(output.size, layouts, strict=True)]
        ramps = [
            _ramp(size, layout.overlap * unit)
            for size, layout, unit in zip(output.size, layouts, self.units, strict=True)
        ]
        self.weight = np.outer(*ramps).astype(np.float32)
        width = max(shape[1], (layouts[1].starts[-1] + layouts[1].steps) * self.units[1])
        self.sums = np.zeros((output.size[0], width, output.channels), np.float32)
        self.weights = np.zeros((output.size[0], width), np.float32)
        self.shown = np.zeros((output.size[0], width), bool)
        """Where a dense input is known."""
        self.known = np.zeros(shape, bool)
        self.out: np.ndarray | None = None

    def add(self, array: np.ndarray, column: int, known: np.ndarray) -> None:
        """Adds a tile (h, w, C) at its column, in steps."""
        x = column * self.units[1]
        part = slice(x, x + self.output.size[1])
        usable = ~np.isnan(array).any(axis=-1)
        weight = self.weight * usable
        self.sums[:, part] += np.where(usable[..., None], array, 0) * weight[..., None]
        self.weights[:, part] += weight
        self.shown[:, part] |= _to_size(known, self.output.size)

    def finish(self, row: int, following: int | None) -> None:
        """Writes the rows that no further tile reaches, and moves the strip down.

        Args:
            row, following: start of this and of the next row of tiles, in steps.
        """
        first = row * self.units[0]
        n = len(self.sums) if following is None else (following - row) * self.units[0]
        good = (self.weights[:n] > 0) & self.shown[:n]
        mean = np.where(good[..., None], self.sums[:n] / np.maximum(self.weights[:n, :, None], 1e-12), np.nan)
        kept = slice(first, min(first + n, self.shape[0]))
        rows = self.output.finish(mean[: kept.stop - kept.start, : self.shape[1]])
        if self.out is None:
            self.out = self._allocate(rows)
        self.out[kept] = rows
        self.known[kept] = good[: kept.stop - kept.start, : self.shape[1]]
        for strip in (self.sums, self.weights, self.shown):
            strip[: len(strip) - n] = strip[n:].copy()
            strip[len(strip) - n :] = 0

    def _allocate(self, rows: np.ndarray) -> np.ndarray:
        shape = (self.shape[0], *rows.shape[1:])
        if self.file is None:
            return np.zeros(shape, rows.dtype)
        make_folder(self.file.parent)
        array = np.lib.format.open_memmap(self.file, mode="w+", dtype=rows.dtype, shape=shape)
        try:
            system.reserve(self.file)
        except OSError as error:
            self.file.unlink()
            if not is_full_disk(error):
                raise
            raise FullDisk(
                f"no space left for {self.file} of {array.nbytes:,} bytes; free some space, or choose another folder"
            ) from error
        return array


def _ramp(size: int, overlap: int) -> np.ndarray:
    """Returns weights (size,) that rise from each border over the overlap."""
    distance = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
    return np.minimum(distance / max(overlap, 0.5), 1.0)


def _scaled(finest: Plane, size: tuple[int, int]) -> tuple[int, int]:
    """Size of a scene for tiles of `size`."""
    height, width = (max(1, round(n * s / m)) for n, s, m in zip(finest.shape, size, finest.size, strict=True))
    return height, width


def _check_frames(planes: Mapping[str, Plane], finest: Plane) -> None:
    for name, plane in planes.items():
        wanted = _scaled(finest, plane.size)
        if any(abs(a - b) > 1 for a, b in zip(plane.shape, wanted, strict=True)):
            raise MaskweaveError(
                f"input {name!r}: the scene is {plane.shape[0]}×{plane.shape[1]}, but expected {wanted[0]}×{wanted[1]} beside {finest.name!r} with "
                f"{finest.shape[0]}×{finest.shape[1]}: all must show the same frame; crop or resample one of them"
            )


def plane_output(value: ValueType, name: str) -> Output:
    """Returns the output for a target.

    Raises:
        MaskweaveError: it is not a plane of points.
    """
    if len(value.size) != 2:
        raise MaskweaveError(
            f"target {name!r}: tiles give planes, and values of type {value.type!r} {shown(list(value.size))} are none; generate it for each tile by itself"
        )
    height, width = value.size
    return Output((height, width), value.num_classes or value.channels, value.from_blend)


def tile_seed(seed: int, number: int) -> int:
    """Returns the seed of a tile."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
