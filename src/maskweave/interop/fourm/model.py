"""Published 4M models: `config.json` + `model.safetensors` to a `FourM` and back.

One list, `correspondence`, says which published tensor is which of ours; reading and writing both follow it. Every modality keeps tables of
its own there (`FourMConfig.separate`), queries, keys and values are fused, and what the architecture prescribes is stored too: fixed
positions, zero biases of norms, and a token table for every grid's targets that no computation reads.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError, shown
from maskweave.interop.published import REQUIRED, Tensors, locate, read_config, write_published
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.entry import Modality
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.layers import sine_cosine
from maskweave.nn.weights import PassthroughTensors

CATALOG = "4m"
POSITIONS = 512
"""Rows of the stored position table of sequences and vectors, however long they may be."""

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
"""Keys of a published configuration, with what an absent one means. The last four matter in training alone."""
FIXED = ("share_modality_embeddings", "decoder_causal_mask", "decoder_sep_mask")
"""Keys that have the same value in every published model."""
MOST = {"dim": 2**15, "num_heads": 2**10, "encoder_depth": 2**10, "decoder_depth": 2**10, "num_register_tokens": 2**12}
"""What the numbers may be at most: a slip of the pen is told before anything of its size is built."""
MOST_RATIO = 64
SPARING = tuple(KEYS)[tuple(KEYS).index("num_register_tokens") :]
"""Keys that are written only where they differ from their defaults."""


class Loaded(NamedTuple):
    """A published model with the entries of its modalities."""

    model: FourM
    catalog: Catalog


class StoredTensor(NamedTuple):
    """One published tensor, and where its content is here."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...] = ()
    """Our parameters, which make it up one after the other."""
    value: Tensor | None = None
    """In place of parts: what the architecture prescribes."""


def load_model(folder_or_hub_id: str | os.PathLike[str], catalog: str | os.PathLike[str] | Catalog = CATALOG) -> Loaded:
    """Open a published 4M model, in evaluation mode. Its weights are mapped from the file, not copied.

    Args:
        catalog: has an entry for each of the model's modalities; those of the papers, or your own.

    Raises:
        MaskweaveError: files missing, truncated or pickled, keys unknown or contradictory, tensors missing, unknown or of another shape.
    """
    folder = locate(folder_or_hub_id)
    raw, config, chosen = read(folder, catalog)
    where = folder / "config.json"
    if stray := [name for name in config["domains_out"] if name not in config["domains_in"]]:
        raise MaskweaveError(
            f"{where}: domains_out has {', '.join(stray)}, which domains_in lacks; a model here reads again what it has generated, so each must be in both"
        )
    model = FourM.without_weights(chosen, model_config(config, where))
    tensors = Tensors(folder)
    names = tuple(sorted(tensors.names))
    ours, passthrough = take(tensors, correspondence(chosen, model), model)
    for name, shape in unread_tables(chosen, model.config.width).items():
        if name in tensors:
            passthrough[name] = tensors.take(name, *shape)
    ours.update(_where(chosen, model, tensors))
    tensors.finish()
    model.load_state_dict(ours, assign=True)
    model.passthrough = PassthroughTensors(raw, passthrough, names)
    return Loaded(model.eval(), chosen)


