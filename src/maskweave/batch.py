"""The token batch, where training and generation meet: only the tokens drawn as inputs and targets ("draw first, embed after").

Dimension letters: B samples, N slots of a side (inputs or targets), n tokens of one modality in the whole batch, C width of a raw row.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """One side of a token batch. A sample's tokens stand side by side, modality after modality, padded at the end."""

    ids: Tensor
    """(B, N) token ids; 0 where a modality has raw rows instead, and in padding."""
    modality: Tensor
    """(B, N) entry ids; 0 is padding."""
    position: Tensor
    """(B, N) place on the grid, row by row, or rank in the sequence."""
    index: dict[str, Tensor]
    """(n,) per modality: the flat slots b·N + slot of its tokens, ascending; known here so that the device never has to look for them."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=non_blocking)

        return dataclasses.replace(
            self,
            ids=move(self.ids),
            modality=move(self.modality),
            position=move(self.position),
            index={k: move(v) for k, v in self.index.items()},
        )


@dataclass(frozen=True)
class TokenBatch:
    """What the model takes, in training and in generation."""

    inputs: Slots
    rows: dict[str, Tensor]
    """(n, C) per modality of patches or vectors: the drawn rows, in the order of `inputs.index`."""
    targets: Slots
    """Of a grid, `ids` are the answers and the model does not read them. Of a sequence, `ids` are what the decoder reads."""
    labels: Tensor
    """(B, N of the targets) the token to predict at each slot; -1 in padding."""

    def to(self, device: torch.device | str) -> Self:
        return dataclasses.replace(
            self,
            inputs=self.inputs.to(device),
            rows={k: v.to(device, non_blocking=True) for k, v in self.rows.items()},
            targets=self.targets.to(device),
            labels=self.labels.to(device, non_blocking=True),
        )

    @property
    def names(self) -> list[str]:
        """Modalities that take part."""
        return sorted({*self.inputs.index, *self.targets.index})

    def __len__(self) -> int:
        return self.inputs.ids.shape[0]


@dataclass(frozen=True)
class ValueBatch:
    """Values of one modality, for training its tokenizer."""

    name: str
    values: Tensor
    """(B, C, *size) floats as the tokenizer's network takes them, or (B, *size) class indices."""

    def to(self, device: torch.device | str) -> Self:
        return dataclasses.replace(self, values=self.values.to(device, non_blocking=True))

    @property
    def names(self) -> list[str]:
        return [self.name]

    def __len__(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True)
