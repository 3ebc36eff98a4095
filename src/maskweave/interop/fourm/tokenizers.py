"""Published 4M tokenizers: converts `config.json` + `model.safetensors` to a `GridTokenizer` and back."""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError
from maskweave.interop.fourm.tokenizer_config import (
    TokenizerConfig,
    published_config,
    read_tokenizer_config,
    specification,
)
from maskweave.interop.fourm.tokenizer_names import correspondence, positions
from maskweave.interop.published import Tensors, locate, write_published
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.nn.weights import PassthroughTensors
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.quantizers.vq import VQ
from maskweave.values.base import ValueType
from maskweave.values.classes import Classes
from maskweave.values.features import Features
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.vector import Vector


@check_arguments
def load_tokenizer(
    folder_or_hub_id: str | os.PathLike[str], modality: Modality | None = None, size: tuple[int, int] | None = None
) -> GridTokenizer:
    """Load a published tokenizer, in evaluation mode.

    Args:
        modality: the entry of the values. By default one is made: classes if the tokenizer has labels, a vector for MLPs, features
            without a patch projection, an image for three channels, and otherwise a map in [-1, 1].
        size: rows and columns of the values, instead of the entry's; positions are resized.

    Raises:
        MaskweaveError: missing, truncated or pickled files, unknown or contradictory keys, missing, unknown or wrongly shaped tensors, or
            an entry that does not fit the tokenizer.
    """
    folder = locate(folder_or_hub_id)
    where = str(folder / "config.json")
    written, config = read_tokenizer_config(folder)
    tensors = Tensors(folder)
    spec = specification(config, tensors)
    if modality is None:
        modality = _entry(config, spec, re.sub(r"[^A-Za-z0-9_@-]", "_", Path(folder_or_hub_id).resolve().name))
    elif faults := [*_differences(config, modality)]:
        raise MaskweaveError(f"{where}: is not a tokenizer for the entry {modality.name!r}: {'; '.join(faults)}")
    try:
        tokenizer = GridTokenizer.without_weights(_fitted(config, spec, modality, size))
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error

    shapes = {key: torch.empty(p.shape, device="meta") for key, p in tokenizer.state_dict().items()}
    ours: dict[str, Tensor] = {}
    for stored in correspondence(tokenizer):
        tensor = tensors.take(stored.name, *stored.layout.published([shapes[part] for part in stored.parts]).shape)
        ours.update(zip(stored.parts, stored.layout.local(tensor), strict=True))
    passthrough = {key: tensors.prescribed(key, table) for key, table in positions(tokenizer).items() if key in tensors}
    passthrough |= {key: tensors.take(key, *value.shape) for key, value in _usage(tokenizer).items() if key in tensors}
    tensors.finish()
    if isinstance(tokenizer.quantizer, VQ):  # its moving averages are initialized from the codes
        codes = ours["quantizer.codebook"]
        ours |= {"quantizer.sums": codes.clone(), "quantizer.usage": torch.ones(len(codes))}
        ours["quantizer.initialized"] = torch.tensor(True)
    tokenizer.load_state_dict(ours, assign=True)
    tokenizer.passthrough = PassthroughTensors(written, passthrough, tuple(sorted(tensors.names)))
    return tokenizer.eval()


@check_arguments
def export_tokenizer(tokenizer: GridTokenizer, folder: str | os.PathLike[str]) -> None:
    """Write a tokenizer in the published format. A tokenizer from `load_tokenizer` is written back unchanged.

    Raises:
        MaskweaveError: the published format does not support its architecture.
    """
    config = tokenizer.passthrough.config if tokenizer.passthrough else published_config(tokenizer)
    state = tokenizer.state_dict()
    tensors = {s.name: s.layout.published([state[part] for part in s.parts]) for s in correspondence(tokenizer)}
    tensors |= positions(tokenizer) | _usage(tokenizer)
    if tokenizer.passthrough:
        tensors = tokenizer.passthrough.published(tensors)
    write_published(Path(folder), config, tensors)


def _usage(tokenizer: GridTokenizer) -> dict[str, Tensor]:
    """Usage of the codes: only for training, and in a different unit than ours."""
    quantizer = tokenizer.quantizer
    if not isinstance(quantizer, VQ):
        return {}
    return {"quantize._codebook.cluster_size": quantizer.usage, "quantize._codebook.initted": torch.ones(1)}


def _entry(config: TokenizerConfig, spec: TokenizerSpec, name: str) -> Modality:
    """Makes an entry from the configuration only."""
    value: ValueType
    channels = config.n_channels
    if config.n_labels:
        value = Classes(classes=tuple(str(n) for n in range(config.n_labels)))
    elif spec.model == "mlp":
        value = Vector(channels=channels)
    elif not config.patch_proj:
        value = Features(config.grid, channels)
    elif channels == 3:
        value = Image(channels=3)
    else:
        value = Map(channels=channels, range=(-1.0, 1.0))
    if spec.model == "vit" and config.patch_proj:
        sized: dict[str, Any] = {"size": config.image_size}
        value = dataclasses.replace(value, **sized)
    return Modality(name, 1, "grid", value, grid=config.grid)


def _differences(config: TokenizerConfig, modality: Modality) -> Iterator[str]:
    """Differences between the entry and the tokenizer."""
    value = modality.value
    is_vector, has_classes = not value.size, bool(value.num_classes)
    if is_vector != config.enc_type.startswith("BottleneckMLP"):
        yield f"enc_type is {config.enc_type!r}, expected an encoder for values of type {value.type!r}"
    wanted = {"n_labels": len(value.classes) if has_classes else None}
    if not has_classes:
        wanted["n_channels"] = value.channels
    if modality.network is not None:
        wanted["codebook_size"] = modality.network.quantizer.size
    if is_vector:
        wanted["num_codebooks"] = modality.tokens
    for key, expected in wanted.items():
        if (found := getattr(config, key)) != expected:
            yield f"{key} is {found}, expected {expected}"
    patch = config.patch_size if config.patch_proj else (1, 1)
    if not is_vector and modality.patch != patch:
        yield f"patch_size is {patch}, expected {modality.patch}, from value.size {value.size} and grid {modality.grid}"


def _fitted(config: TokenizerConfig, spec: TokenizerSpec, modality: Modality, size: tuple[int, int] | None) -> Modality:
    """Returns the entry with this tokenizer and size.

    Raises:
        MaskweaveError: the size is not a multiple of the patch, or a size is given for vectors.
    """
    grid: tuple[int, ...] = (config.num_codebooks,)
    value = modality.value
    if spec.model == "vit":
        patch = config.patch_size if config.patch_proj else (1, 1)
        extent = tuple(size or value.size)
        if len(extent) != 2 or any(s < p or s % p for s, p in zip(extent, patch, strict=True)):
            raise MaskweaveError(
                f"found values of size {extent}, expected rows and columns that are multiples of the patch {patch}; change size"
            )
        grid = (extent[0] // patch[0], extent[1] // patch[1])
        sized: dict[str, Any] = {"size": extent}
        value = dataclasses.replace(value, **sized)
    elif size is not None:
        raise MaskweaveError(f"found size {size}, but vectors have no rows and columns; remove it")
    return dataclasses.replace(modality, value=value, grid=grid, tokenizer=spec)
