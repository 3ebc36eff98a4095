"""Probes of a frozen encoder's features: a linear probe and k nearest neighbors.

The nearest neighbors vote with weights exp(cosine / temperature), as in https://arxiv.org/abs/1805.01978. The linear probe is multinomial
logistic regression, solved to convergence; for tags, one binary logistic regression for each of them.

Dimension letters: S training samples, T samples to classify, D width, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.generate.features import FeatureExtractor
from maskweave.transfer.data import TUNED_ON, Examples, Parts, Target, target_tensor
from maskweave.transfer.shares import differing_shares

NEIGHBORS, TEMPERATURE = 20, 0.07
WEIGHT_DECAYS = tuple(10.0**e for e in range(-4, 1))
"""Weight decays that the linear probe tries."""
MOST_STEPS = 500
TOLERANCE = 1e-12
"""The solver stops when the loss changes by less than this, or when no gradient exceeds L-BFGS's 1e-7. At 1e-8, the weights for the weakest decays ended
up to 0.004 from the optimum and differed between processors."""
CHUNK = 1024


class Labeled(NamedTuple):
    """Pooled features with labels."""

    features: Tensor
    """(S, D)"""
    labels: Tensor
    """(S,) indices of classes; (S, K) 0 or 1, float32, for tags."""

    @property
    def are_tags(self) -> bool:
        return self.labels.ndim == 2


def labeled_features(features: FeatureExtractor, examples: Examples, **options: Any) -> Labeled:
    """Returns the features of all usable examples; options as in `FeatureExtractor.stream`.

    Raises:
        MaskweaveError: the target is neither a label nor tags, or no example is usable.
    """
    target = examples.target
    if target.kind not in ("label", "sample"):
        assert target.modality is not None
        raise MaskweaveError(
            f"a probe predicts labels, but {target.name!r} has values of type {target.modality.value.type!r}; set a label"
        )
    labels: list[Any] = []
    parts = []
    for batch in features.stream(examples, **options):
        labels += [examples.answer(i, sample) for i, sample in zip(batch.numbers, batch.samples, strict=True)]
        parts.append(batch.encoded.pooled.float().cpu())
    if not parts:
        raise MaskweaveError("no example is usable; check the data and its inputs")
    return Labeled(torch.cat(parts), target_tensor(target, labels))


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
        cls, train: Labeled, num_classes: int, weight_decay: float, start: "LinearProbe | None" = None
    ) -> "LinearProbe":
        """Minimize the mean cross-entropy + weight_decay / 2 · |W|² with L-BFGS.

        Args:
            start: a probe of the same samples to start from; it speeds up convergence and does not change the result.
        """
        mean, std = train.features.mean(dim=0), train.features.std(dim=0).clamp(min=1e-6)
        x_SD = ((train.features - mean) / std).double()
        weight = (
            torch.zeros(num_classes, x_SD.shape[1], dtype=torch.float64) if start is None else start.weight.double()
        )
        bias = torch.zeros(num_classes, dtype=torch.float64) if start is None else start.bias.double()
        solved = [weight.requires_grad_(), bias.requires_grad_()]
        solver = torch.optim.LBFGS(
            solved, max_iter=MOST_STEPS, line_search_fn="strong_wolfe", tolerance_change=TOLERANCE
        )

        def closure() -> Tensor:
            solver.zero_grad()
            logits_SK = F.linear(x_SD, weight, bias)
            if train.are_tags:
                loss = F.binary_cross_entropy_with_logits(logits_SK, train.labels.double(), reduction="sum") / len(x_SD)
            else:
                loss = F.cross_entropy(logits_SK, train.labels)
            loss = loss + weight_decay / 2 * weight.square().sum()
            loss.backward()
            return loss

        solver.step(closure)
        return cls(mean, std, weight.detach().float(), bias.detach().float(), weight_decay)

    @classmethod
    def tuned(cls, train: Labeled, num_classes: int, decays: Sequence[float] = WEIGHT_DECAYS) -> "LinearProbe":
        """Fit to all training samples, with the weight decay that is most accurate on the last fifth of them."""
        cut = len(train.labels) - max(1, round(TUNED_ON * len(train.labels)))
        if cut < 1:
            raise MaskweaveError(f"a linear probe needs 2 examples or more, found {len(train.labels)}")
        first, last = Labeled(train.features[:cut], train.labels[:cut]), Labeled(*(t[cut:] for t in train))
        best, right, tried = decays[0], -1.0, None
        for decay in sorted(decays, reverse=True):  # from the strongest, which converges fastest, to the weakest
            tried = cls.fit(first, num_classes, decay, tried)
            accuracy = share_right(tried(last.features), last.labels)
            if accuracy > right:
                best, right = decay, accuracy
        return cls.fit(train, num_classes, best)

    def __call__(self, features_TD: Tensor) -> Tensor:
        """Returns (T, K) logits."""
        return F.linear((features_TD - self.mean) / self.std, self.weight, self.bias)


def share_right(scores_TK: Tensor, labels_T: Tensor) -> float:
    """Returns the accuracy of the class with the highest score, 0 to 1; for tags (T, K), of the decisions for scores above 0."""
    if labels_T.ndim == 2:
        return ((scores_TK > 0) == (labels_T > 0.5)).float().mean().item()
    return (scores_TK.argmax(dim=1) == labels_T).float().mean().item()


def probe(features: FeatureExtractor, examples: Parts, seed: int, **options: Any) -> list[EvaluationRow]:
    """Fits both probes to the training examples and scores them on the held-out examples, next to the most common class.

    Args:
        seed: of the data; recorded in the rows.
        options: as in `FeatureExtractor.stream`.
    """
    train = labeled_features(features, examples.train, title="training features", **options)
    held_out = labeled_features(features, examples.held_out, title="held-out features", **options)
    target = examples.train.target
    if not train.are_tags and (
        line := differing_shares(train.labels.tolist(), held_out.labels.tolist(), target.classes)
    ):
        print(line)
    num_classes = len(target.classes)
    linear = LinearProbe.tuned(train, num_classes)
    votes = nearest_neighbors(train, held_out.features, num_classes)
    if train.are_tags:
        logits = {f"{NEIGHBORS}-nearest-neighbor": votes.logit(1e-6), "linear-probe": linear(held_out.features)}
        return _tag_rows(features.encoder.names, target, logits, train, held_out, seed)
    results = {
        f"{NEIGHBORS}-nearest-neighbor accuracy": votes,
        "linear-probe accuracy": linear(held_out.features),
    }
    commonest = int(torch.bincount(train.labels).argmax())
    constant = float(np.mean(held_out.labels.numpy() == commonest))
    return [
        EvaluationRow(
            features.encoder.names, target.name, name, "higher", round(share_right(scores, held_out.labels), 5),
            round(constant, 5), float("nan"), len(held_out.labels), seed,
        )
        for name, scores in results.items()
    ]  # fmt: skip


def _tag_rows(
    names: list[str], target: Target, logits: Mapping[str, Tensor], train: Labeled, held_out: Labeled, seed: int
) -> list[EvaluationRow]:
    """The metrics of the tags' entry for each probe."""
    assert target.modality is not None

    def tags_of(flags_SK: Tensor) -> list[list[str]]:
        return [[name for name, flag in zip(target.classes, row, strict=True) if flag] for row in flags_SK.tolist()]

    truth, seen = tags_of(held_out.labels), tags_of(train.labels)
    rows = []
    for probe_name, logits_TK in logits.items():
        found = target.modality.value.answers(logits_TK)
        for metric in target.modality.scores():
            value = metric.score(found, truth)
            constant = metric.score([metric.best_constant(seen)] * len(truth), truth)
            rows.append(
                EvaluationRow(
                    names, target.name, f"{probe_name} {metric.name}", metric.better, round(value, 5), round(constant, 5),
                    float("nan"), len(truth), seed,
                )
            )  # fmt: skip
    return rows
