"""An axis with coordinates for values whose files have their own, such as wavelengths."""

from collections.abc import Sequence

import numpy as np

from maskweave.init.finding import Finding
from maskweave.init.sizes import for_series

DIGITS = 4
"""Of the ends of the axis."""


def set_axis(finding: Finding, array: str, coordinates: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> Finding:
    """Resample values over one axis onto one that suits the coordinates of the files.

    Args:
        array: name of the coordinates in the files. Names that begin with `log` hold logarithms to base 10, such as `loglam` of SDSS.
        coordinates: (n,) of each file that was read.
        values: (n, ...) of the same files.
    """
    usable = [c[np.isfinite(c)] for c in (np.asarray(c, np.float64).reshape(-1) for c in coordinates)]
    usable = [c for c in usable if len(c) > 1 and np.ptp(c) > 0]
    if len(finding.grid) != 1 or finding.type not in ("map", "series"):
        what = f"values of type {finding.type}" if finding.type else "these files"
        return finding.undecided(f"--axis: {what} have no single axis that {array} could be")
    if any(np.shape(c) != np.shape(v)[:1] for c, v in zip(coordinates, values, strict=True)):
        return finding.undecided(f"--axis: {array} does not hold one coordinate for each point")
    if not usable:
        return finding.undecided(f"--axis: {array} holds no coordinates")
    start, stop = (float(np.median([end(c) for c in usable])) for end in (np.min, np.max))
    inside = [int(((c >= start) & (c <= stop)).sum()) for c in usable]
    if not start < stop or max(inside) < 2:
        return finding.undecided(f"--axis: the files share no range of {array}; they reach from {start:g} to {stop:g}")
    is_log = array.rpartition("/")[2].lower().startswith("log")
    ends = [10.0**end if is_log else end for end in (start, stop)]
    fitted = for_series([int(np.median(inside))])
    finding.grid = fitted.grid
    finding.value |= {"size": list(fitted.size)}
    finding.value.pop("fit", None)
    finding.why["size"] = "of the axis, onto which files are resampled"
    axis: dict[str, object] = {"from": float(f"{ends[0]:.{DIGITS}g}"), "to": float(f"{ends[1]:.{DIGITS}g}")}
    finding.value["axis"] = axis | ({"scale": "log"} if is_log else {}) | {"array": array} | (
        {"array_scale": "log10"} if is_log else {}
    )  # fmt: skip
    finding.why["axis"] = (
        "from where half of the files have begun to where half have ended; add name and unit for figures"
    )
    if finding.type == "map":
        finding.value.setdefault("missing", "nan")
    return finding
