"""Batches for masked autoencoding: a random part of each modality of a sample is masked from the encoder.

M3AE (https://arxiv.org/abs/2205.14204), section 3. Samples may have any of the modalities; samples with the same modalities form a group.
What a sample draws depends on its own random numbers only (`masking.random`), so a batch is a pure function of its number.

Dimension letters: B samples, b samples of a group, L positions of a modality, C width of a raw row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from maskweave.masking.random import SampleRandom
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer

ON_CPU = {"device": "cpu"}
"""Metadata of fields that do not move to a GPU with the rest of a batch (`training.one_copy`)."""
ROUNDING = 1e-6
"""Added before rounding down: with 10 tokens and a ratio of 0.9, 10 · (1 − 0.9) = 0.99… must give 1 token, not 0."""


@dataclass(frozen=True)
class MaskRatio:
    """Share of a sample's tokens that is masked from the encoder, by kind."""

    patches: float = 0.75
    """For raw values cut into patches."""
    sequence: float = 0.75
    """For text and other values encoded as text."""

    def __post_init__(self) -> None:
        for kind, ratio in self.__dict__.items():
            if not 0 <= ratio <= 1:
                raise MaskweaveError(f"mask_ratio.{kind} is {ratio}; expected a share from 0 to 1")


NOTHING = MaskRatio(0.0, 0.0)


@dataclass(frozen=True)
class MaskedTokens:
    """All tokens of one modality for a group of samples, and which of them are masked from the encoder (masked autoencoding).

    Dimension letters: B samples, L positions, K positions visible to the encoder, n masked tokens of all samples.
    """

    content: Tensor
    """(B, L) token ids, or (B, L, C) raw rows as network input."""
    masked: Tensor
    """(B, L) bool, True for tokens that the encoder does not see."""
    present: Tensor | None
    """(B, L) bool, False at padding; None if there is no padding."""
    kept: Tensor
    """(B, K) positions that go through the encoder, ascending; a sample with fewer than K visible tokens is filled up with masked positions."""
    visible: Tensor | None
    """(B, K) bool, False at filled-up positions and padding, which no token attends to; None if there are none."""
    targets: Tensor
    """(n,) flat positions b·L + position of the tokens to reconstruct: masked and not padding."""

    @classmethod
    def of(cls, content: Tensor, masked: Tensor, present: Tensor | None = None) -> Self:
        """Build the tokens and their indices, computed on the host to avoid device syncs."""
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

    samples: Tensor = field(metadata=ON_CPU)
    """(b,) indices of the samples in the batch, on the CPU."""
    parts: dict[str, MaskedTokens]
    numbers: Tensor | None = field(metadata=ON_CPU)
    """(b,) numbers of the samples in the data, on the CPU: a sample that is in a batch twice has one number. None: not known."""


@dataclass(frozen=True)
class MaskedBatch:
    """A batch for masked autoencoding, in groups with the same modalities. Missing modalities cost no memory and no time."""

    groups: list[MaskedGroup]

    def to(self, device: torch.device | str) -> Self:
        return type(self)(
            [dataclasses.replace(g, parts={k: t.to(device) for k, t in g.parts.items()}) for g in self.groups]
        )

    @property
    def names(self) -> list[str]:
        return sorted({name for group in self.groups for name in group.parts})

    def __len__(self) -> int:
        return sum(len(group.samples) for group in self.groups)


class MaskedBatches:
    """`batches[i]` is the i-th batch, a pure function of seed and i. What a sample draws depends on its place i · batch_size + b alone.

    Args:
        data: token shards; modalities of kind patches and sequence.
        unpaired: share of samples whose modalities never appear together: each time, one of them is chosen at random and the others are dropped.
        shuffle: if False, samples come in order and every pass masks the same tokens, for validation.
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
        self.order = Order(data.counts, batch_size, seed, shuffle, data.weights, data.windows)
        self.unpaired = unpaired

    def __len__(self) -> int:
        """Batches of one pass over the data."""
        return len(self.order)

    def __getitem__(self, i: int) -> MaskedBatch:
        indices = self.order[i]
        rng = SampleRandom.at(self.seed, i * self.order.batch_size + np.arange(len(indices)))
        columns = separate(self.data.columns(indices), self.is_unpaired(indices), self.data.catalog, rng)
        return mask_columns(columns, self.data.catalog, self.ratio, rng, indices)

    def is_unpaired(self, indices: np.ndarray) -> np.ndarray:
        """Whether samples are unpaired. It depends on the sample, not on the batch: an unpaired sample stays unpaired for the entire run."""
        return _uniform([self.seed, 2], indices) < self.unpaired


def _uniform(seed: Sequence[int], places: np.ndarray) -> np.ndarray:
    """Returns the numbers at some places of a generator's sequence of uniform numbers, without those before them."""
    bits = np.random.PCG64(np.random.SeedSequence(seed))
    start, generator = bits.state, np.random.Generator(bits)
    found = np.empty(len(places))
    for i, place in enumerate(places.tolist()):
        bits.state = start
        bits.advance(place)
        found[i] = generator.random()
    return found


