"""How good predictions are, by value type: each metric sums statistics over the samples and turns the sums into one number.

| values | metric | better | the constant it is compared with |
| --- | --- | --- | --- |
| map, positive | AbsRel, mean of abs(p - t) / t | lower | per point the median weighted by 1 / t: exactly the best |
| map, positive | delta1, share of points with max(p / t, t / p) < 1.25 | higher | per point, the fullest window of that width: exactly the best |
| map, features, vector | MAE, in the value's unit, or of standardized maps in relative ones | lower | per point the median: exactly the best |
| direction | angle, mean angle in degrees | lower | per point the geodesic median, never worse than the mean direction |
| classes | mIoU over the whole set; classes in neither are left out | higher | per point the commonest class |
| binary | F1 over the whole set's points, one point of tolerance | higher | points marked more often than the best of 32 thresholds |
| text, boxes, instances | F1 of multisets of labels over the whole set (micro) | higher | the best multiset: exactly |
| image | PSNR of the set's mean squared error, in dB | higher | the mean picture: exactly the best |
| metadata | MAE in shares of each key's range | lower | per key the median: exactly the best |

Constants may differ from point to point: they are stronger, and so more honest, references than a single number. AbsRel and delta1:
Eigen et al., https://arxiv.org/abs/1406.2283, section 4. Letters of shapes: S samples, P points, K classes.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality, Value
from maskweave.tokenizers.values import standardized

Parser = Callable[[str], Iterable[str]]


class Labels(list[str]):
    """A multiset of labels in place of a value; what `best_constant` gives for labels."""


@dataclass(frozen=True)
class Metric:
    """One measure of predictions against truth."""

    name: str
    better: Literal["lower", "higher"]
    statistics: Callable[[Any, Any], np.ndarray]
    """Prediction and truth of one sample to numbers that are summed over the samples."""
    finish: Callable[[np.ndarray], float]
    """The sums to the metric; NaN where nothing could be counted."""
    best_constant: Callable[[Sequence[Any]], Any]
    """Training values (a list without None, at least one) to the prediction that, given for every sample, does best on them."""

    def tally(self) -> "Tally":
        return Tally(self)

    def score(self, predictions: Iterable[Any], truths: Iterable[Any]) -> float:
        """The metric of whole lists; same errors as `Tally.add`."""
        tally = self.tally()
        for prediction, truth in zip(predictions, truths, strict=True):
            tally.add(prediction, truth)
        return tally.value()


class Tally:
    """A metric in the making."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self.samples = 0
        self.sums: np.ndarray | None = None

    def add(self, prediction: Any, truth: Any) -> None:
        """Count one sample.

        Raises:
            MaskweaveError: the two differ in shape.
        """
        statistics = self.metric.statistics(prediction, truth)
        self.sums = statistics if self.sums is None else self.sums + statistics
        self.samples += 1

    def value(self) -> float:
        """The metric so far; NaN before anything was counted."""
        return math.nan if self.sums is None else self.metric.finish(self.sums)


