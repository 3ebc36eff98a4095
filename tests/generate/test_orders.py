"""Orders of positions: the Halton sequence against scipy's, and how evenly it covers a grid; scores are tested with the schemes."""

import numpy as np
import pytest
import torch
from scipy.stats import qmc

from maskweave.generate.orders import first_positions, halton_rank, moment


@pytest.mark.parametrize("grid", [(16,), (8, 8), (14, 14), (5, 7), (4, 4, 4)])
def test_halton_reaches_every_position_in_the_order_of_the_sequence(grid) -> None:
    points = qmc.Halton(len(grid), scramble=False).random(5000)[1:]
    cells = [tuple((point * grid + 1e-9).astype(int).tolist()) for point in points]
    order = list(dict.fromkeys(cells))
    rank = halton_rank(grid).reshape(grid)
    assert sorted(rank.flatten()) == list(range(rank.size))
    assert [rank[cell] for cell in order] == list(range(rank.size))


def test_halton_covers_a_grid_more_evenly_than_chance() -> None:
    """Of the first sixteen of 64 positions, every 4 × 4 quarter has its share of four, but for one."""
    first = (halton_rank((8, 8)).reshape(8, 8) < 16).reshape(2, 4, 2, 4).sum(axis=(1, 3))
    assert np.abs(first - 4).max() <= 1


def test_the_moment_score_tends_to_the_largest_log_probability() -> None:
    logits = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    limit = moment(logits, 0.0)
    assert torch.allclose(limit, logits.log_softmax(dim=-1).max(dim=-1).values)
    assert torch.allclose(moment(logits, 1e-3), limit, atol=5e-3)


def test_positions_that_cannot_be_chosen_are_not() -> None:
    score = np.array([[1.0, -np.inf, 3.0, 2.0], [-np.inf, -np.inf, 0.0, -np.inf]])
    assert first_positions(score, np.array([2, 3])).tolist() == [
        [False, False, True, True],
        [False, False, True, False],
    ]
