"""Loads and saves published M3AE and MAE weights (https://arxiv.org/abs/2205.14204).

A folder holds `config.json`, the published model's configuration, and `model.safetensors`, its Flax parameters with names joined by "/".
Kernels are (in, out), and one kernel computes queries, keys and values. A model without text is an MAE.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskweave.arguments import check_arguments
from maskweave.config import build
from maskweave.errors import MaskweaveError, shown
from maskweave.interop.published import Tensors, defaults, locate, read_config, write_published
from maskweave.masking.m3ae import MaskRatio
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.nn.weights import PassthroughTensors
from maskweave.values.image import Image
from maskweave.values.text import Text


@dataclasses.dataclass(frozen=True)
class PublishedM3AEConfig:
    """A published configuration."""

    emb_dim: int
    depth: int
    num_heads: int
    dec_emb_dim: int
    dec_depth: int
    dec_num_heads: int
    image_size: int
    patch_size: int
    text_vocab_size: int = 0
    """0: no text."""
    mlp_ratio: float = 4.0
    use_type_embedding: bool = True
    output_head_depth: int = 0
    """Only linear heads (0) are supported."""
    model: str = "m3ae"
    # The following keys are only for training; they are written back as read.
    image_mask_ratio: float = 0.75
    text_mask_ratio: float = 0.75
    att_drop: float = 0.0
    drop: float = 0.0
    drop_path: float = 0.0


TRAINING = ("image_mask_ratio", "text_mask_ratio", "att_drop", "drop", "drop_path")
MOST = {
    "emb_dim": 2**15,
    "depth": 2**10,
    "num_heads": 2**10,
    "dec_emb_dim": 2**15,
    "dec_depth": 2**10,
    "dec_num_heads": 2**10,
    "image_size": 2**13,
    "patch_size": 2**13,
}
"""Largest allowed values: typos fail before anything is allocated."""
MOST_RATIO, MOST_WORDS = 64, 2**20
MEAN, STD = (0.5762, 0.5503, 0.5213), (0.3207, 0.3169, 0.3307)
"""Mean and standard deviation of CC12M's pixels, with which the published models normalize pictures."""
TEXT_TOKENS = 512
"""Published training used 64; fixed positions and padding allow any number."""


class Published(NamedTuple):
    model: M3AE
    """In evaluation mode."""
    catalog: Catalog
    """Its modalities: patches and, unless it is an MAE, a sequence."""


@check_arguments
def load_m3ae(folder_or_hub_id: str | os.PathLike[str], catalog: Catalog | None = None) -> Published:
    """Load published weights.

    Args:
        catalog: entries for the model's modalities: one of kind patches and at most one of kind sequence, with the published sizes. By
            default such entries are made, with pictures normalized like CC12M.

    Raises:
        MaskweaveError: no such folder, or its files and the catalog do not fit together; lists all faults.
    """
    folder = locate(folder_or_hub_id)
    where = str(folder / "config.json")
    written = read_config(folder, defaults(PublishedM3AEConfig), "an M3AE").written
    config = build(PublishedM3AEConfig, written, where)
    if faults := [*_faults(config)]:
        raise MaskweaveError(f"{where}: {'; '.join(faults)}")
    try:
        catalog = catalog or published_catalog(config)
        patches, sequence = _entries(catalog)
        if (patches.value.size, patches.patch) != ((config.image_size,) * 2, (config.patch_size,) * 2):
            raise MaskweaveError(
                f"image_size is {config.image_size} and patch_size {config.patch_size}, but {patches.name!r} of {catalog.where} has size "
                f"{patches.value.size} and patches of {patches.patch}; change the entry"
            )
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error
    model = M3AE.without_weights(
        catalog,
        M3AEConfig(
            width=config.emb_dim,
            depth=config.depth,
            heads=config.num_heads,
            decoder_width=config.dec_emb_dim,
            decoder_depth=config.dec_depth,
            decoder_heads=config.dec_num_heads,
            mlp_ratio=config.mlp_ratio,
        ),
    )
    stored = Tensors(folder)
    taken = {
        name: stored.take(name, *views[0].shape[:-1], sum(view.shape[-1] for view in views))
        for name, views in _names(model, patches, sequence)
        if config.use_type_embedding or not name.endswith("type_embedding")
    }
    stored.finish()
    model.to_empty(device="cpu")
    model.register_buffers(catalog)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # absent type embeddings, and rows without a modality
        for name, views in _names(model, patches, sequence):
            if name in taken:
                parts = taken[name].split([view.shape[-1] for view in views], dim=-1)
                for view, part in zip(views, parts, strict=True):
                    view.copy_(part)
    model.passthrough = PassthroughTensors(written, {}, ())
    return Published(model.eval(), catalog)


def _faults(config: PublishedM3AEConfig) -> Iterator[str]:
    """Invalid and contradictory values of a configuration."""
    for key, most in MOST.items():
        if not 1 <= (number := getattr(config, key)) <= most:
            yield f"{key} is {shown(number)}, expected 1 to {most}"
    for key, part in (("image_size", "patch_size"), ("emb_dim", "num_heads"), ("dec_emb_dim", "dec_num_heads")):
        if getattr(config, key) % max(1, getattr(config, part)):
            yield f"{key} is {getattr(config, key)}, expected a multiple of {part} {getattr(config, part)}"
    if not 0 < config.mlp_ratio <= MOST_RATIO:
        yield f"mlp_ratio is {config.mlp_ratio}, expected above 0 and at most {MOST_RATIO}"
    if not 0 <= config.text_vocab_size <= MOST_WORDS:
        yield f"text_vocab_size is {config.text_vocab_size}, expected 0 (no text) to {MOST_WORDS}"
    if config.output_head_depth:
        yield f"output_head_depth is {config.output_head_depth}, expected 0: only linear heads are supported"


