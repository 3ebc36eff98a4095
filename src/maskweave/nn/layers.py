"""Transformer parts shared by the tokenizers and the models: norms, attention, MLPs, blocks, fixed positions, initialization.

Dimension letters: B batch, N tokens, M context tokens, D width, H heads.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from maskweave.nn.alignment import missing_width, padded_inputs, padded_outputs
from maskweave.nn.cpu import Linear, attend


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


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself, or to a context.

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
        """`mask` is boolean and broadcasts to (B, H, N, M): True where attention is allowed. Every row needs at least one True."""
        q = self.queries(x_BND)
        return self.look(q, *self.keys_values(x_BND if context_BMD is None else context_BMD), mask)

    def queries(self, x_BND: Tensor) -> Tensor:
        """(B, H, N, D/H)"""
        return self.q_norm(self.split(self.q(x_BND)))

    def keys_values(self, context_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context, each (B, H, M, D/H)."""
        return self.k_norm(self.split(self.k(context_BMD))), self.split(self.v(context_BMD))

    def look(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D)"""
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


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
        if by := missing_width(x, self.fc1):
            return self._padded(x, by)
        if self.fc3 is None:
            return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))

    def _padded(self, x: Tensor, by: int) -> Tensor:
        """The same with a hidden width that is larger by `by`."""
        hidden = padded_outputs(x, self.fc1, by)
        if self.fc3 is None:
            hidden = F.gelu(hidden, approximate=self.gelu)
        else:
            hidden = F.silu(hidden) * padded_outputs(x, self.fc3, by)
        return padded_inputs(hidden, self.fc2, by)


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
    """Fixed sine-cosine position embeddings of a grid of one to three axes, (prod(shape), width), row by row.

    Each axis has an equal share of the width: sin of all its frequencies, then cos, with ω_i = 10000^(-i/n). Channels left over
    if the width does not divide evenly are zero. For one and two axes these are the published 4M position embeddings.
    """
    share = width // len(shape) // 2 * 2
    omega = 10000.0 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    axes = torch.meshgrid(*(torch.arange(s, dtype=torch.float64) for s in shape), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in axes]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(table, (0, width - table.shape[1])).float()


def initialize(module: nn.Module) -> None:
    """Initialize as in MAE: Xavier-uniform linear and convolution layers, zero biases, unit norms, normal embeddings with standard deviation 0.02."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_uniform_(part.weight.view(part.weight.shape[0], -1))
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and part.bias is not None:
            nn.init.zeros_(part.bias)


class without_memory(TorchFunctionMode):
    """Context in which modules are built whose parameters take no memory and no time, for a loader that sets them.

    What is `torch.empty` is on the device "meta", and is filled with nothing. `torch.device("meta")` puts everything there, also
    the computed buffers, but then torch imports its compiler, which takes as long as torch itself.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        elif func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):  # methods, and functions of nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def count_parameters(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
