"""TiTok (https://arxiv.org/abs/2406.07550): a picture as a row of tokens that are not tied to positions. The network, with the names of the published files.

Dimension letters: B batch, H and W pixels, P pixels along each axis of a patch, G patches along each axis, M patches, K tokens, D width, V codes, T width of a
code, U codes of the pixel decoder, C channels, h and w points of a feature map.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.config import build
from maskweave.errors import MaskweaveError
from maskweave.nn.weights import open_tensors, take_tensors

WEIGHTS = "model.safetensors"
HEAD_WIDTH = 64
"""Width of an attention head, in all published sizes."""
GROUPS = 32
"""Groups of the pixel decoder's norms."""
MOST = 1 << 16
"""Largest number that `config.json` may state, and largest length of an axis of the weights."""
MOST_BLOCKS = 200


@dataclass(frozen=True)
class TiTokConfig:
    """What `config.json` says of the network; the weights tell the rest."""

    crop_size: int
    codebook_size: int
    token_size: int
    num_latent_tokens: int
    vit_enc_patch_size: int
    vit_dec_patch_size: int
    use_l2_norm: bool
    """Compare and decode codes by their direction."""
    finetune_decoder: bool = True
    """A second network makes the pixels."""
    is_legacy: bool = True
    """The first models: the decoder predicts codes of a VQGAN, and the encoder mixes its tokens in its last layer."""
    quantize_mode: Literal["vq", "vae"] = "vq"


def is_titok(config: Mapping[str, Any]) -> bool:
    """Whether the content of a `config.json` is TiTok's, which names no architecture."""
    model = config.get("model")
    return isinstance(model, dict) and isinstance(model.get("vq_model"), dict)


def open_titok(folder: Path, config: Mapping[str, Any], where: str) -> "TiTok":
    """Returns the network with the weights of a folder.

    Args:
        config: content of `config.json`.
        where: names the tokenizer in messages.

    Raises:
        MaskweaveError: the model has continuous tokens, or no pixel decoder; or `config.json` and the weights do not make a network.
    """
    data = config.get("dataset")
    preprocessing = data.get("preprocessing") if isinstance(data, dict) else None
    stated = dict(config["model"]["vq_model"])
    if isinstance(preprocessing, dict) and "crop_size" in preprocessing:
        stated["crop_size"] = preprocessing["crop_size"]
    if stated.get("quantize_mode") == "vae":
        raise MaskweaveError(f"{where}: is a TiTok with continuous tokens; choose one whose tokens are codes")
    known = {field.name for field in fields(TiTokConfig)}
    c = build(TiTokConfig, {key: value for key, value in stated.items() if key in known}, f"{where}: config.json")
    for key, number in vars(c).items():
        if type(number) is int and not 1 <= number <= MOST:
            raise MaskweaveError(
                f"{where}: config.json: {key} is {number}; expected 1 to {MOST:,}; get the tokenizer again"
            )
    if c.is_legacy != c.finetune_decoder:
        lacks = (
            "has no pixel decoder, so it" if c.is_legacy else "has a pixel decoder that its tokens do not fit, so it"
        )
        raise MaskweaveError(f"{where}: {lacks} cannot make pictures; choose a finished TiTok")
    for patch in (c.vit_enc_patch_size, c.vit_dec_patch_size):
        if c.crop_size % patch:
            raise MaskweaveError(
                f"{where}: config.json: crop_size {c.crop_size} is not a multiple of the patch size {patch}; get the tokenizer again"
            )
    if c.is_legacy and c.vit_dec_patch_size & (c.vit_dec_patch_size - 1):
        raise MaskweaveError(
            f"{where}: config.json: vit_dec_patch_size is {c.vit_dec_patch_size}; expected a power of two, as each level of the pixel decoder doubles the sides; "
            "get the tokenizer again"
        )
    with open_tensors(folder / WEIGHTS) as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in [*opened.keys()]}
    with torch.device("meta"):
        network = TiTok(c, Shapes(shapes, f"{where}: {WEIGHTS}"))
    try:
        take_tensors(network, folder / WEIGHTS)
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error
    return network


