"""Instance masks as text-like tokens: a class, a box in bins, and the mask on a small lattice stretched over the box.

4M-21 (https://arxiv.org/abs/2406.09406) writes masks as codes of a separate tokenizer; rows of bits need none, and can be read.

Exactness. A pixel of a row of W pixels belongs to bin floor(pixel * bins / W). The box is the range of bins that the mask touches, and
stands for all pixels of those bins. The lattice cuts these pixels into rows x columns cells (into single pixels along an axis that
has fewer); a cell is set where the mask covers at least half of it. The outer rows and columns always hold a cell, their
fullest one if none is half covered, so that the painted mask touches the same bins, and encoding it gives the same ids.
A mask comes back whole if there are at least as many bins as pixels and its box is no larger than the lattice; a larger one
comes back at the lattice's resolution.
"""

from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskweave.modality.entry import Modality
from maskweave.tokenizers.structured import Codec, Slot, corner_distance
from maskweave.tokenizers.text import TextTokenizer


class Axis(NamedTuple):
    """How the pixels of a box share out over the lattice along one axis: C cells, the lattice's or one per pixel if those are fewer."""

    starts: NDArray[np.intp]
    """(C,) first pixel of each cell."""
    widths: NDArray[np.intp]
    """(C,) pixels of each cell, at least 1."""
    spread: NDArray[np.intp]
    """(lattice,) the cell that each place of the lattice shows."""
    pick: NDArray[np.intp]
    """(C,) a place of the lattice that shows each cell."""


@lru_cache(maxsize=4096)
def axis(pixels: int, lattice: int) -> Axis:
    cells = min(pixels, lattice)
    ends = np.arange(cells + 1) * pixels // cells
    spread = (2 * np.arange(lattice) + 1) * cells // (2 * lattice)
    pick = (2 * np.arange(cells) + 1) * lattice // (2 * cells)
    return Axis(ends[:-1], np.diff(ends), spread, pick)


class Instances(Codec):
    """List of {"class": str, "mask": bool (height, width)}, in the order of boxes."""

    item = "instance"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text)
        height, width = self.spec.size
        bins, (self.rows, self.columns) = self.spec.bins, self.spec.mask
        self.classes = self.class_ids()
        self.most = self.capacity(5 + self.rows)
        self.require("v0", bins, "value.bins")
        self.require("v1", 2**self.columns, "value.mask (a row of n columns takes 2**n values)")
        self.y_bins = [p * bins // height for p in range(height)]
        self.x_bins = [p * bins // width for p in range(width)]
        self.weights = 2 ** np.arange(self.columns)[::-1]  # the leftmost column is the highest bit
        self.level, self.bits = text.value("v0", 0), text.value("v1", 0)
        names = Slot("class", {id: name for name, id in self.classes.items()})
        self.slots = [names, *[self.slot("v0", bins)] * 4, *[self.slot("v1", 2**self.columns)] * self.rows]

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        items = []
        for n, item in enumerate(self.items_of(value)):
            name = self.class_of(item, n, "mask")
            mask = item["mask"]
            if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != tuple(self.spec.size):
                found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
                raise self.bad(f"instance {n} with mask {found}", f"a bool array of shape {tuple(self.spec.size)}")
            if not mask.any():
                raise self.bad(
                    f"instance {n} with an empty mask", "masks that hold a pixel; leave out what is not seen"
                )
            box, rows = self._write(mask)
            ids = [self.classes[name], *(self.level + b for b in box), *(self.bits + row for row in rows)]
            items.append((corner_distance(box), ids))
        return self.join(ids for _, ids in sorted(items)[: self.most])

    def _write(self, mask: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Bins xmin, ymin, xmax, ymax of a mask, and its rows of bits."""
        (top, bottom), (left, right) = _extent(mask, 1), _extent(mask, 0)
        box = [self.x_bins[left], self.y_bins[top], self.x_bins[right], self.y_bins[bottom]]
        (y0, y1), (x0, x1) = self._pixels(box)
        ys, xs = axis(y1 - y0, self.rows), axis(x1 - x0, self.columns)
        covered = np.add.reduceat(mask[y0:y1, x0:x1], ys.starts, axis=0, dtype=np.int64)
        covered = np.add.reduceat(covered, xs.starts, axis=1)  # (cells down, cells across): pixels of the mask
        cells = 2 * covered >= ys.widths[:, None] * xs.widths
        for set_, part in (
            (cells, covered),
            (cells[::-1], covered[::-1]),
            (cells.T, covered.T),
            (cells.T[::-1], covered.T[::-1]),
        ):
            if not set_[0].any():
                # With bins of many pixels the outermost cells may hold nothing of the mask: then go by the nearest that do.
                set_[0, part[part.any(1).argmax()].argmax()] = True
        return box, (cells[ys.spread][:, xs.spread] @ self.weights).tolist()

    def _pixels(self, box: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and past-the-last pixel of the box's bins: down, then across."""
        down = bisect_left(self.y_bins, box[1]), bisect_right(self.y_bins, box[3])
        return down, (bisect_left(self.x_bins, box[0]), bisect_right(self.x_bins, box[2]))

    def read(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        instances = []
        for n, (name, *numbers) in enumerate(self.read_items(ids, self.slots, problems)):
            box, rows = numbers[:4], numbers[4:]
            (y0, y1), (x0, x1) = self._pixels(box)
            if y0 >= y1 or x0 >= x1:
                problems.append(f"instance {n}: its box is reversed or holds no pixel, bins {box}")
                continue
            ys, xs = axis(y1 - y0, self.rows), axis(x1 - x0, self.columns)
            lattice = (np.array(rows)[:, None] & self.weights) > 0
            cells = lattice[ys.pick][:, xs.pick]
            mask = np.zeros(self.spec.size, bool)
            mask[y0:y1, x0:x1] = cells.repeat(ys.widths, 0).repeat(xs.widths, 1)
            if mask.any():
                instances.append({"class": name, "mask": mask})
            else:
                problems.append(f"instance {n}: its mask is empty")
        return instances


def _extent(mask: NDArray[np.bool_], across: int) -> tuple[int, int]:
    """First and last row (across 1) or column (across 0) that holds a pixel of the mask, which is not empty."""
    held = np.logical_or.reduce(mask, axis=across)
    return int(held.argmax()), len(held) - 1 - int(held[::-1].argmax())
