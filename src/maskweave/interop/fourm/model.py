"""Published 4M models: converts `config.json` + `model.safetensors` to a `FourM` and back.

The list `correspondence` maps published tensors to ours, for loading and exporting. In the published format every modality has separate
tables (`FourMConfig.separate`), and queries, keys and values are fused. Constants of the architecture are stored too: fixed positions,
zero biases of norms, and a token table for the targets of each grid that is never used.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError, shown
from maskweave.interop.published import REQUIRED, Tensors, locate, read_config, write_published
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.entry import Modality
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.layers import sine_cosine
from maskweave.nn.weights import PassthroughTensors

CATALOG = "4m"
POSITIONS = 512
"""Rows of the stored position table of sequences and vectors, whatever their length."""

KEYS: dict[str, Any] = {
    "domains_in": REQUIRED,
    "domains_out": REQUIRED,
    "image_size": 224,
    "patch_size": 16,
    "norm_bias": True,
    "act_layer": "GELU",
    "dim": REQUIRED,
    "num_heads": REQUIRED,
    "encoder_depth": REQUIRED,
    "decoder_depth": REQUIRED,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "gated_mlp": False,
    "qk_norm": False,
    "num_register_tokens": 0,
    "share_modality_embeddings": True,
    "decoder_causal_mask": False,
    "decoder_sep_mask": True,
    "drop_path_rate_encoder": 0.0,
    "drop_path_rate_decoder": 0.0,
    "shared_drop_path": False,
    "use_act_checkpoint": False,
}
"""Keys of a published configuration and their defaults. The last four only affect training."""
FIXED = ("share_modality_embeddings", "decoder_causal_mask", "decoder_sep_mask")
"""Keys that have the same value in every published model."""
MOST = {"dim": 2**15, "num_heads": 2**10, "encoder_depth": 2**10, "decoder_depth": 2**10, "num_register_tokens": 2**12}
"""Largest allowed values: typos fail before anything is allocated."""
MOST_RATIO = 64
SPARING = tuple(KEYS)[tuple(KEYS).index("num_register_tokens") :]
"""Keys that are written only if they differ from their defaults."""


class Loaded(NamedTuple):
    """A published model with the entries of its modalities."""

    model: FourM
    catalog: Catalog


class StoredTensor(NamedTuple):
    """One published tensor and our parameters with the same content."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...] = ()
    """Our parameters, in the order in which they are stacked."""
    value: Tensor | None = None
    """Instead of parts: a constant of the architecture."""


@check_arguments
def load_model(folder_or_hub_id: str | os.PathLike[str], catalog: str | os.PathLike[str] | Catalog = CATALOG) -> Loaded:
    """Load a published 4M model, in evaluation mode.

    Args:
        catalog: must have an entry for each of the model's modalities; by default those of the papers.

    Raises:
        MaskweaveError: missing, truncated or pickled files, unknown or contradictory keys, or missing, unknown or wrongly shaped tensors.
    """
    folder = locate(folder_or_hub_id)
    raw, config, chosen = read(folder, catalog)
    where = folder / "config.json"
    if stray := [name for name in config["domains_out"] if name not in config["domains_in"]]:
        raise MaskweaveError(
            f"{where}: domains_out has {', '.join(stray)}, which domains_in lacks; targets must also be inputs, because generation feeds them back"
        )
    model = FourM.without_weights(chosen, model_config(config, where))
    tensors = Tensors(folder)
    names = tuple(sorted(tensors.names))
    ours, passthrough = take(tensors, correspondence(chosen, model), model)
    for name, shape in passthrough_tables(chosen, model.config.width).items():
        if name in tensors:
            passthrough[name] = tensors.take(name, *shape)
    ours.update(_position_embedding(chosen, model, tensors))
    tensors.finish()
    model.load_state_dict(ours, assign=True)
    model.passthrough = PassthroughTensors(raw, passthrough, names)
    return Loaded(model.eval(), chosen)


