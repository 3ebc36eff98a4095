"""Simple predictions that a model should beat: ridge, logistic regression and the nearest neighbor, fitted to training samples in seconds.

Values at points are predicted from the inputs at the same point and its place, if an input has points, and otherwise from features of the whole inputs; all
else from these features: means and deviations of channels, means of parts, shares of classes, counts of tokens.

Dimension letters: S samples, N points, F features, C channels, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.data.tokenizing import column_of
from maskweave.masking.inputs import raw_inputs
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.raw_features import RawFeatures, raw_blocks
from maskweave.nn.logistic import fit_logistic
from maskweave.nn.ridge import Ridge, feature_scale
from maskweave.tokenizers.base import Tokenizer
from maskweave.training.learned_scaling import with_values
from maskweave.values.base import ValueType
from maskweave.values.distribution import NumberDistribution

Samples = Sequence[Mapping[str, Any]]
NEAREST, RIDGE, LOGISTIC = "nearest neighbor", "ridge", "logistic regression"
NAMES = (NEAREST, RIDGE, LOGISTIC)
FEWEST = 10
"""Training samples that a reference needs."""
MOST_POINTS = {RIDGE: 20_000, LOGISTIC: 4_000}
"""Most points of all training samples that are fitted."""
MOST_CHANNELS = 64
"""Most channels or classes of an input whose points are used."""
MOST_NUMBERS = 20_000
"""Most numbers of a value that are predicted from features of the whole inputs."""
MOST_IDS = 500
"""Most token ids of an input that are counted, the most frequent ones."""
PARTS = 8
"""Most parts along an axis whose means are features."""
WEIGHT_DECAYS = (0.1, 0.01, 0.001)
STEPS, TOLERANCE = 100, 1e-7
"""Of the logistic regression: far less exact than a probe."""


class Reference(NamedTuple):
    """A simple prediction."""

    name: str
    predict: Callable[[Samples], list[Any]]
    """Maps samples that have all inputs to predicted values."""


def simple_references(
    catalog: Catalog, tokenizers: Mapping[str, Tokenizer], inputs: Sequence[str], target: str, training: Samples
) -> list[Reference]:
    """Fits the references of one path.

    Args:
        target: entry of the predicted values.
        training: samples with values by source; those that lack an input or the target are left out.

    Returns:
        Those that are possible; none with fewer than `FEWEST` samples, or without inputs.
    """
    catalog = _with_learned_scales(catalog, tokenizers)
    entry = catalog[target]
    reads = [catalog[name].reads for name in inputs]
    known = [s for s in training if all(s.get(name) is not None for name in (*reads, entry.name))]
    if len(known) < FEWEST or not inputs:
        return []
    features = _Features.fit(catalog, tokenizers, inputs, known)
    truth = [s[entry.name] for s in known]
    linear = _pointwise(catalog, inputs, entry, known)
    if features is None:
        return [linear] if linear else []
    x_SF = features(known)
    return [
        Reference(NEAREST, _Nearest(features, x_SF, truth)),
        *filter(None, [linear or _of_features(features, x_SF, entry.value, truth)]),
    ]


def _with_learned_scales(catalog: Catalog, tokenizers: Mapping[str, Tokenizer]) -> Catalog:
    """Returns the entries with the scaling that their tokenizers have learned."""
    own = {name: getattr(tokenizer, "modality", None) for name, tokenizer in tokenizers.items()}
    learned = {name: m.value for name, m in own.items() if m is not None and getattr(m.value, "fitted", None)}
    return with_values(catalog, {name: catalog[name].value.fitted_like(value) for name, value in learned.items()})


# Features of the whole inputs.


@dataclass(frozen=True)
class _Features:
    """Standardized features of the inputs of a sample."""

    blocks: list[Callable[[Samples], Tensor]]
    mean_F: Tensor
    std_F: Tensor

    @classmethod
    def fit(
        cls, catalog: Catalog, tokenizers: Mapping[str, Tokenizer], inputs: Sequence[str], known: Samples
    ) -> "_Features | None":
        blocks = [_block(catalog, tokenizers.get(name), catalog[name], known) for name in inputs]
        found = [block for block in blocks if block is not None]
        if not found:
            return None
        x_SF = torch.cat([block(known) for block in found], dim=1).double()
        mean_F = x_SF.nanmean(dim=0).nan_to_num()
        return cls(found, *feature_scale(torch.where(x_SF.isnan(), mean_F, x_SF)))

    def __call__(self, samples: Samples) -> Tensor:
        x_SF = torch.cat([block(samples) for block in self.blocks], dim=1).double()
        return ((x_SF - self.mean_F) / self.std_F).nan_to_num()


def _block(
    catalog: Catalog, tokenizer: Tokenizer | None, entry: Modality, known: Samples
) -> Callable[[Samples], Tensor] | None:
    """Returns what computes the features of one input; None for inputs without any."""
    value, name = entry.value, entry.reads
    if value.head == "numbers":
        return lambda samples: value.to_network([s[name] for s in samples]).flatten(1).double()
    if value.size and value.num_classes:
        return lambda samples: torch.stack([_shares(value, s[name]) for s in samples])
    if value.size and entry.kind in ("grid", "patches"):
        parts = tuple(min(n, PARTS) for n in entry.grid) if len(entry.grid) == len(value.size) else ()
        raw = {entry.name: RawFeatures(value.channels, tuple(value.size), parts)}
        return lambda samples: torch.cat(raw_blocks(raw, raw_inputs(samples, catalog, list(raw))), dim=1)
    if not entry.has_tokens or tokenizer is None:
        return None
    counts = lambda samples: _counts(entry, tokenizer, samples, catalog.vocabulary_size(entry.name))  # noqa: E731
    often = counts(known).sum(dim=0).argsort(descending=True, stable=True)[:MOST_IDS]
    return lambda samples: counts(samples)[:, often]


def _shares(value: ValueType, ids: Any) -> Tensor:
    """Returns (K,) the share of each class among the known points."""
    found = value.to_network([ids]).flatten()
    counts = torch.bincount(found[found >= 0], minlength=value.num_classes).float()
    return counts / counts.sum().clamp_min(1)


def _counts(entry: Modality, tokenizer: Tokenizer, samples: Samples, size: int) -> Tensor:
    """Returns (S, ids) how often each token id occurs."""
    column = column_of(entry, [s[entry.reads] for s in samples], tokenizer)
    assert column.ids is not None
    used = column.tokens(column.ids.shape[1])
    return torch.from_numpy(
        np.stack([np.bincount(ids[some], minlength=size) for ids, some in zip(column.ids, used, strict=True)])
    ).float()


@dataclass(frozen=True)
class _Nearest:
    features: _Features
    known_SF: Tensor
    truth: list[Any]

    def __call__(self, samples: Samples) -> list[Any]:
        return [self.truth[i] for i in torch.cdist(self.features(samples), self.known_SF).argmin(dim=1).tolist()]


def _of_features(features: _Features, x_SF: Tensor, value: ValueType, truth: list[Any]) -> Reference | None:
    """Ridge or logistic regression on features of the whole inputs."""
    if value.head in ("label", "sample"):
        is_label = value.head == "label"
        y = (
            torch.tensor([value.classes.index(value.label_of(t, "")) for t in truth])
            if is_label
            else value.to_network(truth)
        )
        fitted = _logistic(x_SF, y, len(value.classes))

        def classes(samples: Samples) -> list[Any]:
            logits_SK = fitted(features(samples))
            if not is_label:
                return value.answers(logits_SK)
            return [value.classes[k] for k in logits_SK.argmax(dim=1).tolist()]

        return Reference(LOGISTIC, classes)
    if value.head not in ("numbers", "points") or value.num_classes:
        return None
    y_SK = value.to_network(truth)
    shape = y_SK.shape[1:]
    if y_SK[0].numel() > MOST_NUMBERS:
        return None
    ridge = Ridge.fit(x_SF, y_SK.flatten(1).double(), np.arange(len(truth)))

    def numbers(samples: Samples) -> list[Any]:
        mean_SK = ridge(features(samples))
        if value.number_scale is not None:
            error = max(float(ridge.error[0]), 1e-12)
            return [NumberDistribution.gaussian(m, error, *value.number_scale) for m in mean_SK[:, 0].tolist()]
        return list(value.from_network(mean_SK.unflatten(1, shape).float()))

    return Reference(RIDGE, numbers)


def _logistic(x_SF: Tensor, labels: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    """Fits all samples with the weight decay of the smallest error on the last fifth."""
    cut = len(x_SF) - max(1, len(x_SF) // 5)

    def fit(x: Tensor, y: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        return fit_logistic(x, y, x.new_zeros(classes, x.shape[1]), x.new_zeros(classes), decay, STEPS, TOLERANCE)

    def right(decay: float) -> float:
        logits = F.linear(x_SF[cut:], *fit(x_SF[:cut], labels[:cut], decay))
        found = (logits > 0) == (labels[cut:] > 0.5) if labels.ndim == 2 else logits.argmax(dim=1) == labels[cut:]
        return found.double().mean().item()

    weight, bias = fit(x_SF, labels, max(WEIGHT_DECAYS, key=right))
    return lambda x: F.linear(x, weight, bias)


# Values at points.


def _pointwise(catalog: Catalog, inputs: Sequence[str], entry: Modality, known: Samples) -> Reference | None:
    """Ridge or logistic regression of each point on the inputs at that point, and on its place; None without points."""
    value = entry.value
    used = [name for name in inputs if _has_points(catalog[name], len(value.size))]
    if value.head != "points" or not used:
        return None
    name = LOGISTIC if value.num_classes else RIDGE
    rng = np.random.default_rng(0)
    each = max(1, MOST_POINTS[name] // len(known))
    xs, ys = list[Tensor](), list[Tensor]()
    for sample in known:
        y_NC = value.to_network([sample[entry.name]])
        y_NC = y_NC.flatten()[:, None] if value.num_classes else y_NC.flatten(2)[0].T
        sure = (y_NC[:, 0] >= 0) if value.num_classes else ~y_NC.isnan().any(dim=1)
        points = rng.permutation(torch.nonzero(sure)[:, 0].numpy())[:each]
        xs.append(_points(catalog, used, value, [sample])[0][points])
        ys.append(y_NC[points])
    x_NF, y_NC = torch.cat(xs).double(), torch.cat(ys)
    folds = np.repeat(np.arange(len(xs)) % 5, [len(x) for x in xs])
    if not len(x_NF):
        return None
    mean_F, std_F = feature_scale(x_NF)
    if value.num_classes:
        order = torch.from_numpy(rng.permutation(len(x_NF)))
        fitted = _logistic(((x_NF - mean_F) / std_F)[order], y_NC[order, 0], value.num_classes)
        answer = lambda x: fitted((x - mean_F) / std_F)  # noqa: E731
    else:
        answer = Ridge.fit(x_NF, y_NC.double(), folds)

    def predict(samples: Samples) -> list[Any]:
        found = list[Any]()
        for sample in samples:  # one at a time: large pictures have many points
            output_NC = answer(_points(catalog, used, value, [sample])[0].double())
            found += list(value.from_network(output_NC.T.reshape(1, -1, *value.size).float()))
        return found

    return Reference(name, predict)


def _has_points(entry: Modality, axes: int) -> bool:
    count = entry.value.num_classes or entry.value.channels
    return entry.kind in ("grid", "patches") and len(entry.value.size) == axes > 0 and count <= MOST_CHANNELS


def _points(catalog: Catalog, names: Sequence[str], value: ValueType, samples: Samples) -> Tensor:
    """Returns (S, N, F) the inputs at each point of a value and the place of the point; 0 where unknown."""
    planes = []
    for name in names:
        entry = catalog[name]
        if entry.value.num_classes:
            ids = entry.value.to_network([s[entry.reads] for s in samples])
            plane = F.one_hot(ids.clamp_min(0), entry.value.num_classes).movedim(-1, 1) * (ids >= 0)[:, None]
        else:
            plane = raw_inputs(samples, catalog, [name])[name].nan_to_num()
        planes.append(F.interpolate(plane.float(), tuple(value.size), mode="nearest").flatten(2))
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in value.size), indexing="ij")
    places = torch.stack([*axes, *(axis.square() for axis in axes)]).flatten(1)
    return torch.cat([*planes, places.expand(len(samples), -1, -1)], dim=1).transpose(1, 2)
