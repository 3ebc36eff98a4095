"""Starts a head from a linear model that is fitted to the frozen features, and for dense targets to the points of the inputs.

Linear probing, then fine-tuning: https://arxiv.org/abs/2202.10054. Few samples suffice for a linear model with cross-validated strength; training then improves on it.

Dimension letters: S samples or points, F features, K classes or numbers, B samples, C channels, H and W rows and columns.
"""

import math
from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskweave.generate.engine import bulk_precision
from maskweave.masking.inputs import TransferBatch
from maskweave.models.encoder import Encoded
from maskweave.models.heads import BoxHead, DenseHead
from maskweave.models.sample_heads import LEVELS, NumberHead, PooledHead, average_for_unknown
from maskweave.nn.ridge import Ridge, feature_scale
from maskweave.objectives.regression import bin_of
from maskweave.objectives.transfer import TransferObjective
from maskweave.ranks import WHOLE, JobPart, own_part, rank
from maskweave.tokenizers.base import Tokenizer
from maskweave.training.distributed import connect
from maskweave.training.gathering import gather
from maskweave.transfer.blocks import block_scales
from maskweave.transfer.data import Examples, TransferBatches
from maskweave.transfer.encoding import encoded_for_head
from maskweave.transfer.probe import MOST_WORK, Labeled, LinearProbe
from maskweave.transfer.task import raw_names

