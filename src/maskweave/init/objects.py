"""From JSON lists of objects, `{"class", "box"}` or `{"class", "mask"}`, to boxes and instances; from `{"camera", "boxes"}` to boxes in space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.init import sizes
from maskweave.init.finding import Finding

SHARE_OF_LISTS = 0.95
"""Share of the lists that fit their entry's max_tokens."""
BINS = 64
"""Bins of a coordinate."""
TOKENS_OF_BOX = 5
TOKENS_OF_BOX_IN_SPACE, NUMBERS_OF_CAMERA = 8, 6
MASK = (8, 8)
"""Rows and columns of the grid on which a mask is written."""
TOKENS_OF_MASK = TOKENS_OF_BOX + MASK[0]
MOST_TOKENS = 128
"""Most tokens of masks: they take many."""


def are_objects(values: Sequence[Any], key: str) -> bool:
    """Whether all values are lists of `{"class", key}`, and one is not empty."""
    return all(
        isinstance(v, list) and all(isinstance(x, Mapping) and {*x} == {"class", key} for x in v) for v in values
    ) and any(values)


def decide_boxes(finding: Finding, given: Sequence[Sequence[Mapping[str, Any]]]) -> Finding:
    """Lists of boxes with their classes."""
    classes = sorted({str(item["class"]) for boxes in given for item in boxes})
    most = max(map(len, given))
    many = int(np.quantile([len(boxes) for boxes in given], SHARE_OF_LISTS))
    finding.type, finding.value, finding.found = (
        "boxes",
        {"classes": classes},
        f"up to {most} boxes of {len(classes)} classes",
    )
    finding.max_tokens, finding.special, finding.words = TOKENS_OF_BOX * max(1, many) + 1, {"v0": BINS}, classes
    if many < most:
        finding.doubts.append(
            f"max_tokens holds {many} boxes, as in most samples; further ones of a sample are dropped"
        )
    return finding


def are_boxes_in_space(values: Sequence[Any]) -> bool:
    """Whether all values are objects of a camera and boxes, and one has boxes."""
    return all(
        {*value} == {"camera", "boxes"}
        and isinstance(value["boxes"], list)
        and all(isinstance(x, Mapping) and {*x} == {"class", "center", "size", "yaw"} for x in value["boxes"])
        for value in values
    ) and any(value["boxes"] for value in values)


def decide_boxes_in_space(finding: Finding, given: Sequence[Mapping[str, Any]]) -> Finding:
    """Cameras, with lists of boxes in space with their classes."""
    items = [item for value in given for item in value["boxes"]]
    try:
        centers, lengths = (np.array([item[key] for item in items], np.float64) for key in ("center", "size"))
    except (TypeError, ValueError):
        centers = lengths = np.zeros(0)
    if centers.shape != (len(items), 3) or lengths.shape != centers.shape or not np.isfinite([centers, lengths]).all():
        return finding.undecided("boxes in space of another form; expected center and size of three numbers each")
    classes = sorted({str(item["class"]) for item in items})
    low, high = np.floor(centers.min(axis=0)) - 1, np.ceil(centers.max(axis=0)) + 1
    low[0], high[0] = min(low[0], -high[0]), max(high[0], -low[0])  # pictures are mirrored
    low[2] = max(low[2], 0)
    counts = [len(value["boxes"]) for value in given]
    many = max(1, int(np.quantile(counts, SHARE_OF_LISTS)))
    finding.type, finding.found = "boxes3d", f"up to {max(counts)} boxes in space of {len(classes)} classes"
    finding.value = {
        "classes": classes,
        "range": np.stack([low, high], axis=1).tolist(),
        "largest": float(np.ceil(lengths.max())),
    }
    finding.why["range"] = "of the centers in meters, with a margin of 1 m; boxes with others are left out"
    finding.max_tokens = NUMBERS_OF_CAMERA + TOKENS_OF_BOX_IN_SPACE * many + 1
    finding.special, finding.words = {"v0": BINS}, classes
    if many < max(counts):
        finding.doubts.append(f"max_tokens holds {many} boxes; further ones of a sample, the farthest, are dropped")
    return finding


def decide_masks(finding: Finding, given: Sequence[Sequence[Mapping[str, Any]]], minutes: float) -> Finding:
    """Lists of masks, as run lengths, with their classes."""
    classes = sorted({str(item["class"]) for masks in given for item in masks})
    planes = [size for masks in given for item in masks[:1] if (size := plane_of(item["mask"]))]
    if not planes:
        return finding.undecided('masks of another form; expected {"size": [height, width], "counts": [...]}')
    counts = [len(masks) for masks in given]
    fits = (MOST_TOKENS - 1) // TOKENS_OF_MASK
    many = min(max(1, int(np.quantile(counts, SHARE_OF_LISTS))), fits)
    fitted = sizes.for_picture(planes, minutes)
    finding.type, finding.found = "instances", f"up to {max(counts)} masks of {len(classes)} classes"
    finding.value = {"size": list(fitted.size), "classes": classes, "bins": BINS, "mask": list(MASK), "max_items": many}
    finding.why |= {
        "size": fitted.note,
        "mask": "rows and columns on which a mask is written",
        "max_items": "further ones are dropped",
    }
    finding.chunk, finding.max_tokens, finding.words = TOKENS_OF_MASK, TOKENS_OF_MASK * many + 1, classes
    finding.special = {"v0": BINS, "v1": 2 ** MASK[1]}
    if many < max(counts):
        finding.doubts.append(f"max_tokens holds {many} masks; further ones of a sample are dropped")
    return finding


def plane_of(mask: Any) -> tuple[int, int] | None:
    """Returns the height and width of a mask as run lengths; None if it has another form."""
    size = mask.get("size") if isinstance(mask, Mapping) else None
    if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size):
        return size[0], size[1]
    return None
