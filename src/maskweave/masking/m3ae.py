"""Batches for masked autoencoding: of every modality of a sample a random part is masked from the encoder.

M3AE (https://arxiv.org/abs/2205.14204), section 3. Samples may have any of the modalities; those that have the same ones stand in one group.
Everything is drawn from one generator, so that a batch is a pure function of its number.

Dimension letters: B samples, b those of a group, L places of a modality, C width of a raw row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maskweave.data.columns import Column
from maskweave.data.mixing import MixedTokens
from maskweave.data.order import Order
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import column_of
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer

ROUNDING = 1e-6
"""So that 10 tokens at a ratio of 0.9 leave 1, as they should, and not 10 · (1 − 0.9) = 0.99… rounded down."""


@dataclass(frozen=True)
class MaskRatio:
    """Share of a sample's tokens that is masked from the encoder, by kind."""

    patches: float = 0.75
    """Of raw values cut into patches."""
    sequence: float = 0.75
    """Of text and whatever else is written as text."""

    def __post_init__(self) -> None:
        for kind, ratio in self.__dict__.items():
            if not 0 <= ratio <= 1:
                raise MaskweaveError(f"mask_ratio.{kind} is {ratio}; expected a share from 0 to 1")


NOTHING = MaskRatio(0.0, 0.0)


@dataclass(frozen=True)
class MaskedTokens:
    """All tokens of one modality of some samples, and which of them are masked from the encoder (masked autoencoding).

    Dimension letters: L places, K places shown to the encoder, n masked tokens of all samples.
    """

    content: Tensor
    """(B, L) token ids, or (B, L, C) raw rows as the network takes them."""
    masked: Tensor
    """(B, L) bool, True where the encoder sees nothing."""
    present: Tensor | None
    """(B, L) bool, False at padding; None where there is no padding."""
    kept: Tensor
    """(B, K) places that go through the encoder, ascending; a sample that shows fewer than K is filled up with masked places."""
    visible: Tensor | None
    """(B, K) bool, False at fillings and padding, which nothing attends to; None where there are none."""
    targets: Tensor
    """(n,) flat places b·L + place that are masked and no padding: what is to be restored."""

    @classmethod
    def of(cls, content: Tensor, masked: Tensor, present: Tensor | None = None) -> Self:
        """Work out here, before anything is on the device, what the model would have to wait for there."""
        present = None if present is None or bool(present.all()) else present
        shown = ~masked if present is None else ~masked & present
        kept = masked.byte().argsort(dim=1, stable=True)[:, : int((~masked).sum(dim=1).max())]
        visible = shown.gather(1, kept)
        targets = (masked if present is None else masked & present).flatten().nonzero()[:, 0]
        return cls(content, masked, present, kept, None if bool(visible.all()) else visible, targets)

    def to(self, device: torch.device | str) -> Self:
        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=True)

        return dataclasses.replace(
            self,
            content=move(self.content),
            masked=move(self.masked),
            present=None if self.present is None else move(self.present),
            kept=move(self.kept),
            visible=None if self.visible is None else move(self.visible),
            targets=move(self.targets),
        )


@dataclass(frozen=True)
class MaskedGroup:
    """Samples of a batch that have the same modalities."""

    samples: Tensor
    """(b,) their places in the batch, on the CPU."""
    parts: dict[str, MaskedTokens]


@dataclass(frozen=True)
class MaskedBatch:
    """A batch for masked autoencoding, in groups of equal modalities: what a sample lacks takes no room and no time."""

    groups: list[MaskedGroup]

    def to(self, device: torch.device | str) -> Self:
        return type(self)([MaskedGroup(g.samples, {k: t.to(device) for k, t in g.parts.items()}) for g in self.groups])

    @property
    def names(self) -> list[str]:
        return sorted({name for group in self.groups for name in group.parts})

    def __len__(self) -> int:
        return sum(len(group.samples) for group in self.groups)