def metrics_for(modality: Modality, parse: Parser | None = None, tolerance: int = 1) -> tuple[Metric, ...]:
    """The metrics of a modality's values, in the order of the table above; none for palettes, poses and queries.

    Args:
        parse: labels of a text, with repeats or as a Counter; lower-case words by default.
        tolerance: points (along each axis) by which a binary map's marks may be off.
    """
    v = modality.value
    match v.type:
        case "map" if v.range is not None and v.range[0] >= 0:
            return (
                Metric("AbsRel", "lower", relative_errors, _mean, _weighted_median),
                Metric("delta1", "higher", within_ratio, _mean, _fullest_window),
            )
        case "map" if v.tails is not None:
            return (Metric("MAE", "lower", partial(relative_unit_errors, v), _mean, _median),)
        case "map" | "features" | "vector":
            return (Metric("MAE", "lower", absolute_errors, _mean, _median),)
        case "direction":
            return (Metric("angle", "lower", angles, _mean, _geodesic_median),)
        case "classes":
            num_classes = len(v.classes)
            return (
                Metric(
                    "mIoU",
                    "higher",
                    partial(confusion, num_classes=num_classes),
                    mean_iou,
                    partial(_majority, num_classes),
                ),
            )
        case "binary":
            marks = partial(matched_marks, tolerance=tolerance)
            return (Metric("F1", "higher", marks, f1_of_marks, partial(_frequent, marks)),)
        case "text" | "boxes" | "instances":
            labels = partial(labels_of, parse=parse or (lambda text: text.lower().split()))
            return (
                Metric("F1", "higher", partial(_matched_labels, labels), f1_of_labels, partial(_best_multiset, labels)),
            )
        case "image":
            return (Metric("PSNR", "higher", squared_errors, _decibels, _mean_value),)
        case "metadata":
            return (Metric("MAE", "lower", partial(key_errors, v), _mean, _median_keys),)
    return ()


# Statistics of one sample: prediction and truth to numbers that add up.


def relative_errors(prediction: Any, truth: Any) -> np.ndarray:
    """(sum of abs(p - t) / t, points) over points with finite t > 0; a prediction that is not finite counts as 0."""
    p, t = _pair(prediction, truth)
    valid = np.isfinite(t) & (t > 0)
    p, t = np.where(np.isfinite(p), p, 0)[valid], t[valid]
    return np.array([np.sum(np.abs(p - t) / t), t.size])


def within_ratio(prediction: Any, truth: Any, ratio: float = 1.25) -> np.ndarray:
    """(points with max(p / t, t / p) < ratio, points) over points with finite t > 0."""
    p, t = _pair(prediction, truth)
    valid = np.isfinite(t) & (t > 0)
    p, t = p[valid], t[valid]
    good = np.isfinite(p) & (p > 0) & (p < ratio * t) & (t < ratio * p)
    return np.array([good.sum(), t.size], dtype=np.float64)


def relative_unit_errors(v: Value, prediction: Any, truth: Any) -> np.ndarray:
    """As `absolute_errors`, of maps brought to relative units (see `Value.tails`)."""
    p, t = _pair(prediction, truth)
    return absolute_errors(standardized(v, p), standardized(v, t))


def absolute_errors(prediction: Any, truth: Any) -> np.ndarray:
    """(sum of abs(p - t), points) over points where t is finite; a prediction that is not finite counts as 0."""
    p, t = _pair(prediction, truth)
    valid = np.isfinite(t)
    return np.array([np.sum(np.abs(np.where(np.isfinite(p), p, 0) - t)[valid]), valid.sum()])


def squared_errors(prediction: Any, truth: Any) -> np.ndarray:
    """(sum of squared differences in units of 0 to 255, numbers)."""
    p, t = _pair(prediction, truth)
    return np.array([np.sum((p - t) ** 2), t.size])


def angles(prediction: Any, truth: Any) -> np.ndarray:
    """(sum of angles in degrees, points) over points where the truth has a direction; none predicted counts as 90°."""
    p, t = _pair(prediction, truth)
    valid = np.linalg.norm(t, axis=-1) > 1e-6
    return np.array([np.sum(np.degrees(_angle(_unit(p[valid]), _unit(t[valid])))), valid.sum()])


def confusion(prediction: Any, truth: Any, num_classes: int) -> np.ndarray:
    """Counts (K, K + 1) of points by true and predicted class; the last column is for predictions that are no class.

    Points whose truth is no class (255 for instance) are left out.
    """
    p, t = _pair(prediction, truth, dtype=np.int64)
    valid = (t >= 0) & (t < num_classes)
    p = np.where((p >= 0) & (p < num_classes), p, num_classes)
    joint = np.bincount(t[valid] * (num_classes + 1) + p[valid], minlength=num_classes * (num_classes + 1))
    return joint.reshape(num_classes, num_classes + 1)


