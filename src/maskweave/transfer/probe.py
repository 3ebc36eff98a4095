"""Probes of a frozen encoder's features: a linear probe and k nearest neighbors.

The nearest neighbors vote with weights exp(cosine / temperature), as in https://arxiv.org/abs/1805.01978. The linear probe is multinomial
logistic regression, solved to convergence; for tags, one binary logistic regression for each of them; for numbers, ridge regression.

Dimension letters: S training samples, T samples to classify, D width, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.data.weights import scaled_together
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.generate.features import EncodedBatch, FeatureExtractor
from maskweave.masking.inputs import raw_inputs
from maskweave.models.raw_features import raw_blocks
from maskweave.models.sample_heads import average_for_unknown
from maskweave.nn.logistic import fit_logistic
from maskweave.nn.ridge import Ridge, feature_scale
from maskweave.transfer.blocks import block_scales
from maskweave.transfer.data import TUNED_ON, Examples, Parts
from maskweave.transfer.features import NUMBERS, gathered_features
from maskweave.transfer.scoring import Scored, score_right, score_values
from maskweave.transfer.shares import differing_shares
from maskweave.transfer.target import Target, target_tensor
from maskweave.transfer.task import raw_features, readable_raw
from maskweave.values.distribution import NumberDistribution

NEIGHBORS, TEMPERATURE = 20, 0.07
NEAREST, LINEAR = f"{NEIGHBORS}-nearest-neighbor", "linear-probe"
"""Names of the probes."""
WEIGHT_DECAYS = tuple(10.0**e for e in range(-4, 1))
"""Weight decays that the linear probe tries."""
CHUNK = 1024
CROSS_VALIDATED = 2000
"""Most samples for which the weight decay is chosen in cross-validation."""
MOST_WORK = 2e7
"""Most samples × features × classes for which it is, and most of a logistic regression from which a head starts."""


class Labeled(NamedTuple):
    """Pooled features with labels."""

    features: Tensor
    """(S, D)"""
    labels: Tensor
    """(S,) indices of classes; (S, K) 0 or 1, float32, for tags; (S, K) float64 on the network's scale, NaN where unknown, for numbers."""
    folds: np.ndarray | None = None
    """(S,) fold of each sample in cross-validation; samples of one group share one."""
    numbers: Sequence[int] = ()
    """Indices of the examples."""
    blocks: Sequence[int] = ()
    """Number of features of the encoder, and of each other kind; empty: all are the encoder's."""
    raw_weights: Sequence[np.ndarray] | None = None
    """Raw weight of each number of the targets, if they have weights."""

    @property
    def scale(self) -> Tensor:
        """(D,) factors of the standardized features, by how much each block helps to predict the labels."""
        y = self.labels if self.labels.is_floating_point() else F.one_hot(self.labels)
        folds = self.folds if self.folds is not None else np.zeros(len(self.labels))
        return block_scales(self.features, y, folds, self.blocks)

    @property
    def are_tags(self) -> bool:
        return self.labels.ndim == 2


def labeled_features(
    features: FeatureExtractor, examples: Examples, statistics: bool = False, **options: Any
) -> Labeled | None:
    """Returns the features of all usable examples; None in all launched processes but the first one. Options as in `gathered_features`.

    Args:
        statistics: append features of the raw inputs, `models.raw_features`; NaN where they are unknown.

    Raises:
        MaskweaveError: the target is neither a label, tags nor numbers, or no example is usable.
    """
    target = examples.target
    if target.kind not in ("label", "sample", "numbers"):
        assert target.modality is not None
        raise MaskweaveError(
            f"a probe predicts labels and numbers, but {target.name!r} has values of type {target.modality.value.type!r}; set a label"
        )
    catalog = examples.catalog
    raw = raw_features(catalog, readable_raw(catalog, features.encoder.names) if statistics else [])

    def rows_of(batch: EncodedBatch) -> dict[str, Tensor]:
        answers = [examples.answer(i, sample) for i, sample in zip(batch.numbers, batch.samples, strict=True)]
        rows = {"labels": target_tensor(target, answers), "features": batch.encoded.pooled.float().cpu()}
        others = raw_blocks(raw, raw_inputs(batch.samples, catalog, list(raw)))
        rows |= {f"features {number}": block for number, block in enumerate(others)}
        if (weights := examples.raw_weights(batch.samples)) is not None:
            rows["weights"] = torch.from_numpy(np.stack(weights))
        return rows

    found = gathered_features(features, examples, rows_of, **options)
    if found is None:
        return None
    if not found:
        raise MaskweaveError("no example is usable; check the data and its inputs")
    numbers, y = found.pop(NUMBERS).tolist(), found.pop("labels")
    weights = [*found.pop("weights").numpy()] if examples.weighted else None
    if target.kind == "numbers":
        y = y.flatten(1).double()
    blocks = [block.shape[1] for block in found.values()]
    return Labeled(torch.cat([*found.values()], dim=1), y, examples.folds(numbers), numbers, blocks, weights)


