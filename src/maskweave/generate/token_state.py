"""Known tokens of the samples being generated, and their packing into the encoder's input.

Dimension letters: B samples, R rows of a batch (one pass over one sample each), L positions of a modality, C width of a raw row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskweave.data.tokenizing import column_of
from maskweave.errors import MaskweaveError
from maskweave.masking.batch import Slots, TokenSlice, pack
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.values.array import of_tensor


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids given instead of a value: for a grid in its shape or flattened, for a sequence in order, including [EOS]."""

    ids: Any


@dataclass
class TokenState:
    """The known tokens (or raw rows) of one modality of B samples."""

    mask: np.ndarray
    """(B, L), True where known."""
    ids: np.ndarray | None = None
    """(B, L) token ids of a grid or sequence."""
    rows: np.ndarray | None = None
    """(B, L, C) normalized patches or vectors, as the network reads them."""
    probabilities: np.ndarray | None = None
    """(B, L, V) probability of each id of generated tokens, NaN for others; only where values have distributions, or if it is asked for."""
    calibration: float = 1.0
    """Temperature of these probabilities; see `maskweave.generate.calibration`."""
    codebook: Tensor | None = None
    """(V, C) vector of each id; only where values are decoded from mean vectors."""
    means: np.ndarray | None = None
    """(B, L, C) mean of the codebook's vectors, weighted by their probabilities, at generated tokens; NaN for others."""
    confidence: np.ndarray | None = None
    """(B, L) probability of each generated token when it was sampled; only where steps remask by it."""

    device_ids: Tensor | None = None
    """(B, L) ids on the device, while a grid is generated on a GPU: `ids` has no new ones until `fetch`."""

    def fetch(self) -> None:
        """Copies new ids from the device."""
        if self.device_ids is not None:
            assert self.ids is not None
            self.ids[...] = self.device_ids.cpu().numpy()

    def forget(self, masked_BL: np.ndarray) -> None:
        """Masks generated tokens again."""
        self.mask &= ~masked_BL
        for of_tokens in (self.probabilities, self.means):
            if of_tokens is not None:
                of_tokens[masked_BL] = np.nan

    @classmethod
    def empty(cls, samples: int, positions: int) -> "TokenState":
        """A state in which no token is known."""
        return cls(np.zeros((samples, positions), bool), np.zeros((samples, positions), np.int64))


TokenStates = Mapping[str, TokenState]


def check_tokens(tokens: Tokens, modality: Modality, size: int, where: str) -> Tokens:
    """Returns the tokens as a flat int64 array.

    Args:
        size: of the vocabulary.

    Raises:
        MaskweaveError: the modality has no tokens, or the shape or the ids are invalid.
    """
    if not modality.has_tokens:
        raise MaskweaveError(f"{where}: is of kind {modality.kind}, which has no tokens; give its value")
    try:
        ids = np.asarray(of_tensor(tokens.ids, where))
    except ValueError as error:
        if isinstance(error, MaskweaveError):
            raise
        raise MaskweaveError(
            f"{where}: found tokens in rows of different lengths; expected whole numbers in one array"
        ) from error
    if modality.kind == "grid":
        wanted, fits = f"shape {modality.grid}", ids.shape in (modality.grid, (modality.tokens,))
    else:
        wanted, fits = f"1 to {modality.tokens} in a row", ids.ndim == 1 and 0 < len(ids) <= modality.tokens
    if not fits or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size:
        span = f", {ids.min()} to {ids.max()}" if ids.dtype.kind in "iu" and ids.size else ""
        raise MaskweaveError(
            f"{where}: found tokens of type {ids.dtype}, shape {ids.shape}{span}; expected whole numbers from 0 to {size - 1}, {wanted}"
        )
    return Tokens(ids.flatten().astype(np.int64))


