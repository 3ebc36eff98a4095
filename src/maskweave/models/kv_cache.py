"""Decoding a sequence token by token with a cache of keys and values, so that a step costs one token.

Keys and values of the context are computed once; those of new tokens are appended. The result equals that of `FourM.decode` for the
last token of the same sequence.

Steps may be recorded: all then have the same shapes, and those after the second one repeat it.

Dimension letters: B rows, N context tokens, L longest sequence, D width, H heads.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from maskweave.masking.batch import Slots
from maskweave.models.fourm import DecoderBlock, FourM
from maskweave.nn.cpu import to_cache

KeysValues = tuple[Tensor, ...]


class KVCacheDecoder:
    """Decodes one sequence per row.

    Args:
        encoded_BND: the encoder's output for `inputs`.
        name: the sequence's modality.
        number: its modality id.
        longest: largest number of tokens to read.
        step: replaces `read_step`, for example by a compiled one; shapes are then the same for every token.
        record: records the second step, see `generate.recording`; the same holds for shapes.
    """

    def __init__(
        self,
        model: FourM,
        encoded_BND: Tensor,
        inputs: Slots,
        name: str,
        number: int,
        longest: int,
        step: Callable[..., Tensor] | None = None,
        record: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ):
        self.model, self.name, self.number, self.longest = model, name, number, longest
        self.record = record
        self.is_static = step is not None or record is not None
        """Whether shapes are the same for every token: attention looks at `longest` tokens, and those that are not read yet are masked."""
        self.step: Callable[..., Tensor] = step or read_step
        self.blocks = [block for block in model.decoder if isinstance(block, DecoderBlock)]
        self.context_mask = model.context_mask(inputs)
        context = model.context(encoded_BND, inputs)
        self.context: list[KeysValues] = [
            tuple(map(to_cache, same_precision(*block.cross_attention.keys_values(block.context_norm(context)))))
            for block in self.blocks
        ]
        B, H, _, width = self.context[0][0].shape
        self.read_so_far: list[KeysValues] = [
            tuple(t.new_zeros(B, H, longest, width) for t in kept) for kept in self.context
        ]
        self.count = 0
        self._position = torch.zeros(1, dtype=torch.long, device=encoded_BND.device)
        self._ids_B = torch.zeros(B, dtype=torch.long, device=encoded_BND.device)
        self._logits_BV: Tensor
        self._repeat: Callable[[], None] | None = None

    def read(self, ids_B: Tensor) -> Tensor:
        """Reads the next token of every row; returns the logits (B, V) of the token after it."""
        self.count += 1
        if self.record is None or self.count == 1:  # the first step prepares the kernels
            return self._read(ids_B)
        self._ids_B.copy_(ids_B)
        if self._repeat is None:
            self._repeat = self.record(self._read_recorded)
        self._repeat()
        return self._logits_BV.clone()  # the next step overwrites them

    def _read_recorded(self) -> None:
        self._logits_BV = self._read(self._ids_B)

    def _read(self, ids_B: Tensor) -> Tensor:
        B, device, position = len(ids_B), ids_B.device, self._position
        modality = torch.full((B, 1), self.number, device=device)
        slots = Slots(ids_B[:, None], modality, position.expand(B, 1), {self.name: torch.arange(B, device=device)})
        x_B1D = self.model.queries(slots)
        seen = self.longest if self.is_static else self.count
        mask = (torch.arange(seen, device=device) <= position)[None] if self.is_static else None
        for block, (k, v), context in zip(self.blocks, self.read_so_far, self.context, strict=True):
            x_B1D = self.step(block, x_B1D, k, v, position, seen, mask, *context, self.context_mask)
        ((_, _, logits_BV),) = self.model.logits(self.model.decoder_norm(x_B1D), slots.index).values()
        position += 1
        return logits_BV

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows."""
        rows = rows.to(self.context[0][0].device)
        self.context = [tuple(t[rows] for t in kept) for kept in self.context]
        self.read_so_far = [tuple(t[rows] for t in kept) for kept in self.read_so_far]
        if self.context_mask is not None:
            self.context_mask = self.context_mask[rows]


def same_precision(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Returns keys in the precision of the values. On a GPU, norms give float32 keys, which attention would convert again for every token."""
    return (k if k.device.type == "cpu" else k.to(v.dtype)), v


def read_step(
    block: DecoderBlock,
    x_B1D: Tensor,
    k_BHLd: Tensor,
    v_BHLd: Tensor,
    position: Tensor,
    seen: int,
    mask: Tensor | None,
    context_k: Tensor,
    context_v: Tensor,
    context_mask: Tensor | None,
) -> Tensor:
    """Applies one block to the token at `position` and writes its keys and values into the cache."""
    x = block.norm1(x_B1D)
    k, v = block.self_attention.keys_values(x)
    k_BHLd.index_copy_(2, position, k.to(k_BHLd.dtype))
    v_BHLd.index_copy_(2, position, v.to(v_BHLd.dtype))
    past = k_BHLd[:, :, :seen], v_BHLd[:, :, :seen]
    x_B1D = x_B1D + block.self_attention.look(block.self_attention.queries(x), *past, mask)
    q = block.cross_attention.queries(block.query_norm(x_B1D))
    x_B1D = x_B1D + block.cross_attention.look(q, context_k, context_v, context_mask)
    return x_B1D + block.mlp(block.norm2(x_B1D))