def matched_marks(prediction: Any, truth: Any, tolerance: int = 1) -> np.ndarray:
    """(marks predicted near a true one, marks predicted, true marks near a predicted one, true marks)."""
    p, t = _pair(prediction, truth, dtype=bool)
    return np.array([(p & _grown(t, tolerance)).sum(), p.sum(), (t & _grown(p, tolerance)).sum(), t.sum()])


def labels_of(value: Any, parse: Parser) -> Labels:
    """The labels of a value: the classes of boxes and instances, or what `parse` finds in a text."""
    if isinstance(value, Labels):
        return value
    return Labels(Counter(parse(value)).elements() if isinstance(value, str) else [item["class"] for item in value])


def matched_labels(prediction: Iterable[str], truth: Iterable[str]) -> np.ndarray:
    """(true positives, false positives, false negatives) of two multisets."""
    p, t = Counter(prediction), Counter(truth)
    both = (p & t).total()
    return np.array([both, p.total() - both, t.total() - both])


def key_errors(v: Value, prediction: Any, truth: Any) -> np.ndarray:
    """(sum of abs(p - t) / the key's range, keys) over the truth's keys; a key that is not predicted counts as 1."""
    total, count = 0.0, 0
    for name, number in truth.items():
        if name in v.keys:
            low, high = v.keys[name].range
            total += abs(prediction[name] - number) / (high - low) if name in prediction else 1.0
            count += 1
    return np.array([total, count])


# The sums of statistics to one number.


def mean_iou(confusion_KL: np.ndarray) -> float:
    """Mean over the classes that occur, in truth or prediction, of intersection over union; counts as of `confusion`."""
    square = confusion_KL[:, : len(confusion_KL)]
    union = confusion_KL.sum(axis=1) + square.sum(axis=0) - np.diag(square)
    present = union > 0
    return float(np.mean(np.diag(square)[present] / union[present])) if present.any() else math.nan


def f1_of_marks(sums: np.ndarray) -> float:
    """Harmonic mean of precision and recall from the counts of `matched_marks`; NaN where there is no mark at all."""
    good, predicted, found, true = map(float, sums)
    if predicted + true == 0:
        return math.nan
    precision, recall = good / max(predicted, 1), found / max(true, 1)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def f1_of_labels(sums: np.ndarray) -> float:
    """F1 from the counts of `matched_labels`; NaN where there is no label at all."""
    positive, wrong, missed = map(float, sums)
    return 2 * positive / (2 * positive + wrong + missed) if positive + wrong + missed else math.nan


def _mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else math.nan


def _decibels(sums: np.ndarray) -> float:
    error = _mean(sums)
    return 10 * math.log10(255**2 / error) if error else math.inf


# The best constant predictions.


def _mean_value(values: Sequence[Any]) -> np.ndarray:
    return np.mean([np.asarray(value, dtype=np.float64) for value in values], axis=0)


def _median(values: Sequence[Any]) -> np.ndarray:
    stack = np.stack([np.asarray(value, dtype=np.float64) for value in values])
    stack = np.where(np.isfinite(stack), stack, np.nan)
    stack[:, np.isnan(stack).all(axis=0)] = 0
    return np.nanmedian(stack, axis=0)


