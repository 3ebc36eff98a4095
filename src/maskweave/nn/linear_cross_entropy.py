"""A linear layer and cross-entropy in one, a few rows at a time, so that the logits of all rows never exist at once.

With a vocabulary of 30,000, the logits of 16,384 targets and their gradient take 5 GB in float32. As in Liger Kernel
(https://arxiv.org/abs/2410.10989), the gradients are computed together with the loss, which takes as many matrix products as computing them later.
Dimension letters: n predictions, D width, V vocabulary, c predictions of a chunk.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskweave.nn.cpu import Linear

LARGE = 2**26
"""Logits of a layer from which on this is used."""
CHUNK = 2**25
"""Logits of a chunk."""
COMPILED_CHUNK = 2**29
"""Bytes of a chunk's logits if their arithmetic is compiled: no float32 copies of them then exist."""


class TokenLosses(NamedTuple):
    """Losses of the predictions of a head."""

    total: Tensor
    """Weighted sum of the losses, with gradient."""
    losses_n: Tensor
    """Loss of each prediction, float32, without gradient."""
    is_right_n: Tensor | None
    """Whether the label is the likeliest token; only without gradients, because it takes time."""


class Head(Linear):
    """A linear layer without bias that gives the logits of a vocabulary, or the losses of labels."""

    compiler: str | None = None
    """Backend of torch.compile; None: losses are not compiled."""

    def compile(self, *args: Any, backend: str = "inductor", **options: Any) -> None:
        """Compiles what is computed of logits. Their number differs between batches, so that other options do not apply."""
        self.compiler = backend

    def forward(  # type: ignore[override]
        self, x_nD: Tensor, labels_n: Tensor | None = None, weights: Sequence[tuple[int, float]] = ()
    ) -> Tensor | TokenLosses:
        """Returns logits (…, V), or with labels their `TokenLosses`.

        Args:
            weights: number and weight of the predictions of each group, in the order of the rows.
        """
        if labels_n is None:
            return super().forward(x_nD)
        share_n = torch.cat([torch.full((n,), weight, device=x_nD.device) for n, weight in weights])
        gradient = _compiled_gradient(self.compiler) if self.compiler else None
        return linear_cross_entropy(x_nD, self.weight, labels_n, share_n, gradient=gradient)


def by_chunks(rows: int, head: Head) -> bool:
    """Whether a head's losses should be computed by chunks: if there are many logits, or they are compiled. Not on the meta device, where only
    costs are counted."""
    return (head.compiler is not None or rows * head.out_features >= LARGE) and head.weight.device.type != "meta"


Gradient = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def _compiled_gradient(backend: str) -> Gradient:
    """`_gradient`, which reads the logits twice and writes the gradient once, where the eager one makes a dozen passes over float32 copies."""
    return torch.compile(_gradient, dynamic=True, backend=backend)


def _gradient(logits_cV: Tensor, labels_c: Tensor, share_c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses (c,), and the gradient (c, V) of their weighted sum, in the precision of the logits. To be compiled: it is slow otherwise."""
    z_cV, label = logits_cV.float(), labels_c[:, None]
    log_sum = z_cV.logsumexp(dim=-1, keepdim=True)
    losses_c = (log_sum - z_cV.gather(1, label))[:, 0]
    is_label_cV = torch.arange(z_cV.shape[1], device=z_cV.device) == label
    return losses_c, (((z_cV - log_sum).exp() - is_label_cV.float()) * share_c[:, None]).to(logits_cV.dtype)


def _gradient_in_place(logits_cV: Tensor, labels_c: Tensor, share_c: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a compiler, and without copies of float32 logits."""
    z_cV, label = logits_cV.float(), labels_c[:, None]
    log_sum = z_cV.logsumexp(dim=-1, keepdim=True)
    losses_c = (log_sum - z_cV.gather(1, label))[:, 0]
    p_cV = z_cV.sub_(log_sum).exp_()
    p_cV.scatter_add_(1, label, p_cV.new_full(label.shape, -1.0))
    return losses_c, p_cV.mul_(share_c[:, None]).to(logits_cV.dtype)


def linear_cross_entropy(
    x_nD: Tensor,
    weight_VD: Tensor,
    labels_n: Tensor,
    share_n: Tensor,
    chunk: int = CHUNK,
    gradient: Gradient | None = None,
) -> TokenLosses:
    """Returns the cross-entropy of softmax(x Wᵀ) and its weighted sum.

    Args:
        share_n: weight of each loss, float32.
        chunk: logits computed at a time.
        gradient: compiled, computes losses and gradients of logits, in larger chunks.
    """
    device = x_nD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    rows = max(1, chunk // len(weight_VD))
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled():
            if gradient is not None:
                rows = max(1, COMPILED_CHUNK // (len(weight_VD) * dtype.itemsize))
            total, losses_n = _LinearCrossEntropy.apply(
                x_nD, weight_VD, labels_n, share_n, dtype, rows, gradient or _gradient_in_place
            )
            return TokenLosses(total, losses_n, None)
        losses, right, weight = [], [], weight_VD.to(dtype)
        for x, labels in zip(x_nD.split(rows), labels_n.split(rows), strict=True):
            logits = F.linear(x.to(dtype), weight).float()
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            right.append(logits.argmax(dim=-1) == labels)
        losses_n = torch.cat(losses)
        return TokenLosses((losses_n * share_n).sum(), losses_n, torch.cat(right))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_nD: Tensor,
        weight_VD: Tensor,
        labels_n: Tensor,
        share_n: Tensor,
        dtype: torch.dtype,
        rows: int,
        gradient: Gradient,
    ) -> tuple[Tensor, Tensor]:
        weight, losses_n = weight_VD.to(dtype), torch.empty(len(x_nD), device=x_nD.device)
        grad_x_nD, grad_weight_VD = torch.empty_like(x_nD), torch.zeros_like(weight_VD, dtype=torch.float32)
        parts = (t.split(rows) for t in (x_nD, labels_n, share_n, losses_n, grad_x_nD))
        for x, labels, share, losses, grad_x in zip(*parts, strict=True):
            x = x.to(dtype)
            losses_c, grad_cV = gradient(F.linear(x, weight), labels, share)
            losses.copy_(losses_c)
            grad_x.copy_(grad_cV @ weight)
            grad_weight_VD.add_(grad_cV.T @ x)
        ctx.save_for_backward(grad_x_nD, grad_weight_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(losses_n)
        return (losses_n * share_n).sum(), losses_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place because they are large. A second backward pass fails: autograd reports that a saved tensor was modified.
        grad_x_nD, grad_weight_VD = (t.mul_(upstream[0].to(t.dtype)) for t in ctx.saved_tensors)
        return grad_x_nD, grad_weight_VD, None, None, None, None, None
