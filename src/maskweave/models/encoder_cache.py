"""Encoding more tokens of samples that are encoded already, approximately: the new tokens attend to all, but what was encoded stays as it is.

Dimension letters: B samples, N encoded slots with registers, n new slots, D width, H heads.
"""

from typing import Any

import torch
from torch import Tensor

from maskweave.masking.batch import Slots
from maskweave.models.fourm import FourM


class EncoderCache:
    """The encoder's output for some inputs, and the keys and values of all its blocks.

    Args:
        rows: as for `FourM.encode`.
    """

    def __init__(self, model: FourM, inputs: Slots, rows: dict[str, Tensor]):
        self.model = model
        self.inputs = Slots(inputs.ids, inputs.modality, inputs.position, {}, is_static=True)
        """All slots so far; `index` is empty, because their places change."""
        x_BND = model.token_embedding(inputs, rows) + model.position_embedding(inputs)
        if model.registers is not None:
            x_BND = torch.cat([model.registers.expand(len(x_BND), -1, -1), x_BND], dim=1)
        self._keys_values: list[tuple[Tensor, Tensor]] = []
        self.encoded_BND = self._run(x_BND, model.context_mask(self.inputs))
        """(B, N, D) normalized output."""

    def extend(self, new: Slots) -> None:
        """Encodes new tokens of modalities with tokens, and adds them."""
        pairs = [(getattr(self.inputs, key), getattr(new, key)) for key in ("ids", "modality", "position")]
        ids, modality, position = (torch.cat(pair, dim=1) for pair in pairs)
        self.inputs = Slots(ids, modality, position, {}, is_static=True)
        x_BnD = self.model.token_embedding(new, {}) + self.model.position_embedding(new)
        encoded_BnD = self._run(x_BnD, self.model.context_mask(self.inputs))
        self.encoded_BND = torch.cat([self.encoded_BND, encoded_BnD], dim=1)

    def _run(self, x_BnD: Tensor, mask: Tensor | None) -> Tensor:
        before, self._keys_values = self._keys_values, []
        blocks: Any = self.model.encoder
        for number, block in enumerate(blocks):
            attention = block.attention
            y = block.norm1(x_BnD)
            k, v = attention.keys_values(y)
            if before:
                k, v = (torch.cat(pair, dim=2) for pair in zip(before[number], (k, v), strict=True))
            self._keys_values.append((k, v))
            x_BnD = x_BnD + attention.look(attention.queries(y), k, v, mask)
            x_BnD = x_BnD + block.mlp(block.norm2(x_BnD))
        return self.model.encoder_norm(x_BnD)
