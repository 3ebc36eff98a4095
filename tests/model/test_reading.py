"""The linear layer of reading agrees with the usual one. Reading itself is tested in tests/generate."""

import pytest
import torch
from torch import nn

from maskweave.model.reading import FewRows


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 16, 17])
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_are_multiplied_as_many_are(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    usual, x = nn.Linear(12, 30, bias=bias), torch.randn(rows, 1, 12)
    exchanged = FewRows(12, 30, bias=bias)
    exchanged.load_state_dict(usual.state_dict())
    found = exchanged(x)
    assert found.shape == (rows, 1, 30) and found.is_contiguous()
    torch.testing.assert_close(found, usual(x))
