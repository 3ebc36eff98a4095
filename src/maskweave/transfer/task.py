"""The task of a transfer: the head and the loss for a target, what both learn from the training examples beforehand, and what a head's output means."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoder
from maskweave.models.heads import BoxHead, DenseHead
from maskweave.models.raw_features import RawFeatures
from maskweave.models.sample_heads import LEVELS, ClassHead, NumberHead
from maskweave.objectives.boxes import SetLoss
from maskweave.objectives.classes import ClassLoss, median_frequency_weights
from maskweave.objectives.regression import LEAST_LOG_STD, MOST_LOG_STD, NumberLoss, standardized_mean
from maskweave.objectives.transfer import TaskLoss
from maskweave.transfer.recipe import HeadSettings, LossSettings
from maskweave.transfer.target import Target, target_tensor
from maskweave.values.bins import fit_bins
from maskweave.values.detection import Detected
from maskweave.values.distribution import NumberDistribution
from maskweave.values.unknown import known_points

MOST_CHANNELS = 256
"""Inputs with more channels, such as feature maps, are not read by heads themselves."""
LEAST_STD = 1e-6
NEVER_KNOWN = 0.0


@dataclass(frozen=True)
class TargetFacts:
    """What a task takes from the values of its target in the training examples. Numbers are on the network's scale."""

    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    """Of each number; unknown ones are skipped. The deviation of a number that no example knows is `NEVER_KNOWN`; it is predicted as unknown."""
    edges: list[float] = field(default_factory=list)
    centers: list[float] = field(default_factory=list)
    """Bins of form `histogram`."""
    counts: list[int] = field(default_factory=list)
    """Samples or points of each class."""


def fit_facts(target: Target, seen: Sequence[Any], settings: HeadSettings) -> TargetFacts:
    """Returns the facts of the targets of training examples.

    Raises:
        MaskweaveError: bins for several numbers, or no target.
    """
    if not seen:
        raise MaskweaveError("no training example has a usable target; check the data and the target")
    if target.kind == "label":
        found = Counter(seen)
        return TargetFacts(counts=[found[i] for i in range(len(target.classes))])
    assert target.value is not None
    if target.kind == "numbers":
        assert target.value is not None
        numbers_SK = target_tensor(target, seen).flatten(1).double().numpy()
        if settings.form == "histogram":
            if numbers_SK.shape[1] > 1:
                raise MaskweaveError(
                    f"head.form is 'histogram', but {target.name!r} has {numbers_SK.shape[1]} numbers, and bins are for one; use 'gaussian' or 'quantile'"
                )
            edges, centers = fit_bins(numbers_SK[:, 0], settings.bins, "linear")
            bins = edges.tolist(), centers.tolist()
        else:
            bins = [], []
        known = ~np.isnan(numbers_SK)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, numbers_SK, 0).sum(axis=0) / count
        std = np.sqrt((np.where(known, numbers_SK - mean, 0) ** 2).sum(axis=0) / count)
        # A number that never changes is predicted by its mean; its errors keep their size.
        std = np.where(std > LEAST_STD * np.maximum(1e-12, np.abs(mean)), std, 1.0)
        if target.value.has_unknown:
            std = np.where(known.any(axis=0), std, NEVER_KNOWN)
        return TargetFacts(mean.tolist(), std.tolist(), *bins)
    if target.kind == "points" and target.value is not None and target.value.num_classes:
        ids = np.concatenate([np.asarray(v)[known_points(np.asarray(v))].ravel() for v in seen]).astype(np.int64)
        return TargetFacts(counts=np.bincount(ids, minlength=target.value.num_classes).tolist())
    return TargetFacts()


def readable_raw(catalog: Catalog, names: Sequence[str]) -> list[str]:
    """Returns the inputs whose values are numbers at points, which heads may read themselves."""
    return [
        name
        for name in names
        if catalog[name].kind in ("grid", "patches")
        and catalog[name].value.size
        and not catalog[name].value.num_classes
        and catalog[name].value.channels <= MOST_CHANNELS
    ]


def raw_features(catalog: Catalog, names: Sequence[str]) -> dict[str, RawFeatures]:
    """Returns the features of raw inputs for heads of a whole sample."""
    return {
        name: RawFeatures(catalog[name].value.channels, tuple(catalog[name].value.size), tuple(catalog[name].grid))
        for name in names
    }


