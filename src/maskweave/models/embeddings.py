"""Embeds sampled tokens: token + modality + position embedding, each gathered once for all modalities together.

Dimension letters: B samples, N slots, n tokens of one modality or vocabulary in the batch, D width, C width of a raw row.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave import limits
from maskweave.masking.batch import Slots
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import sine_cosine


def tables_of(catalog: Catalog, separate: bool) -> dict[str, str]:
    """Returns the table name of each modality with tokens: that of its vocabulary, or its own if `separate`."""
    return {m.name: m.name if separate else m.vocabulary or m.name for m in catalog.values() if m.has_tokens}


def place_count(modality: Modality) -> int:
    """Number of positions that a modality may need. Sentinels can make a sequence's input and target longer than the sequence."""
    return modality.tokens if modality.grid else 2 * modality.max_tokens + 1


def check_positions(catalog: Catalog, width: int) -> None:
    """Checks that the position tables are not too large for memory.

    Raises:
        MaskweaveError: they are too large; the message gives the size and its limit.
    """
    positions = sum(place_count(m) for m in catalog.values())
    limits.check_most(
        f"{catalog.where}: positions of all modalities × model width", positions * width, limits.POSITION_NUMBERS
    )


class ByName(nn.ModuleDict):
    """Modules by the name of a modality or vocabulary. Any name works; a plain ModuleDict rejects names such as "values" and "type"."""

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


class PositionEmbedding(nn.Module):
    """Modality embedding + position embedding of each slot. Encoder and decoder share both, except learned positions."""

    starts: Tensor
    fixed: Tensor
    undecayed = ("learned", "learned_of_targets")
    """Parameters without weight decay."""

    def __init__(self, catalog: Catalog, width: int):
        super().__init__()
        self.modality = nn.Embedding(1 + max(m.id for m in catalog.values()), width)  # row 0 is padding
        learned = sum(place_count(m) for m in catalog.values() if m.positions == "learned")
        self.learned = nn.Parameter(torch.zeros(learned, width)) if learned else None
        self.learned_of_targets = nn.Parameter(torch.zeros(learned, width)) if learned else None
        self.register_buffers(catalog)

    def register_buffers(self, catalog: Catalog) -> None:
        """Registers what follows from the entries: the fixed positions, and the first row of each modality in the fixed and learned positions."""
        width = self.modality.embedding_dim
        check_positions(catalog, width)
        fixed: list[Tensor] = [torch.zeros(1, width)]
        starts = torch.zeros(self.modality.num_embeddings, dtype=torch.long)
        by_kind = sorted(catalog.values(), key=lambda m: m.positions == "learned")  # fixed positions first
        start = 1
        for m in by_kind:
            starts[m.id] = start
            start += place_count(m)
            if m.positions == "sine":
                fixed.append(sine_cosine(m.grid or (place_count(m),), width))
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("fixed", torch.cat(fixed), persistent=False)

    def learned_rows(self, modality: Modality) -> slice:
        """The rows of a modality in the learned positions."""
        start = int(self.starts[modality.id]) - len(self.fixed)
        return slice(start, start + place_count(modality))

    def forward(self, slots: Slots, targets: bool = False) -> Tensor:
        """Returns (B, N, D)."""
        learned = self.learned_of_targets if targets else self.learned
        table = self.fixed if learned is None else torch.cat([self.fixed, learned])
        return self.modality(slots.modality) + F.embedding(self.starts[slots.modality] + slots.position, table)


class TokenEmbedding(nn.Module):
    """Embedding tables for tokens and linear layers for raw rows. Only sampled tokens are embedded.

    Args:
        catalog: the modalities to embed.
        tables: table name of each modality with tokens.
    """

    def __init__(self, catalog: Catalog, tables: Mapping[str, str], width: int):
        super().__init__()
        self.width = width
        self.tables = {m.name: tables[m.name] for m in catalog.values() if m.has_tokens}
        sizes = {table: catalog.vocabulary_size(name) for name, table in self.tables.items()}
        self.tokens = ByName({table: nn.Embedding(size, width) for table, size in sizes.items()})
        self.rows = ByName(
            {m.name: Linear(m.row_width, width, bias=m.kind == "vectors") for m in catalog.values() if not m.has_tokens}
        )

    def forward(self, slots: Slots, rows: dict[str, Tensor]) -> Tensor:
        """Returns (B, N, D). Padding and slots of modalities that are not embedded here are zero."""
        B, N = slots.ids.shape
        ids = slots.ids.flatten()
        by_table: dict[str, list[Tensor]] = {}
        for name, index in slots.index.items():
            if name in self.tables:
                by_table.setdefault(self.tables[name], []).append(index)
        positions, contents = [], []
        for table, indices in by_table.items():
            index = join(indices)
            positions.append(index)
            contents.append(self.tokens[table](ids[index]))
        for name, rows_nC in rows.items():
            positions.append(slots.index[name])
            contents.append(self.rows[name](rows_nC))
        if not positions:
            return torch.zeros(B, N, self.width, device=ids.device)
        content = join(contents)
        return content.new_zeros(B * N, self.width).index_copy(0, join(positions), content).view(B, N, self.width)


def join(tensors: list[Tensor]) -> Tensor:
    """Concatenates tensors, without a copy if there is only one. Mixed precisions are converted to the highest."""
    if len(tensors) == 1:
        return tensors[0]
    dtype = max((t.dtype for t in tensors), key=lambda d: d.itemsize)
    return torch.cat([t.to(dtype) for t in tensors])