class Shapes:
    """Shapes of the stored weights."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], where: str):
        self.shapes, self.where = shapes, where

    def axis(self, name: str, axis: int, multiple: int = 1) -> int:
        """Returns the length of an axis.

        Raises:
            MaskweaveError: there is no such weight or axis, or its length is no multiple of `multiple`, or very large.
        """
        if name not in self.shapes:
            raise MaskweaveError(f"{self.where}: {name} is missing; get the tokenizer again")
        shape = self.shapes[name]
        if axis >= len(shape) or not 1 <= shape[axis] <= MOST or shape[axis] % multiple:
            of = f", a multiple of {multiple}" if multiple > 1 else ""
            raise MaskweaveError(
                f"{self.where}: {name} has the shape {shape}; expected 1 to {MOST:,}{of}, at axis {axis}; get the tokenizer again"
            )
        return shape[axis]

    def count(self, prefix: str) -> int:
        """Returns how many numbered parts there are below a prefix that ends with a dot.

        Raises:
            MaskweaveError: there are more than any published model has.
        """
        found = len({name[len(prefix) :].split(".")[0] for name in self.shapes if name.startswith(prefix)})
        if found > MOST_BLOCKS:
            raise MaskweaveError(
                f"{self.where}: has {found:,} blocks {prefix}N; expected at most {MOST_BLOCKS}; get the tokenizer again"
            )
        return found


class TiTok(nn.Module):
    """Pictures of `crop_size` × `crop_size` pixels, in [0, 1], to `num_latent_tokens` codes and back.

    Raises:
        MaskweaveError: the shapes are not those of such a network.
    """

    def __init__(self, config: TiTokConfig, shapes: Shapes):
        super().__init__()
        self.config = config
        width = shapes.axis("latent_tokens", 1, HEAD_WIDTH)
        self.latent_tokens = nn.Parameter(torch.empty(config.num_latent_tokens, width))
        self.encoder = TiTokEncoder(config, width, shapes.count("encoder.transformer."))
        self.quantize = Codebook(config.codebook_size, config.token_size)
        width = shapes.axis("decoder.decoder_embed.weight", 0, HEAD_WIDTH)
        codes = shapes.axis("pixel_quantize.embedding.weight", 0) if config.is_legacy else 0
        self.decoder = TiTokDecoder(config, width, shapes.count("decoder.transformer."), codes)
        if config.is_legacy:
            code_width = shapes.axis("pixel_quantize.embedding.weight", 1)
            self.pixel_quantize = Codebook(codes, code_width)
            self.pixel_decoder = PixelDecoder(code_width, config.vit_dec_patch_size, shapes)

    @property
    def codebook(self) -> Tensor:
        """(V, T) vector of each code."""
        vectors = self.quantize.embedding.weight
        return F.normalize(vectors, dim=-1) if self.config.use_l2_norm else vectors

    def latents(self, pixels_B3HW: Tensor) -> Tensor:
        """Returns the vectors (B, K, T) of pictures before they become codes."""
        tokens_BKD: Tensor = self.encoder(pixels_B3HW, self.latent_tokens)
        return tokens_BKD

    def encode(self, pixels_B3HW: Tensor) -> Tensor:
        """Returns the codes (B, K) of pictures."""
        latents_BKT = self.latents(pixels_B3HW)
        if self.config.use_l2_norm:
            latents_BKT = F.normalize(latents_BKT, dim=-1)
        return torch.cdist(latents_BKT, self.codebook[None]).argmin(dim=-1)

    def decode(self, codes_BK: Tensor) -> Tensor:
        """Returns the pictures (B, 3, H, W) of codes; their values may lie somewhat outside [0, 1]."""
        found: Tensor = self.decoder(F.embedding(codes_BK, self.codebook))
        if not self.config.is_legacy:
            return found
        mixed_BhwC = found.movedim(1, -1).softmax(dim=-1) @ self.pixel_quantize.embedding.weight
        pixels: Tensor = self.pixel_decoder(mixed_BhwC.movedim(-1, 1))
        return pixels


class Codebook(nn.Module):
    def __init__(self, codes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(codes, width)


class TiTokTrunk(nn.Module):
    """The transformer of encoder and decoder: over a class token that is never read, the patches, and the picture's tokens."""

    def __init__(self, width: int, layers: int, patches: int, tokens: int):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleList(TiTokBlock(width) for _ in range(layers))

    def run(self, patches_BMD: Tensor, tokens_BKD: Tensor) -> Tensor:
        """Returns (B, 1 + M + K, D)."""
        first_B1D = self.class_embedding.expand(len(patches_BMD), 1, -1)
        patches_BND = torch.cat([first_B1D, patches_BMD], dim=1) + self.positional_embedding
        x_BSD = torch.cat([patches_BND, tokens_BKD + self.latent_token_positional_embedding], dim=1)
        x_BSD = self.ln_pre(x_BSD)
        for block in self.transformer:
            x_BSD = block(x_BSD)
        return x_BSD


class TiTokBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x_BSD: Tensor) -> Tensor:
        normed_BSD = self.ln_1(x_BSD)
        x_BSD = x_BSD + self.attn(normed_BSD, normed_BSD, normed_BSD, need_weights=False)[0]
        mixed_BSD: Tensor = x_BSD + self.mlp(self.ln_2(x_BSD))
        return mixed_BSD


