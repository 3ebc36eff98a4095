"""4M: one encoder-decoder Transformer that predicts target tokens from input tokens of any modalities.

Papers: 4M (https://arxiv.org/abs/2312.06647), section 2, and 4M-21 (https://arxiv.org/abs/2406.09406).
Contents: configuration, decoder block, model (initialization, encode, decode, logits).

Dimension letters: B samples, N input slots, M target slots, D width, H heads, n targets of one modality in the batch, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from maskweave import limits
from maskweave.errors import MaskweaveError, shown
from maskweave.masking.batch import Slots, TokenBatch
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog
from maskweave.models.embeddings import ByName, PositionEmbedding, TokenEmbedding, join, tables_of
from maskweave.models.sizes import SIZES
from maskweave.nn.cpu import LOGITS_ROWS, Linear, row_multiple
from maskweave.nn.layers import MLP, Attention, Biases, Block, LayerNorm, initialize, without_memory
from maskweave.nn.linear_cross_entropy import Head
from maskweave.nn.weights import PassthroughTensors

Read = Callable[[nn.Module, list[str], Tensor, Tensor], Any]

TOKENIZER_INIT_STD = 0.1
"""Standard deviation of embeddings that are initialized from tokenizers."""


@dataclass(frozen=True)
class FourMConfig:
    """A model size and its variants. Sizes given here replace those of the size table."""

    renamed: ClassVar[dict[str, str]] = {"informed": "init_from_tokenizers"}

    size: str = "nano"
    """Row of the size table: nano, micro, mini, Ti, S, B, L or XL."""
    width: int = 0
    """Width of tokens; 0: from the size table."""
    heads: int = 0
    """Attention heads; 0: from the size table."""
    encoder_depth: int = 0
    """Encoder blocks; 0: from the size table."""
    decoder_depth: int = 0
    """Decoder blocks; 0: from the size table."""
    mlp_ratio: float = 4.0
    """Hidden width of an MLP relative to `width`; a gated MLP uses two thirds of it."""
    gated: bool = True
    """SwiGLU instead of GELU."""
    qkv_bias: bool = False
    """Biases of the queries, keys and values."""
    proj_bias: bool = False
    """Biases of the linear layers after attention."""
    mlp_bias: bool = False
    """Biases inside MLPs."""
    norm_bias: bool = False
    """Biases of norms."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head (4M-21)."""
    registers: int = 0
    """Register tokens in front of the encoder's tokens."""
    separate: bool = False
    """Separate embedding tables and head for every modality, even if modalities share a vocabulary, as in the published files."""
    tied: bool = False
    """Share one table per vocabulary (or modality) between embeddings and head, instead of three: fewer parameters, and small models learn faster."""
    init_from_tokenizers: bool = False
    """Initialize token embeddings from the tokenizers: codes from their codebook vectors, ordered values by their order."""

    def resolved(self) -> "FourMConfig":
        """Returns a copy with all sizes filled in.

        Raises:
            MaskweaveError: the size is unknown, or the width is not divisible by the heads.
        """
        if self.size not in SIZES:
            raise MaskweaveError(f"model: unknown size {shown(self.size)}; known: {', '.join(SIZES)}")
        row = SIZES[self.size]._asdict()
        numbers = {name: getattr(self, name) or value for name, value in row.items()}
        if min(numbers.values()) < 1 or numbers["width"] % (2 * numbers["heads"]):
            raise MaskweaveError(
                f"model: width {numbers['width']} must be an even multiple of heads {numbers['heads']}, and depths at least 1"
            )
        if self.registers < 0 or not self.mlp_ratio * numbers["width"] >= 2:
            raise MaskweaveError(
                f"model: registers must be 0 or more and mlp_ratio above 0, found {self.registers} and {self.mlp_ratio}"
            )
        for key, most in (("width", limits.WIDTH), ("heads", limits.HEADS)):
            limits.check_most(f"model: {key}", numbers[key], most)
        for key in ("encoder_depth", "decoder_depth"):
            limits.check_most(f"model: {key}", numbers[key], limits.DEPTH)
        limits.check_most("model: mlp_ratio", self.mlp_ratio, limits.MLP_RATIO)
        limits.check_most("model: registers", self.registers, limits.REGISTERS)
        own = {f.name: getattr(self, f.name) for f in fields(FourMConfig)}  # a recipe's settings have more fields
        return FourMConfig(**{**own, **numbers})

    @property
    def biases(self) -> Biases:
        return Biases(self.qkv_bias, self.proj_bias, self.mlp_bias, self.norm_bias)


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention over targets, cross-attention to the context, MLP."""

    def __init__(self, config: FourMConfig):
        super().__init__()
        width, heads, biases = config.width, config.heads, config.biases
        self.norm1 = LayerNorm(width, biases.norm)
        self.self_attention = Attention(width, heads, biases, config.qk_norm)
        self.query_norm = LayerNorm(width, biases.norm)
        self.context_norm = LayerNorm(width, biases.norm)
        self.cross_attention = Attention(width, heads, biases, config.qk_norm)
        self.norm2 = LayerNorm(width, biases.norm)
        self.mlp = MLP(width, config.mlp_ratio, biases.mlp, config.gated)

    def forward(
        self, x_BMD: Tensor, context_BND: Tensor, self_mask: Tensor | None, context_mask: Tensor | None
    ) -> Tensor:
        x_BMD = x_BMD + self.self_attention(self.norm1(x_BMD), mask=self_mask)
        x_BMD = x_BMD + self.cross_attention(self.query_norm(x_BMD), self.context_norm(context_BND), context_mask)
        return x_BMD + self.mlp(self.norm2(x_BMD))


class FourM(nn.Module):
    """The model over a catalog's modalities."""

    causal: Tensor
    decoder_parts = (
        "context_projection", "mask_token", "target_token_embedding", "decoder", "decoder_norm", "heads",
    )  # fmt: skip
    """Members that only the decoder needs."""
    undecayed = ("registers",)
    """Parameters without weight decay."""

    def __init__(self, catalog: Catalog, config: FourMConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.passthrough: PassthroughTensors | None = None  # of a published checkpoint
        D = config.width
        targets = [m for m in catalog.values() if m.is_target]
        self.input_names, self.target_names = list(catalog), [m.name for m in targets]
        self.tables = tables_of(catalog, config.separate)
        sequences = Catalog([m for m in targets if m.kind == "sequence"], catalog.vocabularies.values())

        self.token_embedding = TokenEmbedding(catalog, self.tables, D)
        self.position_embedding = PositionEmbedding(catalog, D)
        self.registers = nn.Parameter(torch.zeros(1, config.registers, D)) if config.registers else None
        self.encoder = nn.ModuleList(
            Block(D, config.heads, config.mlp_ratio, config.biases, config.gated, config.qk_norm)
            for _ in range(config.encoder_depth)
        )
        self.encoder_norm = LayerNorm(D, config.norm_bias)

        self.context_projection = Linear(D, D)  # always with a bias, as published
        self.mask_token = nn.Parameter(torch.zeros(D))
        self.target_token_embedding = TokenEmbedding(sequences, self.tables, D) if len(sequences) else None
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.decoder_norm = LayerNorm(D, config.norm_bias)
        self.heads = ByName(
            {self.tables[m.name]: Head(D, catalog.vocabulary_size(m.name), bias=False) for m in targets}
        )
        self.register_buffer("causal", _causal(catalog), persistent=False)
        self.initialize()
        self.tie()

    @classmethod
    def without_weights(cls, catalog: Catalog, config: FourMConfig) -> Self:
        """Builds a model whose parameters take no memory, for a loader that sets them. Buffers computed from the entries are allocated."""
        with without_memory():
            model = cls(catalog, config)
        model.position_embedding.register_buffers(catalog)
        model.causal = _causal(catalog)
        return model

    def initialize(self) -> None:
        """As in MAE: Xavier-uniform linear layers; normal with std 0.02 for embeddings, learned positions, mask and register tokens."""
        initialize(self)
        for parameter in (
            self.mask_token,
            self.registers,
            self.position_embedding.learned,
            self.position_embedding.learned_of_targets,
        ):
            if parameter is not None:
                nn.init.normal_(parameter, std=0.02)

    def tie(self) -> None:
        """Shares the head weights with the embedding tables if `config.tied`."""
        if self.config.tied:
            for name, head in self.heads.items():
                for table in self.embeddings(name):
                    table.weight = head.weight

    def embeddings(self, table: str) -> list[nn.Module]:
        """Returns the embeddings with this table name: that of inputs and that of target tokens."""
        contents = [content for content in (self.token_embedding, self.target_token_embedding) if content is not None]
        return [content.tokens[table] for content in contents if table in content.tokens]

    @torch.no_grad()
    def init_from_tokenizers(self, embeddings: dict[str, Tensor]) -> None:
        """Initializes token embeddings so that similar tokens have similar vectors.

        Args:
            embeddings: (V, C) per modality, one vector for each token, from its tokenizer.
        """
        by_table = {self.tables[name]: embeddings_VC for name, embeddings_VC in embeddings.items()}
        for table, embeddings_VC in by_table.items():
            rows = embeddings_VC @ torch.randn(embeddings_VC.shape[1], self.config.width)
            rows *= TOKENIZER_INIT_STD / rows.std().clamp(min=1e-6)
            heads = [self.heads[table]] if table in self.heads else []
            for layer in (*heads, *self.embeddings(table)):
                layer.load_state_dict({"weight": rows})

    def encode(self, inputs: Slots, rows: dict[str, Tensor]) -> Tensor:
        """Encodes the input tokens.

        Returns:
            (B, R + N, D) normalized output, the R register tokens first.
        """
        x_BND = self.token_embedding(inputs, rows) + self.position_embedding(inputs)
        if self.registers is not None:
            x_BND = torch.cat([self.registers.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        mask = self.context_mask(inputs)
        for block in self.encoder:
            x_BND = block(x_BND, mask)
        return self.encoder_norm(x_BND)

    def context_mask(self, inputs: Slots) -> Tensor | None:
        """Returns (B, 1, 1, R + N), False at padding; None without padding, which is faster, unless shapes are static."""
        if not inputs.is_static and sum(index.shape[0] for index in inputs.index.values()) == inputs.ids.numel():
            return None
        mask = inputs.modality != 0
        if self.config.registers:
            mask = nn.functional.pad(mask, (self.config.registers, 0), value=True)
        else:  # a sample without inputs attends to its padding; all padding vectors are equal, so their number does not matter
            mask = mask | ~mask.any(dim=1, keepdim=True)
        return mask[:, None, None]

    def decode(self, targets: Slots, encoded_BND: Tensor, inputs: Slots) -> Tensor:
        """Decodes the target slots, given the encoder's output for `inputs`.

        Returns:
            (B, M, D) normalized vectors, for `logits`.
        """
        y_BMD, context = self.queries(targets), self.context(encoded_BND, inputs)
        self_mask, context_mask = self.target_mask(targets), self.context_mask(inputs)
        for block in self.decoder:
            y_BMD = block(y_BMD, context, self_mask, context_mask)
        return self.decoder_norm(y_BMD)

    def context(self, encoded_BND: Tensor, inputs: Slots) -> Tensor:
        """Returns (B, R + N, D), the context of cross-attention: the encoder's output plus modality and position embeddings."""
        where = self.position_embedding(inputs)
        if self.registers is not None:
            where = nn.functional.pad(where, (0, 0, self.config.registers, 0))
        return self.context_projection(encoded_BND) + where

    def queries(self, targets: Slots) -> Tensor:
        """Returns (B, M, D): the shared mask token for grids and the token's embedding for sequences, plus modality and position."""
        grid = ~self.causal[targets.modality][..., None]
        content = self.position_embedding(targets, targets=True) + self.mask_token * grid
        return content if self.target_token_embedding is None else content + self.target_token_embedding(targets, {})

    def target_mask(self, targets: Slots) -> Tensor:
        """Returns (B, 1, M, M): targets attend to their own modality: all of it in grids, only the past in sequences."""
        same = targets.modality[:, :, None] == targets.modality[:, None, :]
        past = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril()
        return (same & (past | ~self.causal[targets.modality][:, :, None]))[:, None]

    def logits(
        self, y_BMD: Tensor, index: dict[str, Tensor], multiple: int = 1, read: Read | None = None
    ) -> dict[str, tuple[list[str], Tensor, Any]]:
        """Computes logits of the given slots only, with one matrix product per table.

        Args:
            multiple: the number of rows of logits is padded to a multiple of it.
            read: called with a table's head, modalities, slots and rows (n, D), instead of the head with the rows.

        Returns:
            Per table (of a vocabulary or of one modality): its modalities, their flat slot indices concatenated in that order (n,), and the
            logits (n, V), with any padding rows at the end, or the result of `read`.
        """
        names: dict[str, list[str]] = {}
        for name in index:
            names.setdefault(self.tables[name], []).append(name)
        flat = y_BMD.flatten(0, 1)
        slots = {table: join([index[name] for name in members]) for table, members in names.items()}
        rows = {t: flat[nn.functional.pad(at, (0, -len(at) % multiple))] for t, at in slots.items()}
        if read is None:
            return {t: (members, slots[t], self.heads[t](rows[t])) for t, members in names.items()}
        return {t: (ms, slots[t], read(self.heads[t], ms, slots[t], rows[t])) for t, ms in names.items()}

    def forward(self, batch: TokenBatch, read: Read | None = None) -> dict[str, tuple[list[str], Tensor, Any]]:
        """Predicts the targets of a batch; see `logits`. In training, its rows are padded if that makes kernels faster."""
        y_BMD = self.decode(batch.targets, self.encode(batch.inputs, batch.rows), batch.inputs)
        multiple = row_multiple(y_BMD, LOGITS_ROWS, batch.targets.is_static) if self.training else 1
        return self.logits(y_BMD, batch.targets.index, multiple, read)

    def readable(self, catalog: Catalog) -> list[str]:
        """Returns the modalities that the encoder reads."""
        return list(catalog)

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """Returns (B, N, D), the encoder's output at each input token, for features."""
        return self.encode(*inputs.as_slots(catalog))[:, self.config.registers :]

    def parameters_of(self, inputs: Iterable[str], targets: Iterable[str]) -> list[nn.Parameter]:
        """Returns the parameters that only tokens of these input and target modalities use; a shared table may be listed several times."""
        read, written = self.token_embedding, self.target_token_embedding
        modules = [read.tokens[self.tables[n]] if n in self.tables else read.rows[n] for n in inputs]
        for name in targets:
            modules.append(self.heads[self.tables[name]])
            if written is not None and name in written.tables:
                modules.append(written.tokens[self.tables[name]])
        return [p for module in modules for p in module.parameters()]

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Returns the parameters that embed only these modalities of raw rows."""
        rows = self.token_embedding.rows
        return [p for name in names if name in rows for p in rows[name].parameters()]


def _causal(catalog: Catalog) -> Tensor:
    """Returns bool per modality id: whether it is a sequence, predicted from left to right."""
    table = torch.zeros(max(m.id for m in catalog.values()) + 1, dtype=torch.bool)
    table[[m.id for m in catalog.values() if m.kind == "sequence"]] = True
    return table
