"""Values as inputs of an encoder: nothing is masked or sampled, and all samples have the same modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
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
    """Encoder inputs of samples that all have the same modalities. Each modality has its own range of positions and its own padding.

    Dimension letters: B samples, L positions of a modality, N positions of all modalities, C width of a raw row, n tokens of a modality
    without padding.
    """

    content: dict[str, Tensor]
    """(B, L) token ids, or (B, L, C) raw rows as network input. Grids come first, so that their positions never change."""
    present: dict[str, Tensor]
    """(B, L) bool, False at padding; only for modalities with padding."""
    index: dict[str, Tensor]
    """(n,) flat slots b·N + position of all tokens that are not padding."""

    @classmethod
    def of(cls, content: dict[str, Tensor], present: dict[str, Tensor]) -> Self:
        """Build the inputs and their index, computed on the host to avoid device syncs."""
        present = {name: mask for name, mask in present.items() if not bool(mask.all())}
        masks = [present.get(name, torch.ones(tokens.shape[:2], dtype=torch.bool)) for name, tokens in content.items()]
        lengths = [mask.shape[1] for mask in masks]
        ends = np.cumsum(lengths)
        index = {}
        for name, mask, end in zip(content, masks, ends, strict=True):
            sample, position = mask.nonzero(as_tuple=True)
            index[name] = sample * int(ends[-1]) + int(end) - mask.shape[1] + position
        return cls(content, present, index)

    @property
    def slices(self) -> dict[str, slice]:
        """The range of each modality among all N positions."""
        ends = accumulate(tokens.shape[1] for tokens in self.content.values())
        return {
            name: slice(end - tokens.shape[1], end)
            for (name, tokens), end in zip(self.content.items(), ends, strict=True)
        }

    @property
    def mask(self) -> Tensor | None:
        """(B, N) bool, False at padding; None if there is no padding."""
        if not self.present:
            return None
        full = [self.present.get(k, t.new_ones(t.shape[:2], dtype=torch.bool)) for k, t in self.content.items()]
        return torch.cat(full, dim=1)

    def as_slots(self, catalog: Catalog) -> tuple[Slots, dict[str, Tensor]]:
        """Convert to input slots, and the raw rows of patches and vectors without padding."""
        ids, modality_ids, positions, rows = [], [], [], {}
        slices = self.slices
        N = slices[list(self.content)[-1]].stop
        for name, content in self.content.items():
            B, L = content.shape[:2]
            present = self.present.get(name)
            if content.ndim == 3 and present is None:
                rows[name] = content.flatten(0, 1)
            elif content.ndim == 3:
                index = self.index[name]
                rows[name] = content[index // N, index % N - slices[name].start]
            ids.append(content if content.ndim == 2 else self.index[name].new_zeros(B, L))
            positions.append(torch.arange(L, device=content.device).expand(B, L))
            modality_id = torch.full((B, L), catalog[name].id, device=content.device)
            modality_ids.append(modality_id if present is None else modality_id * present)
        ids_BN, modality_BN, positions_BN = (torch.cat(parts, dim=1) for parts in (ids, modality_ids, positions))
        return Slots(ids_BN, modality_BN, positions_BN, self.index), rows

    def as_masked_tokens(self) -> dict[str, MaskedTokens]:
        """Convert to `MaskedTokens` in which no token is masked."""
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
    """Inputs and the target to predict from them."""

    inputs: Inputs
    target: Tensor
    """(B,) class indices; dense values (B, C, *size) or (B, *size) as the network outputs them; or boxes (B, M, 5), each with class,
    center, width and height from 0 to 1. Rows without a box have class -1."""
    raw: dict[str, Tensor] = field(default_factory=dict)
    """(B, C, *size) values of dense inputs as network input, NaN at unknown points, for heads that see the inputs themselves."""

    def to(self, device: torch.device | str) -> Self:
        raw = {name: t.to(device, non_blocking=True) for name, t in self.raw.items()}
        return type(self)(self.inputs.to(device), self.target.to(device, non_blocking=True), raw)

    @property
    def names(self) -> list[str]:
        return list(self.inputs.content)

    def __len__(self) -> int:
        return len(self.target)


def raw_inputs(samples: Sequence[Mapping[str, Any]], catalog: Catalog, names: Sequence[str]) -> dict[str, Tensor]:
    """Returns the values of `names` as network input, float32 (B, C, *size), NaN at unknown points.

    Args:
        samples: checked values of their entries' sizes. A sample without a value has only unknown points.
    """
    raw = {}
    for name in names:
        modality = catalog[name]
        values = [sample.get(name, sample.get(modality.reads)) for sample in samples]
        found = [value for value in values if value is not None]
        x = modality.value.to_network(modality.value.check_batch(found, name))
        out = torch.full((len(values), modality.value.channels, *modality.value.size), torch.nan)
        out[[value is not None for value in values]] = x
        raw[name] = out
    return raw


def read_inputs(
    samples: Sequence[Mapping[str, Any]],
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    names: Sequence[str],
    partial: bool = False,
) -> Inputs:
    """Check a batch of values and convert it to encoder inputs.

    Args:
        names: modalities to read, grids first; all samples must have them.
        partial: samples may lack some of them, but not all.

    Raises:
        BadSample: a sample lacks a modality (or all, if partial), or a value does not fit its entry.
        MaskweaveError: the tokenizer of a modality is missing.
    """
    content, present = {}, {}
    for name in names:
        modality = catalog[name]
        if modality.has_tokens and name not in tokenizers:
            raise MaskweaveError(f"input {name!r}: its tokenizer is missing; train one, or use other inputs")
        values = [sample.get(name, sample.get(modality.reads)) for sample in samples]
        lacking = any(value is None for value in values)
        if lacking and not partial:
            raise BadSample(
                f"sample {values.index(None)} of the batch has no {name!r}; every sample must have all inputs"
            )
        column = column_of(modality, values, tokenizers.get(name))
        length = modality.tokens if column.length is None else max(1, int(column.length.max()))
        if column.rows is not None:
            content[name] = torch.from_numpy(modality.value.normalize_rows(column.rows[:, :length]))
        else:
            assert column.ids is not None
            content[name] = torch.from_numpy(column.ids[:, :length].astype(np.int64))
        if column.length is not None or column.valid is not None or lacking:
            present[name] = torch.from_numpy(column.tokens(length))
    if partial:
        some = np.any([[s.get(n, s.get(catalog[n].reads)) is not None for s in samples] for n in names], axis=0)
        if not some.all():
            raise BadSample(
                f"sample {int(np.argmin(some))} of the batch has none of the inputs {', '.join(names)}; every sample needs one or more"
            )
    return Inputs.of(content, present)
