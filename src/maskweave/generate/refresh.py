"""Approximate encoding between the steps of a grid: only tokens that are new since the last step are encoded (`Decoding.refresh`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskweave.generate.token_state import TokenStates, pack_inputs, place_ids
from maskweave.masking.batch import Slots
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder_cache import EncoderCache
from maskweave.models.fourm import FourM

NEW = 8
"""The number of new slots of a row is rounded up to a multiple of at most this: they stay among the inputs until everything is encoded again."""


class _Encoded(NamedTuple):
    cache: EncoderCache
    known: dict[str, np.ndarray]
    """(B, L) by modality, which tokens are encoded."""
    row: np.ndarray
    sees: list[frozenset[str]]


class Refresher:
    """Encodes batches of rows completely or in parts.

    Args:
        multiple: the number of slots of a row is rounded up to a multiple of it.
    """

    def __init__(self, model: FourM, catalog: Catalog, device: torch.device, multiple: int):
        self.model, self.catalog, self.device, self.multiple = model, catalog, device, multiple
        self._batches: dict[int, _Encoded] = {}

    def encode(
        self, fields: TokenStates, sees: Sequence[frozenset[str]], row: np.ndarray, number: int, everything: bool
    ) -> tuple[Slots, Tensor]:
        """Returns inputs and the encoder's output for some rows.

        Args:
            number: index of the batch within the step.
            everything: encode all known tokens. Otherwise only those are encoded that were not known when this batch was encoded before; if its
                rows were other ones, all are.
        """
        last, known = self._batches.get(number), {name: field.mask.copy() for name, field in fields.items()}
        if everything or last is None or not _continues(last, known, sees, row):
            slots, rows = self._packed(fields, sees, row, self.multiple)
            cache = EncoderCache(self.model, slots, rows)
        else:
            cache = last.cache
            new = {name: replace(field, mask=field.mask & ~last.known[name]) for name, field in fields.items()}
            slots, _ = self._packed(new, sees, row, min(self.multiple, NEW))
            if slots.index:
                cache.extend(slots)
        self._batches[number] = _Encoded(cache, known, row, list(sees))
        return cache.inputs, cache.encoded_BND

    def _packed(
        self, fields: TokenStates, sees: Sequence[frozenset[str]], row: np.ndarray, multiple: int
    ) -> tuple[Slots, dict[str, Tensor]]:
        packed, rows = pack_inputs(self.catalog, fields, sees, row, multiple)
        slots = place_ids(packed.to(self.device), fields, sees, row)
        return slots, {name: r.to(self.device, non_blocking=True) for name, r in rows.items()}

    def forget(self) -> None:
        self._batches.clear()


def _continues(last: _Encoded, known: dict[str, np.ndarray], sees: Sequence[frozenset[str]], row: np.ndarray) -> bool:
    same = list(sees) == last.sees and np.array_equal(row, last.row) and known.keys() == last.known.keys()
    return same and all((known[name] | ~mask).all() for name, mask in last.known.items())
