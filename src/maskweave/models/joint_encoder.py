"""One encoder for patches and sequences of any modalities: the tokens of a sample form one sequence after a class token. M3AE and the contrastive
model have it.

M3AE (https://arxiv.org/abs/2205.14204), section 3. Only visible tokens go through the encoder.

Dimension letters: B samples, L tokens of a modality, K visible ones of them, N visible tokens of all modalities, D width, H heads.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.inputs import Inputs
from maskweave.masking.m3ae import MaskedTokens
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.embeddings import ByName, check_positions
from maskweave.models.varlen import VarlenBlock, run_blocks
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import LayerNorm, initialize, sine_cosine, without_memory

Parts = Mapping[str, MaskedTokens]
"""Tokens of samples with the same modalities, by modality, in the catalog's order."""


class JointFeatures(NamedTuple):
    """Encoder output."""

    tokens: Tensor
    """(B, N, D) normalized output at each token, in the order of the parts and their positions."""
    present: Tensor
    """(B, N) bool, False at padding."""
    class_token: Tensor
    """(B, D) normalized output at the class token."""

    @classmethod
    def of(cls, parts: Parts, encoded_BND: Tensor) -> Self:
        """Divides the output (B, 1 + N, D) of `encode`."""
        mask = attention_mask((tokens.visible, tokens.kept) for tokens in parts.values())
        present = encoded_BND.new_ones(encoded_BND.shape[:2], dtype=torch.bool) if mask is None else mask[:, 0, 0]
        return cls(encoded_BND[:, 1:], present[:, 1:], encoded_BND[:, 0])

    @property
    def pooled(self) -> Tensor:
        """(B, D) mean over the tokens that are not padding."""
        weight = self.present[..., None].to(self.tokens.dtype)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class JointEncoder(nn.Module):
    """The encoder over a catalog's patches and sequences. Subclasses add what their objective needs, and call `initialize` at the end.

    Args:
        config: has width, depth, heads and mlp_ratio.

    Raises:
        MaskweaveError: the catalog has a modality of another kind, or the sizes do not fit together.
    """

    positions: Tensor
    decoder_parts: ClassVar[tuple[str, ...]] = ()
    """Members that the encoder does not need."""

    def __init__(self, catalog: Catalog, config: Any):
        super().__init__()
        check_kinds(catalog)
        self.config = config
        modalities = list(catalog.values())
        self.ids = {m.name: m.id for m in modalities}
        self.starts = {m.name: sum(other.tokens for other in modalities[:i]) for i, m in enumerate(modalities)}
        self.register_buffers(catalog)

        D = config.width
        self.token_embedding = ByName(
            {
                m.name: Linear(m.row_width, D)
                if m.kind == "patches"
                else nn.Embedding(catalog.vocabulary_size(m.name), D)
                for m in modalities
            }
        )
        self.types = nn.Embedding(1 + max(self.ids.values()), D)
        self.class_token = nn.Parameter(torch.zeros(D))
        self.encoder = nn.ModuleList(
            VarlenBlock(D, config.heads, config.mlp_ratio, gelu="tanh") for _ in range(config.depth)
        )
        self.encoder_norm = LayerNorm(D)

    @classmethod
    def without_weights(cls, catalog: Catalog, config: Any) -> Self:
        """Builds a model whose parameters take no memory, for a loader that sets them. Buffers computed from the entries are allocated."""
        with without_memory():
            model = cls(catalog, config)
        model.register_buffers(catalog)
        return model

    def register_buffers(self, catalog: Catalog) -> None:
        """Registers the fixed positions."""
        check_positions(catalog, self.config.width)
        self.register_buffer("positions", position_table(catalog.values(), self.config.width), persistent=False)

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
        return torch.cat(x, dim=1), attention_mask((tokens.visible, tokens.kept) for tokens in parts.values())

    def encode(self, parts: Parts) -> Tensor:
        """Encodes the visible tokens.

        Returns:
            (B, 1 + N, D) normalized output, the class token first, then the `kept` tokens of each part.
        """
        return self.encode_groups([parts])[0]

    def encode_groups(self, groups: Sequence[Parts]) -> list[Tensor]:
        """As `encode`, for several groups of samples at once."""
        embedded = [self.embed(parts) for parts in groups]
        return [self.encoder_norm(x_BND) for x_BND in run_blocks(self.encoder, embedded)]

    def features(self, parts: Parts) -> JointFeatures:
        """Returns features of samples. For features of complete samples, pass parts without masking (a mask ratio of 0)."""
        return JointFeatures.of(parts, self.encode(parts))

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


def attention_mask(parts: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor | None:
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
            f"the model takes modalities of kind patches and sequence, found {', '.join(others) or 'none'}; list the modalities to use under 'modalities'"
        )
