"""Entries that differ: each setting by its dotted key, theirs before ours."""

import pytest

from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.differences import entry_differences


def entries(**fields: object) -> Catalog:
    base = {
        "id": 3,
        "kind": "grid",
        "grid": [4, 4],
        "value": {"type": "map", "size": [16, 16], "range": [0, 1], "unit": "m"},
    }
    return catalog_from({"modalities": {"height": {**base, **fields}}}, "c.yaml")


def described(**fields: object) -> list[str]:
    return entry_differences(entries()["height"], entries(**fields)["height"])


def test_equal_entries_do_not_differ() -> None:
    assert described() == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"value": {"type": "map", "size": [16, 16], "range": [0, 2], "unit": "m"}},
            ["value.range is [0.0, 2.0] there, [0.0, 1.0] here"],
        ),
        ({"grid": [2, 2]}, ["grid is [2, 2] there, [4, 4] here"]),
    ],
)
def test_a_setting_is_named_with_both_values(fields: dict[str, object], said: list[str]) -> None:
    assert described(**fields) == said


def test_groups_that_only_one_has_are_one_difference() -> None:
    axis = {"name": "height", "unit": "km", "from": 0, "to": 9, "scale": "linear"}
    value = {"type": "series", "size": [16]}
    ours, theirs = entries(grid=[4], value=value), entries(grid=[4], value={**value, "axis": axis})
    found = entry_differences(theirs["height"], ours["height"])
    assert len(found) == 1 and found[0].startswith("value.axis is None there, {'from': 0.0")