def token_states(
    catalog: Catalog, samples: Sequence[Mapping[str, Any]], tokenizers: Mapping[str, Tokenizer]
) -> dict[str, TokenState]:
    """Tokenizes the given values; None and missing values are unknown.

    Raises:
        BadSample: a value does not fit its entry.
    """
    names = dict.fromkeys(name for sample in samples for name in sample if sample[name] is not None)
    return {name: _tokenized(catalog[name], [s.get(name) for s in samples], tokenizers.get(name)) for name in names}


def _tokenized(modality: Modality, values: Sequence[Any], tokenizer: Tokenizer | None) -> TokenState:
    column = column_of(modality, [None if isinstance(v, Tokens) else v for v in values], tokenizer)
    mask = column.tokens(modality.tokens)
    if column.rows is not None:
        return TokenState(mask, rows=modality.value.normalize_rows(np.asarray(column.rows)))
    assert column.ids is not None
    for b, value in enumerate(values):
        if isinstance(value, Tokens):
            column.ids[b, : len(value.ids)], mask[b, : len(value.ids)] = value.ids, True
    return TokenState(mask, column.ids)


def pack_inputs(
    catalog: Catalog,
    fields: TokenStates,
    sees: Sequence[frozenset[str]],
    row: np.ndarray,
    multiple: int = 1,
) -> tuple[Slots, dict[str, torch.Tensor]]:
    """Packs rows of the encoder's input, ordered by pass and then by sample; each row has the modalities that its pass sees.

    Args:
        sees: modalities that each pass sees.
        row: (R,) ascending row indices, pass · B + sample.
        multiple: the number of slots per row is rounded up to a multiple of this.
    """
    B = samples_of(fields)
    row_pass, row_sample = np.divmod(row, B)
    parts, rows = {}, {}
    lengths = np.zeros(len(row), np.int64)
    for name, field in fields.items():
        mask_RL = _mask_of(name, field, sees, row_pass, row_sample)
        r, position = np.nonzero(mask_RL)
        if not len(r):
            continue
        lengths += mask_RL.sum(axis=1)
        if field.rows is not None:
            rows[name] = torch.from_numpy(field.rows[row_sample[r], position])
            parts[name] = TokenSlice(r, np.zeros(len(r), np.int64), position)
        else:
            assert field.ids is not None
            parts[name] = TokenSlice(r, field.ids[row_sample[r], position], position)
    width = -(-max(int(lengths.max(initial=0)), 1) // multiple) * multiple
    slots, _ = pack(parts, {name: catalog[name].id for name in parts}, len(row), width)
    return slots, rows


def _mask_of(
    name: str, field: TokenState, sees: Sequence[frozenset[str]], row_pass: np.ndarray, row_sample: np.ndarray
) -> np.ndarray:
    """(R, L), which tokens of a modality each row has."""
    seen_P = np.array([name in names for names in sees])
    return field.mask[row_sample] & seen_P[row_pass][:, None]


def place_ids(slots: Slots, fields: TokenStates, sees: Sequence[frozenset[str]], row: np.ndarray) -> Slots:
    """Returns packed inputs, moved to the device, with the ids that are only there."""
    row_pass, row_sample = np.divmod(row, samples_of(fields))
    for name, field in fields.items():
        if field.device_ids is not None and name in slots.index:
            r, position = np.nonzero(_mask_of(name, field, sees, row_pass, row_sample))
            flat = torch.from_numpy(row_sample[r] * field.mask.shape[1] + position)
            found = field.device_ids.flatten()[flat.to(slots.ids.device, non_blocking=True)]
            slots.ids.view(-1).index_copy_(0, slots.index[name], found)
    return slots


def row_lengths(fields: TokenStates, sees: Sequence[frozenset[str]]) -> np.ndarray:
    """Returns the number of tokens (passes · B,) of every row."""
    B = samples_of(fields)
    counts = {name: field.mask.sum(axis=1) for name, field in fields.items()}
    zero = np.zeros(B, np.int64)
    return np.concatenate([sum((counts[name] for name in fields if name in names), zero) for names in sees])


def samples_of(fields: TokenStates) -> int:
    return len(next(iter(fields.values())).mask)
