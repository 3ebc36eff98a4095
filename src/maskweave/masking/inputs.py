"""Values as an encoder's inputs: nothing hidden, nothing drawn, every sample with the same modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maskweave.data.tokenizing import column_of
from maskweave.errors import BadSample, MaskweaveError
from maskweave.masking.batch import Slots
from maskweave.masking.m3ae import MaskedTokens
from maskweave.modality.catalogs import Catalog
from maskweave.tokenizers.base import Tokenizer


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
    def slices(self) -> dict[str, slice]:
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

    def as_slots(self, catalog: Catalog) -> tuple[Slots, dict[str, Tensor]]:
        """The same as input slots with the rows of patches and vectors that are there."""
        ids, numbers, positions, rows = [], [], [], {}
        slices = self.slices
        N = slices[list(self.content)[-1]].stop
        for name, content in self.content.items():
            B, L = content.shape[:2]
            there = self.present.get(name)
            if content.ndim == 3:
                index = self.index[name]
                rows[name] = content[index // N, index % N - slices[name].start]
            ids.append(content if content.ndim == 2 else self.index[name].new_zeros(B, L))
            positions.append(torch.arange(L, device=content.device).expand(B, L))
            number = torch.full((B, L), catalog[name].id, device=content.device)
            numbers.append(number if there is None else number * there)
        ids_BN, numbers_BN, positions_BN = (torch.cat(parts, dim=1) for parts in (ids, numbers, positions))
        return Slots(ids_BN, numbers_BN, positions_BN, self.index), rows

    def as_masked_tokens(self) -> dict[str, MaskedTokens]:
        """The same as tokens of which none is masked."""
        return {name: self._unmasked(name) for name in self.content}

    def _unmasked(self, name: str) -> MaskedTokens:
        content, present = self.content[name], self.present.get(name)
        B, L = content.shape[:2]
        kept = torch.arange(L, device=content.device).expand(B, L)
        masked = torch.zeros(B, L, dtype=torch.bool, device=content.device)
        return MaskedTokens(content, masked, present, kept, present, kept.new_zeros(0))

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
    and center, width and height from 0 to 1, with class -1 where there is none."""

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.inputs.to(device), self.target.to(device, non_blocking=True))

    @property
    def names(self) -> list[str]:
        return list(self.inputs.content)

    def __len__(self) -> int:
        return len(self.target)


def read_inputs(
    samples: Sequence[Mapping[str, Any]],
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    names: Sequence[str],
) -> Inputs:
    """A batch of checked values.

    Args:
        names: modalities to read, lattices first; all samples must have them.

    Raises:
        BadSample: a sample lacks one, or a value does not fit its entry.
        MaskweaveError: there is no tokenizer of one that needs it.
    """
    content, present = {}, {}
    for name in names:
        modality = catalog[name]
        if modality.has_tokens and name not in tokenizers:
            raise MaskweaveError(f"input {name!r}: there is no tokenizer of it; use other inputs, or train one")
        values = [sample.get(name, sample.get(modality.reads)) for sample in samples]
        if any(value is None for value in values):
            raise BadSample(
                f"sample {values.index(None)} of the batch has no {name!r}; every sample must have all inputs"
            )
        column = column_of(modality, values, tokenizers.get(name))
        places = modality.tokens if column.length is None else max(1, int(column.length.max()))
        if column.rows is not None:
            content[name] = torch.from_numpy(modality.value.normalize_rows(column.rows[:, :places]))
        else:
            assert column.ids is not None
            content[name] = torch.from_numpy(column.ids[:, :places].astype(np.int64))
        if column.length is not None:
            present[name] = torch.from_numpy(np.arange(places) < column.length[:, None])
    return Inputs.of(content, present)
