"""Scores of a transferred model on held-out examples, next to the best constant answer."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import read_chunks
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow, added
from maskweave.generate.engine import bulk_precision
from maskweave.modality.entry import Modality
from maskweave.progress import Progress, progress
from maskweave.ranks import own_part
from maskweave.training.distributed import connect
from maskweave.training.gathering import gather
from maskweave.transfer.build import Transferred
from maskweave.transfer.data import Examples
from maskweave.transfer.features import NUMBERS, check_skips, in_order
from maskweave.transfer.shares import weighted_answers
from maskweave.transfer.target import Target
from maskweave.values.bootstrap import UNKNOWN, Interval, bootstrap, metric_intervals, replicated
from maskweave.values.detection import Detected
from maskweave.values.metrics import Metric, Weights
from maskweave.values.weights import Weighting


class Scored(NamedTuple):
    """A metric of predictions beside that of the best constant."""

    metric: str
    better: str
    value: float
    constant: float
    part: bool = False
    """Whether it is the score of a single channel, key or class."""
    interval: Interval = UNKNOWN
    """95%, by bootstrap over the samples."""


BATCH = 64
CONSTANT_SAMPLES = 500
"""Training examples that the best constants are fitted to."""
SEED = 0
"""Of the bootstrap."""


class _Chunk(NamedTuple):
    """Predictions of consecutive examples, and what they are compared with."""

    start: int
    numbers: list[int]
    found: list[Any]
    """Logits (K,) for labels, otherwise answers."""
    truth: list[Any]
    raw_weights: list[np.ndarray] | None


def score_transfer(
    model: Transferred, train: Examples, held_out: Examples, seed: int, limit: float = 0.01, workers: int = 0
) -> list[EvaluationRow]:
    """Returns one row for every metric of the task. Launched processes share the held-out examples; only the first one returns rows.

    Labels: accuracy (and top 5), macro F1. Tags and dense values: the metrics of their entry. Boxes: their average precisions.

    Raises:
        MaskweaveError: too many examples are unusable, or a library of the extra `eval` is missing.
    """
    skips, part = ErrorBudget(limit), own_part()
    total = sum(min(BATCH, len(held_out) - start) for start in part.mine(range(0, len(held_out), BATCH)))
    with progress("evaluate", total) as bar:
        chunks = list(_chunks(model, held_out, skips, workers, bar))
    device = next(model.head.parameters()).device
    numbers = torch.tensor([i for chunk in chunks for i in chunk.numbers], dtype=torch.int64)
    gathered = gather(device, skips.record(), {NUMBERS: numbers})
    counted = torch.zeros(1, dtype=torch.int64)
    if gathered:
        check_skips(skips, gathered)
        counted[0] = len(in_order(gathered)[NUMBERS])
    connect(str(device)).broadcast([counted])
    if not counted:
        raise MaskweaveError("no held-out example is usable; check the data")
    seen, seen_weights = weighted_answers(train, CONSTANT_SAMPLES)
    names, target = list(model.encoder.names), model.target
    if target.kind == "label":
        scores = _label_scores(target, chunks, device, seen)
    elif isinstance(target.value, Detected):
        scores = _box_scores(target.value, chunks, device, seen)
    else:
        scores = _value_scores(target.scores(), chunks, device, seen, seen_weights, held_out.weighted)
    return [
        EvaluationRow(names, target.name, *score[:4], math.nan, int(counted), seed, score.part, *score.interval)
        for score in scores
        if not (math.isnan(score.value) and math.isfinite(score.constant))  # it needs distributions, and there are none
    ]


def _chunks(
    model: Transferred, examples: Examples, skips: ErrorBudget, workers: int, bar: Progress
) -> Iterator[_Chunk]:
    """Yields this process's share of the chunks that have usable examples."""
    precision = bulk_precision(next(model.head.parameters()).device)
    for chunk in read_chunks(examples, BATCH, workers, own_part()):
        good = [(i, item.sample) for i, item in chunk if skips.take(item)]
        skips.check()
        if good:
            samples = [sample for _, sample in good]
            output = model.outputs(samples, precision).float().cpu()
            # All scores of labels are kept, for the top 5; the logits of dense values would not fit in memory.
            found = list(output) if model.target.kind == "label" else model.answers(output, least=0.0, whole=True)
            truth = [examples.answer(i, sample) for i, sample in good]
            yield _Chunk(chunk[0][0], [i for i, _ in good], found, truth, examples.raw_weights(samples))
        bar.advance(len(chunk))


def _label_scores(target: Target, chunks: Sequence[_Chunk], device: torch.device, seen: Sequence[int]) -> list[Scored]:
    mine = {
        NUMBERS: torch.tensor([i for chunk in chunks for i in chunk.numbers]),
        "logits": torch.stack([logits for chunk in chunks for logits in chunk.found]),
        "truth": torch.tensor([label for chunk in chunks for label in chunk.truth]),
    } if chunks else {}  # fmt: skip
    found = in_order(gather(device, None, mine))
    if not found:
        return []
    logits_SK, truth_S = found["logits"], found["truth"]
    return _accuracies(logits_SK, truth_S, seen) + _class_scores(target, logits_SK.argmax(dim=1), truth_S, seen)


def _box_scores(value: Detected, chunks: Sequence[_Chunk], device: torch.device, seen: Sequence[Any]) -> list[Scored]:
    mine = [row for chunk in chunks for row in zip(chunk.numbers, chunk.found, chunk.truth, strict=True)]
    rows = sorted((row for one in gather(device, mine, {}) for row in one.facts), key=lambda row: row[0])
    if not rows:
        return []
    found, truth = [row[1] for row in rows], [row[2] for row in rows]
    scores = value.detection_scores(found, truth)
    lifted = value.constant_detections(seen, found, truth)
    constant = {} if lifted is None else value.detection_scores(lifted, truth)
    intervals = value.detection_intervals(found, truth, SEED)
    return [
        Scored(name, "higher", score, constant.get(name, math.nan), interval=intervals[name])
        for name, score in scores.items()
    ]


