"""The tokenizer of a grid modality: encoder, quantizer, decoder, and the preprocessing of their inputs and outputs.

Its folder contains `config.json` (the complete entry: value, range, sizes, codebook), `model.safetensors`, and `passthrough.safetensors` if it
was converted from a published checkpoint.

Dimension letters: B batch, C channels, N latents, D latent channels.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json, remove, write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.modality.differences import entry_differences
from maskweave.modality.entry import Modality
from maskweave.modality.pretrained import check_complete
from maskweave.nn.layers import without_memory
from maskweave.nn.patches import patchify, unpatchify
from maskweave.nn.weights import (
    PASSTHROUGH,
    PassthroughTensors,
    fingerprint,
    load_passthrough,
    save_passthrough,
    save_tensors,
    take_tensors,
)
from maskweave.tokenizers.diffusion import DiffusionDecoder
from maskweave.tokenizers.mlp import MLPDecoder, MLPEncoder
from maskweave.tokenizers.quantizers import build_quantizer
from maskweave.tokenizers.quantizers.base import Quantized
from maskweave.tokenizers.vit import ViTDecoder, ViTEncoder, fixed_positions

FORMAT = 2
BATCH = 256
"""Maximum number of values in a forward pass."""
SURE = 10.0
"""Logit of points that are unknown because their token says so."""
MAX_ACTIVATIONS = 2**22
"""Maximum number of activations of a layer in a forward pass: more would take gigabytes of memory."""
GPU_ACTIVATIONS = 2**26
"""The same on a GPU, which few values do not keep busy."""


class Reconstruction(NamedTuple):
    """Result of a forward pass, for the training loss."""

    output: Tensor
    """(B, C, *size), or (B, C) for vectors; logits for classes and binary values."""
    target: Tensor
    """Target of the output: the values, or the prediction target of a diffusion decoder."""
    quantized: Quantized
    validity: Tensor | None = None
    """(B, C, *size) logits of the target's points being known, if unknown points are predicted."""


