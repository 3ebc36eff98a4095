"""From arrays and pictures to the value type, size and range of an entry."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.init import sizes
from maskweave.init.contents import FileContent
from maskweave.init.finding import Finding
from maskweave.init.numbers import NumberFacts, class_ids, is_binary, number_facts, rounded_out

MOST_CHANNELS = 16
"""An axis of at most this many points at the end of an array is its channels."""
COLORS = (3, 4)


def decide_dense(finding: Finding, contents: Mapping[str, FileContent], minutes: float) -> Finding:
    """Fill in the entry for files that hold arrays or pictures, by the sample's name."""
    masked = _palette_ids(contents)
    arrays = [c.data if masked is None else masked[k] for k, c in contents.items()]
    known = [c.known for c in contents.values()]
    rank = Counter(a.ndim for a in arrays).most_common(1)[0][0]
    pictures = all(a.dtype == np.uint8 for a in arrays) and not any(m is not None for m in known)
    mixed = pictures and {a.ndim for a in arrays} == {2, 3}  # gray and color
    if any(a.ndim != rank for a in arrays) and not mixed:
        shapes = ", ".join(map(str, sorted({a.shape for a in arrays})[:4]))
        return finding.undecided(f"the arrays differ in their number of axes ({shapes}); save all with the same axes")
    if mixed:
        arrays = [np.repeat(a[..., None], 3, axis=2) if a.ndim == 2 else a[..., :3] for a in arrays]
    planes = all(c.plane for c in contents.values())
    axes, channels, doubt = _axes([a.shape for a in arrays], planes)
    if not axes:
        return finding.undecided(doubt)
    if doubt:
        finding.doubts.append(doubt)
    exact = all(c.exact for c in contents.values())
    extents = {key: a.shape[:axes] for key, a in zip(contents, arrays, strict=True)}
    if axes > 1:
        finding.extents = {key: extent[-2:] for key, extent in extents.items()}
    extent = list(extents.values())
    if channels == 1 and exact:
        flat = [a[..., 0] if a.ndim > axes else a for a in arrays]
        masks = [None if m is None else m.reshape(a.shape) for m, a in zip(known, flat, strict=True)]
        if is_binary(flat) and not any(m is not None for m in masks):
            finding.found = "0 and 1 at each point"
            return _fitted(finding, "binary", _size(extent, axes, minutes, planes), {})
        if (ids := class_ids(flat, masks)) is not None:
            return _classes(finding, *ids, _size(extent, axes, minutes, planes), masked is not None)
    if pictures and axes > 1 and channels in (1, *COLORS):
        fitted = sizes.for_volume(extent) if axes == 3 else sizes.for_picture(extent, minutes)
        return _image(finding, fitted, channels, "gray pictures" if channels == 1 else "color pictures")
    finding = _map(finding, arrays, known, channels, _size(extent, axes, minutes, planes))
    if finding.type:
        _add_stated(finding, contents, channels)
    return finding


def _axes(shapes: Sequence[tuple[int, ...]], planes: bool) -> tuple[int, int, str]:
    """Returns the number of axes without channels, the number of channels, and a doubt about them.

    Args:
        planes: whether the files say that two axes are rows and columns.
    """
    rank, last = len(shapes[0]), {s[-1] for s in shapes}
    one_last = len(last) == 1
    few = one_last and shapes[0][-1] <= MOST_CHANNELS
    if rank == 1:
        return 1, 1, ""
    if rank == 2 and planes:
        return 2, 1, ""
    if rank == 2:
        firsts = [s[0] for s in shapes]
        if few and (shapes[0][-1] <= 4 or min(firsts) >= shapes[0][-1]):
            return 1, shapes[0][-1], ""
        if one_last and min(firsts) < max(firsts):
            return (
                1,
                shapes[0][-1],
                f"arrays of shape (length, {shapes[0][-1]}) are read as {shapes[0][-1]} channels over one axis",
            )
        return 2, 1, ""
    if rank == 3:
        if one_last and (few or shapes[0][-1] == 1):
            return 2, shapes[0][-1], ""
        if len({s[0] for s in shapes}) == 1 and shapes[0][0] <= MOST_CHANNELS < min(min(s[1:]) for s in shapes):
            return (
                0,
                0,
                f"arrays of shape {shapes[0]} seem to have their channels first; save them as (height, width, channels), with numpy.moveaxis(array, -3, -1)",
            )
        return 3, 1, ""
    if rank == 4 and few:
        return 3, shapes[0][-1], ""
    return 0, 0, f"arrays of shape {shapes[0]}; expected one to three axes and channels last"


def _size(extent: Sequence[tuple[int, ...]], axes: int, minutes: float, planes: bool) -> sizes.Fitted:
    if axes == 1:
        return sizes.for_series([e[0] for e in extent])
    if axes == 3:
        return sizes.for_volume(extent)
    for axis in () if planes else (0, 1):
        fixed, varying = {e[1 - axis] for e in extent}, [e[axis] for e in extent]
        if len(fixed) == 1 and max(varying) > sizes.STRETCH * min(varying):
            return sizes.for_strip(extent, axis)
    return sizes.for_picture(extent, minutes, kept=True)