def save_m3ae(
    model: M3AE, catalog: Catalog, folder: str | os.PathLike[str], mask_ratio: MaskRatio | None = None
) -> None:
    """Write a model in the published format.

    Args:
        mask_ratio: mask ratios of its training; by default those of the published model that it was loaded from, otherwise 0.75.

    Raises:
        MaskweaveError: its modalities do not fit the published format: square pictures in square patches, and at most one sequence.
    """
    patches, sequence = _entries(catalog)
    if len(patches.grid) != 2 or len({*patches.value.size}) > 1 or len({*patches.grid}) > 1:
        raise MaskweaveError(
            f"{patches.name}: the published format needs square pictures, found size {patches.value.size} with grid {patches.grid}; keep it as a bundle"
        )
    c = model.config
    training = {} if model.passthrough is None else {k: v for k, v in model.passthrough.config.items() if k in TRAINING}
    if mask_ratio is not None:
        training |= {"image_mask_ratio": mask_ratio.patches, "text_mask_ratio": mask_ratio.sequence}
    config = PublishedM3AEConfig(
        emb_dim=c.width,
        depth=c.depth,
        num_heads=c.heads,
        dec_emb_dim=c.decoder_width,
        dec_depth=c.decoder_depth,
        dec_num_heads=c.decoder_heads,
        image_size=patches.value.size[0],
        patch_size=patches.patch[0],
        text_vocab_size=catalog.vocabulary_size(sequence.name) if sequence else 0,
        mlp_ratio=c.mlp_ratio,
        model="m3ae" if sequence else "mae",
        **training,
    )
    with torch.no_grad():
        tensors = {name: torch.cat(views, dim=-1) for name, views in _names(model, patches, sequence)}
    write_published(Path(folder), dataclasses.asdict(config), tensors)


def published_catalog(config: PublishedM3AEConfig) -> Catalog:
    """Returns entries for a published configuration, named by their value types.

    Raises:
        MaskweaveError: its sizes are impossible.
    """
    side, grid = config.image_size, config.image_size // config.patch_size
    entries = [Modality("image", 1, "patches", Image((side, side), 3, mean=MEAN, std=STD), grid=(grid, grid))]
    if not config.text_vocab_size:
        return Catalog(entries, where="published MAE")
    entries.append(Modality("text", 2, "sequence", Text(), max_tokens=TEXT_TOKENS, vocabulary="text"))
    return Catalog(
        entries, [Vocabulary("text", config.text_vocab_size, sentinels=3, type="wordpiece")], "published M3AE"
    )


def _entries(catalog: Catalog) -> tuple[Modality, Modality | None]:
    """Returns the entry of the pictures and that of the texts, if any."""
    patches = [m for m in catalog.values() if m.kind == "patches"]
    sequences = [m for m in catalog.values() if m.kind == "sequence"]
    if len(patches) != 1 or len(sequences) > 1 or len(catalog) != len(patches) + len(sequences):
        raise MaskweaveError(
            f"{catalog.where}: a published M3AE needs one modality of kind patches and at most one of kind sequence, found {', '.join(catalog)}"
        )
    return patches[0], sequences[0] if sequences else None


def _names(model: M3AE, patches: Modality, sequence: Modality | None) -> Iterator[tuple[str, list[Tensor]]]:
    """The name of every published parameter, and views of our tensors that form it when concatenated along the last axis."""
    yield "cls_token", [model.class_token[None, None]]
    yield from _linear("image_embedding", model.token_embedding[patches.name])
    for kind, m in (("image", patches), ("text", sequence)):
        if m is not None:
            yield f"encoder_{kind}_type_embedding", [model.types.weight[m.id][None, None]]
            yield f"decoder_{kind}_type_embedding", [model.decoder_types.weight[m.id][None, None]]
            yield f"{kind}_mask_embedding", [model.mask_tokens.weight[m.id][None, None]]
            yield from _linear(f"decoder_{kind}_output/Dense_0", model.heads[m.name])
    if sequence is not None:
        embedding: Any = model.token_embedding[sequence.name]
        yield "text_embedding/embedding", [embedding.weight]
    yield from _linear("decoder_input_projection", model.decoder_projection)
    for side, blocks, norm in (
        ("encoder", model.encoder, model.encoder_norm),
        ("decoder", model.decoder, model.decoder_norm),
    ):
        block: Any
        for i, block in enumerate(blocks):
            prefix = f"{side}/Block_{i}"
            yield from _norm(f"{prefix}/LayerNorm_0", block.norm1)
            yield from _linear(f"{prefix}/Attention_0/Dense_0", block.attention.q, block.attention.k, block.attention.v)
            yield from _linear(f"{prefix}/Attention_0/Dense_1", block.attention.out)
            yield from _norm(f"{prefix}/LayerNorm_1", block.norm2)
            yield from _linear(f"{prefix}/TransformerMLP_0/fc1", block.mlp.fc1)
            yield from _linear(f"{prefix}/TransformerMLP_0/fc2", block.mlp.fc2)
        yield from _norm(f"{side}/LayerNorm_0", norm)


def _linear(name: str, *layers: Any) -> Iterator[tuple[str, list[Tensor]]]:
    yield f"{name}/kernel", [layer.weight.T for layer in layers]
    yield f"{name}/bias", [layer.bias for layer in layers]


def _norm(name: str, layer: Any) -> Iterator[tuple[str, list[Tensor]]]:
    yield f"{name}/scale", [layer.weight]
    yield f"{name}/bias", [layer.bias]
