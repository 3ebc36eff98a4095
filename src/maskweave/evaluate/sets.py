"""Scores of generated values as a set, in the space of a network's features: Fréchet distance, kernel distance, similarity and identification.

Fréchet distance (FID with Inception features): https://arxiv.org/abs/1706.08500. Kernel distance (KID): https://arxiv.org/abs/1801.01401.

Dimension letters: S samples, D width of the features.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.errors import BadSample
from maskweave.evaluate.predicting import Samples
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.modality.entry import Modality
from maskweave.training.recipe import SetScore
from maskweave.values.bootstrap import Interval, bootstrap, replicate_scores
from maskweave.values.bootstrap import interval as score_interval
from maskweave.values.distribution import point

SEED = 0


class SetScored(NamedTuple):
    """A score of a set of generated values, beside that of the reconstructed truths."""

    name: str
    better: str
    value: float
    bound: float
    chance: float
    """What values that have nothing to do with their truth would have; NaN if unknown."""
    interval: Interval
    samples: int


def frechet_distance(found_SD: np.ndarray, truth_SD: np.ndarray) -> float:
    """Returns |m − m'|² + tr(C + C' − 2 (C C')^½) of two sets of features; sets may differ in size. NaN for fewer than two samples."""
    if min(len(found_SD), len(truth_SD)) < 2:
        return math.nan
    means = [np.mean(features, axis=0, dtype=np.float64) for features in (found_SD, truth_SD)]
    distance = np.square(means[0] - means[1]).sum()
    # With C = X'X and C' = Y'Y, the trace of the root of C C' is the sum of the singular values of X Y'.
    x, y = _root_of_covariance(found_SD), _root_of_covariance(truth_SD)
    crossed = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(max(distance + np.square(x).sum() + np.square(y).sum() - 2 * crossed, 0.0))


def _root_of_covariance(x_SD: np.ndarray) -> np.ndarray:
    """Returns a matrix X of at most D rows with X'X the covariance."""
    x_SD = np.asarray(x_SD, np.float64)
    centered = (x_SD - x_SD.mean(axis=0)) / math.sqrt(len(x_SD) - 1)
    return np.asarray(np.linalg.qr(centered, mode="r")) if len(x_SD) > x_SD.shape[1] else centered


def kernel_distance(found_SD: np.ndarray, truth_SD: np.ndarray) -> float:
    """Returns the unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)³; it may be below 0."""
    s, t = len(found_SD), len(truth_SD)
    if min(s, t) < 2:
        return math.nan
    x, y = np.asarray(found_SD, np.float64), np.asarray(truth_SD, np.float64)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (s * (s - 1)) + (yy.sum() - np.trace(yy)) / (t * (t - 1))
    return float(within - 2 * xy.mean())


def identified(found_SD: np.ndarray, truth_SD: np.ndarray) -> np.ndarray:
    """Returns (S,) whether each value is nearer to its own truth, by cosine of centered features, than to any other truth; ties count as wrong."""
    center = truth_SD.mean(axis=0)
    cosine_SS = similarities(found_SD - center, truth_SD - center)
    own = np.diag(cosine_SS)
    others = np.where(np.eye(len(own), dtype=bool), -np.inf, cosine_SS).max(axis=1, initial=-np.inf)
    return own > others + 1e-9


def similarities(found_SD: np.ndarray, truth_SD: np.ndarray) -> np.ndarray:
    """Returns (S, S) the cosine of each value's features with those of each truth."""
    x, y = (np.asarray(features, np.float64) for features in (found_SD, truth_SD))
    x, y = (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12) for features in (x, y))
    return np.asarray(x @ y.T)


def joined(parts: Iterable[np.ndarray | None]) -> np.ndarray:
    """Returns the features (3, S, D) of all chunks, without chunks that have none: these do not know the width."""
    known = [part for part in parts if part is not None and np.isfinite(part).any()]
    return np.concatenate(known, axis=1) if known else np.zeros((3, 0, 1))


def set_scores(names: Sequence[SetScore], features_3SD: np.ndarray) -> list[SetScored]:
    """Scores the features of generated values, of their truths, and of the truths as the tokenizer reconstructs them.

    Samples whose truth or reconstruction has no features, which are NaN, are left out. A generated value without features counts: it is identified as
    nothing, and its similarity is 0; distances are over the other values, which `samples` then counts.
    """
    found, truth, bound = features_3SD[:, np.isfinite(features_3SD[1:]).all(axis=(0, 2))]
    return [_scored(name, found, truth, bound) for name in names] if len(truth) else []


