"""Average precision of detections, as COCO defines it (https://arxiv.org/abs/1405.0312), for boxes of any kind.

The predictions of a class are taken in the order of their scores. In each sample, each one is matched to the true object of its class that it overlaps most
and that is still free, if they overlap enough. The precision at a recall is the highest one at this recall or above; its mean over 101 recalls from 0 to 1
is the average precision of the class, and the mean over the classes that occur is the result.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import MaskweaveError

RECALLS = np.linspace(0, 1, 101)
MOST_DETECTIONS = 100
"""Predictions of one class in one sample that count: those with the highest scores."""

Items = Sequence[Mapping[str, Any]]


class Matches(NamedTuple):
    """The predictions of a class in all samples, highest scores first, and how many true objects there are."""

    hits: np.ndarray
    """bool (T, D): whether each prediction matches a true object at each threshold of overlap."""
    samples: np.ndarray
    """(D,) the sample of each prediction."""
    wanted: np.ndarray
    """(S,) true objects in each sample."""


def match(
    found: Sequence[Items],
    truth: Sequence[Items],
    overlaps: Callable[[Items, Items], np.ndarray],
    thresholds: Sequence[float],
) -> list[Matches]:
    """Matches predictions to true objects, for each class that occurs; arguments as for `average_precisions`."""
    classes = sorted({item["class"] for items in truth for item in items})
    return [_of_class(name, found, truth, overlaps, thresholds) for name in classes]


def precisions(matches: Sequence[Matches], counts_S: np.ndarray | None = None) -> np.ndarray:
    """Returns the average precision at each threshold (T,), the mean over the classes that occur; NaN if none does.

    Args:
        counts_S: how often each sample counts; by default once.
    """
    found = []
    for one in matches:
        counts = np.ones(len(one.wanted), np.int64) if counts_S is None else counts_S
        total = int((counts * one.wanted).sum())
        if total:
            found.append([_precision(hit_D, counts[one.samples], total) for hit_D in one.hits])
    return np.mean(found, axis=0) if found else np.full(len(matches[0].hits) if matches else 1, math.nan)


def average_precisions(
    found: Sequence[Items],
    truth: Sequence[Items],
    overlaps: Callable[[Items, Items], np.ndarray],
    thresholds: Sequence[float],
) -> list[float]:
    """Returns the average precision at each threshold of overlap; NaN if there are no true objects.

    Args:
        found: predicted items of each sample, `{"class", "score", …}`.
        truth: true items of each sample, `{"class", …}`.
        overlaps: returns the intersection over union (n, m) of n predicted and m true items.
    """
    matches = match(found, truth, overlaps, thresholds)
    return precisions(matches).tolist() if matches else [math.nan] * len(thresholds)


def _of_class(
    name: str,
    found: Sequence[Items],
    truth: Sequence[Items],
    overlaps: Callable[[Items, Items], np.ndarray],
    thresholds: Sequence[float],
) -> Matches:
    scores, hits, samples, counts = [], [np.zeros((len(thresholds), 0), bool)], list[int](), []
    for sample, (predicted, true) in enumerate(zip(found, truth, strict=True)):
        wanted = [item for item in true if item["class"] == name]
        given = sorted((item for item in predicted if item["class"] == name), key=lambda item: -item["score"])
        given = given[:MOST_DETECTIONS]
        counts.append(len(wanted))
        if given:
            overlap = overlaps(given, wanted) if wanted else np.zeros((len(given), 0))
            scores += [item["score"] for item in given]
            samples += [sample] * len(given)
            hits.append(np.stack([_matched(overlap, threshold) for threshold in thresholds]))
    order = np.argsort(-np.array(scores, np.float64), kind="stable")
    return Matches(np.concatenate(hits, axis=1)[:, order], np.array(samples, np.int64)[order], np.array(counts))


def _matched(overlap_DG: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which predictions, in order, match a true object that is still free, bool (D,)."""
    free, hit = np.ones(overlap_DG.shape[1], bool), np.zeros(len(overlap_DG), bool)
    for d, overlap in enumerate(overlap_DG):
        left = np.where(free, overlap, -1)
        if left.size and left.max() >= threshold:
            free[left.argmax()], hit[d] = False, True
    return hit


def _precision(hit_D: np.ndarray, counts_D: np.ndarray, total: int) -> float:
    """Returns the average precision of predictions that count several times, or never."""
    hit_D, counts_D = hit_D[counts_D > 0], counts_D[counts_D > 0]
    if not len(hit_D):
        return 0.0
    right = np.cumsum(hit_D * counts_D)
    precision = np.maximum.accumulate((right / np.cumsum(counts_D))[::-1])[::-1]
    at = np.searchsorted(right / total, RECALLS, side="left")
    return float(np.where(at < len(right), precision[np.minimum(at, len(right) - 1)], 0).mean())


def coco_average_precision(
    found: Sequence[Items], truth: Sequence[Items], classes: Sequence[str], side: int = 1000
) -> dict[str, float]:
    """Returns COCO's average precision of boxes in pictures, over IoU thresholds from 0.5 to 0.95 (`AP`) and at 0.5 (`AP50`), as pycocotools computes it.

    Args:
        found: predicted boxes `{"class", "box", "score"}` of each picture.
        truth: true boxes `{"class", "box"}` of each picture.
        side: width and height of a picture in pixels; COCO measures in pixels.

    Raises:
        MaskweaveError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MaskweaveError(
            "average precision needs pycocotools; install it with: pip install 'maskweave[eval]'"
        ) from error

    category_ids = {name: k + 1 for k, name in enumerate(classes)}

    def entries(pictures: Sequence[Any]) -> list[dict[str, Any]]:
        items = [(i + 1, item) for i, boxes in enumerate(pictures) for item in boxes]
        corners = [[side * x for x in item["box"]] for _, item in items]
        return [
            {
                "id": n + 1, "image_id": i, "category_id": category_ids[item["class"]], "iscrowd": 0, "score": item.get("score", 1.0),
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
            }
            for n, ((i, item), (x0, y0, x1, y1)) in enumerate(zip(items, corners, strict=True))
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        true, guessed = COCO(), COCO()
        for dataset, pictures in ((true, truth), (guessed, found)):
            dataset.dataset = {
                "images": [{"id": i + 1} for i in range(len(truth))],
                "categories": [{"id": category} for category in category_ids.values()],
                "annotations": entries(pictures),
            }
            dataset.createIndex()
        evaluation = COCOeval(true, guessed, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1])}