class MaskedTokens:
    """All tokens of one modality of some samples, and which of them are hidden from the encoder (masked autoencoding).

    Dimension letters: L places, K places shown to the encoder, n hidden tokens of all samples.
    """

    content: Tensor
    """(B, L) token ids, or (B, L, C) raw rows as the network takes them."""
    hidden: Tensor
    """(B, L) bool, True where the encoder sees nothing."""
    present: Tensor | None
    """(B, L) bool, False at padding; None where there is no padding."""
    kept: Tensor
    """(B, K) places that go through the encoder, ascending; a sample that shows fewer than K is filled up with hidden places."""
    visible: Tensor | None
    """(B, K) bool, False at fillings and padding, which nothing attends to; None where there are none."""
    targets: Tensor
    """(n,) flat places b·L + place that are hidden and no padding: what is to be restored."""

    @classmethod
    def of(cls, content: Tensor, hidden: Tensor, present: Tensor | None = None) -> Self:
        """Work out here, before anything is on the device, what the model would have to wait for there."""
        present = None if present is None or bool(present.all()) else present
        shown = ~hidden if present is None else ~hidden & present
        kept = hidden.byte().argsort(dim=1, stable=True)[:, : int((~hidden).sum(dim=1).max())]
        visible = shown.gather(1, kept)
        targets = (hidden if present is None else hidden & present).flatten().nonzero()[:, 0]
        return cls(content, hidden, present, kept, None if bool(visible.all()) else visible, targets)

    def to(self, device: torch.device | str) -> Self:
        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=True)

        return dataclasses.replace(
            self,
            content=move(self.content),
            hidden=move(self.hidden),
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


@dataclass(frozen=True)
class Inputs:
    """What an encoder reads of samples that all have the same modalities; each modality has places of its own, padded there.

    Dimension letters: B samples, L places of a modality, N of all, C width of a raw row, n tokens of a modality that are there.
    """

    content: dict[str, Tensor]
    """(B, L) token ids, or (B, L, C) raw rows as the network takes them; lattices first, so that theirs are always the same places."""
    present: dict[str, Tensor]
    """(B, L) bool, False at padding; only of modalities with padding."""
    index: dict[str, Tensor]
    """(n,) flat slots b·N + place of the tokens that are there."""

    @classmethod
    def of(cls, content: dict[str, Tensor], present: dict[str, Tensor]) -> Self:
        """Work out here, before anything is on the device, what the model would have to wait for there."""
        present = {name: mask for name, mask in present.items() if not bool(mask.all())}
        there = [present.get(name, torch.ones(tokens.shape[:2], dtype=torch.bool)) for name, tokens in content.items()]
        lengths = [mask.shape[1] for mask in there]
        ends = np.cumsum(lengths)
        index = {}
        for name, mask, end in zip(content, there, ends, strict=True):
            sample, place = mask.nonzero(as_tuple=True)
            index[name] = sample * int(ends[-1]) + int(end) - mask.shape[1] + place
        return cls(content, present, index)

    @property
    def places(self) -> dict[str, slice]:
        """Where each modality stands among all N."""
        ends = np.cumsum([tokens.shape[1] for tokens in self.content.values()]).tolist()
        return {
            name: slice(end - tokens.shape[1], end)
            for (name, tokens), end in zip(self.content.items(), ends, strict=True)
        }

    @property
    def mask(self) -> Tensor | None:
        """(B, N) bool, False at padding; None where there is none."""
        if not self.present:
            return None
        full = [self.present.get(k, t.new_ones(t.shape[:2], dtype=torch.bool)) for k, t in self.content.items()]
        return torch.cat(full, dim=1)

    def to(self, device: torch.device | str) -> Self:
        moved = (
            {name: t.to(device, non_blocking=True) for name, t in part.items()}
            for part in (self.content, self.present, self.index)
        )
        return type(self)(*moved)

    def __len__(self) -> int:
        return len(next(iter(self.content.values())))


@dataclass(frozen=True)
class TransferBatch:
    """Inputs, and what is to be told from them."""

    inputs: Inputs
    target: Tensor
    """(B,) class indices; dense values (B, C, *size) or (B, *size) as the network gives them; or boxes (B, M, 5), each a class
    and centre, width and height from 0 to 1, with class -1 where there is none."""

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.inputs.to(device), self.target.to(device, non_blocking=True))

    @property
    def names(self) -> list[str]:
        return list(self.inputs.content)

    def __len__(self) -> int:
        return len(self.target)


class Part(NamedTuple):
    """The tokens of one modality in a batch, sorted by sample."""

    sample: np.ndarray
    """(n,) ascending sample of each token."""
    ids: np.ndarray
    """(n,)"""
    position: np.ndarray
    """(n,)"""
    labels: np.ndarray | None = None
    """(n,) targets only."""


def pack(
    parts: Mapping[str, Part], modality_ids: Mapping[str, int], samples: int, width: int = 0
) -> tuple[Slots, Tensor]:
    """Lay the parts side by side, in their order, as `Slots` and labels (-1 where there are none).

    Args:
        samples: B.
        width: smallest N; 0 for the longest sample's.
    """
    names = [name for name, part in parts.items() if len(part.ids)]
    counts_MB = (
        np.stack([np.bincount(parts[name].sample, minlength=samples) for name in names])
        if names
        else np.zeros((1, samples), int)
    )
    starts_MB = np.cumsum(counts_MB, axis=0) - counts_MB
    N = max(int(counts_MB.sum(axis=0).max(initial=0)), width, 1)
    ids, modality, position = (np.zeros(samples * N, np.int64) for _ in range(3))
    labels = np.full(samples * N, -1, np.int64)
    index = {}
    for name, counts_B, starts_B in zip(names, counts_MB, starts_MB, strict=False):
        part = parts[name]
        first_B = np.cumsum(counts_B) - counts_B
        flat = np.arange(len(part.ids)) + (np.arange(samples) * N + starts_B - first_B)[part.sample]
        ids[flat], position[flat], modality[flat] = part.ids, part.position, modality_ids[name]
        if part.labels is not None:
            labels[flat] = part.labels
        index[name] = torch.from_numpy(flat)
    ids_BN, modality_BN, position_BN = (torch.from_numpy(a.reshape(samples, N)) for a in (ids, modality, position))
    slots = Slots(ids_BN, modality_BN, position_BN, index)
    return slots, torch.from_numpy(labels.reshape(samples, N))
