"""Settings of a grid modality's tokenizer network: its model, its quantizer, optionally a diffusion decoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from maskweave.errors import MaskweaveError
from maskweave.modality.external import ExternalSpec
from maskweave.modality.pretrained import pretrained_settings


@dataclass(frozen=True)
class Quantizer:
    """How a tokenizer turns latents into codes."""

    type: Literal["fsq", "vq", "lfq", "memcodes", "residual"] = "vq"
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ: levels of each latent channel; the codebook size is their product."""
    codes: int = 1024
    """VQ, LFQ and Memcodes: codebook size (a power of two for LFQ)."""
    dim: int = 16
    """VQ and Memcodes: width of the latent that is quantized."""
    codebook: Literal["ema", "simvq"] = "ema"
    """VQ: how codes are learned. `ema`: cosine codes follow the mean of their latents. `simvq`: fixed random codes are mapped by one learned matrix, so that none are left behind (https://arxiv.org/abs/2411.02038)."""
    rotation: bool = False
    """VQ: pass gradients by the rotation trick (https://arxiv.org/abs/2410.06424) instead of straight through."""
    over: Literal["vq", "fsq"] = "vq"
    """Residual: quantizer of each level, with `codes` and `dim`, or with `levels`."""
    depth: int = 2
    """Residual: number of levels; each quantizes what the levels before it left over. A latent has one token, so the vocabulary is the codebook size to the power of depth."""
    heads: int = 1
    """Memcodes: number of codebooks, which is the number of tokens per latent."""

    @property
    def is_scalar(self) -> bool:
        """Whether channels are rounded to `levels`."""
        return self.type == "fsq" or (self.type == "residual" and self.over == "fsq")

    @property
    def codebook_size(self) -> int:
        """Codes of one codebook."""
        return math.prod(self.levels) if self.is_scalar else self.codes

    @property
    def size(self) -> int:
        """Size of the vocabulary."""
        return self.codebook_size ** (self.depth if self.type == "residual" else 1)

    @property
    def entries(self) -> int:
        """Codes of all codebooks together."""
        return self.codebook_size * (self.depth if self.type == "residual" else 1)

    @property
    def has_bits(self) -> bool:
        """Whether each channel of the latent is one bit of the code."""
        return self.type in ("lfq",)

    @property
    def latent_dim(self) -> int:
        """Channels of the latent that the quantizer takes."""
        if self.is_scalar:
            return len(self.levels)
        return int(math.log2(self.codes)) if self.has_bits else self.dim


@dataclass(frozen=True)
class Diffusion:
    """A decoder that removes noise step by step, given the codes. The network is a U-Net of the ADM type (https://arxiv.org/abs/2105.05233)."""

    prediction: Literal["sample", "epsilon", "v_prediction"] = "v_prediction"
    """What the network predicts: the value, the noise, or the velocity between them (https://arxiv.org/abs/2202.00512)."""
    schedule: Literal["linear", "cosine", "shifted_cosine"] = "linear"
    """How noise grows with the step."""
    shift: float = 1.0
    """Shift of the shifted cosine schedule (https://arxiv.org/abs/2301.11093); above 1, every step has more noise."""
    zero_terminal_snr: bool = False
    """Make the last step pure noise (https://arxiv.org/abs/2305.08891); a shifted cosine schedule always does."""
    clip: bool = False
    """While decoding, clip predicted values to [-1, 1]."""
    threshold: bool = False
    """While decoding, clip predicted values to their 0.995 quantile, and to [-1, 1] (https://arxiv.org/abs/2205.11487)."""
    training_steps: int = 1000
    """Steps from a value to pure noise."""
    steps: int = 25
    """Steps of decoding."""
    patch: int = 4
    """Points along each axis that become channels of one U-Net position."""
    widths: tuple[int, ...] = (256, 512, 512, 512)
    """Channels of the U-Net's levels, each at half the resolution of the one before; multiples of 32."""
    layers: int = 3
    """Residual blocks per level."""
    attention: int = 2
    """How many levels, from the coarsest, have attention."""

    @property
    def multiple(self) -> int:
        """The value's size must be a multiple of this along each axis."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class TokenizerSpec:
    """The network that turns values of a grid modality into codes and back."""

    renamed: ClassVar[dict[str, str]] = {"quantiser": "quantizer"}  # codespell:ignore

    model: Literal["vit", "mlp"] = "vit"
    width: int = 64
    heads: int = 2
    depth: int = 1
    """Blocks of the encoder."""
    decoder_depth: int = 1
    decoder_width: int = 0
    """0: same as the encoder."""
    decoder_heads: int = 0
    """0: same as the encoder."""
    tail: Literal["norm", "mlp", "none"] = "norm"
    """ViT: layer after the blocks of the encoder and of the decoder."""
    trained_grid: tuple[int, int] | None = None
    """ViT: rows and columns that the fixed positions are made for; they are resized to the entry's grid. None: the entry's grid."""
    class_width: int = 8
    """ViT: width of a class's embedding."""
    overlap: Literal["auto", "none", "blend"] = "auto"
    """ViT, grids of one or two axes: `blend`: decoded patches overlap their neighbors by half and are blended, so that no steps remain between
    them; `none`: they do not. `auto`: `blend` for series."""
    image_blocks: int = 0
    """ViT: convolutional blocks on the decoder's output."""
    image_scale: bool = False
    """ViT: let these blocks scale what they add, channel by channel."""
    inner_width: int = 0
    """MLP: width of one more linear layer before the quantizer; 0: none."""
    decoder_inner_width: int = 0
    """MLP: width of one more linear layer after the quantizer; 0: none."""
    diffusion: Diffusion | None = None
    """A diffusion decoder instead of a ViT."""
    loss: str = "auto"
    """Name of one of the value type's losses; `auto`: the first. A diffusion decoder takes `mse`."""
    quantizer: Quantizer = field(default_factory=Quantizer)
    pretrained: str = ""
    """Take the network from elsewhere instead of training it: `scenes#tok_rgb`, a bundle that ships, or the folder or Hub id of a bundle or run, and
    the modality there; or the name of a tokenizer that ships, such as `picture-p8`, or the folder of one. Its settings come with it. The entry may have another size, of the same patches."""

    @classmethod
    def expand(cls, content: Mapping[str, Any], where: str, key: str) -> dict[str, Any]:
        """Adds the settings of a pretrained network; those of a run have them already."""
        if not content.get("pretrained") or "quantizer" in content:
            return dict(content)
        try:
            return pretrained_settings(content["pretrained"], sorted({*content} - {"pretrained"}))
        except MaskweaveError as error:
            raise MaskweaveError(f"{where}: {error}") from error

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> type:
        """Returns the settings of a tokenizer that is not trained here if the key `external` names one."""
        return ExternalSpec if "external" in content else TokenizerSpec

    @property
    def size(self) -> int:
        """Size of the vocabulary."""
        return self.quantizer.size