class TiTokEncoder(TiTokTrunk):
    def __init__(self, config: TiTokConfig, width: int, layers: int):
        patch, side = config.vit_enc_patch_size, config.crop_size // config.vit_enc_patch_size
        super().__init__(width, layers, side**2, config.num_latent_tokens)
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.conv_out = nn.Conv2d(width, config.token_size, 1)
        self.is_legacy = config.is_legacy

    def forward(self, pixels_B3HW: Tensor, tokens_KD: Tensor) -> Tensor:
        patches_BMD = self.patch_embed(pixels_B3HW).flatten(2).mT
        x_BSD = self.run(patches_BMD, tokens_KD.expand(len(patches_BMD), -1, -1))
        tokens_BKD = self.ln_post(x_BSD[:, -len(tokens_KD) :])
        # The first models take the numbers of all tokens, in their order in memory, for those of channel after channel.
        tokens_BDK = tokens_BKD.reshape(len(x_BSD), -1, len(tokens_KD)) if self.is_legacy else tokens_BKD.mT
        latents_BKT: Tensor = self.conv_out(tokens_BDK[:, :, None])[:, :, 0].mT
        return latents_BKT


class TiTokDecoder(TiTokTrunk):
    def __init__(self, config: TiTokConfig, width: int, layers: int, codes: int):
        self.patch = config.vit_dec_patch_size
        self.side = config.crop_size // self.patch
        super().__init__(width, layers, self.side**2, config.num_latent_tokens)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder_embed = nn.Linear(config.token_size, width)
        if config.is_legacy:
            self.ffn = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, codes, 1))
            self.conv_out: nn.Module = nn.Identity()
        else:
            self.ffn = nn.Sequential(nn.Conv2d(width, 3 * self.patch**2, 1))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)
        self.is_legacy = config.is_legacy

    def forward(self, codes_BKT: Tensor) -> Tensor:
        """Returns logits (B, U, G, G) of the first models, otherwise pixels (B, 3, H, W)."""
        patches_BMD = self.mask_token.expand(len(codes_BKT), self.side**2, -1)
        x_BSD = self.run(patches_BMD, self.decoder_embed(codes_BKT))
        patches_BMD = self.ln_post(x_BSD[:, 1 : 1 + self.side**2])
        found: Tensor = self.ffn(patches_BMD.mT.unflatten(2, (self.side, self.side)))
        if self.is_legacy:
            return found
        patches = found.unflatten(1, (self.patch, self.patch, 3))  # rows and columns of a patch, colors
        pixels_B3HW = patches.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
        smooth_B3HW: Tensor = self.conv_out(pixels_B3HW)
        return smooth_B3HW


class PixelDecoder(nn.Module):
    """The decoder of a VQGAN: from a vector for each patch to pixels."""

    def __init__(self, code_width: int, patch: int, shapes: Shapes):
        super().__init__()
        levels = range(patch.bit_length())
        channels = [shapes.axis(f"pixel_decoder.up.{level}.block.1.conv1.weight", 0, GROUPS) for level in levels]
        deepest = shapes.axis("pixel_decoder.conv_in.weight", 0, GROUPS)
        self.conv_in = nn.Conv2d(code_width, deepest, 3, padding=1)
        self.mid = nn.ModuleList(ConvolutionBlock(deepest, deepest) for _ in range(2))
        self.up = nn.ModuleList(
            UpLevel(above, width, is_last=level == 0)
            for level, (width, above) in enumerate(zip(channels, [*channels[1:], deepest], strict=True))
        )
        self.norm_out = nn.GroupNorm(GROUPS, channels[0], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        x_BChw = self.conv_in(x_BChw)
        for block in self.mid:
            x_BChw = block(x_BChw)
        for level in reversed(self.up):  # level 0 has the most points
            x_BChw = level(x_BChw)
        pixels_B3HW: Tensor = self.conv_out(F.silu(self.norm_out(x_BChw)))
        return pixels_B3HW


class UpLevel(nn.Module):
    def __init__(self, width_in: int, width: int, is_last: bool):
        super().__init__()
        self.block = nn.ModuleList([ConvolutionBlock(width_in, width), ConvolutionBlock(width, width)])
        self.upsample_conv = None if is_last else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        for block in self.block:
            x_BChw = block(x_BChw)
        if self.upsample_conv is not None:
            x_BChw = self.upsample_conv(F.interpolate(x_BChw, scale_factor=2, mode="nearest"))
        return x_BChw


class ConvolutionBlock(nn.Module):
    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width_in, eps=1e-6), nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(width, width, 1, bias=False) if width_in != width else None  # codespell:ignore

    def forward(self, x_BChw: Tensor) -> Tensor:
        found_BChw: Tensor = self.conv1(F.silu(self.norm1(x_BChw)))
        found_BChw = self.conv2(F.silu(self.norm2(found_BChw)))
        # Where the width changes, the published network adds a projection of the result itself, not of the input.
        shortcut = self.nin_shortcut  # codespell:ignore
        return found_BChw + (x_BChw if shortcut is None else shortcut(found_BChw))
