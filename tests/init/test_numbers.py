"""Statistics of arrays of which only some points are in the quantiles."""

import numpy as np
import pytest

from maskweave.init.numbers import FLAT, MOST_CLASSES, POINTS, class_ids, number_facts

RARE = 4 * POINTS + 7
"""A point that is not in the quantiles."""


def arrays(number: float = 0.5, files: int = 3) -> list[np.ndarray]:
    """Files of 0 to 1 with one number at a single point of the last."""
    values = np.random.default_rng(0).uniform(0, 1, (files, 8 * POINTS))
    values[-1, RARE] = number
    return list(values)


@pytest.mark.parametrize("mark", [np.inf, -np.inf, -9999.0])
def test_a_single_mark_is_found(mark: float) -> None:
    facts = number_facts(arrays(mark), [None] * 3, 1)
    assert facts is not None and facts.missing == (mark,)
    assert 0 <= facts.smallest <= facts.low <= 0.01 and 0.99 <= facts.high <= facts.largest <= 1


def test_a_single_missing_point_is_found() -> None:
    facts = number_facts(arrays(np.nan), [None] * 3, 1)
    assert facts is not None and facts.missing == ("nan",)
    facts = number_facts(arrays(), [None] * 3, 1)
    assert facts is not None and not facts.missing


def test_arrays_that_differ_at_a_single_point_are_not_constant() -> None:
    same = [np.full((8 * POINTS, 2), 3.0) for _ in range(3)]
    facts = number_facts(same, [None] * 3, 2)
    assert facts is not None and facts.is_constant
    same[1][RARE, 1] = 4
    facts = number_facts(same, [None] * 3, 2)
    assert facts is not None and not facts.is_constant and (facts.smallest, facts.largest) == (3, 4)


def test_few_known_points_are_enough() -> None:
    lone = np.full((8 * POINTS, 2), np.nan)
    lone[RARE] = 5, 6
    facts = number_facts([lone], [None], 2)
    assert facts is not None and (facts.smallest, facts.largest, facts.unknown) == (5, 6, 1)
    lone[RARE, 1] = np.nan
    facts = number_facts([lone], [None], 2)
    assert facts is not None and (facts.smallest, facts.largest) == (5, 5), "a channel that is missing everywhere"
    lone[:] = np.nan
    assert number_facts([lone], [None], 2) is None
    facts = number_facts([np.zeros((0, 2)), np.ones((4, 2))], [None] * 2, 2)
    assert facts is not None and (facts.smallest, facts.largest) == (1, 1), "an empty file among others"


def flat(*ids: int, dtype: type = np.int64) -> np.ndarray:
    """A map of areas of ten points each."""
    return np.repeat(np.array(ids, dtype), 10)[None]


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ([flat(0, 1), flat(1, 4)], (5, ())),
        ([flat(0, 255, 2)], (3, (255,))),
        ([flat(0, -1, 2)], (3, (255,))),
        ([flat(3)], None),
        ([flat(0, -2, 1)], None),
        ([flat(0, 1, 70_000)], None),
        ([flat(0, 128, 254)], None),  # levels of a mask
        ([flat(*range(MOST_CLASSES + 3))], None),
        ([flat(0, 1).astype(np.float32)], None),
        ([np.arange(40)[None] % 7], None),  # no areas
    ],
)
def test_maps_of_classes(arrays: list[np.ndarray], found: tuple[int, tuple[int, ...]] | None) -> None:
    assert class_ids(arrays, [None] * len(arrays)) == found


def test_what_is_masked_is_no_class() -> None:
    array = flat(0, 1, 9)
    assert class_ids([array], [array < 9]) == (10, (9,))
    assert class_ids([flat(0, 1, 255)], [flat(1, 1, 0).astype(bool)]) == (2, (255,))


@pytest.mark.parametrize(("changes", "is_flat"), [(5, True), (6, False)])
def test_how_many_neighbors_are_equal(changes: int, is_flat: bool) -> None:
    """Of ten pairs of neighbors, `FLAT` are equal, or one less."""
    assert FLAT == 0.5
    row = np.repeat(np.arange(changes + 1), [11 - changes] + [1] * changes)[None]
    assert row.shape[1] == 11 and (class_ids([row], [None]) is not None) == is_flat


@pytest.mark.parametrize(("last", "count"), [(2 * MOST_CLASSES - 1, 2 * MOST_CLASSES), (2 * MOST_CLASSES, None)])
def test_few_large_levels_are_no_classes(last: int, count: int | None) -> None:
    flat = np.zeros((16, 16), np.int64)
    flat[8:] = last
    found = class_ids([flat], [None])
    assert (found and found[0]) == count
