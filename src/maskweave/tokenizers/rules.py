"""The tokenizer of a grid modality whose values become tokens by rules, such as the bins of a scalar, instead of a network.

Its folder contains `config.json` (the complete entry) and `rules.json` (what was learned from the training values).
Dimension letters: B values, L tokens of a value, V token ids, C width of an embedding.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json, write_aside
from maskweave.modality.differences import entry_differences
from maskweave.modality.entry import Modality
from maskweave.modality.pretrained import check_complete
from maskweave.values.distribution import Distribution

FORMAT = 1
RULES = "rules.json"


class RuleTokenizer:
    """Converts values of a grid modality to tokens and back by rules.

    Args:
        modality: its checked entry, of kind `grid`.
        facts: what the rules learned, as `ValueType.fit_rules` returns it.

    Raises:
        MaskweaveError: the value type is tokenized by a network, or the facts do not fit the entry.
    """

    def __init__(self, modality: Modality, facts: Mapping[str, Any]):
        self.modality, self.facts = modality, dict(facts)
        self.rules = modality.value.rules(facts)

    @classmethod
    def fit(cls, modality: Modality, values: Sequence[Any]) -> Self:
        """Learns the rules from training values.

        Raises:
            BadSample: a value does not fit the entry.
        """
        return cls(modality, modality.value.fit_rules(modality.value.check_batch(values, modality.name)))

    @property
    def vocabulary_size(self) -> int:
        return self.modality.value.rule_tokens[1]

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) a vector per token; similar for neighboring bins of a scalar."""
        return torch.from_numpy(self.rules.embeddings())

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the tokens of a value."""
        content = json.dumps([self.modality.value.type, self.facts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Encode a batch of values to ids (B, *grid), int64.

        Raises:
            BadSample: a value doesn't fit the entry; no ids are returned then.
        """
        checked = self.modality.value.check_batch(values, self.modality.name)
        return torch.from_numpy(self.rules.encode(checked)).long().reshape(-1, *self.modality.grid)

    def decode(self, tokens: Tensor | np.ndarray) -> list[Any]:
        """Decode ids (B, L) to one value per row, in the Python form and unit of the entry.

        Raises:
            MaskweaveError: wrong shape or type, or ids outside the vocabulary.
        """
        ids = np.asarray(tokens)
        m = self.modality
        if ids.dtype.kind not in "iu" or ids.ndim != 2 or ids.shape[1] != m.tokens:
            raise MaskweaveError(
                f"{m.name}: tokens must be whole numbers of shape (B, {m.tokens}), found {ids.dtype} of shape {ids.shape}"
            )
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocabulary_size):
            raise MaskweaveError(
                f"{m.name}: tokens must be ids from 0 to {self.vocabulary_size - 1}, found {ids.min()} to {ids.max()}"
            )
        return self.rules.decode(ids)

    def distribution(self, probabilities_LV: np.ndarray) -> Distribution:
        """Returns the distribution of one value, given the probability of each id of each token."""
        return self.rules.distribution(probabilities_LV)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `rules.json` and `config.json` into a folder: to temporary files, renamed once both are complete.

        Raises:
            FullDisk: no space is left; no incomplete file remains.
        """
        folder = Path(folder)
        content = {"format": FORMAT, "modality": plain(self.modality)}
        with write_aside(folder / "config.json") as config, write_aside(folder / RULES) as rules:
            rules.write_text(json.dumps(self.facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            config.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], modality: Modality) -> Self:
        """Load a saved tokenizer for an entry whose value must equal the saved one.

        Raises:
            MaskweaveError: files are missing or damaged, or the tokenizer belongs to another entry.
        """
        folder = Path(folder)
        for name in ("config.json", RULES):
            if not (folder / name).is_file():
                raise MaskweaveError(
                    f"{folder}: {name} is missing, so the tokenizer is incomplete; make it again or copy the complete folder"
                )
        path = folder / "config.json"
        config = read_json(path)
        found = config.get("format") if isinstance(config, dict) else None
        if found != FORMAT or "modality" not in config:
            raise MaskweaveError(
                f"{path}: is not the configuration of a tokenizer by rules in format {FORMAT}, found format {shown(found)}; make it again"
            )
        check_complete(config["modality"], f"{path}: modality")
        saved = build(Modality, config["modality"], str(path), "modality")
        if faults := entry_differences(modality, saved, ("value",)):
            raise MaskweaveError(
                f"{folder}: the entry of {modality.name!r} has changed since this tokenizer was made: {'; '.join(faults)}. Restore the entry, or make the tokenizer again"
            )
        facts = read_json(folder / RULES, limit=None)
        try:
            return cls(modality, facts if isinstance(facts, dict) else {})
        except MaskweaveError as error:
            raise MaskweaveError(f"{folder / RULES}: {error}; make the tokenizer again") from error
