"""Masks of other modalities say which points are known: `valid: {from: mask}`, from folders to tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from maskweave.data.folders import import_folders
from maskweave.data.opening import open_data
from maskweave.data.reading import read
from maskweave.data.token_store import entry_fingerprint
from maskweave.data.tokenizing import column_of
from maskweave.data.transforms import fit
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import Modality
from maskweave.tokenizers.grid import GridTokenizer

MASKED = {"valid": {"from": "clear"}}


def catalog(**changes: Any) -> Catalog:
    entries: dict[str, Any] = {
        "bands": {"id": 1, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "channels": 2, "range": [0, 10], "missing": "nan"}, **MASKED},
        "cover": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "classes", "size": [8, 8], "classes": ["water", "wood"], "ignore": 255}, **MASKED},
        "photo": {"id": 3, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3, "valid": "alpha"}, **MASKED},
        "clear": {"id": 4, "kind": "patches", "grid": [2, 2], "value": {"type": "binary", "size": [4, 4]}},
    }  # fmt: skip
    for name, change in changes.items():
        entries[name] = {**entries[name], **change}
    return catalog_from({"modalities": entries}, "own.yaml")


KNOWN = np.ones((8, 8), bool)
KNOWN[:4, :4] = False
CLEAR = KNOWN[::2, ::2]


def sample() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "bands": rng.uniform(1, 9, (8, 8, 2)).astype(np.float32),
        "cover": rng.integers(0, 2, (8, 8)).astype(np.uint8),
        "photo": np.concatenate([rng.integers(0, 256, (8, 8, 3)), np.full((8, 8, 1), 255)], -1).astype(np.uint8),
        "clear": CLEAR,
    }


def test_points_under_the_mask_are_unknown() -> None:
    entries, given = catalog(), sample()
    out = fit(given, entries)
    for name in ("bands", "cover", "photo"):
        value = entries[name].value
        known = value.known(out[name])
        assert np.array_equal(known.reshape(8, 8, -1).all(-1), KNOWN), name
        np.testing.assert_array_equal(out[name][KNOWN], given[name][KNOWN])
        value.check(out[name], name)
    assert np.array_equal(out["clear"], CLEAR)
    column = column_of(entries["bands"], [out["bands"]], GridTokenizer(entries["bands"]).eval())
    assert column.valid is not None and column.valid.tolist() == [[False, True, True, True]]


def test_masks_that_hide_everything_and_no_masks() -> None:
    entries = catalog()
    out = fit({**sample(), "clear": np.zeros((4, 4), bool)}, entries)
    assert list(out) == ["clear"], "what is unknown as a whole is missing"
    alone = fit({name: value for name, value in sample().items() if name != "clear"}, entries)
    assert entries["bands"].value.known(alone["bands"]).all()


def test_an_inverse_variance_of_0_is_unknown() -> None:
    entries = catalog_from(
        {
            "modalities": {
                "flux": {"id": 1, "kind": "grid", "grid": [2], "value": {"type": "map", "size": [8], "range": [0, 9], "missing": "nan"}, "valid": {"from": "ivar"}},
                "ivar": {"id": 2, "kind": "patches", "grid": [2], "value": {"type": "map", "size": [8], "range": [0, 9], "missing": "nan"}},
            }
        },
        "own.yaml",
    )  # fmt: skip
    ivar = np.array([0, 0, 1, 2, np.nan, 3, 0.5, 0], np.float32)
    out = fit({"flux": np.full(8, 5, np.float32), "ivar": ivar}, entries)
    assert entries["flux"].value.known(out["flux"]).tolist() == [False, False, True, True, False, True, True, False]


def test_folders_with_masks(tmp_path: Path) -> None:
    entries, given = catalog(), sample()
    for name in given:
        (tmp_path / "raw" / name).mkdir(parents=True)
    for i in range(3):
        np.save(tmp_path / "raw" / "bands" / f"s{i}.npy", given["bands"])
        if i:
            PIL.Image.fromarray(CLEAR.astype(np.uint8) * 255).save(tmp_path / "raw" / "clear" / f"s{i}.png")
    import_folders(tmp_path / "raw", tmp_path / "out", entries.subset(["bands"]))
    source = open_data(str(tmp_path / "out"), entries, names=["bands"])
    items = list(read(source, range(3)))
    known = [entries["bands"].value.known(item.sample["bands"]).all(-1) for item in items]
    assert known[0].all() and np.array_equal(known[1], KNOWN) and np.array_equal(known[2], KNOWN)
    assert items[0].remarks == {("bands", "values without a mask in 'clear': all their points count as known"): 1}
    assert not items[1].remarks


def test_tokens_depend_on_it_and_old_fingerprints_do_not_change() -> None:
    plain, masked = catalog(bands={"valid": None})["bands"], catalog()["bands"]
    assert entry_fingerprint(plain) != entry_fingerprint(masked)
    assert list(catalog().subset(["bands"])) == ["bands", "clear"]
    assert isinstance(masked, Modality) and masked.valid is not None and masked.valid.source == "clear"
    assert GridTokenizer(masked).modality.valid == masked.valid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": {"value": {"type": "map", "size": [8, 8], "channels": 2, "range": [0, 10]}}}, "cannot have unknown points; for maps set value.missing: nan"),
        ({"bands": {"valid": {"from": "cover"}}}, "valid.from is 'cover', of type 'classes' .* expected type binary, or a map of one channel, with 2 axes and view ''"),
        ({"clear": {"view": "wrist"}}, "view 'wrist'; expected type binary, or a map of one channel, with 2 axes"),
        ({"bands": {"valid": {"from": "cloud"}}}, "valid.from is 'cloud', which is not a modality of the catalog"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        catalog(**changes)


def test_a_mask_belongs_to_the_source() -> None:
    entries = catalog().to_plain()["modalities"]
    entries["tokens"] = {**entries["bands"], "id": 9, "source": "bands"}
    with pytest.raises(MaskweaveError, match="valid belongs in the entry of its source 'bands'; move it there"):
        catalog_from({"modalities": entries}, "own.yaml")
