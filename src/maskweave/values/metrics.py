"""Metrics of predictions: each metric sums statistics over the samples and computes its numbers from the sums.

A metric has one number, and may have one more for each part (channel, key or class). It also computes the constant prediction that scores
best on training values. Such constants may differ from point to point, which makes them stronger baselines than a single number.

AbsRel and delta1: Eigen et al., https://arxiv.org/abs/1406.2283, section 4. Shapes: S samples, P points, K classes, C channels.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError

Weights = Sequence[np.ndarray] | None
"""Weight of each number of several values."""


class Labels(list[str]):
    """A multiset of labels instead of a value; the best constant of label metrics."""


@dataclass(frozen=True)
class Metric:
    """One measure of predictions against truth."""

    name: str
    better: str
    """`lower`, `higher`, or the ideal number."""
    statistics: Callable[..., np.ndarray]
    """Maps the prediction and truth of one sample, and `weight` if they are weighted, to numbers that are summed over the samples, one column for each part."""
    finish: Callable[[np.ndarray], float]
    """Maps the sums to the metric; NaN if nothing was counted."""
    constant: Callable[..., Any]
    """Maps training values (a list without None, at least one), and their `weights` if they are weighted, to the constant prediction that scores best on
    them."""
    names: tuple[str, ...] = ()
    """Names of the parts; empty: the metric is one number."""
    finish_parts: Callable[[np.ndarray], Iterable[float]] | None = None
    """Maps the sums to one number for each part; by default `finish` of each column."""
    part: str = ""
    """Name of a part's number; by default the metric's name."""
    can_be_weighted: bool = False
    """Whether the numbers of a value may have weights; otherwise weights are ignored."""

    def best_constant(self, values: Sequence[Any], weights: Weights = None) -> Any:
        """Returns the constant prediction that scores best on training values (a list without None, at least one)."""
        weighted = weights is not None and self.can_be_weighted
        return self.constant(values, weights=weights) if weighted else self.constant(values)

    def score(self, predictions: Iterable[Any], truths: Iterable[Any], weights: Weights = None) -> float:
        """Returns the metric of lists of predictions and truths.

        Args:
            weights: of each truth, in its shape.

        Raises:
            MaskweaveError: a prediction and its truth differ in shape.
        """
        return self.scores(predictions, truths, weights)[self.name]

    def scores(self, predictions: Iterable[Any], truths: Iterable[Any], weights: Weights = None) -> dict[str, float]:
        """Returns the metric of lists of predictions and truths, and that of each part as `NAME PART`; arguments and errors as in `score`."""
        return self.finished(self.total(predictions, truths, weights))

    def total(self, predictions: Iterable[Any], truths: Iterable[Any], weights: Weights = None) -> np.ndarray | None:
        """Returns the summed statistics of lists of predictions and truths; None for empty lists. Sums of several lists may be added. Arguments and errors as in `score`."""
        sums: np.ndarray | None = None
        for statistics in self.each(predictions, truths, weights):
            sums = statistics if sums is None else sums + statistics
        return sums

    def each(self, predictions: Iterable[Any], truths: Iterable[Any], weights: Weights = None) -> Iterator[np.ndarray]:
        """Yields the statistics of each sample; arguments and errors as in `score`."""
        given = [{"weight": w} for w in weights] if weights is not None and self.can_be_weighted else repeat({})
        for prediction, truth, weight in zip(predictions, truths, given):  # noqa: B905  repeat has no end
            yield self.statistics(prediction, truth, **weight)

    def finished(self, sums: np.ndarray | None) -> dict[str, float]:
        """Returns what `scores` does, from the summed statistics; NaN for None."""
        if sums is None:
            return {self.name: math.nan}
        parts = (
            self.finish_parts(sums) if self.finish_parts else [self.finish(sums[:, i]) for i in range(len(self.names))]
        )
        label = self.part or self.name
        return {self.name: self.finish(sums)} | {
            f"{label} {n}": float(x) for n, x in zip(self.names, parts, strict=True)
        }


def weighable(*settings: Any) -> Metric:
    """Returns a metric whose numbers may have weights."""
    return replace(Metric(*settings), can_be_weighted=True)


# Statistics of one sample: from prediction and truth to numbers that are summed over the samples.


def relative_errors(prediction: Any, truth: Any, weight: np.ndarray | None = None) -> np.ndarray:
    """(sum of abs(p - t) / t, points) over points with finite t > 0; a prediction that is not finite counts as 0.

    Args:
        weight: of each point, in the shape of the truth; points then count as much as they weigh. The same holds for the statistics below.
    """
    p, t = pair(prediction, truth)
    valid = np.isfinite(t) & (t > 0)
    counted = weights_at(valid, weight)[valid]
    p, t = np.where(np.isfinite(p), p, 0)[valid], t[valid]
    return np.array([np.sum(np.abs(p - t) / t * counted), counted.sum()])


def within_ratio(prediction: Any, truth: Any, ratio: float = 1.25, weight: np.ndarray | None = None) -> np.ndarray:
    """(points with max(p / t, t / p) < ratio, points) over points with finite t > 0."""
    p, t = pair(prediction, truth)
    valid = np.isfinite(t) & (t > 0)
    counted = weights_at(valid, weight)[valid]
    p, t = p[valid], t[valid]
    good = np.isfinite(p) & (p > 0) & (p < ratio * t) & (t < ratio * p)
    return np.array([counted[good].sum(), counted.sum()], dtype=np.float64)


def absolute_errors(
    prediction: Any, truth: Any, axes: int | None = None, weight: np.ndarray | None = None
) -> np.ndarray:
    """(sum of abs(p - t), points) over points where t is finite; a prediction that is not finite counts as 0.

    Args:
        axes: number of axes before the channel axis; if given, returns both numbers per channel, (2, C).
    """
    return _errors(prediction, truth, axes, weight, np.abs)


def squared_errors(
    prediction: Any, truth: Any, axes: int | None = None, weight: np.ndarray | None = None
) -> np.ndarray:
    """Same as `absolute_errors`, with (p - t)²."""
    return _errors(prediction, truth, axes, weight, np.square)


def _errors(
    prediction: Any,
    truth: Any,
    axes: int | None,
    weight: np.ndarray | None,
    measure: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    p, t = pair(prediction, truth)
    valid = np.isfinite(t)
    counted = weights_at(valid, weight)
    error = measure(np.where(np.isfinite(p), p, 0) - np.where(valid, t, 0)) * counted
    if axes is None:
        return np.array([error.sum(), counted.sum()])
    over = tuple(range(axes))
    return np.stack([np.atleast_1d(error.sum(axis=over)), np.atleast_1d(counted.sum(axis=over))])


def weights_at(valid: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """How much each point counts: not at all where it is not valid."""
    return valid if weight is None else np.where(valid, np.asarray(weight, np.float64).reshape(valid.shape), 0)


def unknown_overlap(prediction: Any, truth: Any) -> np.ndarray:
    """(points that are NaN in both, points that are NaN in one or both)."""
    p, t = (np.isnan(array) for array in pair(prediction, truth))
    return np.array([(p & t).sum(), (p | t).sum()], np.float64)


def variance_sums(prediction: Any, truth: Any, weight: np.ndarray | None = None) -> np.ndarray:
    """(4, P): squared errors, truths, squared truths and whether the truth is finite, for `mean_explained_variance`."""
    p, t = pair(prediction, truth)
    valid = np.isfinite(t)
    counted = weights_at(valid, weight)
    known = np.where(valid, t, 0)
    error = np.square(np.where(np.isfinite(p), p, 0) - known)
    return np.stack([error * counted, known * counted, np.square(known) * counted, counted]).reshape(4, -1)


def angles(prediction: Any, truth: Any) -> np.ndarray:
    """(sum of angles in degrees, points) over points where the truth has a direction; a prediction without one counts as 90°."""
    p, t = pair(prediction, truth)
    valid = np.linalg.norm(t, axis=-1) > 1e-6
    return np.array([np.sum(np.degrees(_angle(_unit(p[valid]), _unit(t[valid])))), valid.sum()])


def confusion(prediction: Any, truth: Any, num_classes: int) -> np.ndarray:
    """Counts (K, K + 1) of points by true and predicted class; the last column counts predictions outside the classes.

    Points whose truth is outside the classes (255 for instance) are skipped.
    """
    p, t = pair(prediction, truth, dtype=np.int64)
    valid = (t >= 0) & (t < num_classes)
    p = np.where((p >= 0) & (p < num_classes), p, num_classes)
    joint = np.bincount(t[valid] * (num_classes + 1) + p[valid], minlength=num_classes * (num_classes + 1))
    return joint.reshape(num_classes, num_classes + 1)


def matched_marks(prediction: Any, truth: Any, tolerance: int = 1) -> np.ndarray:
    """(marks predicted near a true one, marks predicted, true marks near a predicted one, true marks)."""
    p, t = pair(prediction, truth, dtype=bool)
    return np.array([(p & _grown(t, tolerance)).sum(), p.sum(), (t & _grown(p, tolerance)).sum(), t.sum()])


def matched_labels(prediction: Iterable[str], truth: Iterable[str]) -> np.ndarray:
    """(true positives, false positives, false negatives) of two multisets."""
    p, t = Counter(prediction), Counter(truth)
    both = (p & t).total()
    return np.array([both, p.total() - both, t.total() - both])


# From the sums of statistics to one number, or one for each part.


def mean(sums: np.ndarray) -> float:
    total, count = sums[0].sum(), sums[1].sum()
    return float(total / count) if count else math.nan


def root_mean(sums: np.ndarray) -> float:
    return math.sqrt(mean(sums))


def explained_variance(sums: np.ndarray) -> float:
    """R²: 1 - squared errors / squared deviations of the truths from their mean; NaN if the truths are all equal."""
    errors, total, squares, count = map(float, sums)
    if not count:
        return math.nan
    spread = squares - total**2 / count
    return 1 - errors / spread if spread > 1e-12 * squares else math.nan


def mean_explained_variance(sums_4P: np.ndarray) -> float:
    """Mean of R² over the points whose truths differ; NaN if there are none."""
    found = [explained_variance(sums) for sums in sums_4P.T if sums[3]]
    known = [share for share in found if math.isfinite(share)]
    return float(np.mean(known)) if known else math.nan


def psnr(sums: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, for numbers from 0 to 255."""
    error = mean(sums)
    return 10 * math.log10(255**2 / error) if error else math.inf