def _value_scores(
    metrics: Sequence[Metric],
    chunks: Sequence[_Chunk],
    device: torch.device,
    seen: Sequence[Any],
    seen_weights: Weights,
    weighted: Modality | None,
) -> list[Scored]:
    """The scores of dense values, numbers and tags: each process sums the statistics of its chunks, the first one adds the sums in the order of the chunks."""
    scale = _weighting(chunks, device, weighted)
    sums: dict[str, torch.Tensor] = {}
    constants = [metric.best_constant(seen, seen_weights) for metric in metrics]
    for chunk in chunks:
        weights = None if scale is None else [scale(raw) for raw in chunk.raw_weights or []]
        for number, (metric, constant) in enumerate(zip(metrics, constants, strict=True)):
            for which, answers in {"value": chunk.found, "constant": [constant] * len(chunk.truth)}.items():
                statistics = [np.asarray(one) for one in metric.each(answers, chunk.truth, weights)]
                totals = {which: added(statistics)}
                if which == "value":
                    totals["replicates"] = replicated(statistics, chunk.numbers, SEED)
                for name, total in totals.items():
                    if total is not None:
                        sums[f"{chunk.start:015d} {number} {name}"] = torch.from_numpy(np.asarray(total))
    gathered = gather(device, None, sums)
    if not gathered:
        return []
    found = {key: tensor.numpy() for one in gathered for key, tensor in one.tensors.items()}
    rows = []
    for number, metric in enumerate(metrics):
        value, best, replicates = (
            added(found[key] for key in sorted(found) if key.endswith(f" {number} {which}"))
            for which in ("value", "constant", "replicates")
        )
        rows += _with_intervals(metric, metric.finished(value), metric.finished(best), replicates)
    return rows


def _with_intervals(
    metric: Metric, scores: Mapping[str, float], constant: Mapping[str, float], replicates: np.ndarray | None
) -> list[Scored]:
    intervals = metric_intervals(metric, replicates)
    return [
        Scored(name, metric.better, value, constant[name], name != metric.name, intervals.get(name, UNKNOWN))
        for name, value in scores.items()
    ]


def _weighting(chunks: Sequence[_Chunk], device: torch.device, weighted: Modality | None) -> Weighting | None:
    """Returns the scaling of the weights of all examples, the same in all processes; None if the target has no weights."""
    if weighted is None:
        return None
    raw = [weights for chunk in chunks for weights in chunk.raw_weights or []]
    mine = {
        NUMBERS: torch.tensor([i for chunk in chunks for i in chunk.numbers]), "raw": torch.from_numpy(np.stack(raw)),
    } if raw else {}  # fmt: skip
    together = in_order(gather(device, None, mine))
    channels = weighted.value.channels
    fitted = {name: torch.zeros(channels, dtype=torch.float64) for name in ("most", "mean")}
    if together:
        weighting = Weighting.fit(together["raw"].numpy(), channels)
        fitted = {name: torch.tensor(getattr(weighting, name), dtype=torch.float64) for name in fitted}
    connect(str(device)).broadcast(fitted.values())
    return Weighting(tuple(fitted["most"].tolist()), tuple(fitted["mean"].tolist()))


def score_values(
    metrics: Sequence[Metric],
    found: Sequence[Any],
    truth: Sequence[Any],
    seen: Sequence[Any],
    weights: Weights = None,
    seen_weights: Weights = None,
) -> list[Scored]:
    """Returns the scores of predictions by each metric and its parts, and those of the best constants on the training values `seen`."""
    rows = []
    for metric in metrics:
        constant = metric.scores([metric.best_constant(seen, seen_weights)] * len(truth), truth, weights)
        statistics = [np.asarray(one) for one in metric.each(found, truth, weights)]
        replicates = replicated(statistics, range(len(statistics)), SEED)
        rows += _with_intervals(metric, metric.finished(added(statistics)), constant, replicates)
    return rows


def score_right(name: str, right_S: torch.Tensor, constant: float) -> Scored:
    """Returns the share of right answers, bool (S,)."""
    right = right_S.float().numpy()
    interval = bootstrap(lambda some: float(right[some].mean()), len(right), SEED)
    return Scored(name, "higher", right_S.float().mean().item(), constant, interval=interval)


def _class_scores(target: Target, found_S: torch.Tensor, truth_S: torch.Tensor, seen: Sequence[int]) -> list[Scored]:
    """The metrics of a label's entry except the accuracy, which is scored already; none for labels that are a part of another value."""
    if target.modality is None or target.label:
        return []
    found, truth, known = (
        [target.classes[i] for i in indices] for indices in (found_S.tolist(), truth_S.tolist(), seen)
    )
    others = [metric for metric in target.modality.scores() if metric.name != "accuracy"]
    return score_values(others, found, truth, known)


def _accuracies(logits_SK: torch.Tensor, truth_S: torch.Tensor, seen: Sequence[int]) -> list[Scored]:
    common = [label for label, _ in Counter(seen).most_common(5)]
    rows = []
    for k in (1, 5):
        if k < logits_SK.shape[1]:
            best = logits_SK.topk(k, dim=-1).indices
            right_S = (best == truth_S[:, None]).any(dim=-1)
            constant = float(np.mean([label in common[:k] for label in truth_S.tolist()]))
            rows.append(score_right("accuracy" if k == 1 else "top-5 accuracy", right_S, constant))
    return rows