def _positive(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted (S, P) and which are valid (finite and above 0); the rest are infinite and so last."""
    stack = np.stack([np.asarray(value, dtype=np.float64).ravel() for value in values])
    sorted_SP = np.sort(np.where(np.isfinite(stack) & (stack > 0), stack, np.inf), axis=0)
    return sorted_SP, np.isfinite(sorted_SP)


def _weighted_median(values: Sequence[Any]) -> np.ndarray:
    """Per point the c that minimizes the sum of abs(c - t) / t: the median of t with weights 1 / t; 1 where no t is valid."""
    t_SP, valid = _positive(values)
    reached = np.cumsum(1 / t_SP, axis=0)
    index = np.argmax(reached >= reached[-1:] / 2, axis=0)
    best = np.take_along_axis(t_SP, index[None], axis=0)[0]
    return np.where(valid.any(axis=0), best, 1.0).reshape(np.shape(values[0]))


def _fullest_window(values: Sequence[Any], ratio: float = 1.25) -> np.ndarray:
    """Per point the c with the most t in (c / ratio, c * ratio); 1 where no t is valid."""
    t_SP, valid = _positive(values)
    best = np.ones(t_SP.shape[1])
    for point, count in enumerate(valid.sum(axis=0)):
        if count:
            t = t_SP[:count, point]
            ends = np.searchsorted(t, t * ratio**2 * (1 - 1e-9))  # a window from each t, its end left out
            start = int(np.argmax(ends - np.arange(count)))
            best[point] = math.sqrt(t[start] * t[ends[start] - 1])
    return best.reshape(np.shape(values[0]))


def _geodesic_median(values: Sequence[Any], iterations: int = 20) -> np.ndarray:
    """Per point the direction with the least mean angle to the values': Weiszfeld's method on the sphere, from the mean."""
    v_SPx = np.stack([np.asarray(value, dtype=np.float64).reshape(-1, 3) for value in values])
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


def _majority(num_classes: int, values: Sequence[Any]) -> np.ndarray:
    stack = np.stack([np.asarray(value) for value in values])
    return np.argmax([(stack == index).sum(axis=0) for index in range(num_classes)], axis=0)


def _frequent(statistics: Callable[[Any, Any], np.ndarray], values: Sequence[Any]) -> np.ndarray:
    """Mark the points that are marked at least so often, for the threshold that does best on `values`."""
    frequency = np.mean([np.asarray(value, dtype=bool) for value in values], axis=0)
    candidates = (
        [frequency >= t for t in np.unique(np.quantile(frequency[frequency > 0], np.linspace(0, 1, 32)))]
        if frequency.any()
        else []
    )
    scores = [f1_of_marks(np.sum([statistics(mark, value) for value in values], axis=0)) for mark in candidates]
    return candidates[int(np.argmax(scores))] if candidates else np.zeros(frequency.shape, dtype=bool)


def _best_multiset(labels: Callable[[Any], Labels], values: Sequence[Any]) -> Labels:
    """The multiset with the highest micro F1.

    The j-th copy of a label is right in each sample that has j copies or more. F1 = 2 Σ right / (size × samples + all true labels)
    is largest for some number of the most often right copies.
    """
    right: Counter[tuple[str, int]] = Counter()
    for value in values:
        for name, count in Counter(labels(value)).items():
            right.update((name, copy) for copy in range(count))
    ranked = sorted(right, key=lambda item: (-right[item], item[1], item[0]))
    gains = np.cumsum([right[item] for item in ranked], dtype=np.float64)
    if not ranked:
        return Labels()
    scores = 2 * gains / (len(values) * np.arange(1, len(ranked) + 1) + gains[-1])
    return Labels(name for name, _ in ranked[: int(np.argmax(scores)) + 1])


def _median_keys(values: Sequence[Any]) -> dict[str, float]:
    return {
        name: float(np.median([value[name] for value in values if name in value]))
        for name in dict.fromkeys(name for value in values for name in value)
    }


def _matched_labels(labels: Callable[[Any], Labels], prediction: Any, truth: Any) -> np.ndarray:
    return matched_labels(labels(prediction), labels(truth))


def _pair(prediction: Any, truth: Any, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    p, t = np.asarray(prediction).astype(dtype), np.asarray(truth).astype(dtype)
    if p.shape != t.shape:
        raise MaskweaveError(
            f"cannot score a prediction of shape {p.shape} against a truth of shape {t.shape}; resize one first"
        )
    return p, t


def _unit(v: np.ndarray) -> np.ndarray:
    """Scaled to length 1; no direction where there is none."""
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
