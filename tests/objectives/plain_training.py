"""Training without the loop of the library, for losses that are pinned or that must fall."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def train(objective: nn.Module, batches: Sequence[Any], steps: int, rate: float) -> list[float]:
    """The loss of each AdamW step, going round the batches."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05)
    losses = []
    for step in range(steps):
        loss, _ = objective(batches[step % len(batches)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