class MaskedBatches:
    """`batches[i]`: the i-th batch, a pure function of seed and i.

    Args:
        data: token shards; modalities of kind patches and sequence.
        unpaired: share of samples whose modalities never appear together: each time one of them is shown alone.
        shuffle: otherwise samples come in order and every pass hides the same tokens, for validation.
    """

    def __init__(
        self,
        data: TokenData | MixedTokens,
        ratio: MaskRatio,
        batch_size: int,
        seed: int = 0,
        unpaired: float = 0.0,
        shuffle: bool = True,
    ):
        self.data, self.ratio, self.seed = data, ratio, seed
        self.order = Order(data.counts, batch_size, seed, shuffle, data.weights)
        # Of the sample, not of the batch: a pair that is unpaired stays unpaired for the whole run.
        self.unpaired = np.random.default_rng([seed, 2]).random(len(data)) < unpaired

    def __len__(self) -> int:
        """Batches of one pass over the data."""
        return len(self.order)

    def __getitem__(self, i: int) -> MaskedBatch:
        indices = self.order[i]
        rng = np.random.default_rng([self.seed, 1, i])
        columns = separate(self.data.columns(indices), self.unpaired[indices], rng)
        return mask_columns(columns, self.data.catalog, self.ratio, rng)


def separate(columns: Mapping[str, Column], unpaired: np.ndarray, rng: np.random.Generator) -> dict[str, Column]:
    """Leave one modality, drawn at random among those present, of the samples where `unpaired` (B,) is True."""
    there_MB = np.stack([column.present for column in columns.values()])
    chosen_B = np.where(there_MB, rng.random(there_MB.shape), -1).argmax(axis=0)
    return {
        name: column._replace(present=column.present & (~unpaired | (chosen_B == m)))
        for m, (name, column) in enumerate(columns.items())
    }


def mask_values(
    samples: Sequence[Mapping[str, Any]],
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    ratio: MaskRatio = NOTHING,
    seed: int = 0,
) -> MaskedBatch:
    """A batch out of values, by default with nothing masked, for features; `MaskedGroup.samples` tells which sample each row is.

    Args:
        samples: value by modality; what is absent or None is missing.
        tokenizers: of the sequences.

    Raises:
        BadSample: a value does not fit its entry.
    """
    columns = {
        name: column_of(m, [sample.get(m.reads) for sample in samples], tokenizers.get(name))
        for name, m in catalog.items()
    }
    return mask_columns(columns, catalog, ratio, np.random.default_rng(seed))


def mask_columns(
    columns: Mapping[str, Column], catalog: Catalog, ratio: MaskRatio, rng: np.random.Generator
) -> MaskedBatch:
    """Hide a random part of what each sample has. Of n tokens int(n · (1 − ratio)) are left; padding is always masked.

    Samples that have nothing are left out.
    """
    names = [name for name in catalog if name in columns]
    there_BM = np.stack([columns[name].present & (_length(columns[name]) > 0) for name in names], axis=1)
    groups = []
    for held_M in np.unique(there_BM[there_BM.any(axis=1)], axis=0)[::-1]:  # the samples that have most come first
        samples = np.flatnonzero((there_BM == held_M).all(axis=1))
        parts = {
            name: _masked(catalog[name], columns[name].keep(samples), getattr(ratio, catalog[name].kind), rng)
            for name, held in zip(names, held_M, strict=True)
            if held
        }
        groups.append(MaskedGroup(torch.from_numpy(samples), parts))
    return MaskedBatch(groups)


def _length(column: Column) -> np.ndarray:
    """(B,) tokens of each sample."""
    if column.length is not None:
        return column.length
    assert column.rows is not None
    return np.full(len(column.rows), column.rows.shape[1])


def _masked(modality: Modality, column: Column, ratio: float, rng: np.random.Generator) -> MaskedTokens:
    length_b = _length(column)
    L = int(length_b.max())  # texts are padded to the longest of the group
    present_bL = np.arange(L) < length_b[:, None]
    keys_bL = rng.random((len(length_b), L), dtype=np.float32)
    keys_bL[~present_bL] = 2.0
    rank_bL = keys_bL.argsort(axis=1).argsort(axis=1)
    masked_bL = rank_bL >= np.floor(length_b * (1 - ratio) + ROUNDING)[:, None]
    if column.rows is not None:
        content = torch.from_numpy(modality.value.normalize_rows(column.rows))
    else:
        assert column.ids is not None
        content = torch.from_numpy(column.ids[:, :L].astype(np.int64))
    return MaskedTokens.of(content, torch.from_numpy(masked_bL), torch.from_numpy(present_bL))