def nearest_neighbors(
    train: Labeled, queries_TD: Tensor, num_classes: int, k: int = NEIGHBORS, temperature: float = TEMPERATURE
) -> Tensor:
    """Returns (T, K): each class's share of the votes of the k nearest training samples by cosine (of all samples if fewer)."""
    known_SD = F.normalize(train.features, dim=1)
    votes = []
    for some_tD in F.normalize(queries_TD, dim=1).split(CHUNK):
        cosine_tk, index_tk = (some_tD @ known_SD.T).topk(min(k, len(known_SD)), dim=1)
        # Subtract the largest: exp(1 / 0.07) is over a million.
        weight_tk = ((cosine_tk - cosine_tk[:, :1]) / temperature).exp()
        if train.are_tags:
            vote_tK = (weight_tk[..., None] * train.labels[index_tk]).sum(dim=1)
        else:
            vote_tK = weight_tk.new_zeros(len(some_tD), num_classes).scatter_add(1, train.labels[index_tk], weight_tk)
        votes.append(vote_tK / weight_tk.sum(dim=1, keepdim=True))
    return torch.cat(votes)


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardized features."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    """(K, D)"""
    bias: Tensor
    weight_decay: float

    @classmethod
    def fit(
        cls,
        train: Labeled,
        num_classes: int,
        weight_decay: float,
        start: "LinearProbe | None" = None,
        scale: Tensor | None = None,
    ) -> "LinearProbe":
        """Minimize the mean cross-entropy + weight_decay / 2 · |W|² with L-BFGS.

        Args:
            start: a probe of the same samples to start from; it speeds up convergence and does not change the result.
            scale: (D,) factors of the standardized features; a smaller one is a stronger decay.
        """
        mean, std = train.features.mean(dim=0), train.features.std(dim=0)
        std = torch.where(std > 1e-6, std, 1.0)
        scale_D = torch.ones(train.features.shape[1], dtype=torch.float64) if scale is None else scale.double()
        x_SD = ((train.features - mean) / std).double() * scale_D
        if start is None:
            weight = torch.zeros(num_classes, x_SD.shape[1], dtype=torch.float64)
        else:
            weight = torch.where(scale_D > 0, start.weight.double() / scale_D, 0)
        bias = torch.zeros(num_classes, dtype=torch.float64) if start is None else start.bias.double()
        weight, bias = fit_logistic(x_SD, train.labels, weight, bias, weight_decay)
        return cls(mean, std, (weight * scale_D).float(), bias.float(), weight_decay)

    @classmethod
    def tuned(
        cls, train: Labeled, num_classes: int, decays: Sequence[float] = WEIGHT_DECAYS, folds: int = 0
    ) -> "LinearProbe":
        """Fit to all training samples, with the weight decay that is most accurate on those that are held out.

        Args:
            folds: so many folds are held out, one after another; 0: all, but the last fifth of more than `CROSS_VALIDATED` samples or more work than
                `MOST_WORK`, or if there are no folds.
        """
        scale = train.scale if len(train.blocks) > 1 else None
        right = dict.fromkeys(sorted(decays, reverse=True), 0.0)
        for held in cls._held_out(train, num_classes, folds):
            kept, out = (Labeled(train.features[some], train.labels[some]) for some in (~held, held))
            tried = None
            for decay in right:  # from the strongest, which converges fastest, to the weakest
                tried = cls.fit(kept, num_classes, decay, tried, scale)
                right[decay] += share_right(tried(out.features), out.labels) * len(out.labels)
        return cls.fit(train, num_classes, max(right, key=lambda decay: right[decay]), scale=scale)

    @staticmethod
    def _held_out(train: Labeled, num_classes: int, folds: int) -> list[Tensor]:
        """Returns which samples (S,) are held out, for each fold."""
        numbers = [] if train.folds is None else np.unique(train.folds).tolist()
        is_small = len(train.labels) <= CROSS_VALIDATED and train.features.numel() * num_classes <= MOST_WORK
        if len(numbers) > 1 and (folds or is_small):
            return [torch.from_numpy(train.folds == number) for number in numbers[: folds or None]]
        cut = len(train.labels) - max(1, round(TUNED_ON * len(train.labels)))
        if cut < 1:
            raise MaskweaveError(f"a linear probe needs 2 examples or more, found {len(train.labels)}")
        return [torch.arange(len(train.labels)) >= cut]

    def __call__(self, features_TD: Tensor) -> Tensor:
        """Returns (T, K) logits."""
        return F.linear((features_TD - self.mean) / self.std, self.weight, self.bias)


def share_right(scores_TK: Tensor, labels_T: Tensor) -> float:
    """Returns the accuracy of the class with the highest score, 0 to 1; for tags (T, K), of the decisions for scores above 0."""
    if labels_T.ndim == 2:
        return ((scores_TK > 0) == (labels_T > 0.5)).float().mean().item()
    return (scores_TK.argmax(dim=1) == labels_T).float().mean().item()


def probe(
    features: FeatureExtractor, examples: Parts, seed: int, statistics: bool | None = None, **options: Any
) -> list[EvaluationRow]:
    """Fits both probes to the training examples and scores them on the held-out examples, next to the most common class. Launched processes share the
    computation of the features; only the first one returns rows.

    Args:
        seed: of the data; recorded in the rows.
        statistics: features of the raw inputs are used too; by default for numbers.
        options: as in `gathered_features`.
    """
    found = probe_features(features, examples, statistics, **options)
    return [] if found is None else probe_rows(features.encoder.names, examples, *found, seed)


def probe_features(
    features: FeatureExtractor, examples: Parts, statistics: bool | None = None, **options: Any
) -> tuple[Labeled, Labeled] | None:
    """Returns the features of the training and of the held-out examples, unknown ones as the mean of the training examples; None in all launched processes but
    the first one. Arguments as for `probe`."""
    options["statistics"] = examples.train.target.kind == "numbers" if statistics is None else statistics
    train = labeled_features(features, examples.train, title="training features", **options)
    held_out = labeled_features(features, examples.held_out, title="held-out features", **options)
    if train is None or held_out is None:
        return None
    filled = [some._replace(features=average_for_unknown(some.features, train.features)) for some in (train, held_out)]
    return filled[0], filled[1]


def probe_rows(names: list[str], examples: Parts, train: Labeled, held_out: Labeled, seed: int) -> list[EvaluationRow]:
    """Fits both probes to `train` and scores them on `held_out`; arguments as for `probe`.

    Args:
        names: the inputs.
    """
    target = examples.train.target
    if target.kind == "numbers":
        return _rows(names, target, _number_scores(examples, train, held_out), len(held_out.labels), seed)
    if not train.are_tags and (
        line := differing_shares(train.labels.tolist(), held_out.labels.tolist(), target.classes)
    ):
        print(line)
    num_classes = len(target.classes)
    linear = LinearProbe.tuned(train, num_classes)
    votes = nearest_neighbors(train, held_out.features, num_classes)
    scored: dict[str, list[Scored]]
    if train.are_tags:
        logits = {NEAREST: votes.logit(1e-6), LINEAR: linear(held_out.features)}
        scored = _tag_scores(target, logits, train, held_out)
    else:
        commonest = int(torch.bincount(train.labels).argmax())
        constant = float(np.mean(held_out.labels.numpy() == commonest))
        scored = {
            name: [score_right("accuracy", scores.argmax(dim=1) == held_out.labels, constant)]
            for name, scores in {NEAREST: votes, LINEAR: linear(held_out.features)}.items()
        }
    return _rows(names, target, scored, len(held_out.labels), seed)


def _rows(
    names: list[str], target: Target, scored: Mapping[str, Sequence[Scored]], samples: int, seed: int
) -> list[EvaluationRow]:
    """The scores of each probe as rows, without those of single channels and classes."""
    return [
        EvaluationRow(
            names, target.name, f"{name} {s.metric}", s.better, s.value, s.constant, math.nan, samples, seed, False, *s.interval
        )
        for name, scores in scored.items()
        for s in scores
        if not s.part
    ]  # fmt: skip


def _number_scores(examples: Parts, train: Labeled, held_out: Labeled) -> dict[str, list[Scored]]:
    """The metrics of the target for each probe, next to their best constants on the training values."""
    assert train.folds is not None
    target = examples.train.target
    value = target.value
    assert value is not None
    scale = train.scale
    ridge = Ridge.fit(train.features, train.labels, train.folds, scale=scale)
    mean, std = feature_scale(train.features)
    near = Labeled(((train.features - mean) / std * scale).float(), train.labels)
    neighbors_TK = nearest_numbers(near, ((held_out.features - mean) / std * scale).float())
    linear_TK = ridge(held_out.features)

    def as_values(numbers_TK: Tensor) -> list[Any]:
        return list(value.from_network(numbers_TK.unflatten(1, (value.channels, *value.size))))

    linear: list[Any] = as_values(linear_TK)
    if value.number_scale is not None:
        spread = max(float(ridge.error[0]), 1e-12)
        linear = [NumberDistribution.gaussian(m, spread, *value.number_scale) for m in linear_TK[:, 0].tolist()]
    else:
        linear = value.gaussian_answers(linear_TK.numpy(), ridge.error.expand_as(linear_TK).numpy()) or linear
    truth, seen = as_values(held_out.labels), as_values(train.labels)
    entry = examples.train.weighted
    weights, seen_weights = (scaled_together(some.raw_weights, entry) for some in (held_out, train))
    found = {
        name: score_values(target.scores(), predicted, truth, seen, weights, seen_weights)
        for name, predicted in {NEAREST: as_values(neighbors_TK), LINEAR: linear}.items()
    }
    return {name: [score for score in scores if math.isfinite(score.value)] for name, scores in found.items()}


def nearest_numbers(train: Labeled, queries_TD: Tensor, k: int = NEIGHBORS, temperature: float = TEMPERATURE) -> Tensor:
    """Returns (T, K): the weighted mean of the known numbers of the k nearest training samples, with weights as in `nearest_neighbors`."""
    known_SK = (~train.labels.isnan()).double()
    center = train.labels.nanmean(dim=0)
    ones = Labeled(
        train.features, torch.cat([torch.nan_to_num(train.labels - center) * known_SK, known_SK], dim=1).float()
    )
    total_TK, share_TK = nearest_neighbors(ones, queries_TD, 0, k, temperature).double().chunk(2, dim=1)
    return total_TK / share_TK.clamp_min(1e-12) + center


def _tag_scores(
    target: Target, logits: Mapping[str, Tensor], train: Labeled, held_out: Labeled
) -> dict[str, list[Scored]]:
    """The metrics of the tags' entry for each probe."""
    assert target.modality is not None

    def tags_of(flags_SK: Tensor) -> list[list[str]]:
        return [[name for name, flag in zip(target.classes, row, strict=True) if flag] for row in flags_SK.tolist()]

    value, metrics = target.modality.value, target.modality.scores()
    truth, seen = tags_of(held_out.labels), tags_of(train.labels)
    return {name: score_values(metrics, value.answers(logits_TK), truth, seen) for name, logits_TK in logits.items()}