def _fitted(finding: Finding, type: str, fitted: sizes.Fitted, more: dict[str, object]) -> Finding:
    finding.type, finding.grid = type, fitted.grid
    finding.value = {"size": list(fitted.size), **more}
    if fitted.note:
        finding.why["size"] = fitted.note
    if fitted.fit:
        finding.value["fit"] = fitted.fit
    finding.doubts += fitted.doubts
    return finding


def _image(finding: Finding, fitted: sizes.Fitted, channels: int, found: str) -> Finding:
    finding.found = found
    return _fitted(finding, "image", fitted, {"channels": 3 if channels in COLORS else 1})


def _classes(finding: Finding, count: int, ignore: tuple[int, ...], fitted: sizes.Fitted, palette: bool) -> Finding:
    finding.found = f"{count} classes at each point"
    finding = _fitted(finding, "classes", fitted, {"classes": [f"class_{i}" for i in range(count)]})
    if fitted.pads and not ignore:
        ignore = (255,)
    if ignore:
        finding.value["ignore"] = list(ignore)
        finding.why["ignore"] = "ids of unknown points"
    finding.why["classes"] = "by id; replace them by real ones"
    finding.doubts.append("the files do not name their classes: replace class_0, … in value.classes")
    if palette:
        finding.doubts.append(
            "pictures with a palette and flat areas are taken as class maps; if they are pictures, set value: {type: image, channels: 3}"
        )
    return finding


def _map(
    finding: Finding,
    arrays: Sequence[np.ndarray],
    known: Sequence[np.ndarray | None],
    channels: int,
    fitted: sizes.Fitted,
) -> Finding:
    facts = number_facts(arrays, known, channels)
    if facts is None:
        return finding.undecided("all points of the files that were read are missing")
    if facts.is_constant and len(arrays) > 1:
        same = f"{facts.smallest:.4g}" + f" to {facts.largest:.4g}, by channel" * (facts.largest > facts.smallest)
        return finding.undecided(
            f"all {len(arrays)} files that were read hold the same numbers ({same}), so there is nothing to learn; if others differ, write its entry in catalog.yaml"
        )
    low, high = rounded_out(facts.low, facts.high)
    kinds = "/".join(sorted({str(a.dtype) for a in arrays}))
    finding.found = f"{kinds}, {facts.smallest:.4g} to {facts.largest:.4g}"
    if facts.unknown:
        finding.found += f", {facts.unknown:.1%} missing"
    if len(fitted.size) == 1 and len({len(a) for a in arrays}) > 1:
        return _series(finding, facts, channels, fitted)
    finding = _fitted(finding, "map", fitted, {"channels": channels} if channels > 1 else {})
    ranges: list[Any] = [list(rounded_out(*ends)) for ends in facts.ranges]
    if facts.has_tails:
        finding.value["scaling"] = "fit_asinh"
        finding.why["scaling"] = "after asinh, as they span powers of ten"
    else:
        finding.value |= {"range": ranges or [low, high], "outside": "clip"}
        finding.why["range"] = "of each channel, without rare extremes" if ranges else "without rare extremes"
    missing = facts.missing or (("nan",) if fitted.pads else ())
    if missing:
        finding.value["missing"] = missing[0] if len(missing) == 1 else list(missing)
        finding.why["missing"] = "also what is past the end of short values" if fitted.pads else "marked so in files"
    return finding


def _series(finding: Finding, facts: NumberFacts, channels: int, fitted: sizes.Fitted) -> Finding:
    """Arrays over one axis of unequal lengths."""
    finding = _fitted(finding, "series", fitted, {"channels": channels} if channels > 1 else {})
    finding.value["scaling"] = "fit_asinh" if facts.has_tails else "fit"
    if facts.has_tails:
        finding.why["scaling"] = "after asinh, as they span powers of ten"
    if marks := [mark for mark in facts.missing if mark != "nan"]:
        finding.value["missing"] = ["predicted", *marks]
        finding.why["missing"] = "marked so in files; the end of short series is predicted, too"
    return finding


def _add_stated(finding: Finding, contents: Mapping[str, FileContent], channels: int) -> None:
    """Add the unit and the names of the channels, if all files state the same."""
    names, units = {c.channel_names for c in contents.values()}, {c.unit for c in contents.values()}
    if len(names) == 1 and len(found := names.pop()) == channels > 1:
        finding.value["channel_names"] = list(found)
        finding.why["channel_names"] = "as the files state"
    if len(units) == 1 and (unit := units.pop()):
        finding.value["unit"] = unit
        finding.why["unit"] = "as the files state"


def _palette_ids(contents: Mapping[str, FileContent]) -> dict[str, np.ndarray] | None:
    """Returns the indices of pictures with a palette, if they look like class maps."""
    ids = {key: c.ids for key, c in contents.items() if c.ids is not None}
    if len(ids) < len(contents) or class_ids(list(ids.values()), [None] * len(ids)) is None:
        return None
    return ids