def class_ious(confusion_KL: np.ndarray) -> np.ndarray:
    """(K,) intersection over union of each class; NaN for classes that occur neither in truth nor in predictions."""
    square = confusion_KL[:, : len(confusion_KL)]
    union = confusion_KL.sum(axis=1) + square.sum(axis=0) - np.diag(square)
    return np.where(union > 0, np.diag(square) / np.maximum(union, 1), np.nan)


def mean_iou(confusion_KL: np.ndarray) -> float:
    """Mean of `class_ious` over the classes that occur."""
    ious = class_ious(confusion_KL)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else math.nan


def mean_iou_of_truth(confusion_KL: np.ndarray) -> float:
    """Mean of `class_ious` over the classes that occur in the truth, as published for data with a class for "unlabeled" that is never the truth."""
    ious = class_ious(confusion_KL)[confusion_KL.sum(axis=1) > 0]
    return float(ious.mean()) if len(ious) else math.nan


def f1_of_marks(sums: np.ndarray) -> float:
    """Harmonic mean of precision and recall from the counts of `matched_marks`; NaN if there are no marks."""
    good, predicted, found, true = map(float, sums)
    if predicted + true == 0:
        return math.nan
    precision, recall = good / max(predicted, 1), found / max(true, 1)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def f1_of_labels(sums: np.ndarray) -> float:
    """F1 from the counts of `matched_labels`; NaN if there are no labels."""
    positive, wrong, missed = map(float, sums)
    return 2 * positive / (2 * positive + wrong + missed) if positive + wrong + missed else math.nan


