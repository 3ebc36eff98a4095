"""Intervals of scores by the bootstrap: how much a score would differ with other held-out samples.

A replicate counts each sample as often as a Poisson distribution of mean 1 says, which needs no other sample, so that parts of the samples may be counted apart and
added (the Poisson bootstrap; Hanley and MacGibbon, 2006, https://doi.org/10.1016/j.cmpb.2006.04.006). Percentiles of the replicates are the interval.

Shapes: R replicates, S samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from maskweave.values.metrics import Metric

REPLICATES = 200
LEVEL = 0.95
MOST_NUMBERS = 1_000_000
"""Most numbers of the summed statistics of all replicates; larger statistics have fewer replicates."""
FEWEST = 50
"""Replicates that an interval needs."""
PURPOSE = 17
"""Tells these random numbers from others of the same seed."""
Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


def sample_counts(numbers: Sequence[int], seed: int, replicates: int = REPLICATES) -> np.ndarray:
    """Returns (R, S) how often each replicate counts each sample, which depends on the seed and the sample's number only."""
    found = [np.random.default_rng([seed, PURPOSE, number]).poisson(1.0, replicates) for number in numbers]
    return np.stack(found, axis=1) if found else np.zeros((replicates, 0), np.int64)


def replicated(statistics: Sequence[np.ndarray], numbers: Sequence[int], seed: int) -> np.ndarray | None:
    """Returns (R, ...) the sums of some samples' statistics in each replicate; sums of several lists may be added. None: too large, or no samples.

    Args:
        statistics: of each sample, as `Metric.each` yields them.
        numbers: of the samples.
    """
    size = max((one.size for one in statistics), default=0)
    replicates = min(REPLICATES, MOST_NUMBERS // max(size, 1))
    if not size or replicates < FEWEST:
        return None
    counts_RS = sample_counts(numbers, seed, replicates).astype(np.float64)
    return np.tensordot(counts_RS, np.stack(statistics).astype(np.float64), axes=1)


def metric_intervals(metric: Metric, sums_R: np.ndarray | None) -> dict[str, Interval]:
    """Returns the interval of a metric and of each of its parts, by name as `Metric.finished`; none without replicates."""
    found = [metric.finished(sums) for sums in sums_R if sums.any()] if sums_R is not None else []
    return {name: interval([scores.get(name, math.nan) for scores in found]) for name in (found[0] if found else ())}


def bootstrap(score: Callable[[np.ndarray], float], samples: int, seed: int = 0) -> Interval:
    """Returns the interval of a score of a set; arguments as for `replicate_scores`."""
    return interval(replicate_scores(score, samples, seed))


def counted_intervals(
    scores: Callable[[np.ndarray], Mapping[str, float]], samples: int, seed: int = 0
) -> dict[str, Interval]:
    """Returns the interval of each score of a set, by name.

    Args:
        scores: maps how often each sample counts (S,) to scores by name.
        samples: how many there are.
    """
    found = [scores(counts_S) for counts_S in sample_counts(range(samples), seed) if counts_S.any()]
    return {name: interval([one[name] for one in found]) for name in (found[0] if found else ())}


def replicate_scores(score: Callable[[np.ndarray], float], samples: int, seed: int = 0) -> list[float]:
    """Returns the score of each replicate of a set.

    Args:
        score: maps the indices of samples, some of them repeated, to the score.
        samples: how many there are.
    """
    counts_RS = sample_counts(range(samples), seed)
    return [score(np.repeat(np.arange(samples), counts_S)) for counts_S in counts_RS if counts_S.any()]


def interval(scores: Sequence[float]) -> Interval:
    """Returns the percentiles that hold `LEVEL` of the replicates; those that are not a number are left out."""
    known = [score for score in scores if not math.isnan(score)]
    if not known:
        return UNKNOWN
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