MOST_SAMPLES = 2000
LEAST, LEAST_PER_CLASS = 10, 5
"""Samples that a linear model needs, and samples per class that a logistic regression needs."""
MOST_POINTS = 30_000
STANDARDIZED_BY = 256
"""Examples by which the tokens for a head of boxes are standardized."""
BATCH = 32
POINT_DECAYS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Weight decays of logistic regressions of points, which are many more than features: one fold suffices to choose."""
LEAST_SPREAD = 0.1
"""Features that vary less than this share of the typical one are not scaled up further: in fine-tuning they change by more than among the samples."""


class Batch(NamedTuple):
    number: int
    encoded: Encoded
    batch: TransferBatch
    folds: np.ndarray


@torch.no_grad()
def start_from_linear(
    objective: TransferObjective,
    examples: Examples,
    tokenizers: Mapping[str, Tokenizer],
    device: torch.device | str = "cpu",
) -> str:
    """Fits the linear parts of a head of a new transfer, in place. Returns a sentence about it; empty if the head has none, or a dense one too few points.
    Launched processes share the computation of the features; the first one fits the head and returns the sentence.

    With too few examples for a linear model of a whole sample, its features are only standardized; so are the tokens for boxes.
    """
    objective.eval()
    head, sentence = objective.head, ""
    if isinstance(head, PooledHead):
        sentence = _start_pooled(objective, head, examples, tokenizers, device)
    elif isinstance(head, DenseHead) and head.skip is not None and not rank():
        sentence = _start_points(objective, head, examples, tokenizers, device)
    elif isinstance(head, BoxHead) and not rank():
        sentence = _start_boxes(objective, head, examples, tokenizers, device)
    connect(str(device)).broadcast(head.state_dict().values())
    return sentence


def _batches(
    objective: TransferObjective,
    examples: Examples,
    tokenizers: Mapping[str, Tokenizer],
    device: torch.device | str,
    encode: bool,
    part: JobPart = WHOLE,
) -> Iterator[Batch]:
    names, where = objective.encoder.names, torch.device(device)
    batches = TransferBatches(
        examples, tokenizers, names, min(BATCH, len(examples)), shuffle=False, raw=raw_names(objective.head)
    )
    for i in part.mine(range(len(batches))):
        batch = batches[i].to(device)
        encoded = Encoded(batch.target, None, {}, {})
        if encode:
            encoded = encoded_for_head(objective.encoder, batch.inputs, where, bulk_precision(where))
        yield Batch(i, encoded._replace(raw=batch.raw), batch, examples.folds(batches.order[i].tolist()))


def _start_boxes(
    objective: TransferObjective,
    head: BoxHead,
    examples: Examples,
    tokenizers: Mapping[str, Tokenizer],
    device: torch.device | str,
) -> str:
    """Standardizes the tokens by the first layer of the head: those of one modality often differ little from their mean, and much from those of others."""
    chosen = examples.some(STANDARDIZED_BY)
    found: dict[str, list[Tensor]] = {}
    for _, encoded, *_ in _batches(objective, chosen, tokenizers, device, True):
        for name, part in encoded.slices.items():
            present = True if encoded.present is None else encoded.present[:, part]
            found.setdefault(name, []).append(encoded.tokens[:, part][present].flatten(0, -2).double())
    tokens = [torch.cat(parts) for parts in found.values()]
    mean_D = torch.stack([x.mean(dim=0) for x in tokens]).mean(dim=0)
    std_D = torch.stack([x.var(dim=0, correction=0) for x in tokens]).mean(dim=0).sqrt()
    weight = head.project.weight.double() / std_D.clamp(min=LEAST_SPREAD * std_D.median() + 1e-12)
    head.project.bias.sub_((weight @ mean_D).to(head.project.bias))
    head.project.weight.copy_(weight)
    return f"the head starts at random, with tokens standardized by {len(chosen)} examples"


def _start_pooled(
    objective: TransferObjective,
    head: PooledHead,
    examples: Examples,
    tokenizers: Mapping[str, Tokenizer],
    device: torch.device | str,
) -> str:
    classes = len(examples.target.classes) if not isinstance(head, NumberHead) else 0
    if isinstance(head, NumberHead) and head.form == "histogram":
        classes = head.outputs
    count = min(MOST_SAMPLES, int(MOST_WORK / (head.width * max(1, classes))))
    needed = max(LEAST, LEAST_PER_CLASS * classes)
    is_fitted = min(count, len(examples)) >= needed  # the regression is of this many examples
    chosen = examples.some(count if is_fitted else MOST_SAMPLES)
    mine: dict[str, Tensor] = {}
    for number, encoded, batch, fold in _batches(objective, chosen, tokenizers, device, True, own_part()):
        mine[f"{number:09d} features"] = head.features(encoded).float()
        mine[f"{number:09d} targets"] = batch.target
        mine[f"{number:09d} folds"] = torch.from_numpy(fold)
    gathered = gather(device, None, mine)
    if not gathered:
        return ""
    found = {key: tensor for one in gathered for key, tensor in one.tensors.items()}
    features, targets, folds = (
        torch.cat([found[key] for key in sorted(found) if key.endswith(kind)])
        for kind in ("features", "targets", "folds")
    )
    x_SF, y, fold_S = average_for_unknown(features), targets, folds.numpy()
    head.cpu()
    if not is_fitted:
        _standardize(head, *feature_scale(x_SF))
        head.to(device)
        bound = f", but takes at most {count} for {head.width} features and {classes} classes"
        return f"the head starts at random, with features standardized by {len(x_SF)} examples; a linear model needs {needed} examples{bound if len(examples) >= needed else ''}"
    if isinstance(head, NumberHead):
        sentence = _start_numbers(head, x_SF, y, fold_S)
    else:
        with torch.enable_grad():
            probe = LinearProbe.tuned(Labeled(x_SF, y, fold_S, blocks=[*head.blocks.values()]), classes)
        _set_linear(head, probe.mean, probe.std, probe.weight, probe.bias)
        sentence = f"logistic regression, weight decay {probe.weight_decay:g}"
    head.to(device)
    used = [
        name
        for name, weight in zip(head.blocks, head.out.weight.split([*head.blocks.values()], dim=1), strict=True)
        if bool(weight.any())
    ]
    return f"the head starts from {sentence}, fitted to {len(x_SF)} examples; features in use: {', '.join(used)}"


def _start_numbers(head: NumberHead, x_SF: Tensor, y: Tensor, folds: np.ndarray) -> str:
    wanted_SK = head.standardize(y)
    if head.form == "histogram":
        labels = bin_of(head, y.flatten(1)[:, 0])
        with torch.enable_grad():
            probe = LinearProbe.tuned(Labeled(x_SF, labels, folds, blocks=[*head.blocks.values()]), head.outputs)
        _set_linear(head, probe.mean, probe.std, probe.weight, probe.bias)
        return f"logistic regression of the bins, weight decay {probe.weight_decay:g}"
    ridge = Ridge.fit(x_SF, wanted_SK, folds, scale=block_scales(x_SF, wanted_SK, folds, [*head.blocks.values()]))
    spread_K = ridge.error.clamp_min(1e-3)
    weight_KOF = torch.zeros(head.numbers, head.outputs, head.width, dtype=torch.float64)
    bias_KO = torch.zeros(head.numbers, head.outputs, dtype=torch.float64)
    if head.form == "gaussian":
        weight_KOF[:, 0], bias_KO[:, 0], bias_KO[:, 1] = ridge.weight, ridge.bias, spread_K.log()
    else:
        z_Q = torch.tensor([NormalDist().inv_cdf(level) for level in LEVELS], dtype=torch.float64)
        weight_KOF += ridge.weight[:, None]
        bias_KO += ridge.bias[:, None] + spread_K[:, None] * z_Q
    _set_linear(head, ridge.mean, ridge.std, weight_KOF.flatten(0, 1), bias_KO.flatten())
    explained = 1 - float(ridge.error.square().mean() / wanted_SK.nan_to_num().square().mean().clamp_min(1e-12))
    return f"ridge regression (strength {ridge.strength:.3g}, R² {explained:.3f} in cross-validation)"


def _set_linear(head: PooledHead, mean_F: Tensor, std_F: Tensor, weight_OF: Tensor, bias_O: Tensor) -> None:
    """Sets the linear layer, whose weights are given for standardized features."""
    _standardize(head, mean_F, std_F)
    head.out.weight.copy_(weight_OF * (head.feature_std / std_F.float()))
    assert head.out.bias is not None
    head.out.bias.copy_(bias_O)


def _standardize(head: PooledHead, mean_F: Tensor, std_F: Tensor) -> None:
    """Standardizes the features and divides them by √F, so that a step of Adam changes all weights without changing the output much; those of the encoder
    that hardly vary keep a part of their scale."""
    std_F = std_F.float()
    encoder = head.blocks["encoder"]
    floor = LEAST_SPREAD * float(std_F[:encoder].square().mean().sqrt())
    head.feature_mean.copy_(mean_F)
    head.feature_std.copy_(torch.cat([std_F[:encoder].clamp_min(floor), std_F[encoder:]]) * math.sqrt(head.width))


def _start_points(
    objective: TransferObjective,
    head: DenseHead,
    examples: Examples,
    tokenizers: Mapping[str, Tokenizer],
    device: torch.device | str,
) -> str:
    """Fits the linear layer on the points of the inputs; all else starts at 0."""
    assert head.skip is not None
    skip = head.skip
    chosen = examples.some(min(MOST_SAMPLES // 4, len(examples)))
    each = math.ceil(MOST_POINTS / len(chosen))
    classes = examples.target.value.num_classes if examples.target.value is not None else 0
    points, targets, folds, rng = [], [], [], np.random.default_rng(0)
    for _, _, batch, fold in _batches(objective, chosen, tokenizers, device, encode=False):
        x_BCP = torch.cat([batch.raw[name] for name in skip.inputs], dim=1).flatten(2).cpu()
        y = batch.target.cpu()
        y_BKP = y.flatten(1)[:, None].double() if classes else y.flatten(2).double()
        unknown = y_BKP < 0 if classes else y_BKP.isnan()
        for x_CP, y_KP, unknown_KP, f in zip(x_BCP, y_BKP, unknown, fold.tolist(), strict=True):
            usable = torch.nonzero(~unknown_KP.all(dim=0))[:, 0].numpy()
            some = rng.choice(usable, min(each, len(usable)), replace=False)
            points.append(x_CP[:, some].T)
            targets.append(y_KP[:, some].T)
            folds.append(np.full(len(some), f))
    x_SC, y_SK, fold_S = torch.cat(points), torch.cat(targets), np.concatenate(folds)
    if len(x_SC) < 10 * (1 + classes):
        return ""
    known = ~x_SC.isnan()
    count = known.sum(dim=0).clamp_min(1)
    mean_C = x_SC.nan_to_num().sum(dim=0) / count
    std_C = (((x_SC.nan_to_num() - mean_C) * known).square().sum(dim=0) / count).sqrt()
    skip.raw_mean.copy_(mean_C)
    skip.raw_std.copy_(torch.where(std_C > 1e-6, std_C, 1.0))
    x_S2C = skip.standardized(x_SC.to(device)[..., None, None])[..., 0, 0].cpu()
    if classes:
        with torch.enable_grad():
            of_points = Labeled(x_S2C, y_SK[:, 0].long(), fold_S)
            probe = LinearProbe.tuned(of_points, classes, POINT_DECAYS, folds=1)
        mean, std, weight, bias = probe.mean, probe.std, probe.weight.double(), probe.bias.double()
        sentence = f"logistic regression of each point, weight decay {probe.weight_decay:g}"
    else:
        ridge = Ridge.fit(x_S2C, y_SK, fold_S)
        mean, std, weight, bias = ridge.mean, ridge.std, ridge.weight, ridge.bias
        sentence = f"ridge regression of each point, strength {ridge.strength:.3g}"
    weight_KC = weight / std
    skip.linear.weight.copy_(weight_KC[..., None, None])
    assert skip.linear.bias is not None
    skip.linear.bias.copy_(bias - weight_KC @ mean.double())
    for layer in (head.out, skip.out):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    return f"the head starts from {sentence}, fitted to {len(x_SC):,} points of {len(chosen)} examples"