# Best constant predictions.


def mean_value(values: Sequence[Any], weights: Weights = None) -> np.ndarray:
    """Mean of the known values per point, which minimizes the squared error; 0 where none is known."""
    stack = np.stack([np.asarray(value, dtype=np.float64) for value in values])
    known = np.isfinite(stack)
    if weights is None:
        return np.sum(np.where(known, stack, 0), axis=0) / np.maximum(known.sum(axis=0), 1)
    weight = weights_at(known, np.stack(weights))
    return np.sum(np.where(known, stack, 0) * weight, axis=0) / np.maximum(weight.sum(axis=0), 1e-12)


def mostly_known(values: Sequence[Any]) -> np.ndarray:
    """NaN where most values are unknown, otherwise 0."""
    unknown = np.mean([np.isnan(value) for value in values], axis=0)
    return np.where(unknown > 0.5, np.nan, 0.0)


def median(values: Sequence[Any], weights: Weights = None) -> np.ndarray:
    """Median per point, which minimizes the absolute error."""
    stack = np.stack([np.asarray(value, dtype=np.float64) for value in values])
    stack = np.where(np.isfinite(stack), stack, np.nan)
    stack[:, np.isnan(stack).all(axis=0)] = 0
    if weights is None:
        return np.nanmedian(stack, axis=0)
    order = np.argsort(stack, axis=0, kind="stable")  # NaN last
    weight = np.take_along_axis(weights_at(np.isfinite(stack), np.stack(weights)), order, axis=0)
    return _middle(np.take_along_axis(stack, order, axis=0), weight)


