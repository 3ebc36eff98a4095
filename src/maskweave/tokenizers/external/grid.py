"""A tokenizer that was trained elsewhere as the tokenizer of a grid modality.

Its folder contains `config.json` (the complete entry) and, unless it is code, `external/`, a copy of the published files, so that a bundle is complete.

Dimension letters: B batch, R levels, V codes of a level, C width of a code.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError, said, shown
from maskweave.files import make_folder, read_json, write_aside
from maskweave.modality.differences import entry_differences
from maskweave.modality.entry import Modality
from maskweave.modality.pretrained import check_complete
from maskweave.nn.patches import patchify, unpatchify
from maskweave.tokenizers.external.base import ExternalTokenizer
from maskweave.tokenizers.external.opening import CONFIG, FILES, model_folder, open_external
from maskweave.tokenizers.grid import SURE, checked_ids
from maskweave.values.audio import Audio
from maskweave.values.series import Series

FORMAT = 1
COPY = "external"
"""Folder of the copied files."""


class ExternalGridTokenizer(nn.Module):
    """Converts values of a grid modality to tokens and back.

    Args:
        modality: its checked entry.
        external: the tokenizer.
        files: folder of its files; None: it has none.

    Raises:
        MaskweaveError: vocabulary or grid differ from the entry's, or the entry has unknown points that tokens cannot be matched with.
    """

    def __init__(self, modality: Modality, external: ExternalTokenizer, files: Path | None = None):
        super().__init__()
        spec = modality.external
        assert spec is not None
        self.modality, self.external, self.files, self.spec = modality, external, files, spec
        for key, found, wanted in (
            ("size of the vocabulary", external.vocabulary_size, spec.size),
            ("grid", tuple(external.grid), modality.grid),
        ):
            if found != wanted:
                raise MaskweaveError(
                    f"{modality.name!r}: {spec.external}: its {key} is {found}, but the entry's is {wanted}; correct the entry's grid, tokenizer.codes and tokenizer.depth"
                )
        self.is_timed = isinstance(modality.value, (Audio, Series))
        size, grid = modality.value.size, modality.grid
        is_divided = len(size) == len(grid) and not any(s % g for s, g in zip(size, grid, strict=True))
        if modality.value.has_unknown and not (self.is_timed or is_divided):
            raise MaskweaveError(
                f"{modality.name!r}: {spec.external}: values may have unknown points, but the tokens of grid {list(grid)} are not patches of value.size {list(size)}; "
                "remove value.missing, value.ignore or value.valid"
            )

    @classmethod
    def open(cls, modality: Modality) -> Self:
        """Opens the tokenizer that a checked entry names.

        Raises:
            MaskweaveError: it cannot be opened, or does not fit the entry; the message says what to do.
        """
        spec = modality.external
        assert spec is not None
        files = None if spec.is_code else model_folder(spec)
        return cls(modality, open_external(modality, spec, files), files).eval()

    @classmethod
    def load(cls, folder: str | os.PathLike[str], modality: Modality) -> Self:
        """Loads a saved tokenizer for an entry whose value, grid and tokenizer must equal the saved ones.

        Raises:
            MaskweaveError: files are missing or damaged, the tokenizer belongs to another entry, or it is code that is not allowed to run.
        """
        folder, spec = Path(folder), modality.external
        assert spec is not None
        path = folder / CONFIG
        config = read_json(path) if path.is_file() else None
        if not isinstance(config, dict) or config.get("format") != FORMAT or "modality" not in config:
            found = shown(config.get("format")) if isinstance(config, dict) else "none"
            raise MaskweaveError(
                f"{path}: is not the configuration of an external tokenizer in format {FORMAT}, found {found}; make the tokenizers again"
            )
        check_complete(config["modality"], f"{path}: modality")
        saved = build(Modality, config["modality"], str(path), "modality")
        if differences := entry_differences(modality, saved):
            raise MaskweaveError(
                f"{folder}: the entry of {modality.name!r} has changed since this tokenizer was copied: {'; '.join(differences)}. Restore the entry, or copy the tokenizer again"
            )
        files = None if spec.is_code else folder / COPY
        return cls(modality, open_external(modality, spec, files), files).eval()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `config.json`, and copies the published files.

        Raises:
            FullDisk: no space is left; no incomplete file remains.
        """
        folder = Path(folder)
        make_folder(folder)
        if self.files is not None and self.files.resolve() != (folder / COPY).resolve():
            with write_aside(folder / COPY) as aside:
                aside.mkdir()
                for path in sorted({path for pattern in FILES for path in self.files.glob(pattern)}):
                    shutil.copyfile(path, aside / path.name)
        facts = {"format": FORMAT, "modality": plain(self.modality)}
        if self.spec.is_code:
            facts["fingerprint"] = self.fingerprint
        content = json.dumps(facts, indent=1, ensure_ascii=False)
        with write_aside(folder / CONFIG) as aside:
            aside.write_text(content + "\n", encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        return self.modality.codes

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the same value could give other tokens."""
        found = self._call("fingerprint")
        if not isinstance(found, str) or not found:
            raise self._refuse("fingerprint", f"is {shown(found)}", "a text that is not empty")
        return f"{found}-{self.spec.tokens}-{self.spec.depth}"

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) vector of each token. The vectors of the levels are added for joined tokens, and concatenated for separate ones.

        Raises:
            MaskweaveError: the tokenizer does not tell what its codes stand for, or not in the form that `ExternalTokenizer.codebooks` says.
        """
        with torch.inference_mode():
            vectors_RVC = self._call("codebooks")
        if vectors_RVC is None:
            raise MaskweaveError(
                f"{self.modality.name!r}: {self.spec.external} has no codebook vectors to start from; set model.init_from_tokenizers: false"
            )
        levels = vectors_RVC.detach().float().clone()
        shape = tuple(levels.shape)
        tokens = 0 if len(shape) != 3 else shape[1] ** shape[0] if self.spec.tokens == "joined" else shape[1]
        if tokens != self.spec.size or not levels.isfinite().all():
            raise self._refuse(
                "codebooks",
                f"returned {vectors_RVC.dtype} of shape {shape}",
                f"None, or finite vectors (levels, codes, width) for {self.spec.size} ids",
            )
        if self.spec.tokens == "joined":
            vectors = levels[0]
            for level in levels[1:]:
                vectors = (vectors[:, None] + level).flatten(0, 1)
        else:
            vectors = levels.movedim(0, 1).flatten(1)
        return F.pad(vectors, (0, 0, 0, self.vocabulary_size - len(vectors)))  # 0 for unknown tokens

    def known_tokens(self, values: Sequence[Any]) -> np.ndarray:
        """Returns which tokens of checked values have a known point, bool (B, *grid)."""
        m = self.modality
        known = np.stack([m.value.known(value) for value in values])
        known = known.reshape(len(known), *m.value.size, -1)
        if not self.is_timed:
            rows: np.ndarray = patchify(known, m.grid).any(axis=-1).reshape(-1, *m.grid)
            return rows
        known_BT: np.ndarray = np.any(known.reshape(len(known), -1, m.value.size[-1], known.shape[-1]), axis=(1, 3))
        tokens, points = m.grid[-1], m.value.size[-1]
        found = np.zeros((len(known), tokens), bool)
        for token in range(tokens):
            first, end = token * points // tokens, -(-(token + 1) * points // tokens)
            found[:, token] = known_BT[:, first:end].any(axis=1)
        return _over_last_axis(found, m.grid)

    def known_points(self, tokens: np.ndarray) -> np.ndarray:
        """Returns which points (B, *size) the tokens (B, *grid) say are known."""
        m = self.modality
        if not self.is_timed:
            patches = np.repeat(tokens.reshape(len(tokens), -1, 1), math.prod(m.patch), axis=-1)
            return unpatchify(patches, m.grid, m.patch)[..., 0]
        frames, points = m.grid[-1], m.value.size[-1]
        known_BF: np.ndarray = np.any(tokens.reshape(len(tokens), -1, frames), axis=1)
        return _over_last_axis(known_BF[:, np.arange(points) * frames // points], m.value.size)

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Encodes a batch of values, in the Python form of the entry's value type, to ids (B, *grid), int64 on the CPU.

        Raises:
            BadSample: a value doesn't fit the entry; no ids are returned then.
            MaskweaveError: the tokenizer returned something else than ids.
        """
        m, value = self.modality, self.modality.value
        parts = [torch.zeros(0, *m.grid, dtype=torch.long)]
        for start in range(0, len(values), self.external.batch):
            some = values[start : start + self.external.batch]
            checked = value.check_batch(some, m.name, first=start)
            forms = [value.check(value.from_python(item, m.name), m.name) for item in some]
            ids = self._call("encode", forms)
            self._check_returned(ids, len(some))
            if value.predicts_unknown:
                ids = ids.masked_fill(~torch.from_numpy(self.known_tokens(checked)), self.spec.size)
            parts.append(ids.long())
        return torch.cat(parts).clone()

    def _call(self, name: Literal["encode", "decode", "fingerprint", "blank", "codebooks"], *given: Any) -> Any:
        """Calls a method of the tokenizer, or reads its fingerprint. The errors of the user's own code name the tokenizer."""
        try:
            made = getattr(self.external, name)
            made = made if name == "fingerprint" else made(*given)
            if name in ("encode", "blank", "codebooks") and made is not None:
                made = torch.as_tensor(made).cpu()
        except Exception as error:
            if not self.spec.is_code or isinstance(error, (MaskweaveError, torch.OutOfMemoryError)):
                raise
            raise MaskweaveError(
                f"{self.modality.name!r}: {self.spec.external}: {name} raised {said(error)}; correct its code"
            ) from error
        if (name == "encode" and made is None) or (name == "decode" and not hasattr(made, "__len__")):
            expected = "ids" if name == "encode" else "one value for each row of ids"
            raise self._refuse(name, f"returned {type(made).__name__}", expected)
        return made

    def _refuse(self, name: str, found: str, expected: str) -> MaskweaveError:
        return MaskweaveError(
            f"{self.modality.name!r}: {self.spec.external}: {name} {found}; expected {expected}; correct its code"
        )

    def _blank(self) -> Tensor:
        """Returns the ids (*grid) that stand where nothing is known."""
        ids = self._call("blank")
        if ids is None:
            return torch.zeros(self.modality.grid, dtype=torch.long)
        if not self._are_ids(ids, self.modality.grid):
            expected = f"None, or whole numbers from 0 to {self.spec.size - 1} of shape {self.modality.grid}"
            raise self._refuse("blank", f"returned {ids.dtype} of shape {tuple(ids.shape)}", expected)
        return ids.long()

    def _are_ids(self, ids: Tensor, shape: tuple[int, ...]) -> bool:
        fits = tuple(ids.shape) == shape and not ids.is_floating_point() and ids.dtype != torch.bool
        return fits and int(ids.min()) >= 0 and int(ids.max()) < self.spec.size

    def _check_returned(self, ids: Tensor, count: int) -> None:
        m = self.modality
        if not self._are_ids(ids, (count, *m.grid)):
            span = f", {ids.min()} to {ids.max()}" if ids.numel() else ""
            raise MaskweaveError(
                f"{m.name!r}: {self.spec.external}: encoded {count} values to {ids.dtype} of shape {tuple(ids.shape)}{span}; "
                f"expected whole numbers from 0 to {self.spec.size - 1} of shape {(count, *m.grid)}"
            )

    def decode(self, tokens: Tensor | np.ndarray) -> Any:
        """Decodes ids (B, *grid), or (B, tokens), to a batch of values in the Python form of the entry: an array, or a list if they differ in length.

        Raises:
            MaskweaveError: wrong shape or type, ids outside the vocabulary, or the tokenizer returned something else than values of the entry.
        """
        m, value = self.modality, self.modality.value
        ids = checked_ids(m, tokens, self.vocabulary_size).reshape(-1, *m.grid).cpu()
        known = ids < self.spec.size
        if not known.all():
            ids = torch.where(known, ids, self._blank())
        found: list[Any] = []
        for start in range(0, len(ids), self.external.batch):
            part = self._call("decode", ids[start : start + self.external.batch])
            found += [value.check(value.from_python(item, m.name), m.name) for item in part]
        if len(found) != len(ids):
            raise MaskweaveError(
                f"{m.name!r}: {self.spec.external}: decoded {len(ids)} rows of ids to {len(found)} values; expected as many"
            )
        values = _batch(found)
        if not value.predicts_unknown:
            return values
        points = torch.from_numpy(self.known_points(known.numpy()))
        logits = torch.where(points, SURE, -SURE)[:, None].expand(-1, value.channels, *value.size)
        return value.with_unknown(values, logits)


def _batch(values: list[Any]) -> np.ndarray:
    """Returns values as one array: of their numbers, or of objects."""
    if all(isinstance(value, np.ndarray) for value in values) and len({value.shape for value in values}) == 1:
        return np.stack(values)
    batch = np.empty(len(values), object)
    batch[:] = values
    return batch


def _over_last_axis(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(B, T) repeated to (B, *size), whose last axis has T points."""
    shape = (len(array), *([1] * (len(size) - 1)), size[-1])
    return np.broadcast_to(array.reshape(shape), (len(array), *size)).copy()