def take(
    tensors: Tensors, stored: Iterable[StoredTensor], module: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors as parameters of `module` by name, and those that nothing reads under their published names."""
    shapes = {name: parameter.shape for name, parameter in module.state_dict().items()}
    ours: dict[str, Tensor] = {}
    passthrough: dict[str, Tensor] = {}
    for s in stored:
        if s.value is None:
            whole = tensors.take(s.name, *s.shape).reshape(len(s.parts), *shapes[s.parts[0]])
            ours.update(zip(s.parts, whole, strict=True))
        elif s.name in tensors:
            passthrough[s.name] = tensors.prescribed(s.name, s.value)
    return ours, passthrough


def export_model(model: FourM, catalog: Catalog, folder: str | os.PathLike[str]) -> None:
    """Write a model as a published one. What `load_model` read comes out equal.

    Raises:
        MaskweaveError: the model shares tables between modalities, which the published format keeps apart.
    """
    c = model.config
    if not c.separate or c.tied:
        raise MaskweaveError(
            "only a model trained with model.separate: true and model.tied: false can be written in the published format, which keeps every modality's tables apart"
        )
    state = model.state_dict()
    tensors = {
        s.name: (torch.stack([state[part] for part in s.parts]).reshape(s.shape) if s.value is None else s.value)
        for s in correspondence(catalog, model)
    }
    tensors |= {name: torch.zeros(shape) for name, shape in unread_tables(catalog, c.width).items()}
    tensors |= _where_stored(catalog, model)
    if model.passthrough is None:
        write_published(Path(folder), _published_config(model, catalog), tensors)
    else:
        tensors |= model.passthrough.tensors
        kept = {name: tensors[name] for name in model.passthrough.names}
        write_published(Path(folder), model.passthrough.config, kept)


def read(folder: Path, catalog: str | os.PathLike[str] | Catalog) -> tuple[dict[str, Any], dict[str, Any], Catalog]:
    """A model's configuration as written and with all keys, and the entries of its modalities.

    Raises:
        MaskweaveError: as `load_model`.
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
                f"{where}: {key} names {', '.join(unknown)}, which {known.where} has no entry for; write one into a catalog of your own and give it as catalog"
            )
    if stray := [name for name in config["domains_out"] if not known[name].has_tokens]:
        raise MaskweaveError(f"{where}: domains_out has {', '.join(stray)}, which {known.where} has as input only")
    for m in known.values():
        if m.name in config["domains_in"] and m.kind == "patches" and {*m.patch} != {config["patch_size"]}:
            raise MaskweaveError(
                f"{where}: patch_size is {shown(config['patch_size'])}, but {m.name!r} of {known.where} has patches of {m.patch}"
            )
    chosen = []
    for m in known.values():
        if m.name in config["domains_in"]:
            source = m.source if m.source in config["domains_in"] else ""
            only_read = m.has_tokens and m.name not in config["domains_out"]
            chosen.append(dataclasses.replace(m, input_only=only_read, source=source))
    return raw, config, Catalog(chosen, known.vocabularies.values(), known.where)


