"""M3AE: one encoder for images and text, trained to reconstruct masked patches and tokens.

Papers: M3AE (https://arxiv.org/abs/2205.14204), section 3, and MAE (https://arxiv.org/abs/2111.06377), the special case without text.
Contents: sizes, configuration, model (decode). The encoder is in `joint_encoder`. Only visible tokens go through it; a smaller decoder reconstructs
everything.

Dimension letters: B samples, L tokens of a modality, N visible tokens of all modalities, D width, d width of the decoder, C width of a raw row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from maskweave import limits
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.catalogs import Catalog
from maskweave.models.embeddings import ByName, check_positions
from maskweave.models.joint_encoder import JointEncoder, Parts, attention_mask, position_table
from maskweave.models.varlen import VarlenBlock, run_blocks
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import LayerNorm
from maskweave.nn.weights import PassthroughTensors


class M3AESize(NamedTuple):
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


M3AE_SIZES = {
    "nano": M3AESize(128, 4, 4, 96, 2, 4),
    "S": M3AESize(384, 12, 6, 512, 8, 16),
    "B": M3AESize(768, 12, 12, 512, 8, 16),
    "L": M3AESize(1024, 24, 16, 512, 8, 16),
    "H": M3AESize(1280, 32, 16, 512, 8, 16),
}
"""S to H are the published sizes (table 6). Their patch size of 16×16 is set in the modality's entry."""


@dataclass(frozen=True)
class M3AEConfig:
    """A model size. Values given here replace those of the size table."""

    size: str = "nano"
    """Row of the size table: nano, S, B, L or H."""
    width: int = 0
    """Width of the encoder's tokens; 0: from the size table."""
    depth: int = 0
    """Encoder blocks; 0: from the size table."""
    heads: int = 0
    """Attention heads of the encoder; 0: from the size table."""
    decoder_width: int = 0
    """Width of the decoder's tokens; 0: from the size table."""
    decoder_depth: int = 0
    """Decoder blocks; 0: from the size table."""
    decoder_heads: int = 0
    """Attention heads of the decoder; 0: from the size table."""
    mlp_ratio: float = 4.0
    """Hidden width of an MLP relative to the width of tokens."""

    def resolved(self) -> "M3AEConfig":
        """Returns a copy with all sizes filled in.

        Raises:
            MaskweaveError: the size is unknown, or a width is not divisible by its heads.
        """
        if self.size not in M3AE_SIZES:
            raise MaskweaveError(f"model: unknown size {shown(self.size)}; known: {', '.join(M3AE_SIZES)}")
        numbers = {k: getattr(self, k) or row for k, row in M3AE_SIZES[self.size]._asdict().items()}
        if min(numbers.values()) < 1 or not self.mlp_ratio * min(numbers["width"], numbers["decoder_width"]) >= 1:
            raise MaskweaveError("model: widths, depths, heads and mlp_ratio must be above 0")
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            if numbers[width] % numbers[heads]:
                raise MaskweaveError(f"model: {width} {numbers[width]} must be a multiple of {heads} {numbers[heads]}")
        largest = {"width": limits.WIDTH, "heads": limits.HEADS}
        for name, number in numbers.items():
            limits.check_most(f"model: {name}", number, largest.get(name.removeprefix("decoder_"), limits.DEPTH))
        limits.check_most("model: mlp_ratio", self.mlp_ratio, limits.MLP_RATIO)
        own = {f.name: getattr(self, f.name) for f in fields(M3AEConfig)}  # a recipe's settings have more fields
        return M3AEConfig(**{**own, **numbers})


class M3AE(JointEncoder):
    """The model over a catalog's patches and sequences.

    Raises:
        MaskweaveError: the catalog has a modality of another kind, or the sizes do not fit together.
    """

    config: M3AEConfig
    decoder_positions: Tensor
    decoder_parts = ("decoder_projection", "mask_tokens", "decoder_types", "decoder", "decoder_norm", "heads")

    def __init__(self, catalog: Catalog, config: M3AEConfig):
        super().__init__(catalog, config := config.resolved())
        self.passthrough: PassthroughTensors | None = None  # of a published checkpoint
        D, d, ratio = config.width, config.decoder_width, config.mlp_ratio
        modalities, rows = list(catalog.values()), self.types.num_embeddings
        self.decoder_projection = Linear(D, d)
        self.mask_tokens = nn.Embedding(rows, d)
        self.decoder_types = nn.Embedding(rows, d)
        self.decoder = nn.ModuleList(
            VarlenBlock(d, config.decoder_heads, ratio, gelu="tanh") for _ in range(config.decoder_depth)
        )
        self.decoder_norm = LayerNorm(d)
        self.heads = ByName(
            {
                m.name: Linear(d, m.row_width if m.kind == "patches" else catalog.vocabulary_size(m.name))
                for m in modalities
            }
        )
        self.initialize()

    def register_buffers(self, catalog: Catalog) -> None:
        super().register_buffers(catalog)
        check_positions(catalog, max(self.config.width, self.config.decoder_width))
        table = position_table(catalog.values(), self.config.decoder_width)
        self.register_buffer("decoder_positions", table, persistent=False)

    def decode(self, groups: Sequence[Parts]) -> list[dict[str, Tensor]]:
        """Encodes the visible tokens and decodes all positions, for several groups of samples at once.

        Returns:
            For each group, (B, L, d) per part: normalized vectors, the input of `heads`.
        """
        full = [
            self._with_mask_tokens(parts, encoded)
            for parts, encoded in zip(groups, self.encode_groups(groups), strict=True)
        ]
        found = []
        for parts, y_BNd in zip(groups, run_blocks(self.decoder, full), strict=True):
            lengths = [tokens.masked.shape[1] for tokens in parts.values()]
            _, *decoded = self.decoder_norm(y_BNd).split([1, *lengths], dim=1)
            found.append(dict(zip(parts, decoded, strict=True)))
        return found

    def forward(self, parts: Parts) -> dict[str, Tensor]:
        """Predicts all positions: (B, L, C) rows of patches, (B, L, vocabulary) logits of sequences."""
        (decoded,) = self.decode([parts])
        return {name: self.heads[name](y) for name, y in decoded.items()}

    def _with_mask_tokens(self, parts: Parts, encoded_BND: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the decoder's input, (B, 1 + positions, d), with mask tokens at masked positions, and its attention mask."""
        y_BNd = self.decoder_projection(encoded_BND)
        class_token, *kept = y_BNd.split([1, *(tokens.kept.shape[1] for tokens in parts.values())], dim=1)
        y = [class_token]
        for (name, tokens), kept_BKd in zip(parts.items(), kept, strict=True):
            B, L = tokens.masked.shape
            index = tokens.kept[..., None].expand_as(kept_BKd)
            visible_BLd = kept_BKd.new_zeros(B, L, kept_BKd.shape[-1]).scatter(1, index, kept_BKd)
            id, start = self.ids[name], self.starts[name]
            filled = torch.where(tokens.masked[..., None], self.mask_tokens.weight[id], visible_BLd)
            y.append(filled + self.decoder_positions[start : start + L] + self.decoder_types.weight[id])
        return torch.cat(y, dim=1), attention_mask((tokens.present, tokens.masked) for tokens in parts.values())