def separate(
    columns: Mapping[str, Column], unpaired: np.ndarray, catalog: Catalog, rng: np.random.Generator | SampleRandom
) -> dict[str, Column]:
    """Keep only one of the present modalities, chosen at random, of the samples for which `unpaired` (B,) is True."""
    present_MB = np.stack([column.present for column in columns.values()])
    rng = SampleRandom.of(rng, len(unpaired))
    keys_MB = np.stack([rng.stream(0).stream(catalog[name].id).random(1)[:, 0] for name in columns])
    chosen_B = np.where(present_MB, keys_MB, -1).argmax(axis=0)
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
    """Build a batch from values, for feature extraction. By default nothing is masked. `MaskedGroup.samples` maps rows to samples.

    Args:
        samples: values by modality; absent or None means missing.
        tokenizers: tokenizers of the sequence modalities.

    Raises:
        BadSample: a value does not fit its entry.
    """
    columns = {
        name: column_of(m, [sample.get(m.reads) for sample in samples], tokenizers.get(name))
        for name, m in catalog.items()
    }
    return mask_columns(columns, catalog, ratio, np.random.default_rng(seed))


def mask_columns(
    columns: Mapping[str, Column],
    catalog: Catalog,
    ratio: MaskRatio,
    rng: np.random.Generator | SampleRandom,
    numbers_B: np.ndarray | None = None,
) -> MaskedBatch:
    """Mask a random part of each sample's tokens. Of n tokens, int(n · (1 − ratio)) stay visible; padding is always masked.

    Samples without any modality are skipped.

    Args:
        rng: the random numbers of the samples, or a generator for their keys.
        numbers_B: (B,) numbers of the samples in the data.
    """
    names = [name for name in catalog if name in columns]
    present_BM = np.stack([columns[name].present & (_length(columns[name]) > 0) for name in names], axis=1)
    rng = SampleRandom.of(rng, len(present_BM))
    groups = []
    for present_M in np.unique(present_BM[present_BM.any(axis=1)], axis=0)[
        ::-1
    ]:  # samples with the most modalities first
        samples = np.flatnonzero((present_BM == present_M).all(axis=1))
        parts = {
            name: _masked(catalog[name], columns[name].keep(samples), getattr(ratio, catalog[name].kind), rng[samples])
            for name, has_it in zip(names, present_M, strict=True)
            if has_it
        }
        numbers = None if numbers_B is None else torch.from_numpy(np.asarray(numbers_B)[samples])
        groups.append(MaskedGroup(torch.from_numpy(samples), parts, numbers))
    return MaskedBatch(groups)


def _length(column: Column) -> np.ndarray:
    """(B,) tokens of each sample."""
    if column.length is not None:
        return column.length
    if column.valid is not None:
        return np.where(column.valid.any(axis=1), column.valid.shape[1], 0)
    assert column.rows is not None
    return np.full(len(column.rows), column.rows.shape[1])


def _masked(modality: Modality, column: Column, ratio: float, rng: SampleRandom) -> MaskedTokens:
    length_b = _length(column)
    L = int(length_b.max())  # padded to the longest text of the group
    present_bL = np.arange(L) < length_b[:, None] if column.valid is None else column.valid
    if column.valid is not None:
        length_b = column.valid.sum(axis=1)
    keys_bL = rng.stream(modality.id).random(L, dtype=np.float32)
    keys_bL[~present_bL] = 2.0
    rank_bL = keys_bL.argsort(axis=1).argsort(axis=1)
    masked_bL = rank_bL >= np.floor(length_b * (1 - ratio) + ROUNDING)[:, None]
    if column.rows is not None:
        content = torch.from_numpy(modality.value.normalize_rows(np.asarray(column.rows)))
    else:
        assert column.ids is not None
        content = torch.from_numpy(column.ids[:, :L].astype(np.int64))
    return MaskedTokens.of(content, torch.from_numpy(masked_bL), torch.from_numpy(present_bL))