def make_head(encoder: Encoder, target: Target, settings: HeadSettings, bins: int = 0) -> nn.Module:
    """Build the head for the target.

    Args:
        bins: fitted number of bins, for form `histogram`.

    Raises:
        MaskweaveError: a dense target without an input on a 2-D grid, or with inputs on different grids; or attention that does not fit.
    """
    raw = readable_raw(encoder.catalog, encoder.given)
    if target.kind in ("label", "sample", "numbers"):
        if settings.attention and encoder.width % settings.attention:
            raise MaskweaveError(f"head.attention {settings.attention} must divide the encoder's width {encoder.width}")
        if settings.statistics and not raw:
            raise MaskweaveError(
                f"head.statistics needs an input of numbers at points, found {', '.join(encoder.names)}; set it to false"
            )
        features = {} if settings.statistics is False else raw_features(encoder.catalog, raw)
        if target.kind != "numbers":
            return ClassHead(encoder.width, len(target.classes), settings.attention, features)
        assert target.value is not None
        count = int(np.prod(target.value.size)) * target.value.channels
        return NumberHead(encoder.width, count, settings.form, bins, settings.attention, features)
    if isinstance(target.value, Detected):
        if not settings.queries and not any(len(encoder.catalog[name].grid) == 2 for name in encoder.names):
            raise MaskweaveError(
                f"head.queries 0 needs an input on a 2-D grid, found {', '.join(encoder.names)}; set it to 1 or more"
            )
        return BoxHead(
            encoder.width,
            len(target.classes),
            settings.queries,
            settings.width,
            settings.depth,
            settings.heads,
            target.value.box_numbers,
            target.value.free_numbers,
        )
    assert target.modality is not None
    value = target.modality.value
    grids = {name: encoder.catalog[name].grid for name in encoder.names if len(encoder.catalog[name].grid) == 2}
    if len(set(grids.values())) != 1:
        found = ", ".join(f"{name} {'×'.join(map(str, grid))}" for name, grid in grids.items()) or "none"
        raise MaskweaveError(
            f"target {target.name!r}: needs inputs with the same 2-D grid, found {found}; choose other inputs"
        )
    channels = value.output_channels
    height, width = value.size
    same = {
        n: encoder.catalog[n].value.channels for n in raw if tuple(encoder.catalog[n].value.size) == (height, width)
    }
    if settings.skip and not same:
        raise MaskweaveError(
            f"head.skip needs an input of numbers at {height}×{width} points, the size of {target.name!r}; set it to false"
        )
    return DenseHead(
        list(grids),
        encoder.width,
        channels,
        (height, width),
        settings.width,
        settings.depth,
        settings.upsample,
        {} if settings.skip is False else same,
        settings.skip_width,
    )


def raw_names(head: nn.Module) -> list[str]:
    """Returns the inputs that a head reads itself."""
    return list(getattr(head, "raw", {}) or getattr(head, "skipped", {}))


def task_loss(target: Target, head: nn.Module, facts: TargetFacts, settings: LossSettings) -> TaskLoss:
    """Return the loss for the target.

    Raises:
        MaskweaveError: settings for classes, but the target has none; or another number of weights than of classes.
    """
    has_classes = target.kind == "label" or (
        target.kind == "points" and target.value is not None and target.value.num_classes > 0
    )
    if settings != LossSettings() and not has_classes:
        raise MaskweaveError(f"loss: its keys are for targets with classes, and {target.name!r} has none; remove them")
    if settings.dice and target.kind == "label":
        raise MaskweaveError("loss.dice is for classes at points; set it to 0")
    if has_classes:
        count = len(target.classes)
        if settings.class_weights == "auto":
            weights = median_frequency_weights(facts.counts)
        else:
            weights = list(settings.class_weights)
        if len(weights) not in (0, count):
            raise MaskweaveError(
                f"loss.class_weights: found {len(weights)} weights for {count} classes; give one for each of {', '.join(target.classes[:20])}"
            )
        return ClassLoss(weights, settings.focal, settings.dice)
    if isinstance(target.value, Detected):
        return SetLoss(target.value)
    if target.kind == "numbers":
        assert isinstance(head, NumberHead)
        return NumberLoss(head)
    assert target.value is not None
    return target.value.task_loss


def number_answers(target: Target, head: NumberHead, output_BKO: Tensor) -> list[Any]:
    """Returns the predicted values of the head's output; distributions, where a value is one number."""
    assert target.value is not None
    value, output_BKO = target.value, output_BKO.detach().to(head.mean.device, torch.float32)
    if value.number_scale is None:
        mean_BK = head.restore(standardized_mean(head, output_BKO))
        if head.form == "gaussian":
            std_BK = output_BKO[..., 1].double().clamp(LEAST_LOG_STD, MOST_LOG_STD).exp() * head.std
            if (found := value.gaussian_answers(mean_BK.cpu().numpy(), std_BK.cpu().numpy())) is not None:
                return found
        mean_BK = mean_BK.masked_fill(head.std == NEVER_KNOWN, torch.nan)
        shape = (value.channels, *value.size)
        return list(value.from_network(mean_BK.unflatten(1, shape).float()))
    output_BO = output_BKO[:, 0]
    match head.form:
        case "gaussian":
            mean = head.restore(output_BO[:, :1])[:, 0]
            std = output_BO[:, 1].double().clamp(LEAST_LOG_STD, MOST_LOG_STD).exp() * head.std[0]
            return [
                NumberDistribution.gaussian(m, s, *value.number_scale)
                for m, s in zip(mean.tolist(), std.tolist(), strict=True)
            ]
        case "quantile":
            restored = head.restore(output_BO).cpu().numpy()
            return [NumberDistribution.from_quantiles(LEVELS, q, *value.number_scale) for q in restored]
        case "histogram":
            edges, centers = head.bin_edges.cpu().numpy(), head.bin_centers.cpu().numpy()
            return [
                NumberDistribution.of_bins(edges, centers, p, *value.number_scale)
                for p in output_BO.double().softmax(dim=1).cpu().numpy()
            ]
