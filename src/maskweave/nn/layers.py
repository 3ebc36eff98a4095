"""Transformer parts shared by the tokenizers and the models: norms, attention, MLPs, blocks, fixed positions, initialization.

Dimension letters: B batch, N tokens, M context tokens, D width, H heads.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Biases(NamedTuple):
    """Which layers of a block have a bias."""

    qkv: bool = True
    projection: bool = True
    """The linear layer after attention."""
    mlp: bool = True
    norm: bool = True


BIASED = Biases()


class LayerNorm(nn.LayerNorm):
    """LayerNorm with ε 1e-6; `bias=False` drops the shift."""

    def __init__(self, width: int, bias: bool = True):
        super().__init__(width, eps=1e-6, bias=bias)


class Linear(nn.Linear):
    """A linear layer, computed by oneDNN in float32 on a CPU.

    On AMD's processors that is about twice as fast as torch's own choice, MKL, which keeps to half their width there; and rows come out
    alike, alone or among others (`benchmarks/linear.py`). Torch offers this product in its compiler's operators alone. Gradients are of the
    first order; `torch.func` and forward-mode differentiation need `nn.Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        exact = x.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        eager = not torch.compiler.is_compiling()  # the compiler chooses for itself
        fits = x.ndim > 1 and x.numel() and x.shape[-1] == self.in_features  # else torch says what is wrong
        if not (_ONEDNN and exact and eager and x.device.type == "cpu" and fits):
            return super().forward(x)
        if torch.is_grad_enabled():
            return _Linear.apply(x, self.weight, self.bias)
        return _onednn(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows, given = upstream[0].flatten(0, -2), x.flatten(0, -2)
        return (
            _onednn(upstream[0], weight.t()) if of_x else None,
            _onednn(rows.t(), given.t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear(nn.Module):
    """A linear layer that predicts on a CPU from a copy of `layer`'s weight, which oneDNN has laid out for itself.

    Otherwise it does so anew in every product: few rows, as in reading a sequence, take two to four times as long then (`benchmarks/linear.py`).

    Args:
        dtype: of the product and its result, whatever the input's: float32 or bfloat16.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        with torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.to(dtype))
            self.bias = None if layer.bias is None else layer.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return _onednn(x.to(self.weight.dtype), self.weight, self.bias)


def pack_linear_layers(module: nn.Module, dtype: torch.dtype) -> bool:
    """Put packed layers in place of the linear layers of `module`.

    Returns:
        False, and nothing is changed, where this torch or processor has none, or a linear layer does more than that (LoRA).
    """
    places = [(parent, *place) for parent in module.modules() for place in parent.named_children()]
    linear = [(parent, name, child) for parent, name, child in places if isinstance(child, nn.Linear)]
    able = _ONEDNN and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not able or any(type(child) not in (nn.Linear, Linear) for _, _, child in linear):
        return False
    for parent, name, child in linear:
        parent.register_module(name, PackedLinear(child, dtype))
    return True


class Attention(nn.Module):
    """Multi-head attention, of a sequence to itself or to a context.

    Args:
        qk_norm: normalize each head's queries and keys before scaling.
    """

    def __init__(self, width: int, heads: int, biases: Biases = BIASED, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width, bias=biases.qkv)
        self.k = Linear(width, width, bias=biases.qkv)
        self.v = Linear(width, width, bias=biases.qkv)
        self.out = Linear(width, width, bias=biases.projection)
        self.q_norm = LayerNorm(width // heads, biases.norm) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(width // heads, biases.norm) if qk_norm else nn.Identity()

    def forward(self, x_BND: Tensor, context_BMD: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`mask` is boolean and broadcasts to (B, H, N, M): True where attention may look. Every row needs one True."""
        q = self.queries(x_BND)
        return self.look(q, *self.keys_values(x_BND if context_BMD is None else context_BMD), mask)

    def queries(self, x_BND: Tensor) -> Tensor:
        """(B, H, N, D/H)"""
        return self.q_norm(self.split(self.q(x_BND)))

    def keys_values(self, context_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """What can be looked at, each (B, H, M, D/H)."""
        return self.k_norm(self.split(self.k(context_BMD))), self.split(self.v(context_BMD))

    def look(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D)"""
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention of (B, H, N, D/H) queries, keys and values.

    In 16 bits on CPU two matrix products are several times faster than the fused kernel, whose backward pass works in float32 there
    (`benchmarks/attention.py`).
    """
    if q.device.type != "cpu" or torch.promote_types(q.dtype, v.dtype) == torch.float32:
        return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


class MLP(nn.Module):
    """Two linear layers around an activation; `gated` gives SwiGLU, fc2(silu(fc1 x) · fc3 x) with two thirds of the width.

    Args:
        gelu: exact (`none`), or approximated by `tanh`.
    """

    def __init__(
        self,
        width: int,
        ratio: float = 4.0,
        bias: bool = True,
        gated: bool = False,
        out: int | None = None,
        gelu: str = "none",
    ):
        super().__init__()
        self.gelu = gelu
        hidden = int(2 / 3 * ratio * width) if gated else int(ratio * width)
        self.fc1 = Linear(width, hidden, bias=bias)
        self.fc2 = Linear(hidden, out or width, bias=bias)
        self.fc3 = Linear(width, hidden, bias=bias) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        if self.fc3 is None:
            return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each added to its input."""

    def __init__(
        self,
        width: int,
        heads: int,
        ratio: float = 4.0,
        biases: Biases = BIASED,
        gated: bool = False,
        qk_norm: bool = False,
        gelu: str = "none",
    ):
        super().__init__()
        self.norm1 = LayerNorm(width, biases.norm)
        self.attention = Attention(width, heads, biases, qk_norm)
        self.norm2 = LayerNorm(width, biases.norm)
        self.mlp = MLP(width, ratio, biases.mlp, gated, gelu=gelu)

    def forward(self, x_BND: Tensor, mask: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.attention(self.norm1(x_BND), mask=mask)
        return x_BND + self.mlp(self.norm2(x_BND))


def sine_cosine(shape: Sequence[int], width: int) -> Tensor:
    """Fixed positions of a lattice of one to three axes, (prod(shape), width), row by row.

    Each axis has an equal share of the width: sin of all its frequencies, then cos, with ω_i = 10000^(-i/n). What a width
    that does not divide leaves over is zero. For one and two axes these are the published 4M positions.
    """
    share = width // len(shape) // 2 * 2
    omega = 10000.0 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    axes = torch.meshgrid(*(torch.arange(s, dtype=torch.float64) for s in shape), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in axes]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(table, (0, width - table.shape[1])).float()


def initialize(module: nn.Module) -> None:
    """As in MAE: Xavier-uniform linear and convolution layers with zero bias, unit norms, embeddings normal with deviation 0.02."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_uniform_(part.weight.view(part.weight.shape[0], -1))
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and part.bias is not None:
            nn.init.zeros_(part.bias)


def count_parameters(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
