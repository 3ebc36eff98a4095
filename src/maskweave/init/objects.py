"""From JSON lists of objects, `{"class", "box"}` or `{"class", "mask"}`, to boxes and instances."""

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
