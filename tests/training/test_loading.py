"""Loading batches: errors arrive as they are, and everything that goes to a GPU is page-locked."""

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, same, tiny, tiny_batch

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskRatio, mask_columns
from maskweave.training.distributed import connect
from maskweave.training.loading import _Loaded, load


def tensors(item) -> list[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        return [item]
    values = (
        item.values()
        if isinstance(item, dict)
        else item
        if isinstance(item, list)
        else vars(item).values()
        if hasattr(item, "__dict__")
        else ()
    )
    return [tensor for value in values for tensor in tensors(value)]


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self.clone())
    pair = tiny().subset(["photo", "caption"])
    masked = mask_columns(
        random_columns(pair, 8, np.random.default_rng(0)), pair, MaskRatio(), np.random.default_rng(0)
    )
    for batch in (tiny_batch(tiny()), masked):
        pinned.clear()
        found = _Loaded(batch).pin_memory().item
        assert type(found) is type(batch) and len(tensors(batch)) > 5
        assert {id(t) for t in pinned} == {id(t) for t in tensors(batch)}
        assert all(torch.equal(a, b) for a, b in zip(tensors(found), tensors(batch), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_arrive_as_they_are(workers: int) -> None:
    class Batches:
        def __getitem__(self, index: int):
            if index == 2:
                raise MaskweaveError("sample 2 is broken")
            return tiny_batch(tiny(), seed=index)

    stream = load(Batches(), range(4), workers, connect("cpu"))
    assert same(next(stream), tiny_batch(tiny(), seed=0))
    next(stream)
    with pytest.raises(MaskweaveError, match="^sample 2 is broken$"):
        next(stream)
