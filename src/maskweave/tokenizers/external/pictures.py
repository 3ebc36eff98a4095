"""Codes of color pictures: the VQ models of Janus (https://arxiv.org/abs/2410.13848) and Emu3 (https://arxiv.org/abs/2409.18869), VQModel of diffusers
(VQGAN, https://arxiv.org/abs/2012.09841), and TiTok (https://arxiv.org/abs/2406.07550), whose codes are a row that is not tied to positions.

Dimension letters: B batch, H and W pixels, h and w codes, K codes of a row.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.files import read_json_object
from maskweave.tokenizers.external.published import PublishedTokenizer
from maskweave.tokenizers.external.titok import open_titok
from maskweave.values.base import ValueType


class PictureTokenizer(PublishedTokenizer):
    """Pictures to one code for each patch, and back."""

    black: ClassVar[float] = -1
    """Network input of a black pixel; that of a white one is 1."""

    def check_value(self, value: ValueType) -> None:
        if not value.is_picture:
            raise MaskweaveError(
                f"{self.where}: is for color pictures (value.type image with 3 channels), but the entry's values are {value.describe()}"
            )
        if self.spec.depth > 1 or self.spec.tokens == "separate":
            raise MaskweaveError(f"{self.where}: has one level of codes; remove tokenizer.depth and tokenizer.tokens")
        size, patch, side = list(value.size), self.patch, self.side
        if side and size != [side, side]:
            raise MaskweaveError(
                f"{self.where}: takes pictures of {side}×{side} pixels, but value.size is {size}; set it to [{side}, {side}]"
            )
        if any(points % patch for points in size):
            near = [max(1, round(points / patch)) * patch for points in size]
            raise MaskweaveError(
                f"{self.where}: takes pictures whose height and width are multiples of {patch}, but value.size is {size}; set it to {near}, for instance"
            )

    @property
    def side(self) -> int:
        """Pixels along each axis of the only pictures that the network takes; 0: any."""
        return 0

    @property
    @abstractmethod
    def patch(self) -> int:
        """Pixels along each axis of the patch of a code."""

    @abstractmethod
    def codes_of(self, pixels_B3HW: Tensor) -> Tensor:
        """Encodes pictures to codes, B · h · w numbers."""

    @abstractmethod
    def pixels_of(self, codes_Bhw: Tensor) -> Tensor:
        """Decodes codes to pictures (B, 3, H, W)."""

    def latents(self) -> tuple[int, ...]:
        return tuple(points // self.patch for points in self.value.size)

    @torch.inference_mode()
    def encode(self, values: Sequence[Any]) -> Tensor:
        pixels = torch.from_numpy(np.stack(values)).to(self.device).movedim(-1, 1).float()
        pixels = pixels / (255 / (1 - self.black)) + self.black
        return self.codes_of(pixels).reshape(len(values), *self.grid)

    @torch.inference_mode()
    def decode(self, ids: Tensor) -> list[np.ndarray]:
        pixels = (self.pixels_of(ids.to(self.device)).float() - self.black) * (255 / (1 - self.black))
        return list(pixels.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy())


class JanusTokenizer(PictureTokenizer):
    """The VQ model of Janus, for pictures of one size. Codes are normalized before they are decoded."""

    architecture = "JanusVQVAE"

    @property
    def side(self) -> int:
        return int(self.config.num_patches * self.patch)

    def sizes(self) -> tuple[int, int]:
        return self.config.num_embeddings, 1

    @property
    def patch(self) -> int:
        return 2 ** (len(self.config.channel_multiplier) - 1)

    def codes_of(self, pixels_B3HW: Tensor) -> Tensor:
        codes: Tensor = self.model.encode(pixels_B3HW).image_tokens
        return codes

    def pixels_of(self, codes_Bhw: Tensor) -> Tensor:
        pixels: Tensor = self.model.decode(codes_Bhw.flatten(1))
        return pixels

    def codebooks(self) -> Tensor:
        codes: Tensor = self.model.quantize.embedding.weight
        return torch.nn.functional.normalize(codes, dim=-1)[None]


class Emu3Tokenizer(PictureTokenizer):
    """The VQ model of Emu3, for single pictures."""

    architecture = "Emu3VQVAE"

    def sizes(self) -> tuple[int, int]:
        return self.config.codebook_size, 1

    @property
    def patch(self) -> int:
        return 2 ** (len(self.config.channel_multiplier) - 1)

    def codes_of(self, pixels_B3HW: Tensor) -> Tensor:
        sizes = torch.tensor([pixels_B3HW.shape[-2:]] * len(pixels_B3HW))
        return torch.stack(self.model.encode(pixels_B3HW, image_sizes=sizes).image_tokens)

    def pixels_of(self, codes_Bhw: Tensor) -> Tensor:
        pixels: Tensor = self.model.decode(codes_Bhw)
        return pixels

    def codebooks(self) -> Tensor:
        codes: Tensor = self.model.quantize.embedding.weight
        return codes[None]


class VQModelTokenizer(PictureTokenizer):
    """VQModel of diffusers."""

    architecture, library, extra = "VQModel", "diffusers", "diffusion"

    def sizes(self) -> tuple[int, int]:
        return self.config.num_vq_embeddings, 1

    @property
    def patch(self) -> int:
        return 2 ** (len(self.config.block_out_channels) - 1)

    def codes_of(self, pixels_B3HW: Tensor) -> Tensor:
        codes: Tensor = self.model.quantize(self.model.encode(pixels_B3HW).latents)[2][2]
        return codes

    def pixels_of(self, codes_Bhw: Tensor) -> Tensor:
        latents = self.model.quantize.embedding(codes_Bhw).movedim(-1, 1)
        model = self.model
        pixels: Tensor = model.decoder(
            model.post_quant_conv(latents), latents if self.config.norm_type == "spatial" else None
        )
        return pixels

    def codebooks(self) -> Tensor:
        codes: Tensor = self.model.quantize.embedding.weight
        return codes[None]


class TiTokTokenizer(PictureTokenizer):
    """TiTok, for pictures of one size. Its grid has one axis: each code says something of the whole picture."""

    architecture, black = "TiTok", 0
    batch = 4  # a published pixel decoder takes 0.3 GB for a picture

    def _open(self, folder: Path) -> nn.Module:
        network = open_titok(folder, read_json_object(folder / "config.json"), self.where)
        return network.eval().requires_grad_(False)

    @property
    def side(self) -> int:
        return int(self.config.crop_size)

    def sizes(self) -> tuple[int, int]:
        return self.config.codebook_size, 1

    @property
    def patch(self) -> int:
        patch: int = self.config.vit_enc_patch_size
        return patch

    def latents(self) -> tuple[int, ...]:
        return (self.config.num_latent_tokens,)

    def codes_of(self, pixels_B3HW: Tensor) -> Tensor:
        codes: Tensor = self.model.encode(pixels_B3HW)
        return codes

    def pixels_of(self, codes_BK: Tensor) -> Tensor:
        pixels: Tensor = self.model.decode(codes_BK)
        return pixels

    def codebooks(self) -> Tensor:
        codes: Tensor = self.model.codebook
        return codes[None]
