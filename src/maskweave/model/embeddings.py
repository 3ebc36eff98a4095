"""From drawn tokens to vectors: content + modality + position, each gathered once for all modalities together.

Dimension letters: B samples, N slots, n tokens of one modality or vocabulary in the batch, D width, C width of a raw row.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.batch import Slots
from maskweave.catalogues import Catalogue
from maskweave.layers import sine_cosine
from maskweave.modality import Modality


def vocabulary_of(modality: Modality) -> str:
    """Name of the set of ids, and so of the parameters, that a grid or sequence uses."""
    return modality.vocabulary or modality.name


class ByName(nn.ModuleDict):
    """Modules by the name of a modality or vocabulary, any name: a plain ModuleDict refuses "values", "type" and other names of its own."""

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(f"for_{name}")

    def __setitem__(self, name: str, module: nn.Module) -> None:
        super().__setitem__(f"for_{name}", module)

    def __contains__(self, name: str) -> bool:
        return super().__contains__(f"for_{name}")

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix("for_") for name in super().__iter__())

    def keys(self) -> Any:
        return list(self)

    def items(self) -> Any:
        return [(name.removeprefix("for_"), module) for name, module in super().items()]


class WhereEmbedding(nn.Module):
    """Modality embedding + position embedding of each slot; the same in encoder and decoder."""

    starts: Tensor
    fixed: Tensor

    def __init__(self, catalogue: Catalogue, width: int):
        super().__init__()
        self.width = width
        last_id = max(m.id for m in catalogue.values())
        self.modality = nn.Embedding(last_id + 1, width)  # row 0 is padding
        starts = torch.zeros(last_id + 1, dtype=torch.long)
        fixed: list[Tensor] = [torch.zeros(1, width)]
        learned: list[Tensor] = []
        for m in catalogue.values():
            if m.positions == "sine":
                starts[m.id] = sum(len(t) for t in fixed)
                # A sequence's input and target may each be longer than the sequence, by the sentinels.
                fixed.append(sine_cosine(m.grid, width) if m.grid else sine_cosine((2 * m.max_tokens + 1,), width))
        for m in catalogue.values():
            if m.positions == "learned":
                starts[m.id] = sum(len(t) for t in (*fixed, *learned))
                learned.append(torch.zeros(m.tokens if m.grid else 2 * m.max_tokens + 1, width))
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("fixed", torch.cat(fixed), persistent=False)
        self.learned = nn.Parameter(torch.cat(learned)) if learned else None

    def forward(self, slots: Slots) -> Tensor:
        """(B, N, D)"""
        table = self.fixed if self.learned is None else torch.cat([self.fixed, self.learned])
        return self.modality(slots.modality) + table[self.starts[slots.modality] + slots.position]


class Content(nn.Module):
    """Token embeddings by vocabulary and linear layers for raw rows; only the drawn tokens are ever embedded.

    Args:
        catalogue: the modalities to embed.
    """

    def __init__(self, catalogue: Catalogue, width: int):
        super().__init__()
        self.width = width
        self.vocabularies = {m.name: vocabulary_of(m) for m in catalogue.values() if m.is_target}
        sizes = {vocabulary_of(m): catalogue.vocabulary_size(m.name) for m in catalogue.values() if m.is_target}
        self.tokens = ByName({name: nn.Embedding(size, width) for name, size in sizes.items()})
        self.rows = ByName(
            {
                m.name: nn.Linear(m.row_width, width, bias=m.kind == "vectors")
                for m in catalogue.values()
                if not m.is_target
            }
        )

    def forward(self, slots: Slots, rows: dict[str, Tensor]) -> Tensor:
        """(B, N, D); slots of modalities that are not embedded here, and padding, are zero."""
        B, N = slots.ids.shape
        ids = slots.ids.flatten()
        by_vocabulary: dict[str, list[Tensor]] = {}
        for name, index in slots.index.items():
            if name in self.vocabularies:
                by_vocabulary.setdefault(self.vocabularies[name], []).append(index)
        places, contents = [], []
        for vocabulary, indices in by_vocabulary.items():
            index = join(indices)
            places.append(index)
            contents.append(self.tokens[vocabulary](ids[index]))
        for name, rows_nC in rows.items():
            places.append(slots.index[name])
            contents.append(self.rows[name](rows_nC))
        if not places:
            return torch.zeros(B, N, self.width, device=ids.device)
        content = join(contents)
        return content.new_zeros(B * N, self.width).index_copy(0, join(places), content).view(B, N, self.width)


def join(tensors: list[Tensor]) -> Tensor:
    """Concatenate, without a copy where there is only one. Mixed precision is lifted to the highest."""
    if len(tensors) == 1:
        return tensors[0]
    dtype = max((t.dtype for t in tensors), key=lambda d: d.itemsize)
    return torch.cat([t.to(dtype) for t in tensors])
