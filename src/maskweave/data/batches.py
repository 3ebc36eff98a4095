"""Batches of values of one modality, for training its tokenizer."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from maskweave.data.augment import AugmentedValues
from maskweave.data.order import Order
from maskweave.modality.entry import Modality


@dataclass(frozen=True)
class ValueBatch:
    """Values of one modality, for training its tokenizer."""

    name: str
    values: Tensor
    """(B, C, *size) floats as network input, or (B, *size) class indices."""

    def to(self, device: torch.device | str) -> Self:
        return dataclasses.replace(self, values=self.values.to(device, non_blocking=True))

    @property
    def names(self) -> list[str]:
        return [self.name]

    def __len__(self) -> int:
        return self.values.shape[0]


class ValueBatches:
    """Batches of values of one modality, for training its tokenizer.

    Args:
        values: (S, *size[, C]) checked values, memory-mapped if they are large.
        augment: changes the values of each batch.
    """

    def __init__(
        self,
        modality: Modality,
        values: np.ndarray,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        augment: AugmentedValues | None = None,
    ):
        self.modality, self.values, self.augment = modality, values, augment
        self.order = Order([len(values)], batch_size, seed, shuffle)

    def __len__(self) -> int:
        """Batches of one pass over the values."""
        return len(self.order)

    def __getitem__(self, i: int) -> ValueBatch:
        values = self.values[self.order[i]]
        if self.augment is not None:
            values = self.augment(values, i * self.order.batch_size)
        return ValueBatch(self.modality.name, self.modality.value.to_network(values))
