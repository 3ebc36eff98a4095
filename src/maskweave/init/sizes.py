"""Sizes of values and of their grids of tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SAME = 1
"""Points by which sizes may differ through rounding."""
ROBUST = 0.95
"""Quantile of the lengths that is taken as the longest, if a few are much longer."""
STRETCH = 1.25
"""How much longer than that quantile the longest may be to be kept whole."""
KEPT = 128
"""Largest side of a map that keeps its own size."""
SMALL, MEDIUM, LARGE = 32, 64, 128
"""Short sides of pictures, in points."""
SIDE = 8
"""Tokens along the short side of a plane."""
LONG_RUN = 60
"""Minutes from which large pictures are worth their cost."""


@dataclass
class Fitted:
    """A size, its grid, and how values of other sizes are fitted to it."""

    size: tuple[int, ...]
    grid: tuple[int, ...]
    fit: str | list[str] = ""
    """`value.fit`; empty: the default."""
    pads: bool = False
    """Whether shorter values are extended by unknown points."""
    note: str = ""
    doubts: list[str] = field(default_factory=list)


def tokens_along(size: int, wanted: int) -> int:
    """Returns the divisor of a size closest to the wanted number of tokens, by ratio; 0 if none is within a factor of 2."""
    wanted = max(1, min(wanted, size))
    near = [g for g in range(1, size + 1) if size % g == 0 and wanted / 2 <= g <= wanted * 2]
    return min(near, key=lambda g: abs(math.log(g / wanted)), default=0)


def divisible(size: int, wanted: int, up: bool = False) -> tuple[int, int]:
    """Returns a size close to the given one that has a suitable number of tokens, and that number.

    Args:
        up: the size may not be smaller; what is added is unknown.
    """
    tokens = 0 if up else tokens_along(size, wanted)
    if tokens:
        return size, tokens
    wanted = max(1, min(wanted, size))
    patch = max(1, (math.ceil if up else round)(size / wanted))
    tokens = max(1, (math.ceil if up else int)(size / patch))
    return patch * tokens, tokens


def longest(lengths: Sequence[int]) -> int:
    """Returns the largest length, or a high quantile if a few are much longer."""
    high = math.ceil(np.quantile(lengths, ROBUST))
    return max(lengths) if max(lengths) <= STRETCH * high else high


def for_series(lengths: Sequence[int]) -> Fitted:
    """The size of values of one axis. Shorter ones are unknown past their end."""
    length = longest(lengths)
    wanted = 32 if length >= 128 else length // 4 if length >= 32 else length
    size, tokens = divisible(length, wanted, up=True)
    if min(lengths) == max(lengths) == size:
        return Fitted((size,), (tokens,))
    spread = (
        f"lengths are {min(lengths)} to {max(lengths)}" if min(lengths) < max(lengths) else f"all have {length} points"
    )
    return Fitted((size,), (tokens,), "crop", True, spread)


def for_picture(sizes: Sequence[tuple[int, ...]], minutes: float, kept: bool = False) -> Fitted:
    """The size of planes.

    Args:
        sizes: (height, width) of each.
        kept: keep the own size of planes that have one, if it is not large; otherwise pictures are made small.
    """
    heights, widths = np.array(sizes, float).T
    h, w = round(float(np.median(heights))), round(float(np.median(widths)))
    same = np.ptp(heights) <= SAME and np.ptp(widths) <= SAME
    if kept and same and max(h, w) <= KEPT:
        (height, rows), (width, columns) = divisible(h, _along(h, w)), divisible(w, _along(w, h))
        return Fitted(
            (height, width),
            (rows, columns),
            "crop" if (height, width) != (h, w) else "",
            note=f"all are {h}×{w}" if (height, width) != (h, w) else "",
        )
    short = float(np.median(np.minimum(heights, widths)))
    side = SMALL if short < 48 else LARGE if minutes >= LONG_RUN and short >= 1.5 * LARGE else MEDIUM
    ratios = widths / heights
    alike = np.quantile(ratios, 0.9) / np.quantile(ratios, 0.1) < 1.1
    ratio = float(np.clip(np.median(ratios), 0.5, 2)) if alike else 1.0
    step = side // SIDE
    height = side if ratio >= 1 else round(side / ratio / step) * step
    width = side if ratio <= 1 else round(side * ratio / step) * step
    spread = (
        f"{h}×{w}" if same else f"{int(heights.min())}×{int(widths.min())} to {int(heights.max())}×{int(widths.max())}"
    )
    fitted = Fitted(
        (height, width), (height // step, width // step), "" if not kept else "crop", note=f"the files have {spread}"
    )
    if not alike:
        fitted.doubts.append(
            "pictures of many shapes are cropped to the center square; for all of them whole, set value.fit: resize"
        )
    return fitted


def for_strip(sizes: Sequence[tuple[int, ...]], axis: int) -> Fitted:
    """The size of planes, such as spectrograms, whose length along one axis varies and is fixed along the other."""
    fixed, lengths = sizes[0][1 - axis], [s[axis] for s in sizes]
    (a, rows), (b, columns) = divisible(fixed, SIDE), divisible(longest(lengths), 2 * SIDE, up=True)
    ways = ["crop" if a == fixed else "resize", "crop"]
    pairs = [(a, rows, ways[0]), (b, columns, ways[1])]
    size, grid, fit = zip(*(pairs if axis == 1 else pairs[::-1]), strict=True)
    return Fitted(
        size, grid, list(fit), True, f"{'widths' if axis == 1 else 'heights'} are {min(lengths)} to {max(lengths)}"
    )


def for_volume(sizes: Sequence[tuple[int, ...]]) -> Fitted:
    """The size of volumes (depth, height, width)."""
    median = [round(float(np.median(n))) for n in np.array(sizes).T]
    most = (SMALL,) * 3
    wanted = (4, 4, 4)
    pairs = [divisible(min(n, m), g) for n, m, g in zip(median, most, wanted, strict=True)]
    size, grid = zip(*pairs, strict=True)
    if all(s == size for s in sizes):
        return Fitted(size, grid)
    low, high = np.min(sizes, axis=0).tolist(), np.max(sizes, axis=0).tolist()
    spread = f"the files have {'×'.join(map(str, low))}" + f" to {'×'.join(map(str, high))}" * (low != high)
    return Fitted(size, grid, "resize", note=spread)


def _along(side: int, other: int) -> int:
    """Wanted tokens along one side of a plane: more along the longer one."""
    return SIDE * 2 if side > 1.5 * other else SIDE