def take(
    tensors: Tensors, stored: Iterable[StoredTensor], module: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the file's tensors as parameters of `module` by name, and the unused tensors by their published name."""
    shapes = {name: parameter.shape for name, parameter in module.state_dict().items()}
    ours: dict[str, Tensor] = {}
    passthrough: dict[str, Tensor] = {}
    for s in stored:
        if s.value is None:
            tensor = tensors.take(s.name, *s.shape).reshape(len(s.parts), *shapes[s.parts[0]])
            ours.update(zip(s.parts, tensor, strict=True))
        elif s.name in tensors:
            passthrough[s.name] = tensors.prescribed(s.name, s.value)
    return ours, passthrough


@check_arguments
def export_model(model: FourM, catalog: Catalog, folder: str | os.PathLike[str]) -> None:
    """Write a model in the published format. A model from `load_model` is written back unchanged.

    Raises:
        MaskweaveError: the model shares tables between modalities, but the published format has separate ones.
    """
    c = model.config
    if not c.separate or c.tied:
        raise MaskweaveError(
            f"found model.separate: {str(c.separate).lower()} and model.tied: {str(c.tied).lower()}; the published format has separate tables for each modality: "
            "export a model trained with model.separate: true and model.tied: false"
        )
    state = model.state_dict()
    tensors = {
        s.name: (torch.stack([state[part] for part in s.parts]).reshape(s.shape) if s.value is None else s.value)
        for s in correspondence(catalog, model)
    }
    tensors |= {name: torch.zeros(shape) for name, shape in passthrough_tables(catalog, c.width).items()}
    tensors |= _stored_position_embedding(catalog, model)
    if model.passthrough is None:
        write_published(Path(folder), _published_config(model, catalog), tensors)
    else:
        write_published(Path(folder), model.passthrough.config, model.passthrough.published(tensors))


def read(folder: Path, catalog: str | os.PathLike[str] | Catalog) -> tuple[dict[str, Any], dict[str, Any], Catalog]:
    """Returns a model's configuration as written, the same with defaults, and the entries of its modalities.

    Raises:
        MaskweaveError: as in `load_model`.
    """
    raw, config = read_config(folder, KEYS, "a 4M model")
    where = folder / "config.json"
    known = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    for key in ("domains_in", "domains_out"):
        names = config[key]
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not is_list or not names or len({*names}) < len(names):
            raise MaskweaveError(f"{where}: {key} must be a list of different modalities, found {shown(names)}")
        if unknown := [name for name in names if name not in known]:
            raise MaskweaveError(
                f"{where}: {key} contains {', '.join(unknown)}, for which {known.where} has no entry; write one in your own catalog and pass it as catalog"
            )
    if stray := [name for name in config["domains_out"] if not known[name].has_tokens]:
        raise MaskweaveError(
            f"{where}: domains_out has {', '.join(stray)}, which {known.where} has as input only; change the entry"
        )
    for m in known.values():
        if m.name in config["domains_in"] and m.kind == "patches" and {*m.patch} != {config["patch_size"]}:
            raise MaskweaveError(
                f"{where}: patch_size is {shown(config['patch_size'])}, but {m.name!r} of {known.where} has patches of {m.patch}; change the entry"
            )
    chosen = []
    for m in known.values():
        if m.name in config["domains_in"]:
            source = m.source if m.source in config["domains_in"] else ""
            input_only = m.has_tokens and m.name not in config["domains_out"]
            chosen.append(dataclasses.replace(m, input_only=input_only, source=source))
    return raw, config, Catalog(chosen, known.vocabularies.values(), known.where)


def model_config(config: dict[str, Any], where: Path) -> FourMConfig:
    """Converts a published configuration to ours.

    Raises:
        MaskweaveError: keys contradict each other, or a value is out of range.
    """
    for key in FIXED:
        if config[key] != KEYS[key]:
            raise MaskweaveError(
                f"{where}: {key} is {shown(config[key])}, but only {KEYS[key]!r} is supported, as in every published model"
            )
    activation = str(config["act_layer"]).lower()
    if activation != ("silu" if config["gated_mlp"] else "gelu"):
        raise MaskweaveError(
            f"{where}: act_layer {shown(config['act_layer'])} with gated_mlp {shown(config['gated_mlp'])} is not a published architecture; expected SiLU if gated and GELU if not"
        )
    switches = ("qkv_bias", "proj_bias", "mlp_bias", "norm_bias", "qk_norm", "gated_mlp")
    for key in switches:
        if type(config[key]) is not bool:
            raise MaskweaveError(f"{where}: {key} must be true or false, found {shown(config[key])}")
    for key, most in MOST.items():
        least = KEYS[key] if key in SPARING else 1
        if type(config[key]) is not int or not least <= config[key] <= most:
            raise MaskweaveError(
                f"{where}: {key} must be a whole number, {least} to {most}, found {shown(config[key])}"
            )
    ratio = config["mlp_ratio"]
    if type(ratio) not in (int, float) or not 0 < ratio <= MOST_RATIO:
        raise MaskweaveError(
            f"{where}: mlp_ratio must be a number above 0 and at most {MOST_RATIO}, found {shown(ratio)}"
        )
    try:
        return FourMConfig(
            width=config["dim"],
            heads=config["num_heads"],
            encoder_depth=config["encoder_depth"],
            decoder_depth=config["decoder_depth"],
            mlp_ratio=float(ratio),
            gated=config["gated_mlp"],
            qkv_bias=config["qkv_bias"],
            proj_bias=config["proj_bias"],
            mlp_bias=config["mlp_bias"],
            norm_bias=config["norm_bias"],
            qk_norm=config["qk_norm"],
            registers=config["num_register_tokens"],
            separate=True,
        ).resolved()
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error


def _published_config(model: FourM, catalog: Catalog) -> dict[str, Any]:
    """The reverse of `model_config`, for a model trained with maskweave."""
    c = model.config
    patches = next((m for m in catalog.values() if m.kind == "patches"), None)
    config = {
        "domains_in": list(catalog),
        "domains_out": [m.name for m in catalog.values() if m.is_target],
        "image_size": patches.value.size[0] if patches else KEYS["image_size"],
        "patch_size": patches.patch[0] if patches else KEYS["patch_size"],
        "act_layer": "SiLU" if c.gated else "GELU",
        "gated_mlp": c.gated,
        "dim": c.width,
        "num_heads": c.heads,
        "num_register_tokens": c.registers,
        **{key: getattr(c, key) for key in ("encoder_depth", "decoder_depth", "mlp_ratio", "norm_bias", "qk_norm")},
        **{key: getattr(c, key) for key in ("qkv_bias", "proj_bias", "mlp_bias")},
    }
    return {key: value for key, value in config.items() if key not in SPARING or value != KEYS[key]}


def correspondence(catalog: Catalog, model: FourM) -> Iterator[StoredTensor]:
    """Every published tensor except modality embeddings, learned positions and unused tables."""
    c = model.config
    D = c.width
    if c.registers:
        yield StoredTensor("register_tokens", (1, c.registers, D), ("registers",))
    yield StoredTensor("mask_token", (1, 1, D), ("mask_token",))
    for m in catalog.values():
        yield from _embedding(m, catalog, D)
    yield from encoder_blocks(c)
    yield StoredTensor("decoder_proj_context.weight", (D, D), ("context_projection.weight",))
    yield StoredTensor("decoder_proj_context.bias", (D,), ("context_projection.bias",))
    for i in range(c.decoder_depth):
        published = local = f"decoder.{i}"
        for norm in ("norm1", "query_norm", "context_norm", "norm2"):
            yield from _norm(f"{published}.{norm}", f"{local}.{norm}", D, c.norm_bias)
        yield from _attention(f"{published}.self_attn", f"{local}.self_attention", c, {"qkv": "qkv"})
        yield from _attention(f"{published}.cross_attn", f"{local}.cross_attention", c, {"q": "q", "kv": "kv"})
        yield from _mlp(f"{published}.mlp", f"{local}.mlp", c)
    yield from _norm("decoder_norm", "decoder_norm", D, c.norm_bias)


def encoder_blocks(c: FourMConfig) -> Iterator[StoredTensor]:
    """The encoder's blocks and final norm."""
    for i in range(c.encoder_depth):
        published = local = f"encoder.{i}"
        yield from _norm(f"{published}.norm1", f"{local}.norm1", c.width, c.norm_bias)
        yield from _attention(f"{published}.attn", f"{local}.attention", c, {"qkv": "qkv"})
        yield from _norm(f"{published}.norm2", f"{local}.norm2", c.width, c.norm_bias)
        yield from _mlp(f"{published}.mlp", f"{local}.mlp", c)
    yield from _norm("encoder_norm", "encoder_norm", c.width, c.norm_bias)


def _linear(published: str, local: tuple[str, ...], out: int, width: int, bias: bool) -> Iterator[StoredTensor]:
    yield StoredTensor(f"{published}.weight", (len(local) * out, width), tuple(f"{name}.weight" for name in local))
    if bias:
        yield StoredTensor(f"{published}.bias", (len(local) * out,), tuple(f"{name}.bias" for name in local))


def _norm(published: str, local: str, width: int, bias: bool) -> Iterator[StoredTensor]:
    yield StoredTensor(f"{published}.weight", (width,), (f"{local}.weight",))
    if bias:
        yield StoredTensor(f"{published}.bias", (width,), (f"{local}.bias",))
    else:
        yield StoredTensor(f"{published}.bias", (width,), value=torch.zeros(width))


def _attention(published: str, local: str, c: FourMConfig, fused: dict[str, str]) -> Iterator[StoredTensor]:
    """`fused` maps published layers to the letters of our layers that they consist of."""
    for name, letters in fused.items():
        yield from _linear(f"{published}.{name}", tuple(f"{local}.{x}" for x in letters), c.width, c.width, c.qkv_bias)
    yield from _linear(f"{published}.proj", (f"{local}.out",), c.width, c.width, c.proj_bias)
    if c.qk_norm:
        for norm in ("q_norm", "k_norm"):
            yield from _norm(f"{published}.{norm}", f"{local}.{norm}", c.width // c.heads, c.norm_bias)


def _mlp(published: str, local: str, c: FourMConfig) -> Iterator[StoredTensor]:
    hidden = int(2 / 3 * c.mlp_ratio * c.width) if c.gated else int(c.mlp_ratio * c.width)
    yield from _linear(f"{published}.fc1", (f"{local}.fc1",), hidden, c.width, c.mlp_bias)
    yield from _linear(f"{published}.fc2", (f"{local}.fc2",), c.width, hidden, c.mlp_bias)
    if c.gated:
        yield from _linear(f"{published}.fc3", (f"{local}.fc3",), hidden, c.width, c.mlp_bias)


def _embedding(m: Modality, catalog: Catalog, D: int) -> Iterator[StoredTensor]:
    """A modality's tables, projections, head and fixed positions, in the encoder and in the decoder."""
    sides = ("encoder_embeddings", "decoder_embeddings") if m.is_target else ("encoder_embeddings",)
    if m.positions == "sine":
        table = sine_cosine(m.grid or (POSITIONS,), D)[None]
        for side in sides:
            yield StoredTensor(f"{side}.{m.name}.pos_emb", tuple(table.shape), value=table)
    published, local = f"encoder_embeddings.{m.name}", f"token_embedding.rows.for_{m.name}"
    if m.kind == "patches":
        yield StoredTensor(f"{published}.proj.weight", (D, m.row_width), (f"{local}.weight",))
    elif m.kind == "vectors":
        yield from _linear(f"{published}.emb_proj", (local,), D, m.row_width, bias=True)
    else:
        V = catalog.vocabulary_size(m.name)
        yield StoredTensor(f"{published}.token_emb.weight", (V, D), (f"token_embedding.tokens.for_{m.name}.weight",))
        if m.is_target and m.kind == "sequence":
            yield StoredTensor(
                f"decoder_embeddings.{m.name}.token_emb.weight",
                (V, D),
                (f"target_token_embedding.tokens.for_{m.name}.weight",),
            )
        if m.is_target:
            yield StoredTensor(f"decoder_embeddings.{m.name}.to_logits.weight", (V, D), (f"heads.for_{m.name}.weight",))


def passthrough_tables(catalog: Catalog, width: int) -> dict[str, tuple[int, int]]:
    """Shapes of the target token tables of grids. Published files contain them, but grid targets are queried with the mask token."""
    return {
        f"decoder_embeddings.{m.name}.token_emb.weight": (catalog.vocabulary_size(m.name), width)
        for m in catalog.values()
        if m.kind == "grid" and m.is_target
    }


def _position_embedding(catalog: Catalog, model: FourM, tensors: Tensors) -> dict[str, Tensor]:
    """Reads modality embeddings and learned positions. Encoder and decoder share the former; a file may hold them once or twice."""
    D = model.config.width
    ours = {name: torch.zeros(p.shape) for name, p in model.position_embedding.named_parameters()}

    def fill(rows: Tensor, name: str, *shape: int) -> None:
        tensor = tensors.take(name, *shape)
        if not tensor.is_meta:  # otherwise `finish` reports the fault
            rows.copy_(tensor.reshape(rows.shape))

    for m in catalog.values():
        first, second = (f"{side}.{m.name}.mod_emb" for side in ("encoder_embeddings", "decoder_embeddings"))
        if first not in tensors and m.is_target:
            first, second = second, first
        row = ours["modality.weight"][m.id]
        fill(row, first, 1, 1, D)
        if second in tensors and m.is_target:
            tensors.prescribed(second, row[None, None])
        if m.positions == "learned":
            rows = model.position_embedding.learned_rows(m)
            fill(ours["learned"][rows], f"encoder_embeddings.{m.name}.pos_emb", 1, m.tokens, D)
            if m.is_target:
                fill(ours["learned_of_targets"][rows], f"decoder_embeddings.{m.name}.pos_emb", 1, m.tokens, D)
    return {f"position_embedding.{name}": tensor for name, tensor in ours.items()}


def _stored_position_embedding(catalog: Catalog, model: FourM) -> dict[str, Tensor]:
    """The reverse of `_position_embedding`."""
    stored = {}
    for m in catalog.values():
        for side, learned in (
            ("encoder", model.position_embedding.learned),
            ("decoder", model.position_embedding.learned_of_targets),
        ):
            if side == "encoder" or m.is_target:
                name = f"{side}_embeddings.{m.name}"
                stored[f"{name}.mod_emb"] = model.position_embedding.modality.weight[m.id].detach()[None, None]
                if m.positions == "learned" and learned is not None:
                    stored[f"{name}.pos_emb"] = learned[model.position_embedding.learned_rows(m)].detach()[None]
    return stored
