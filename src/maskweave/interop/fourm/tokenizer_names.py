"""Which tensor of a published 4M tokenizer is which of ours, and how the two are laid out. Reading and writing both follow this list.

For `out_conv` no published example was at hand: its names are those of the ConvNeXt paper's own code.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskweave.modality.tokenizer import Diffusion
from maskweave.nn.layers import sine_cosine
from maskweave.tokenizers.grid import GridTokenizer


class Layout(NamedTuple):
    """How one published tensor becomes one or several of ours, and back."""

    here: Callable[[Tensor], Sequence[Tensor]]
    there: Callable[[Sequence[Tensor]], Tensor]


class StoredLayer(NamedTuple):
    """One published tensor, and our parameters that hold its content."""

    name: str
    parts: tuple[str, ...]
    layout: Layout


def _joined(parts: int = 1, ones: int = 0) -> Layout:
    """Layers fused along the first axis; a convolution over one point has further axes of length 1."""
    return Layout(
        lambda there: there.reshape(there.shape[: there.ndim - ones]).chunk(parts),
        lambda here: (torch.cat([*here]) if parts > 1 else here[0])[(..., *[None] * ones)],
    )


PLAIN, POINT, QKV, QKV_POINT, POINT_1D = _joined(), _joined(1, 2), _joined(3), _joined(3, 1), _joined(1, 1)


def _patch_in(patch: Sequence[int], channels: int) -> Layout:
    """A patch convolution (W, channel, row, column) as a linear layer (W, row · column · channel): a copy, where a patch has several points."""
    return Layout(
        lambda there: [there.permute(0, 2, 3, 1).flatten(1)],
        lambda here: here[0].unflatten(1, (*patch, channels)).permute(0, 3, 1, 2),
    )


def _patch_out(patch: Sequence[int], channels: int) -> Layout:
    """Outputs ordered as (channel, row, column), weight or bias, as (row, column, channel): a copy, where a patch has several points."""
    return Layout(
        lambda there: [there.unflatten(0, (channels, *patch)).movedim(0, 2).flatten(0, 2)],
        lambda here: here[0].unflatten(0, (*patch, channels)).movedim(2, 0).flatten(0, 2),
    )


def correspondence(tokenizer: GridTokenizer) -> Iterator[StoredLayer]:
    """Every published tensor that computation reads, but for fixed positions."""
    spec, modality = tokenizer.spec, tokenizer.modality
    if spec.quantizer.type == "memcodes":
        for there, here in (("codes", "codes"), ("to_k.weight", "to_key"), ("to_v.weight", "to_value")):
            yield StoredLayer(f"quantize.{there}", (f"quantizer.{here}",), PLAIN)
    else:
        yield StoredLayer("quantize._codebook.embed", ("quantizer.codebook",), PLAIN)
    if spec.model == "mlp":
        yield from _mlp_side("encoder", spec.depth, first=0)
        yield from _layer("encoder.linear_out", f"encoder.{spec.depth + 1}")
        yield from _layer("quant_proj", f"encoder.{spec.depth + 2}", POINT)
        yield from _layer("post_quant_proj", "decoder.1", POINT)
        yield from _mlp_side("decoder", spec.decoder_depth, first=2)
        yield from _layer("decoder.linear_out", f"decoder.{spec.decoder_depth + 3}")
        return
    classes = modality.value.classes if modality.value.num_classes else ()
    if classes:
        yield StoredLayer("cls_emb.weight", ("encoder.classes.weight",), PLAIN)
    patch_in = _patch_in(modality.patch, spec.class_width if classes else modality.value.channels)
    yield StoredLayer("encoder.proj.weight", ("encoder.patches.weight",), patch_in)
    yield StoredLayer("encoder.proj.bias", ("encoder.patches.bias",), PLAIN)
    yield from _vit_side("encoder", spec.depth, spec.tail)
    yield from _layer("quant_proj", "encoder.latents", POINT)
    if spec.diffusion is not None:
        yield from _unet(spec.diffusion)
        return
    yield from _layer("post_quant_proj", "decoder.latents", POINT)
    yield from _vit_side("decoder", spec.decoder_depth, spec.tail)
    patch_out = _patch_out(modality.patch, len(classes) or modality.value.channels)
    for kind in ("weight", "bias"):
        yield StoredLayer(f"decoder.out_proj.{kind}", (f"decoder.patches.{kind}",), patch_out)
    for i in range(spec.image_blocks):
        there, here = f"decoder.out_conv.{i}", f"decoder.image.{i}"
        for name, ours in (("dwconv", "spatial"), ("norm", "norm"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2")):
            yield from _layer(f"{there}.{name}", f"{here}.{ours}")
        if spec.image_scale:
            yield StoredLayer(f"{there}.gamma", (f"{here}.scale",), PLAIN)


def positions(tokenizer: GridTokenizer) -> dict[str, Tensor]:
    """The fixed positions that a published file stores, (1, W, rows, columns), by name."""
    spec = tokenizer.spec
    if spec.model == "mlp":
        return {}
    grid = spec.trained_grid or tokenizer.modality.grid
    widths = {"encoder": spec.width, "decoder": spec.decoder_width or spec.width}
    if spec.diffusion is not None:
        widths.pop("decoder")
    return {f"{side}.pos_emb": sine_cosine(grid, width).T.unflatten(1, grid)[None] for side, width in widths.items()}


def _layer(there: str, here: str, weight: Layout = PLAIN) -> Iterator[StoredLayer]:
    yield StoredLayer(f"{there}.weight", (f"{here}.weight",), weight)
    yield StoredLayer(f"{there}.bias", (f"{here}.bias",), PLAIN)


def _fused(there: str, here: Sequence[str], weight: Layout) -> Iterator[StoredLayer]:
    yield StoredLayer(f"{there}.weight", tuple(f"{name}.weight" for name in here), weight)
    yield StoredLayer(f"{there}.bias", tuple(f"{name}.bias" for name in here), QKV)


def _vit_side(side: str, depth: int, tail: str) -> Iterator[StoredLayer]:
    for i in range(depth):
        block = f"{side}.blocks.{i}"
        yield from _fused(f"{block}.attn.qkv", [f"{block}.attention.{x}" for x in "qkv"], QKV)
        yield from _layer(f"{block}.attn.proj", f"{block}.attention.out")
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            yield from _layer(f"{block}.{name}", f"{block}.{name}")
    if tail == "mlp":
        yield from _layer(f"{side}.norm_mlp", f"{side}.norm.norm")
        for name in ("fc1", "fc2"):
            yield from _layer(f"{side}.post_mlp.{name}", f"{side}.norm.mlp.{name}")


def _mlp_side(side: str, depth: int, first: int) -> Iterator[StoredLayer]:
    yield from _layer(f"{side}.linear_in", f"{side}.{first}")
    for i in range(depth):
        here = f"{side}.{first + 1 + i}"
        yield from _layer(f"{side}.layernorms.{i}", f"{here}.norm")
        yield from _layer(f"{side}.blocks.{i}.block.0", f"{here}.mlp.fc1")
        yield from _layer(f"{side}.blocks.{i}.block.2", f"{here}.mlp.fc2")


def _unet(d: Diffusion) -> Iterator[StoredLayer]:
    """The ADM U-Net's names, where blocks are counted through all levels, and those of diffusers, where each level counts anew."""
    levels = len(d.widths)
    yield from _layer("decoder.time_embed.0", "decoder.unet.time_embedding.linear_1")
    yield from _layer("decoder.time_embed.2", "decoder.unet.time_embedding.linear_2")
    yield from _layer("decoder.input_blocks.0.0", "decoder.unet.conv_in")
    width, number = d.widths[0], 0
    skips = [width]
    for level in range(levels):
        here = f"decoder.unet.down_blocks.{level}"
        for i in range(d.layers):
            number += 1
            there = f"decoder.input_blocks.{number}"
            yield from _residual(f"{there}.0", f"{here}.resnets.{i}", width != d.widths[level])
            width = d.widths[level]
            skips.append(width)
            if level >= levels - d.attention:
                yield from _attention(f"{there}.1", f"{here}.attentions.{i}")
        if level < levels - 1:
            number += 1
            skips.append(width)
            yield from _layer(f"decoder.input_blocks.{number}.0.op", f"{here}.downsamplers.0.conv")
    for i, part in ((0, "resnets.0"), (2, "resnets.1")):
        yield from _residual(f"decoder.middle_block.{i}", f"decoder.unet.mid_block.{part}", False)
    yield from _attention("decoder.middle_block.1", "decoder.unet.mid_block.attentions.0")
    number = 0
    for level in range(levels):
        here, out = f"decoder.unet.up_blocks.{level}", d.widths[-1 - level]
        has_attention = level < d.attention
        for i in range(d.layers + 1):
            there = f"decoder.output_blocks.{number}"
            yield from _residual(f"{there}.0", f"{here}.resnets.{i}", width + skips.pop() != out)
            width = out
            if has_attention:
                yield from _attention(f"{there}.1", f"{here}.attentions.{i}")
            number += 1
        if level < levels - 1:
            yield from _layer(f"{there}.{1 + has_attention}.conv", f"{here}.upsamplers.0.conv")
    yield from _layer("decoder.out.0", "decoder.unet.conv_norm_out")
    yield from _layer("decoder.out.2", "decoder.unet.conv_out")


def _residual(there: str, here: str, widens: bool) -> Iterator[StoredLayer]:
    names = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
    ]
    for name, ours in [*names, ("skip_connection", "conv_shortcut")] if widens else names:
        yield from _layer(f"{there}.{name}", f"{here}.{ours}")


def _attention(there: str, here: str) -> Iterator[StoredLayer]:
    yield from _layer(f"{there}.norm", f"{here}.group_norm")
    yield from _fused(f"{there}.qkv", [f"{here}.to_{x}" for x in "qkv"], QKV_POINT)
    yield from _layer(f"{there}.proj_out", f"{here}.to_out.0", POINT_1D)
