"""Batches of values of one modality, for training its tokenizer."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maskweave.data.augment import AugmentedValues
from maskweave.data.order import Order
from maskweave.modality.entry import Modality
from maskweave.values.formats.numpy_rows import NpyRows
from maskweave.values.weights import Weighting


@dataclass(frozen=True)
class ValueBatch:
    """Values of one modality, for training its tokenizer."""

    name: str
    values: Tensor
    """(B, C, *size) floats as network input, or (B, *size) class indices."""
    weights: Tensor | None = None
    """Weight of each number, in the shape of `values`."""

    def to(self, device: torch.device | str) -> Self:
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return dataclasses.replace(self, values=self.values.to(device, non_blocking=True), weights=weights)

    @property
    def names(self) -> list[str]:
        return [self.name]

    def __len__(self) -> int:
        return self.values.shape[0]


class ValueBatches:
    """Batches of values of one modality, for training its tokenizer.

    Args:
        values: (S, *size[, C]) checked values; in a file if they are large.
        augment: changes the values of each batch.
        weights: raw weights in the shape of the values, and how they are scaled.
    """

    def __init__(
        self,
        modality: Modality,
        values: np.ndarray | NpyRows,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        augment: AugmentedValues | None = None,
        weights: tuple[np.ndarray | NpyRows, Weighting] | None = None,
    ):
        self.modality, self.values, self.augment, self.weights = modality, values, augment, weights
        self.order = Order([len(values)], batch_size, seed, shuffle)

    def __len__(self) -> int:
        """Batches of one pass over the values."""
        return len(self.order)

    def __getitem__(self, i: int) -> ValueBatch:
        numbers = self.order[i]
        values: Any = self.values[numbers]
        weights = None if self.weights is None else self.weights[0][numbers]
        if self.augment is not None:
            values, weights = self.augment(values, i * self.order.batch_size, weights)
        x = self.modality.value.to_network(values)
        if weights is None or self.weights is None:
            return ValueBatch(self.modality.name, x)
        scaled = torch.from_numpy(self.weights[1](weights)).reshape(len(x), *x.shape[2:], x.shape[1])
        return ValueBatch(self.modality.name, x, scaled.movedim(-1, 1).contiguous())