def relative_median(values: Sequence[Any], weights: Weights = None) -> np.ndarray:
    """Per point, the c that minimizes the sum of abs(c - t) / t: the median of t with weights 1 / t; 1 where no t is valid."""
    t_SP, weight_SP = _positive(values, weights)
    best = _middle(t_SP, weight_SP / t_SP)
    return np.where(np.isfinite(t_SP).any(axis=0), best, 1.0).reshape(np.shape(values[0]))


def _middle(sorted_SP: np.ndarray, weight_SP: np.ndarray) -> np.ndarray:
    """The weighted median of each column of sorted numbers."""
    reached = np.cumsum(weight_SP, axis=0)
    index = np.argmax(reached >= reached[-1:] / 2, axis=0)
    return np.take_along_axis(sorted_SP, index[None], axis=0)[0]


def fullest_window(values: Sequence[Any], ratio: float = 1.25, weights: Weights = None) -> np.ndarray:
    """Per point, the c with the most t in (c / ratio, c * ratio); 1 where no t is valid."""
    t_SP, weight_SP = _positive(values, weights)
    best = np.ones(t_SP.shape[1])
    for point, count in enumerate(np.isfinite(t_SP).sum(axis=0)):
        if count:
            t = t_SP[:count, point]
            before = np.concatenate([[0], np.cumsum(weight_SP[:count, point])])  # weight of all smaller ones
            ends = np.searchsorted(t, t * ratio**2 * (1 - 1e-9))  # a window from each t, its end excluded
            start = int(np.argmax(before[ends] - before[:count]))
            best[point] = math.sqrt(t[start] * t[ends[start] - 1])
    return best.reshape(np.shape(values[0]))


def geodesic_median(values: Sequence[Any], iterations: int = 20) -> np.ndarray:
    """Per point, the direction with the smallest mean angle to the values: Weiszfeld's method on the sphere, starting from the mean."""
    v_SPx = np.nan_to_num(np.stack([np.asarray(value, dtype=np.float64).reshape(-1, 3) for value in values]))
    best = current = _unit(v_SPx.sum(axis=0))
    least = np.full(len(best), np.inf)
    weight = np.linalg.norm(v_SPx, axis=-1) > 1e-6
    for _ in range(iterations):
        angle_SP = _angle(current[None], v_SPx)
        mean_angle = (angle_SP * weight).sum(axis=0)
        better = mean_angle < least
        best, least = np.where(better[:, None], current, best), np.where(better, mean_angle, least)
        current = _unit(np.einsum("sp,spx->px", weight / np.maximum(np.sin(angle_SP), 1e-3), v_SPx))
    return best.reshape(np.shape(values[0]))


def majority_class(num_classes: int, values: Sequence[Any]) -> np.ndarray:
    """Most frequent class per point."""
    stack = np.stack([np.asarray(value) for value in values])
    return np.argmax([(stack == index).sum(axis=0) for index in range(num_classes)], axis=0)