def model_config(config: dict[str, Any], where: Path) -> FourMConfig:
    """Our configuration of a published one.

    Raises:
        MaskweaveError: keys contradict each other, or a number cannot be.
    """
    for key in FIXED:
        if config[key] != KEYS[key]:
            raise MaskweaveError(
                f"{where}: {key} is {shown(config[key])}; every published model has {KEYS[key]!r}, and none other is known here"
            )
    activation = str(config["act_layer"]).lower()
    if activation != ("silu" if config["gated_mlp"] else "gelu"):
        raise MaskweaveError(
            f"{where}: act_layer {shown(config['act_layer'])} with gated_mlp {config['gated_mlp']} is no published architecture; expected SiLU if gated and GELU if not"
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
    """The reverse of `model_config`, for a model that was trained here."""
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
    """Every published tensor but the modality embeddings, learned positions and passthrough tables."""
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
        there = here = f"decoder.{i}"
        for norm in ("norm1", "query_norm", "context_norm", "norm2"):
            yield from _norm(f"{there}.{norm}", f"{here}.{norm}", D, c.norm_bias)
        yield from _attention(f"{there}.self_attn", f"{here}.self_attention", c, {"qkv": "qkv"})
        yield from _attention(f"{there}.cross_attn", f"{here}.cross_attention", c, {"q": "q", "kv": "kv"})
        yield from _mlp(f"{there}.mlp", f"{here}.mlp", c)
    yield from _norm("decoder_norm", "decoder_norm", D, c.norm_bias)


def encoder_blocks(c: FourMConfig) -> Iterator[StoredTensor]:
    """The encoder's blocks and last norm."""
    for i in range(c.encoder_depth):
        there = here = f"encoder.{i}"
        yield from _norm(f"{there}.norm1", f"{here}.norm1", c.width, c.norm_bias)
        yield from _attention(f"{there}.attn", f"{here}.attention", c, {"qkv": "qkv"})
        yield from _norm(f"{there}.norm2", f"{here}.norm2", c.width, c.norm_bias)
        yield from _mlp(f"{there}.mlp", f"{here}.mlp", c)
    yield from _norm("encoder_norm", "encoder_norm", c.width, c.norm_bias)


def _linear(there: str, here: tuple[str, ...], out: int, width: int, bias: bool) -> Iterator[StoredTensor]:
    yield StoredTensor(f"{there}.weight", (len(here) * out, width), tuple(f"{name}.weight" for name in here))
    if bias:
        yield StoredTensor(f"{there}.bias", (len(here) * out,), tuple(f"{name}.bias" for name in here))


def _norm(there: str, here: str, width: int, bias: bool) -> Iterator[StoredTensor]:
    yield StoredTensor(f"{there}.weight", (width,), (f"{here}.weight",))
    if bias:
        yield StoredTensor(f"{there}.bias", (width,), (f"{here}.bias",))
    else:
        yield StoredTensor(f"{there}.bias", (width,), value=torch.zeros(width))


def _attention(there: str, here: str, c: FourMConfig, fused: dict[str, str]) -> Iterator[StoredTensor]:
    """`fused`: published layers by name, and the letters of ours that make them up."""
    for name, letters in fused.items():
        yield from _linear(f"{there}.{name}", tuple(f"{here}.{x}" for x in letters), c.width, c.width, c.qkv_bias)
    yield from _linear(f"{there}.proj", (f"{here}.out",), c.width, c.width, c.proj_bias)
    if c.qk_norm:
        for norm in ("q_norm", "k_norm"):
            yield from _norm(f"{there}.{norm}", f"{here}.{norm}", c.width // c.heads, c.norm_bias)


def _mlp(there: str, here: str, c: FourMConfig) -> Iterator[StoredTensor]:
    hidden = int(2 / 3 * c.mlp_ratio * c.width) if c.gated else int(c.mlp_ratio * c.width)
    yield from _linear(f"{there}.fc1", (f"{here}.fc1",), hidden, c.width, c.mlp_bias)
    yield from _linear(f"{there}.fc2", (f"{here}.fc2",), c.width, hidden, c.mlp_bias)
    if c.gated:
        yield from _linear(f"{there}.fc3", (f"{here}.fc3",), hidden, c.width, c.mlp_bias)


def _embedding(m: Modality, catalog: Catalog, D: int) -> Iterator[StoredTensor]:
    """A modality's tables, projections, head and fixed positions, in the encoder and in the decoder."""
    sides = ("encoder_embeddings", "decoder_embeddings") if m.is_target else ("encoder_embeddings",)
    if m.positions == "sine":
        table = sine_cosine(m.grid or (POSITIONS,), D)[None]
        for side in sides:
            yield StoredTensor(f"{side}.{m.name}.pos_emb", tuple(table.shape), value=table)
    there, here = f"encoder_embeddings.{m.name}", f"token_embedding.rows.for_{m.name}"
    if m.kind == "patches":
        yield StoredTensor(f"{there}.proj.weight", (D, m.row_width), (f"{here}.weight",))
    elif m.kind == "vectors":
        yield from _linear(f"{there}.emb_proj", (here,), D, m.row_width, bias=True)
    else:
        V = catalog.vocabulary_size(m.name)
        yield StoredTensor(f"{there}.token_emb.weight", (V, D), (f"token_embedding.tokens.for_{m.name}.weight",))
        if m.is_target and m.kind == "sequence":
            yield StoredTensor(
                f"decoder_embeddings.{m.name}.token_emb.weight",
                (V, D),
                (f"target_token_embedding.tokens.for_{m.name}.weight",),
            )
        if m.is_target:
            yield StoredTensor(f"decoder_embeddings.{m.name}.to_logits.weight", (V, D), (f"heads.for_{m.name}.weight",))


def unread_tables(catalog: Catalog, width: int) -> dict[str, tuple[int, int]]:
    """Tables of target tokens that a published file holds for grids too, and their shapes; grids are asked for by the mask token."""
    return {
        f"decoder_embeddings.{m.name}.token_emb.weight": (catalog.vocabulary_size(m.name), width)
        for m in catalog.values()
        if m.kind == "grid" and m.is_target
    }


def _where(catalog: Catalog, model: FourM, tensors: Tensors) -> dict[str, Tensor]:
    """Modality embeddings and learned positions. Encoder and decoder share the former, and a file may hold them once or twice."""
    D = model.config.width
    ours = {name: torch.zeros(p.shape) for name, p in model.position_embedding.named_parameters()}

    def fill(rows: Tensor, name: str, *shape: int) -> None:
        found = tensors.take(name, *shape)
        if not found.is_meta:  # else `finish` tells what is wrong with it
            rows.copy_(found.reshape(rows.shape))

    for m in catalog.values():
        first, second = (f"{side}.{m.name}.mod_emb" for side in ("encoder_embeddings", "decoder_embeddings"))
        if first not in tensors and m.is_target:
            first, second = second, first
        row = ours["modality.weight"][m.id]
        fill(row, first, 1, 1, D)
        if second in tensors and m.is_target:
            tensors.prescribed(second, row[None, None])
        if m.positions == "learned":
            places = model.position_embedding.learned_rows(m)
            fill(ours["learned"][places], f"encoder_embeddings.{m.name}.pos_emb", 1, m.tokens, D)
            if m.is_target:
                fill(ours["learned_of_targets"][places], f"decoder_embeddings.{m.name}.pos_emb", 1, m.tokens, D)
    return {f"position_embedding.{name}": tensor for name, tensor in ours.items()}


def _where_stored(catalog: Catalog, model: FourM) -> dict[str, Tensor]:
    """The reverse of `_where`."""
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
