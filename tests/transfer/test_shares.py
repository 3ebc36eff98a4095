"""Classes whose shares differ between training and held-out examples, and held-out examples of a transfer."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_transfer import catalog

from maskweave.data.split import Split
from maskweave.errors import MaskweaveError
from maskweave.transfer.data import TransferData, open_examples
from maskweave.transfer.shares import describe_shares, differing_shares

CLASSES = ("cat", "dog", "emu")


def test_strong_differences_are_told_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    assert differing_shares(labels[:300].tolist(), labels[300:].tolist(), CLASSES) == ""
    line = differing_shares([0] * 60 + [1] * 40, [1] * 10 + [2] * 90, CLASSES)
    assert line.startswith(
        "the shares of 3 of 3 classes differ strongly between training and held-out examples: emu 0% and 90%, cat 60% and 0%, dog 40% and 10%;"
    )
    assert differing_shares([0, 1], [1, 2], CLASSES) == "", "so few say nothing"
    assert differing_shares([], [1], CLASSES) == ""
    tenth, twentieth = [0] * 200 + [1] * 1800, [0] * 100 + [1] * 1900
    assert differing_shares(tenth, twentieth, CLASSES) == "", "0.05 is not above 0.05"
    assert "cat 10% and 5%" in differing_shares(tenth, [0] * 98 + [1] * 1902, CLASSES)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for kind in CLASSES:
        (tmp_path / "in" / kind).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "in" / kind / f"shot_{i // 3}_{i}.png")
    return tmp_path / "in"


def test_examples_are_held_out_by_name(pictures: Path, tmp_path: Path) -> None:
    def parts(**settings):
        return open_examples(TransferData(source=str(pictures), **settings), catalog(), ["rgb"], "", "")

    found = parts(validation=18)
    train, held_out = ([one.key(i) for i in range(len(one))] for one in found)
    assert len(held_out) == 18 and len({*train, *held_out}) == 90 and describe_shares(found) == ""
    assert min(Counter(name[:3] for name in train[-14:]).values()) >= 2, "a probe is tuned on the last fifth"
    few = parts(validation=18, samples=30).train
    assert len(few) == 30 and set(map(few.key, range(30))) < {*train}

    grouped = parts(validation=18, split=Split(group=r"^(\w+)/"))
    assert {grouped.held_out.key(i)[:3] for i in range(30)} == {grouped.held_out.key(0)[:3]}
    assert describe_shares(grouped).startswith("the shares of 3 of 3 classes differ strongly")
    assert len(parts(validation=0, split=Split(fraction=0.3)).held_out) == pytest.approx(27, abs=10)
    with pytest.raises(MaskweaveError, match="held_out and split both say which examples are held out"):
        TransferData(held_out="a", split=Split(seed=1))