def _scored(name: SetScore, found_SD: np.ndarray, truth_SD: np.ndarray, bound_SD: np.ndarray) -> SetScored:
    samples, made = len(truth_SD), np.isfinite(found_SD).all(axis=1)
    if name in ("identification", "similarity"):
        # Features of only zeros have no direction: their cosine with any truth is 0.
        found_SD = np.where(made[:, None], found_SD, 0)
        if name == "identification":
            each = identified(found_SD, truth_SD) & made
            of_bound, chance = identified(bound_SD, truth_SD), 1 / samples
        else:
            cosine_SS = similarities(found_SD, truth_SD)
            each, of_bound = np.diag(cosine_SS), np.diag(similarities(bound_SD, truth_SD))
            chance = (
                float((cosine_SS.sum() - each.sum()) / max(samples * (samples - 1), 1)) if samples > 1 else math.nan
            )
        interval = bootstrap(lambda i: float(each[i].mean()), samples, SEED)
        return SetScored(name, "higher", float(each.mean()), float(of_bound.mean()), chance, interval, samples)
    label: str
    distance: Callable[[np.ndarray, np.ndarray], float]
    label, distance = {
        "frechet": ("Fréchet distance", frechet_distance),
        "kernel": ("kernel distance", kernel_distance),
    }[name]
    value = distance(found_SD[made], truth_SD)
    interval = moved_interval(lambda i: distance(found_SD[i[made[i]]], truth_SD[i]), samples, value)
    return SetScored(label, "lower", value, distance(bound_SD, truth_SD), math.nan, interval, int(made.sum()))


def moved_interval(score: Callable[[np.ndarray], float], samples: int, value: float) -> Interval:
    """Returns the interval of a score that repeated samples make larger or smaller: it is moved back by as much.

    Args:
        score: maps the indices of samples, some of them repeated, to the score.
        value: the score of all samples.
    """
    scores = replicate_scores(score, samples, SEED)
    moved = np.array(scores) - np.mean([one for one in scores if math.isfinite(one)] or [math.nan]) + value
    return score_interval(moved.tolist())


def valid_samples(entry: Modality, values: Iterable[Any]) -> Samples:
    """Returns a sample for each value; empty for values that do not fit their entry."""
    samples: Samples = []
    for value in values:
        with contextlib.suppress(BadSample):
            samples.append({entry.name: entry.value.check(point(value), entry.name)})
            continue
        samples.append({})
    return samples


class SetFeatures:
    """Features of values: the pooled ones of the model's own encoder over the modality, or those of another network.

    Args:
        network: maps samples with one modality to (S, D).
        readable: the modalities that the network takes; None: all.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: Callable[[Samples], np.ndarray] | None = None,
        readable: Sequence[str] | None = None,
    ):
        self.bundle, self.network, self.readable = bundle, network, readable

    def reads(self, name: str) -> bool:
        """Whether the network takes the values of a target."""
        return self.readable is None or self.entry(name).name in self.readable

    def entry(self, name: str) -> Modality:
        """Returns the entry of the values of a target, such as `rgb` for `tok_rgb`."""
        entry = self.bundle.catalog[name]
        return self.bundle.catalog.get(entry.reads, entry)

    def __call__(self, name: str, values: Sequence[tuple[Any, Any, Any]]) -> np.ndarray:
        """Returns (3, S, D) features of three values of each sample; NaN for values that cannot be encoded, such as an empty list."""
        samples = valid_samples(self.entry(name), [sample[which] for which in range(3) for sample in values])
        known = [i for i, sample in enumerate(samples) if sample]
        rows = self._encoded([samples[i] for i in known])
        width = max((len(row) for row in rows), default=1)
        found = np.full((3 * len(values), width), np.nan)
        for i, row in zip(known, rows, strict=True):
            found[i] = row if len(row) else np.nan
        return found.reshape(3, len(values), width)

    def _encoded(self, samples: Samples) -> list[np.ndarray]:
        """Returns the features of each sample; empty if it has none."""
        network = self.network or self._own
        try:
            return [*network(samples)] if samples else []
        except BadSample:
            return (
                [np.zeros(0)] if len(samples) == 1 else [row for sample in samples for row in self._encoded([sample])]
            )

    @torch.inference_mode()
    def _own(self, samples: Samples) -> np.ndarray:
        encoder = self.bundle.encoder(list(samples[0]), bulk_precision(self.bundle.device))
        return encoder.encode(samples).pooled.float().cpu().numpy()
