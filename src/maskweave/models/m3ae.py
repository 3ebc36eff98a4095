"""M3AE: one encoder for images and text, trained to reconstruct masked patches and tokens.

Papers: M3AE (https://arxiv.org/abs/2205.14204), section 3, and MAE (https://arxiv.org/abs/2111.06377), the special case without text.
Contents: sizes, configuration, model (encode, decode, features, attention), positions. Patches and sequences of a catalog form
one sequence after a class token. Only visible tokens go through the encoder; a smaller decoder reconstructs everything.

Dimension letters: B samples, L tokens of a modality, K visible ones of them, N visible tokens of all modalities, D width,
d width of the decoder, C width of a raw row, H heads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from maskweave import limits
from maskweave.errors import MaskweaveError, shown
from maskweave.masking.inputs import Inputs
from maskweave.masking.m3ae import MaskedTokens
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.embeddings import ByName, check_positions
from maskweave.models.varlen import VarlenBlock, run_blocks
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import LayerNorm, initialize, sine_cosine, without_memory
from maskweave.nn.weights import PassthroughTensors

Parts = Mapping[str, MaskedTokens]
"""Tokens of samples with the same modalities, by modality, in the catalog's order."""


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


class M3AEFeatures(NamedTuple):
    """Encoder output."""

    tokens: Tensor
    """(B, N, D) normalized output at each token, in the order of the parts and their positions."""
    present: Tensor
    """(B, N) bool, False at padding."""
    class_token: Tensor
    """(B, D) normalized output at the class token."""

    @property
    def pooled(self) -> Tensor:
        """(B, D) mean over the tokens that are not padding."""
        weight = self.present[..., None].to(self.tokens.dtype)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class M3AE(nn.Module):
    """The model over a catalog's patches and sequences.

    Raises:
        MaskweaveError: the catalog has a modality of another kind, or the sizes do not fit together.
    """

    positions: Tensor
    decoder_positions: Tensor
    decoder_parts = ("decoder_projection", "mask_tokens", "decoder_types", "decoder", "decoder_norm", "heads")
    """Members that only the decoder needs."""

    def __init__(self, catalog: Catalog, config: M3AEConfig):
        super().__init__()
        check_kinds(catalog)
        self.config = config = config.resolved()
        self.passthrough: PassthroughTensors | None = None  # of a published checkpoint
        D, d, ratio = config.width, config.decoder_width, config.mlp_ratio
        modalities = list(catalog.values())
        self.ids = {m.name: m.id for m in modalities}
        self.starts = {m.name: sum(other.tokens for other in modalities[:i]) for i, m in enumerate(modalities)}
        rows = 1 + max(self.ids.values())
        self.register_buffers(catalog)

        self.token_embedding = ByName(
            {
                m.name: Linear(m.row_width, D)
                if m.kind == "patches"
                else nn.Embedding(catalog.vocabulary_size(m.name), D)
                for m in modalities
            }
        )
        self.types = nn.Embedding(rows, D)
        self.class_token = nn.Parameter(torch.zeros(D))
        self.encoder = nn.ModuleList(VarlenBlock(D, config.heads, ratio, gelu="tanh") for _ in range(config.depth))
        self.encoder_norm = LayerNorm(D)

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

    @classmethod
    def without_weights(cls, catalog: Catalog, config: M3AEConfig) -> Self:
        """Builds a model whose parameters take no memory, for a loader that sets them. Buffers computed from the entries are allocated."""
        with without_memory():
            model = cls(catalog, config)
        model.register_buffers(catalog)
        return model

    def register_buffers(self, catalog: Catalog) -> None:
        """Registers the fixed positions."""
        check_positions(catalog, max(self.config.width, self.config.decoder_width))
        for name, width in (("positions", self.config.width), ("decoder_positions", self.config.decoder_width)):
            self.register_buffer(name, position_table(catalog.values(), width), persistent=False)

    def initialize(self) -> None:
        """As in MAE: Xavier-uniform linear layers; normal with std 0.02 for embeddings, class and mask tokens."""
        initialize(self)
        nn.init.normal_(self.class_token, std=0.02)

    def embed(self, parts: Parts) -> tuple[Tensor, Tensor | None]:
        """Returns the class token and the visible tokens (B, 1 + N, D), and the attention mask."""
        B = next(iter(parts.values())).masked.shape[0]
        x = [self.class_token.expand(B, 1, -1)]
        for name, tokens in parts.items():
            # Selected before embedding: masked tokens cost nothing.
            kept = tokens.kept
            if tokens.content.ndim == 3:
                kept = kept[..., None].expand(-1, -1, tokens.content.shape[-1])
            content_BKD = self.token_embedding[name](tokens.content.gather(1, kept))
            x.append(content_BKD + self.positions[self.starts[name] + tokens.kept] + self.types.weight[self.ids[name]])
        return torch.cat(x, dim=1), _attention_mask((tokens.visible, tokens.kept) for tokens in parts.values())

    def encode(self, parts: Parts) -> Tensor:
        """Encodes the visible tokens.

        Returns:
            (B, 1 + N, D) normalized output, the class token first, then the `kept` tokens of each part.
        """
        return self._encode([parts])[0]

    def decode(self, groups: Sequence[Parts]) -> list[dict[str, Tensor]]:
        """Encodes the visible tokens and decodes all positions, for several groups of samples at once.

        Returns:
            For each group, (B, L, d) per part: normalized vectors, the input of `heads`.
        """
        full = [
            self._with_mask_tokens(parts, encoded) for parts, encoded in zip(groups, self._encode(groups), strict=True)
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

    def _encode(self, groups: Sequence[Parts]) -> list[Tensor]:
        embedded = [self.embed(parts) for parts in groups]
        return [self.encoder_norm(x_BND) for x_BND in run_blocks(self.encoder, embedded)]

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
        return torch.cat(y, dim=1), _attention_mask((tokens.present, tokens.masked) for tokens in parts.values())

    def features(self, parts: Parts) -> M3AEFeatures:
        """Returns features of samples. For features of complete samples, pass parts without masking (a mask ratio of 0)."""
        encoded = self.encode(parts)
        mask = _attention_mask((tokens.visible, tokens.kept) for tokens in parts.values())
        present = encoded.new_ones(encoded.shape[:2], dtype=torch.bool) if mask is None else mask[:, 0, 0]
        return M3AEFeatures(encoded[:, 1:], present[:, 1:], encoded[:, 0])

    def attention(self, parts: Parts) -> Tensor:
        """Returns (blocks, B, H, 1 + N, 1 + N), the encoder's attention weights from each token (rows) to each token (columns)."""
        x_BND, mask = self.embed(parts)
        found = []
        block: Any
        for block in self.encoder:
            normed = block.norm1(x_BND)
            k, _ = block.attention.keys_values(normed)
            scores = block.attention.queries(normed) @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
            found.append((scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1))
            x_BND = block(x_BND, mask)
        return torch.stack(found)

    def readable(self, catalog: Catalog) -> list[str]:
        """Returns the modalities that the encoder reads."""
        return list(catalog)

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """Returns (B, N, D), the encoder's output at each token without masking, for features."""
        return self.encode(inputs.as_masked_tokens())[:, 1:]

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Returns the parameters that embed only these modalities."""
        return [p for name in names for p in self.token_embedding[name].parameters()]


def _attention_mask(parts: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor | None:
    """Returns (B, 1, 1, 1 + N), False at padding; None without padding, which is faster. Each part is its flags, and a tensor of the same shape."""
    parts = list(parts)
    if all(flags is None for flags, _ in parts):
        return None
    flags = [torch.ones_like(like, dtype=torch.bool) if flags is None else flags for flags, like in parts]
    return nn.functional.pad(torch.cat(flags, dim=1), (1, 0), value=True)[:, None, None]


def position_table(modalities: Iterable[Modality], width: int) -> Tensor:
    """Returns fixed sine-cosine embeddings of all positions of all modalities, (positions, width), the last axis of a grid first."""
    tables = []
    for m in modalities:
        table = sine_cosine(m.grid or (m.max_tokens,), width)
        axes = max(1, len(m.grid))
        share = width // axes // 2 * 2
        *parts, rest = table.split([*[share] * axes, width - share * axes], dim=1)
        tables.append(torch.cat([*reversed(parts), rest], dim=1))
    return torch.cat(tables)


def check_kinds(catalog: Catalog) -> None:
    """Checks that all modalities are of kind patches or sequence.

    Raises:
        MaskweaveError: a modality is of another kind, or there is no modality.
    """
    others = [f"{m.name} ({m.kind})" for m in catalog.values() if m.kind not in ("patches", "sequence")]
    if others or not len(catalog):
        raise MaskweaveError(
            f"M3AE takes modalities of kind patches and sequence, found {', '.join(others) or 'none'}; list the modalities to use under 'modalities'"
        )
