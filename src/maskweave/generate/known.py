"""What is known of the samples being generated, and the token batches that ask the model for more.

Dimension letters: B samples, L places of a modality, C width of a raw row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from maskweave.batch import Part, Slots, pack
from maskweave.catalogues import Catalogue
from maskweave.data.masking import Column
from maskweave.data.tokenising import column_of
from maskweave.errors import MaskweaveError
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.values import normalise_rows


class Known:
    """Per modality the known tokens of B samples; samples may know different things.

    Attributes:
        ids: (B, L) per grid or sequence.
        rows: (B, L, C) per modality of patches or vectors, as the network takes them.
        mask: (B, L) per modality, True where known.
    """

    def __init__(self, catalogue: Catalogue, samples: int):
        self.catalogue = catalogue
        self.samples = samples
        self.ids: dict[str, np.ndarray] = {}
        self.rows: dict[str, np.ndarray] = {}
        self.mask: dict[str, np.ndarray] = {}
        self._ids_of = {m.name: m.id for m in catalogue.values()}

    @classmethod
    def from_values(
        cls, catalogue: Catalogue, samples: Sequence[Mapping[str, Any]], tokenizers: Mapping[str, Tokenizer]
    ) -> "Known":
        """Tokenise the given values; None and absent are unknown.

        Raises:
            BadSample: a value does not fit its entry.
        """
        known = cls(catalogue, len(samples))
        for name in {name: None for sample in samples for name in sample}:
            values = [sample.get(name) for sample in samples]
            if any(value is not None for value in values):
                known.add(name, column_of(catalogue[name], values, tokenizers.get(name)))
        return known

    def add(self, name: str, column: Column) -> None:
        modality = self.catalogue[name]
        L = column.ids.shape[1] if column.ids is not None else column.rows.shape[1]  # type: ignore[union-attr]
        length = column.length if column.length is not None else np.full(self.samples, L)
        self.mask[name] = (np.arange(L) < length[:, None]) & column.present[:, None]
        if column.rows is not None:
            self.rows[name] = normalise_rows(modality, column.rows)
        else:
            self.ids[name] = column.ids  # type: ignore[assignment]

    def copy(self) -> "Known":
        """With masks of its own; what is known of a modality is never changed in place once it is finished."""
        other = Known(self.catalogue, self.samples)
        other.ids, other.rows, other.mask = dict(self.ids), dict(self.rows), dict(self.mask)
        return other

    def forget(self, name: str) -> None:
        """Remove a modality that is to be generated."""
        for part in (self.ids, self.rows, self.mask):
            part.pop(name, None)

    def start(self, name: str) -> None:
        """Make room for a modality of which nothing is known yet."""
        modality = self.catalogue[name]
        self.ids[name] = np.zeros((self.samples, modality.tokens), np.int64)
        self.mask[name] = np.zeros((self.samples, modality.tokens), bool)

    def inputs(self) -> tuple[Slots, dict[str, torch.Tensor]]:
        """All known tokens as the encoder's input; a sample of which nothing is known has padding alone."""
        parts, rows = {}, {}
        for name, mask in self.mask.items():
            sample, position = np.nonzero(mask)
            if not len(sample):
                continue
            if name in self.rows:
                rows[name] = torch.from_numpy(self.rows[name][sample, position])
                parts[name] = Part(sample, np.zeros(len(sample), np.int64), position)
            else:
                parts[name] = Part(sample, self.ids[name][sample, position], position)
        slots, _ = pack(parts, self._ids_of, self.samples)
        return slots, rows

    def ask(self, name: str, mask: np.ndarray) -> Slots:
        """Slots that ask for the tokens of a grid at `mask` (B, L)."""
        sample, position = np.nonzero(mask)
        slots, _ = pack({name: Part(sample, np.zeros(len(sample), np.int64), position)}, self._ids_of, self.samples)
        return slots

    def continue_sequence(self, name: str, ids: np.ndarray) -> Slots:
        """Slots that read the tokens `ids` (B, n) of a sequence so far; the last slot of each sample asks for the next."""
        B, n = ids.shape
        part = Part(np.repeat(np.arange(B), n), ids.flatten(), np.tile(np.arange(n), B))
        slots, _ = pack({name: part}, self._ids_of, self.samples)
        return slots


def check_request(catalogue: Catalogue, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The modalities to generate, in order; an input-only modality stands for the grid that is made from the same values.

    Raises:
        MaskweaveError: an unknown modality, or a target the model cannot predict.
    """
    for name in inputs:
        catalogue[name]
    resolved = []
    for name in targets:
        modality = catalogue[name]
        if not modality.is_target:
            twins = [m.name for m in catalogue.values() if m.source == name and m.is_target]
            if not twins:
                possible = ", ".join(m.name for m in catalogue.values() if m.is_target)
                raise MaskweaveError(
                    f"{name!r} is of kind {modality.kind}, which is input only; the model can predict {possible}"
                )
            name = twins[0]
        resolved.append(name)
    if not resolved:
        raise MaskweaveError("no targets: name at least one modality to generate")
    if len(set(resolved)) < len(resolved):
        raise MaskweaveError(f"a target is named twice in {', '.join(targets)}")
    return resolved
