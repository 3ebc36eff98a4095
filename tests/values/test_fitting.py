"""Values of other sizes than their entry's: refused, unless the entry says how they are fitted, and counted."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from maskweave.data.parts import noting
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.values.classes import Classes
from maskweave.values.image import Image
from maskweave.values.map import Map


def catalog(**values: dict[str, Any]) -> Catalog:
    entries = {
        name: {"id": k, "kind": "grid", "grid": [1] * len(value["size"]), "value": value}
        for k, (name, value) in enumerate(values.items(), 1)
    }
    return catalog_from({"modalities": entries}, "own.yaml")


def mapped(size: list[int], **settings: Any) -> dict[str, Any]:
    return {"type": "map", "size": size, "range": [0, 999], **settings}


def told(sample: dict[str, Any], entries: Catalog) -> tuple[dict[str, Any], Counter[tuple[str, str]]]:
    with noting("sample") as notes:
        return fit(sample, entries), notes.remarks


@pytest.mark.parametrize("size", [(40,), (20, 30), (4, 8, 8)])
def test_other_sizes_are_refused_unless_the_entry_says_otherwise(size: tuple[int, ...]) -> None:
    entries = catalog(x=mapped(list(size)))
    larger = tuple(2 * n for n in size)
    with pytest.raises(
        BadSample, match=r"'x': found size [\d×]+; expected [\d×]+; set value.fit of the entry to resize"
    ):
        fit({"x": np.ones(larger, np.float32)}, entries)
    rounded = tuple(n + 1 for n in size)
    assert fit({"x": np.ones(rounded, np.float32)}, entries)["x"].shape == size, "sizes that differ by rounding"


def test_pictures_are_cropped_and_told() -> None:
    entries = catalog(rgb={"type": "image", "size": [8, 8], "channels": 3})
    sample, remarks = told({"rgb": np.zeros((16, 32, 3), np.uint8)}, entries)
    assert sample["rgb"].shape == (8, 8, 3)
    assert remarks == {("rgb", "values of other sizes than 8×8, cropped to the center and resized"): 1}
    assert not told({"rgb": np.zeros((8, 8, 3), np.uint8)}, entries)[1]


def test_a_tone_is_cut_or_extended_and_never_stretched() -> None:
    entries = catalog(tone=mapped([100], missing="nan", fit="crop"), short=mapped([100], missing="nan", fit="pad"))
    ramp = np.arange(140, dtype=np.float32)
    sample, remarks = told({"tone": ramp, "short": ramp[:60]}, entries)
    np.testing.assert_array_equal(sample["tone"], ramp[:100])
    np.testing.assert_array_equal(sample["short"][:60], ramp[:60])
    assert np.isnan(sample["short"][60:]).all()
    assert remarks == {
        ("tone", "values of other sizes than 100, cut or extended at their ends"): 1,
        ("short", "values of other sizes than 100, extended at their ends"): 1,
    }
    with pytest.raises(BadSample, match="found size 140; expected 100"):
        fit({"short": ramp}, entries)


def test_a_log_mel_keeps_its_bands_and_its_time() -> None:
    entries = catalog(mel=mapped([80, 280], missing="nan", fit=["refuse", "pad"]))
    mel = np.random.default_rng(0).random((80, 100)).astype(np.float32)
    out = fit({"mel": mel}, entries)["mel"]
    np.testing.assert_array_equal(out[:, :100], mel)
    assert np.isnan(out[:, 100:]).all()
    for wrong in ((78, 100), (80, 300)):
        with pytest.raises(BadSample, match="expected 80×280"):
            fit({"mel": np.ones(wrong, np.float32)}, entries)


def test_a_plane_that_is_padded_keeps_its_frame() -> None:
    entries = catalog(
        rgb={"type": "image", "size": [8, 8], "channels": 3, "fit": "pad", "background": [0, 0, 255]},
        cover={"type": "classes", "size": [8, 8], "classes": ["a", "b"], "ignore": 255, "fit": "pad"},
    )
    sample, remarks = told({"rgb": np.full((16, 32, 3), 9, np.uint8), "cover": np.ones((16, 32), np.uint8)}, entries)
    assert (sample["rgb"][:4] == 9).all() and (sample["rgb"][4:] == (0, 0, 255)).all()
    assert (sample["cover"][:4] == 1).all() and (sample["cover"][4:] == -1).all()
    assert remarks["rgb", "values of other sizes than 8×8, resized to fit inside"] == 1


def test_axes_may_be_resized_alone() -> None:
    entries = catalog(x=mapped([10, 20], missing="nan", fit=["resize", "pad"]))
    out = fit({"x": np.full((30, 15), 5, np.float32)}, entries)["x"]
    assert np.allclose(out[:, :15], 5) and np.isnan(out[:, 15:]).all()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(MaskweaveError, match="fit: pad needs unknown points: set value.missing: nan"):
        catalog(x=mapped([10], fit="pad"))
    with pytest.raises(MaskweaveError, match="fit: pad needs unknown points: values of this type have none"):
        catalog(x={"type": "binary", "size": [8, 8], "fit": "pad"})
    with pytest.raises(MaskweaveError, match="one word, or one for each of 2 axes, found 3"):
        catalog(x=mapped([8, 8], fit=["crop", "crop", "crop"]))
    with pytest.raises(MaskweaveError, match="'value.fit.0' expects one of resize, crop, pad, refuse, found 'stretch'"):
        catalog(x=mapped([8, 8], fit="stretch"))
    with pytest.raises(BadSample, match="found size 6; expected 10"):
        fit({"x": np.ones(6, np.float32)}, catalog(x=mapped([10], fit="crop")))


def test_a_cropped_view_and_a_resized_plane_do_not_match() -> None:
    entries = catalog(rgb={"type": "image", "size": [8, 8], "channels": 3}, depth=mapped([8, 8], fit="resize"))
    sample = {"rgb": np.zeros((16, 32, 3), np.uint8), "depth": np.ones((16, 32), np.float32)}
    with pytest.raises(BadSample, match="set both to crop, or give 'depth' its own 'view'"):
        fit(sample, entries)


def test_defaults() -> None:
    assert Image((8, 8), 3).ways == ("crop",) and Map((8, 8), range=(0, 1)).ways == ("refuse",)
    assert Classes((4, 4, 4), classes=("a",)).ways == ("refuse",)
    assert Classes((4, 4, 4), classes=("a",), fit=("resize",)).ways == ("resize",) * 3
