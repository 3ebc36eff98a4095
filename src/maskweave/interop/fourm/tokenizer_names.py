"""Maps the tensors of a published 4M tokenizer to ours, with their layouts, for loading and exporting.

No published example of `out_conv` was available: its names are those of the ConvNeXt paper's code.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskweave.modality.tokenizer import Diffusion
from maskweave.nn.layers import sine_cosine
from maskweave.tokenizers.grid import GridTokenizer


class Layout(NamedTuple):
    """Converts one published tensor to one or several of ours, and back."""

    local: Callable[[Tensor], Sequence[Tensor]]
    published: Callable[[Sequence[Tensor]], Tensor]


class StoredLayer(NamedTuple):
    """One published tensor and our parameters with the same content."""

    name: str
    parts: tuple[str, ...]
    layout: Layout


def _joined(parts: int = 1, ones: int = 0) -> Layout:
    """Layers fused along the first axis; a 1×1 convolution has `ones` further axes of length 1."""
    return Layout(
        lambda published: published.reshape(published.shape[: published.ndim - ones]).chunk(parts),
        lambda local: (torch.cat([*local]) if parts > 1 else local[0])[(..., *[None] * ones)],
    )


PLAIN, POINT, QKV, QKV_POINT, POINT_1D = _joined(), _joined(1, 2), _joined(3), _joined(3, 1), _joined(1, 1)


def _patch_in(patch: Sequence[int], channels: int) -> Layout:
    """A patch convolution (W, channel, row, column) as a linear layer (W, row · column · channel). Copies if a patch has several points."""
    return Layout(
        lambda published: [published.permute(0, 2, 3, 1).flatten(1)],
        lambda local: local[0].unflatten(1, (*patch, channels)).permute(0, 3, 1, 2),
    )


def _patch_out(patch: Sequence[int], channels: int) -> Layout:
    """Outputs ordered as (channel, row, column), weight or bias, as (row, column, channel). Copies if a patch has several points."""
    return Layout(
        lambda published: [published.unflatten(0, (channels, *patch)).movedim(0, 2).flatten(0, 2)],
        lambda local: local[0].unflatten(0, (*patch, channels)).movedim(2, 0).flatten(0, 2),
    )


def correspondence(tokenizer: GridTokenizer) -> Iterator[StoredLayer]:
    """Every published tensor that is used, except fixed positions."""
    spec, modality = tokenizer.spec, tokenizer.modality
    if spec.quantizer.type == "memcodes":
        for published, local in (("codes", "codes"), ("to_k.weight", "to_key"), ("to_v.weight", "to_value")):
            yield StoredLayer(f"quantize.{published}", (f"quantizer.{local}",), PLAIN)
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
        published, local = f"decoder.out_conv.{i}", f"decoder.image.{i}"
        for name, ours in (("dwconv", "spatial"), ("norm", "norm"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2")):
            yield from _layer(f"{published}.{name}", f"{local}.{ours}")
        if spec.image_scale:
            yield StoredLayer(f"{published}.gamma", (f"{local}.scale",), PLAIN)


def positions(tokenizer: GridTokenizer) -> dict[str, Tensor]:
    """Returns the fixed positions of a published file, (1, W, rows, columns), by name."""
    spec = tokenizer.spec
    if spec.model == "mlp":
        return {}
    grid = spec.trained_grid or tokenizer.modality.grid
    widths = {"encoder": spec.width, "decoder": spec.decoder_width or spec.width}
    if spec.diffusion is not None:
        widths.pop("decoder")
    return {f"{side}.pos_emb": sine_cosine(grid, width).T.unflatten(1, grid)[None] for side, width in widths.items()}


def _layer(published: str, local: str, weight: Layout = PLAIN) -> Iterator[StoredLayer]:
    yield StoredLayer(f"{published}.weight", (f"{local}.weight",), weight)
    yield StoredLayer(f"{published}.bias", (f"{local}.bias",), PLAIN)


def _fused(published: str, local: Sequence[str], weight: Layout) -> Iterator[StoredLayer]:
    yield StoredLayer(f"{published}.weight", tuple(f"{name}.weight" for name in local), weight)
    yield StoredLayer(f"{published}.bias", tuple(f"{name}.bias" for name in local), QKV)


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
        local = f"{side}.{first + 1 + i}"
        yield from _layer(f"{side}.layernorms.{i}", f"{local}.norm")
        yield from _layer(f"{side}.blocks.{i}.block.0", f"{local}.mlp.fc1")
        yield from _layer(f"{side}.blocks.{i}.block.2", f"{local}.mlp.fc2")


def _unet(d: Diffusion) -> Iterator[StoredLayer]:
    """Maps the ADM U-Net's names, which number blocks across levels, to those of diffusers, which number them per level."""
    levels = len(d.widths)
    yield from _layer("decoder.time_embed.0", "decoder.unet.time_embedding.linear_1")
    yield from _layer("decoder.time_embed.2", "decoder.unet.time_embedding.linear_2")
    yield from _layer("decoder.input_blocks.0.0", "decoder.unet.conv_in")
    width, number = d.widths[0], 0
    skips = [width]
    for level in range(levels):
        local = f"decoder.unet.down_blocks.{level}"
        for i in range(d.layers):
            number += 1
            published = f"decoder.input_blocks.{number}"
            yield from _residual(f"{published}.0", f"{local}.resnets.{i}", width != d.widths[level])
            width = d.widths[level]
            skips.append(width)
            if level >= levels - d.attention:
                yield from _attention(f"{published}.1", f"{local}.attentions.{i}")
        if level < levels - 1:
            number += 1
            skips.append(width)
            yield from _layer(f"decoder.input_blocks.{number}.0.op", f"{local}.downsamplers.0.conv")
    for i, part in ((0, "resnets.0"), (2, "resnets.1")):
        yield from _residual(f"decoder.middle_block.{i}", f"decoder.unet.mid_block.{part}", False)
    yield from _attention("decoder.middle_block.1", "decoder.unet.mid_block.attentions.0")
    number = 0
    for level in range(levels):
        local, out = f"decoder.unet.up_blocks.{level}", d.widths[-1 - level]
        has_attention = level < d.attention
        for i in range(d.layers + 1):
            published = f"decoder.output_blocks.{number}"
            yield from _residual(f"{published}.0", f"{local}.resnets.{i}", width + skips.pop() != out)
            width = out
            if has_attention:
                yield from _attention(f"{published}.1", f"{local}.attentions.{i}")
            number += 1
        if level < levels - 1:
            yield from _layer(f"{published}.{1 + has_attention}.conv", f"{local}.upsamplers.0.conv")
    yield from _layer("decoder.out.0", "decoder.unet.conv_norm_out")
    yield from _layer("decoder.out.2", "decoder.unet.conv_out")


def _residual(published: str, local: str, widens: bool) -> Iterator[StoredLayer]:
    names = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
    ]
    for name, ours in [*names, ("skip_connection", "conv_shortcut")] if widens else names:
        yield from _layer(f"{published}.{name}", f"{local}.{ours}")


def _attention(published: str, local: str) -> Iterator[StoredLayer]:
    yield from _layer(f"{published}.norm", f"{local}.group_norm")
    yield from _fused(f"{published}.qkv", [f"{local}.to_{x}" for x in "qkv"], QKV_POINT)
    yield from _layer(f"{published}.proj_out", f"{local}.to_out.0", POINT_1D)
