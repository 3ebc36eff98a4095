"""Held-out samples: chosen by names alone, in whole groups, as a file says, or in order."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskweave.data.split import Split, divide, hash_names, put_last, some_by_hash, take_evenly
from maskweave.errors import MaskweaveError

NAMES = [f"{kind}/episode_{n // 5:03d}_frame_{n % 5}" for kind in ("cat", "dog", "emu") for n in range(100)]


PINNED = [3405396810240292928, 17122587860401152049, 4223062404410717160]


class Named:
    """Samples with names only."""

    names = ("rgb",)

    def __init__(self, keys: list[str]):
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        return self.keys[i]

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {}


def held_out(names: list[str], split: Split = Split(), count: int = 30) -> set[str]:  # noqa: B008 (frozen)
    train, chosen = divide(Named(names), split, count, "data")
    assert sorted([*train, *chosen]) == list(range(len(names))) and (np.diff(train) > 0).all()
    return {names[i] for i in chosen}


def test_hashes_are_pinned() -> None:
    assert hash_names(["a", "holiday/beach_01", "日本"]).tolist() == PINNED
    assert hash_names(["a"], seed=1)[0] != PINNED[0]


@given(st.permutations(NAMES), st.integers(1, 250))
def test_the_choice_depends_on_names_alone(names: list[str], count: int) -> None:
    chosen = held_out(names, count=count)
    assert len(chosen) == count and chosen == held_out(NAMES, count=count)
    assert chosen < held_out(names, count=count + 1)


def test_similar_names_are_in_both_parts_and_another_seed_chooses_others() -> None:
    chosen = held_out(NAMES, count=60)
    assert all(10 <= sum(name.startswith(kind) for name in chosen) <= 30 for kind in ("cat", "dog", "emu"))
    assert len(chosen & held_out(NAMES, Split(seed=1), 60)) < 30


def test_a_fraction_is_decided_by_each_name_alone() -> None:
    chosen = held_out(NAMES, Split(fraction=0.2))
    assert 40 <= len(chosen) <= 80
    assert held_out(NAMES[:150], Split(fraction=0.2)) == chosen & set(NAMES[:150])


@pytest.mark.parametrize("expression", [r"episode_\d+", r"^(\w+)/", r"frame_(\d)"])
@pytest.mark.parametrize("how", [{}, {"fraction": 0.4}])
def test_groups_are_in_one_part(expression: str, how: dict[str, float]) -> None:
    import re

    chosen = held_out(NAMES, Split(group=expression, **how), 100)
    group = lambda name: re.search(expression, name)[int("(" in expression)]  # type: ignore[index] # noqa: E731
    assert chosen and not {group(n) for n in chosen} & {group(n) for n in set(NAMES) - chosen}
    sizes = {r"episode_\d+": 105, r"^(\w+)/": 100, r"frame_(\d)": 120}
    assert how or abs(len(chosen) - 100) <= abs(sizes[expression] - 100)


def test_in_order() -> None:
    assert held_out(NAMES, Split(by="order"), 7) == set(NAMES[-7:])
    assert held_out(NAMES, Split(by="order", fraction=0.1)) == set(NAMES[-30:])


def test_a_file_says_the_part_of_each(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    rows = [f"validation,{name},7" if i % 3 == 0 else f" train ,{name},8" for i, name in enumerate(NAMES)]
    path.write_text("\ufeff" + "\n".join(["part,name,note", *reversed(rows)]), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert held_out(NAMES, Split(file=str(path))) == set(NAMES[::3])
    with pytest.warns(
        UserWarning, match=r"split.csv: 297 names \('.*', '.*', '.*'\) are listed, but not in data; ignored"
    ):
        assert held_out(NAMES[2:5], Split(file=str(path))) == {NAMES[3]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,part\na,train", r"split.csv: 299 of the 300 samples of data are not listed: 'cat/.*', 'cat/.*', 'cat/.*'; add a row"),
        ("name;part\na;train", "its first line is 'name;part'; expected a line with the columns name and part"),
        ("", "its first line is ''"),
        ("name,part\na,test", "line 2 has name 'a' and part 'test'; expected a name and train or validation"),
        ("name,part\na,train\na,validation", r"split.csv: 1 name \('a'\) is listed in both parts"),
        ("name,part\na", "line 2 has name 'a' and part ''"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(MaskweaveError, match=message):
        divide(Named(["a", *NAMES[1:]]), Split(file=str(tmp_path / "split.csv")), 3, "data")


def test_a_missing_file_and_parts_that_would_be_empty(tmp_path: Path) -> None:
    for split, count, message in (
        (Split(file=str(tmp_path / "gone.csv")), 3, "gone.csv: no such file"),
        (Split(), 300, "data: has 300 samples, too few to hold out 300; lower data.validation"),
        (Split(by="order"), 301, "too few to hold out 301"),
        (Split(group="e"), 10, "too few to hold out the 300 that are asked for"),
        (Split(fraction=1e-9), 0, "data: none of its 300 samples is held out; raise data.split.fraction"),
        (Split(group="cat/.*"), 10, r"data: 200 of 300 names do not match data.split.group 'cat/\.\*': 'dog/"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            divide(Named(NAMES), split, count, "data")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fraction": 1.0}, "fraction must be a share from 0 to below 1, found 1.0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"file": "a.csv", "fraction": 0.1}, "file lists all names"),
        ({"by": "order", "group": "a"}, "group and seed are for by: hash"),
        ({"group": "("}, r"group is '\(', not a regular expression"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        Split(**keys)


def test_fewer_samples_do_not_depend_on_the_order_either() -> None:
    def some(names: list[str]) -> set[str]:
        chosen = some_by_hash(Named(names), np.arange(len(names)), 60)
        assert (np.diff(chosen) > 0).all()
        return {names[i] for i in chosen}

    assert len(some(NAMES)) == 60 and some(NAMES) == some(NAMES[::-1])
    assert not some(NAMES) & held_out(NAMES, count=60), "so lowering `validation` leaves the training samples"
    assert some_by_hash(Named(NAMES), np.arange(300), 0).tolist() == list(range(300))
    assert take_evenly(np.arange(10), 3).tolist() == [0, 4, 9] and len(take_evenly(np.arange(3), 9)) == 3


def test_the_smallest_hashes_come_last() -> None:
    hashes = np.array([5, 1, 7, 2, 9, 3, 8, 4, 6, 10], np.uint64)
    assert put_last(hashes, 0.2).tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 1, 3]
    assert put_last(hashes[:2], 0.1).tolist() == [0, 1]