def frequent_marks(statistics: Callable[[Any, Any], np.ndarray], values: Sequence[Any]) -> np.ndarray:
    """Mark the points whose frequency of marks reaches a threshold: the best of 32 on `values`."""
    frequency = np.mean([np.asarray(value, dtype=bool) for value in values], axis=0)
    candidates = (
        [frequency >= t for t in np.unique(np.quantile(frequency[frequency > 0], np.linspace(0, 1, 32)))]
        if frequency.any()
        else []
    )
    scores = [f1_of_marks(np.sum([statistics(mark, value) for value in values], axis=0)) for mark in candidates]
    return candidates[int(np.argmax(scores))] if candidates else np.zeros(frequency.shape, dtype=bool)


def best_multiset(labels: Sequence[Labels]) -> Labels:
    """Returns the multiset with the highest micro F1.

    The j-th copy of a label is correct in each sample with at least j copies. Copies are ranked by the number of samples in which they are
    correct; the first n copies with the largest F1 = 2 Σ correct / (n × samples + all true labels) are the best multiset.
    """
    right: Counter[tuple[str, int]] = Counter()
    for value in labels:
        for name, count in Counter(value).items():
            right.update((name, copy) for copy in range(count))
    ranked = sorted(right, key=lambda item: (-right[item], item[1], item[0]))
    gains = np.cumsum([right[item] for item in ranked], dtype=np.float64)
    if not ranked:
        return Labels()
    scores = 2 * gains / (len(labels) * np.arange(1, len(ranked) + 1) + gains[-1])
    return Labels(name for name, _ in ranked[: int(np.argmax(scores)) + 1])


def label_f1(labels: Callable[[Any], Labels]) -> Metric:
    """Micro F1 of multisets of labels over the whole set.

    Args:
        labels: returns the labels of a value, and `Labels` unchanged.
    """
    return Metric(
        "F1",
        "higher",
        lambda prediction, truth: matched_labels(labels(prediction), labels(truth)),
        f1_of_labels,
        lambda values: best_multiset([labels(value) for value in values]),
    )


# Helpers.


def pair(prediction: Any, truth: Any, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as arrays of one type.

    Raises:
        MaskweaveError: they differ in shape.
    """
    p, t = np.asarray(prediction).astype(dtype), np.asarray(truth).astype(dtype)
    if p.shape != t.shape:
        raise MaskweaveError(
            f"cannot score a prediction of shape {p.shape} against a truth of shape {t.shape}; resize one first"
        )
    return p, t


def majority(values: Sequence[np.ndarray]) -> np.ndarray:
    """Most frequent label per point, the lowest of equally frequent ones, in the type of the values."""
    stack = np.stack(values)
    labels = np.unique(stack)
    votes = np.stack([(stack == label).sum(axis=0) for label in labels])
    return labels[votes.argmax(axis=0)].astype(stack.dtype)


def disagreement(values: Sequence[np.ndarray]) -> np.ndarray:
    """Share of the labels at each point, float32, that differ from the most frequent one."""
    return np.mean(np.stack(values) != majority(values), axis=0).astype(np.float32)


def _positive(values: Sequence[Any], weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted values (S, P) and their weights; those that are not valid (finite and above 0) become infinite, at the end, with weight 0."""
    stack = np.stack([np.asarray(value, dtype=np.float64).ravel() for value in values])
    valid = np.isfinite(stack) & (stack > 0)
    order = np.argsort(np.where(valid, stack, np.inf), axis=0, kind="stable")
    weight = weights_at(valid, None if weights is None else np.stack(weights))
    sorted_SP = np.take_along_axis(np.where(valid, stack, np.inf), order, axis=0)
    return sorted_SP, np.take_along_axis(weight, order, axis=0).astype(np.float64)


def _unit(v: np.ndarray) -> np.ndarray:
    """Scale to length 1; zero where there is no direction."""
    v = np.where(np.isfinite(v), v, 0)
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Radians between unit vectors."""
    return np.arccos(np.clip(np.sum(a * b, axis=-1), -1, 1))


def _grown(marks: np.ndarray, tolerance: int) -> np.ndarray:
    """Marks and all points within `tolerance` of them along each axis."""
    for axis in range(marks.ndim):
        padded = np.pad(marks, [(tolerance, tolerance) if a == axis else (0, 0) for a in range(marks.ndim)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * tolerance + 1, axis=axis)
        marks = np.asarray(windows.any(axis=-1))
    return marks
