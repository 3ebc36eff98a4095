"""The token batch, used by training and generation. It contains only the tokens sampled as inputs and targets ("mask first, embed after").

Dimension letters: B samples, N slots of a side (inputs or targets), n tokens of one modality in the batch, C width of a raw row.
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
    """One side of a token batch. The tokens of a sample are concatenated, modality after modality, with padding at the end."""

    ids: Tensor
    """(B, N) token ids; 0 where a modality has raw rows instead, and in padding."""
    modality: Tensor
    """(B, N) entry ids; 0 is padding."""
    position: Tensor
    """(B, N) position on the grid in row-major order, or position in the sequence."""
    index: dict[str, Tensor]
    """(n,) per modality: the flat slots b·N + slot of its tokens, ascending. Computed on the host to avoid device syncs."""
    is_static: bool = False
    """Whether B and N are the same in all batches. Masks are then always given, so that compiled code sees the same shapes."""

    def to(self, device: torch.device | str) -> Self:
        """Moves the tensors, without waiting if they go to a GPU. Tensors that come from one are complete when this returns."""

        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=torch.device(device).type != "cpu")

        return dataclasses.replace(
            self,
            ids=move(self.ids),
            modality=move(self.modality),
            position=move(self.position),
            index={k: move(v) for k, v in self.index.items()},
        )


@dataclass(frozen=True)
class TokenBatch:
    """Input of the model, in training and in generation."""

    inputs: Slots
    rows: dict[str, Tensor]
    """(n, C) per modality of patches or vectors: the sampled rows, in the order of `inputs.index`."""
    targets: Slots
    """For grids, `ids` are the labels, which the model does not read. For sequences, `ids` are the decoder's input."""
    labels: Tensor
    """(B, N of the targets) the token to predict in each slot; -1 in padding."""

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
        """Modalities with tokens in this batch."""
        return sorted({*self.inputs.index, *self.targets.index})

    def __len__(self) -> int:
        return self.inputs.ids.shape[0]


class TokenSlice(NamedTuple):
    """The tokens of one modality in a batch, sorted by sample."""

    sample: np.ndarray
    """(n,) index of each token's sample, ascending."""
    ids: np.ndarray
    """(n,)"""
    position: np.ndarray
    """(n,)"""
    labels: np.ndarray | None = None
    """(n,) targets only."""


def pack(
    parts: Mapping[str, TokenSlice],
    modality_ids: Mapping[str, int],
    samples: int,
    width: int = 0,
    is_static: bool = False,
) -> tuple[Slots, Tensor]:
    """Concatenate the parts, in their order, into `Slots` and labels (-1 where a slot has none).

    Args:
        samples: B.
        width: minimum of N; with 0, N is the length of the longest sample.
        is_static: as in `Slots`.
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
    slots = Slots(ids_BN, modality_BN, position_BN, index, is_static)
    return slots, torch.from_numpy(labels.reshape(samples, N))
