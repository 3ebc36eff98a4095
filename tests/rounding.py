"""How far results may be apart that two correct kernels compute of the same sums."""

import numpy as np
import torch
from torch import Tensor


def assert_sums(found: Tensor, exact: Tensor, sizes: Tensor, terms: int) -> None:
    """`found` is `exact`, computed in float64, as any correct kernel computes it in the precision of `found`.

    However a kernel orders and splits a sum of n rounded products, it is off by at most n · ε · Σ|product| to first order (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1), plus the rounding of the result itself. Kernels that multiply in 16 bits add in float32.

    Args:
        sizes: the sums of the absolute values of the products, in float64.
        terms: n.
    """
    result = torch.finfo(found.dtype).eps
    added = torch.finfo(torch.promote_types(found.dtype, torch.float32)).eps
    excess = (found.double() - exact).abs() - 2 * (terms * added + result) * sizes
    assert found.shape == exact.shape
    assert (excess <= torch.finfo(torch.float32).tiny).all(), f"off by {excess.max():.3g} more than rounding explains"


def assert_nearest(rows: np.ndarray, found: np.ndarray, scores: np.ndarray) -> None:
    """(Q, K) `rows` with the scores `found` are the best of (Q, N) `scores`, in order; scores as close as rounding may change places."""
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    np.testing.assert_allclose(found, np.take_along_axis(scores, rows, 1), atol=1e-6)
    np.testing.assert_allclose(found, -np.sort(-scores, axis=1)[:, : rows.shape[1]], atol=1e-6)