class GridTokenizer(nn.Module):
    """Converts values of a grid modality to tokens and back.

    Args:
        modality: its entry, of kind `grid`.

    Raises:
        MaskweaveError: the entry is not a valid grid.
    """

    passthrough: PassthroughTensors | None = None
    """Unused tensors of a published checkpoint."""

    def __init__(self, modality: Modality):
        super().__init__()
        if modality.kind != "grid":
            raise MaskweaveError(
                f"{modality.name}: only a modality of kind 'grid' has a tokenizer network, but this one is of kind {modality.kind!r}"
            )
        self.modality = modality = _complete(modality, f"tokenizer of {modality.name}")
        spec = modality.network
        if spec is None:
            raise MaskweaveError(f"{modality.name}: its tokenizer is not a network that is trained here")
        self.spec = spec
        is_mlp = spec.model == "mlp"
        self.encoder = MLPEncoder(modality, spec) if is_mlp else ViTEncoder(modality, spec)
        self.quantizer = build_quantizer(spec.quantizer)
        self.decoder: MLPDecoder | DiffusionDecoder | ViTDecoder
        if is_mlp:
            self.decoder = MLPDecoder(modality, spec)
        elif spec.diffusion is not None:
            self.decoder = DiffusionDecoder(modality, spec)
        else:
            self.decoder = ViTDecoder(modality, spec, self.quantizer.code_length)

    @classmethod
    def without_weights(cls, modality: Modality) -> Self:
        """Returns a tokenizer whose parameters take no memory until a loader sets them. Buffers computed from the entry are initialized."""
        with without_memory():
            tokenizer = cls(modality)
        tokenizer.quantizer = build_quantizer(tokenizer.spec.quantizer)
        for part in (tokenizer.encoder, tokenizer.decoder):
            if isinstance(part, (ViTEncoder, ViTDecoder)):
                part.positions = fixed_positions(tokenizer.modality, tokenizer.spec, part.positions.shape[1])
        return tokenizer

    @property
    def vocabulary_size(self) -> int:
        return self.modality.codes

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Reconstruction:
        """Encode, quantize and decode network tensors, as returned by `ValueType.to_network`."""
        quantized = self._quantize(x)
        if isinstance(self.decoder, DiffusionDecoder):
            output, target = self.decoder.training_pass(x, quantized.z_q)
            return Reconstruction(output, target, quantized)
        output = self.decoder(quantized.z_q)
        if self.modality.value.predicts_unknown:
            output, validity = output.chunk(2, dim=1)
            return Reconstruction(output, x, quantized, validity)
        return Reconstruction(output, x, quantized)

    def _quantize(self, x: Tensor) -> Quantized:
        """Encode and quantize network tensors. If unknown points are predicted, tokens without any known point have the last id and a code of 0."""
        z_BND = self.encoder(x)
        if not self.modality.value.predicts_unknown:
            return self.quantizer(z_BND)
        known_BN = ~patchify(x.isnan().movedim(1, -1), self.modality.grid).all(dim=-1)
        some = self.quantizer(z_BND[known_BN][None])  # the codebook is for known tokens only
        z_q = torch.zeros_like(z_BND, dtype=some.z_q.dtype).masked_scatter(known_BN[..., None], some.z_q)
        ids = torch.full_like(known_BN, self.quantizer.size, dtype=some.ids.dtype)
        return Quantized(z_q, ids.masked_scatter(known_BN, some.ids), some.loss)

    def encode_tensor(self, x: Tensor) -> Tensor:
        """Encode network tensors to ids (B, *grid)."""
        return self._quantize(x).ids.reshape(-1, *self.modality.grid)

    def decode_tensor(self, ids: Tensor, seeds: Sequence[int] | None = None, means_BNC: Tensor | None = None) -> Tensor:
        """Decode ids (B, *grid) to the network's output, with validity logits if unknown points are predicted. A diffusion decoder starts from the noise of the seeds, all 0 by default."""
        z_BND = self.codes(ids)
        if means_BNC is not None:
            z_BND = torch.where(
                means_BNC.isnan() | (ids.flatten(1) >= self.quantizer.size)[..., None], z_BND, means_BNC
            )
        if isinstance(self.decoder, DiffusionDecoder):
            seeds = [0] * len(ids) if seeds is None else seeds
            return self.decoder.decode(z_BND, self.decoder.noise(seeds, z_BND.device))
        return self.decoder(z_BND)

    def codes(self, ids: Tensor) -> Tensor:
        """The codebook vectors (B, N, D) of ids (B, *grid)."""
        ids = ids.flatten(1)
        if self.modality.value.predicts_unknown:
            codes = self.quantizer.decode(ids.clamp_max(self.quantizer.size - 1))
            return codes * (ids < self.quantizer.size)[..., None]
        heads = self.spec.quantizer.heads
        return self.quantizer.decode(ids.unflatten(1, (-1, heads)) if self.spec.quantizer.type == "memcodes" else ids)

    def encode(self, values: Any) -> Tensor:
        """Encode a batch of values, in the Python form of the entry's value type, to ids (B, *grid), int64 on the CPU.

        Raises:
            BadSample: a value doesn't fit the entry; no ids are returned then.
        """
        value, parts = self.modality.value, [torch.zeros(0, *self.modality.grid, dtype=torch.long)]
        with self._evaluating():
            for start in range(0, len(values), self.batch):
                some = value.check_batch(values[start : start + self.batch], self.modality.name, first=start)
                x = value.to_network(some)
                parts.append(self.encode_tensor(x.to(self.device)).cpu())
        return torch.cat(parts)  # outside of inference mode, so that training may use it

    def decode(
        self, tokens: Tensor | np.ndarray, seeds: Sequence[int] | None = None, means: np.ndarray | None = None
    ) -> Any:
        """Decode ids (B, *grid), or (B, tokens), to a batch of values in the Python form and unit of the entry: an array, or a list if they differ
        in length.

        Args:
            seeds: seeds of a diffusion decoder's initial noise, one per row of tokens, all 0 by default. The value of a row depends only on
                its tokens and its seed. Other decoders ignore them.
            means: (B, tokens, C) vectors to decode instead of those of the codebook, where they are not NaN and the token does not say that its
                points are unknown.

        Raises:
            MaskweaveError: wrong shape or type, ids outside the codebook, or a wrong number of seeds.
        """
        ids = checked_ids(self.modality, tokens, self.vocabulary_size)
        seeds = [0] * len(ids) if seeds is None else seeds
        if len(seeds) != len(ids):
            raise MaskweaveError(
                f"{self.modality.name}: {len(ids)} rows of tokens need as many seeds, found {len(seeds)}"
            )
        parts = []
        with self._evaluating():
            for start in range(0, max(len(ids), 1), self.batch):
                part = slice(start, start + self.batch)
                some = None if means is None else torch.from_numpy(means[part]).to(self.device)
                output = self.decode_tensor(ids[part].to(self.device), seeds[part], some)
                parts.append(self._values(output, ids[part]))
        return list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)

    def _values(self, output: Tensor, ids: Tensor) -> Any:
        """Converts a decoded batch to values; where a token says that nothing is known, its points are unknown."""
        value = self.modality.value
        if not value.predicts_unknown:
            return value.from_network(output)
        output, logits = output.float().cpu().chunk(2, dim=1)
        known = (ids.flatten(1) < self.quantizer.size).cpu()
        points = known[..., None].expand(-1, -1, math.prod(self.modality.patch)).contiguous()
        mask = unpatchify(points, self.modality.grid, self.modality.patch).movedim(-1, 1)
        return value.with_unknown(value.from_network(output), logits.masked_fill(~mask, -SURE))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json` into a folder: to temporary files, renamed once both are complete.

        Raises:
            FullDisk: no space is left; no incomplete file remains.
        """
        folder = Path(folder)
        content = json.dumps({"format": FORMAT, "modality": plain(self.modality)}, indent=1, ensure_ascii=False)
        with write_aside(folder / "config.json") as config, write_aside(folder / "model.safetensors") as weights:
            save_tensors(self.state_dict(), weights)
            config.write_text(content + "\n", encoding="utf-8")
            remove(folder / PASSTHROUGH)  # left by another tokenizer
            save_passthrough(self.passthrough, folder)

    @property
    def batch(self) -> int:
        """Number of values in a forward pass."""
        activations = self.modality.tokens * max(self.spec.width, self.spec.decoder_width)
        if self.spec.diffusion is not None:
            activations = (
                math.prod(self.modality.value.size) // self.spec.diffusion.patch**2 * self.spec.diffusion.widths[0]
            )
        most = GPU_ACTIVATIONS if self.device.type == "cuda" else MAX_ACTIVATIONS
        return max(1, min(BATCH, most // activations))

    @property
    def codebook(self) -> Tensor:
        """(codes, C) vector of each id of the codebook, as the decoder reads it; for tokens of one code."""
        with torch.inference_mode():
            return (
                self.quantizer.decode(torch.arange(self.quantizer.size, device=self.device)[:, None])[:, 0]
                .float()
                .clone()
            )

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) codebook vector of each token. With several heads, the vectors of all heads with the same id are concatenated."""
        ids = torch.arange(self.quantizer.size, device=self.device)
        heads = self.spec.quantizer.heads
        with torch.inference_mode():
            codes = self.quantizer.decode(ids[:, None, None].expand(-1, 1, heads) if heads > 1 else ids[:, None])
        codes = F.pad(codes.flatten(1), (0, 0, 0, self.vocabulary_size - self.quantizer.size))  # 0 for unknown tokens
        return codes.float().cpu().clone()

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of learned statistics: changes whenever the same value could give other tokens."""
        weights, fitted = fingerprint(self.state_dict()), plain(getattr(self.modality.value, "fitted", None))
        return weights if fitted is None else hashlib.sha256(json.dumps([weights, fitted]).encode()).hexdigest()[:16]

    @classmethod
    def load(cls, folder: str | os.PathLike[str], modality: Modality | None = None) -> Self:
        """Load a saved tokenizer in evaluation mode.

        Args:
            modality: the entry to use the tokenizer for; its value, grid and tokenizer must equal the saved ones, except `report_facts`.

        Raises:
            MaskweaveError: files are missing, truncated or of another format, or the tokenizer belongs to another entry.
        """
        folder = Path(folder)
        saved = read_entry(folder)
        if modality is not None:
            modality = _complete(modality, f"tokenizer of {modality.name}")
            modality = dataclasses.replace(modality, value=modality.value.fitted_like(saved.value))
            if differences := entry_differences(modality, saved):
                raise MaskweaveError(
                    f"{folder}: the entry of {modality.name!r} has changed since this tokenizer was trained: {'; '.join(differences)}. Restore the entry, or train the tokenizer again"
                )
        tokenizer = cls.without_weights(modality or saved)
        take_tensors(tokenizer, folder / "model.safetensors")
        tokenizer.passthrough = load_passthrough(folder)
        return tokenizer.eval()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.train(was_training)


def checked_ids(m: Modality, tokens: Tensor | np.ndarray, vocabulary_size: int) -> Tensor:
    """Returns ids (B, *grid), or (B, tokens), of an entry as int64.

    Raises:
        MaskweaveError: wrong shape or type, or ids outside the vocabulary.
    """
    ids = torch.as_tensor(tokens)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise MaskweaveError(f"{m.name}: tokens must be whole numbers, found {ids.dtype}")
    if tuple(ids.shape[1:]) not in (m.grid, (m.tokens,)) or not ids.ndim > 1:
        raise MaskweaveError(
            f"{m.name}: tokens must have the shape (B, {', '.join(map(str, m.grid))}), found {tuple(ids.shape)}"
        )
    if ids.numel() and (ids.min() < 0 or ids.max() >= vocabulary_size):
        raise MaskweaveError(
            f"{m.name}: tokens must be ids of the codebook, 0 to {vocabulary_size - 1}, found {int(ids.min())} to {int(ids.max())}"
        )
    return ids.long()


def _complete(modality: Modality, where: str) -> Modality:
    """Returns the checked entry with its defaults filled in. The entry it reads from (`source`) may be missing."""
    standalone = dataclasses.replace(modality, source="")
    return dataclasses.replace(Catalog([standalone], where=where)[modality.name], source=modality.source)


def read_entry(folder: Path) -> Modality:
    """Returns the entry of a saved tokenizer, with what it has learned.

    Raises:
        MaskweaveError: files are missing, damaged or of another format.
    """
    if not folder.is_dir():
        raise MaskweaveError(f"{folder}: no such folder; expected a saved tokenizer")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise MaskweaveError(
                f"{folder}: {name} is missing, so the tokenizer is incomplete; train it again or copy the complete folder"
            )
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict) or set(config) != {"format", "modality"}:
        raise MaskweaveError(
            f"{path}: is not the configuration of a tokenizer; expected the keys 'format' and 'modality'; train the tokenizer again"
        )
    if config["format"] != FORMAT:
        raise MaskweaveError(
            f"{path}: has format {shown(config['format'])}, written by another version of maskweave; this version reads format {FORMAT}. "
            "Train the tokenizer again, or use the version that wrote it"
        )
    check_complete(config["modality"], f"{path}: modality")
    entry = build(Modality, config["modality"], str(path), "modality")
    if entry.kind != "grid":
        raise MaskweaveError(
            f"{path}: 'modality.kind' must be 'grid', found {shown(entry.kind)}; train the tokenizer again"
        )
    return _complete(entry, str(path))
