"""Facts about a data set: what is missing, unusable, unknown, changed or never seen, and distributions; as text, PNG and HTML."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.import_source import import_data
from maskweave.data.stats import POINTS, DataStats, ModalityStats, data_stats, of_numbers
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.report.data_stats import stats_figure, stats_text

pytestmark = pytest.mark.usefixtures("to_the_end")

COUNT = 10
CONTENT: dict[str, Any] = {
    "vocabularies": {"text": {"size": 700, "values": {"v0": 64, "v1": 64}}},
    "modalities": {
        "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
        "depth": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 5], "unit": "m", "outside": "clip", "missing": "nan", "fit": "crop"}},
        "caption": {"id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 20, "value": {"type": "text"}},
        "animal": {"id": 4, "kind": "grid", "grid": [1], "value": {"type": "label", "classes": ["cat", "dog", "emu"]}},
        "facts": {"id": 5, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "chunk": 2, "value": {"type": "metadata", "keys": {"a": {"id": 0, "range": [0, 9], "bins": 8}, "b": {"id": 1, "range": [0, 9], "bins": 8}}}},
    },
}  # fmt: skip


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from(CONTENT, "own.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for folder in CONTENT["modalities"]:
        (root / folder).mkdir(parents=True)
    for i in range(COUNT):
        size = (8, 12) if i < 4 else (8, 8)
        Image.fromarray(np.full((*size, 3), 20 * i, np.uint8)).save(root / f"rgb/{i}.png")
        depth = np.full(size, i, np.float32)
        depth[:4] = np.nan if i < 2 else i
        np.save(root / f"depth/{i}.npy", depth)
        if i:
            (root / f"caption/{i}.txt").write_text("x" * i, encoding="utf-8")
        (root / f"animal/{i}.txt").write_text(["cat", "dog"][i > 6], encoding="utf-8")
        (root / f"facts/{i}.json").write_text(json.dumps({"a": i}), encoding="utf-8")
    (root / "rgb/9.png").write_bytes(b"damaged")
    return root


def test_facts(root: Path, catalog: Catalog) -> None:
    stats = data_stats(str(root), catalog)
    found = stats.modalities
    assert (stats.samples, stats.read) == (COUNT, COUNT) and not stats.skipped
    assert {name: one.present for name, one in found.items()} == {"rgb": 9, "depth": 10, "caption": 9, "animal": 10, "facts": 10}  # fmt: skip
    assert found["rgb"].faults[0][0] == "9" and found["rgb"].sizes == {(8, 12): 4, (8, 8): 5}
    depth = found["depth"]
    assert depth.unknown == 2 * 4 * 12 and depth.whole == 8 and (depth.low, depth.high) == (0, 5)
    assert found["animal"].names == {"cat": 7, "dog": 3} and found["animal"].never == ["emu"]
    assert found["facts"].never == ["b"] and found["facts"].keys["a"] == list(range(10))
    assert found["caption"].lengths == list(range(1, 10))
    by_title = {h.title: h for h in depth.histograms()}
    assert by_title["numbers in m"].labels == ["0", "1", "2", "3", "4", "5"]
    assert sum(by_title["numbers in m"].counts) == depth.points - depth.unknown


def test_enough_time_changes_no_number(root: Path, catalog: Catalog) -> None:
    """Samples are read in another order then; `tests/studio/test_showing.py` has too short a time."""
    timed, whole = data_stats(str(root), catalog, 9, seconds=1000), data_stats(str(root), catalog, 9)
    assert timed.read == whole.read == 9
    for name, one in whole.modalities.items():
        found = timed.modalities[name]
        for key in ("present", "points", "unknown", "whole", "sizes", "names", "remarks", "low", "high"):
            assert getattr(found, key) == getattr(one, key), (name, key)
        assert sorted(found.lengths) == sorted(one.lengths) and set(found.faults) == set(one.faults)


def test_text(root: Path, catalog: Catalog) -> None:
    text = stats_text(data_stats(str(root), catalog))
    assert "10 samples" in text and "9 (90.0%)" in text and "in 20.0% of values" in text
    assert "cropped to the center" in text and "outside of 0 to 5, clipped: 4 (40.0%)" in text
    assert "unusable: 1, such as 9: " in text and "never seen: emu" in text and "never seen: b" in text
    assert "cat " + "█" * 40 + " 7" in text


def test_imported_data_and_a_limit(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    import_data(str(root), tmp_path / "out", catalog, limit=1.0)
    stats = data_stats(str(tmp_path / "out"), catalog, limit=4)
    assert (stats.samples, stats.read) == (10, 4) and stats.modalities["rgb"].sizes[8, 12] > 0, "own sizes are kept"
    assert "10 samples, 4 of them read" in stats_text(stats)
    with pytest.raises(MaskweaveError, match="--limit must be 0"):
        data_stats(str(root), catalog, limit=-1)


def test_a_source_made_by_code(catalog: Catalog) -> None:
    stats = data_stats("python: own_sources:fixed", catalog.subset(["rgb", "caption"]))
    assert stats.modalities["rgb"].present == 10 and stats.modalities["caption"].lengths == [7] * 10


def test_the_command_writes_files(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(CONTENT), encoding="utf-8")
    command = ["data", "stats", str(root), "--catalog", str(tmp_path / "own.yaml")]
    for name in ("a.png", "b.html"):
        assert main([*command, "--out", str(tmp_path / "new" / name)]) == 0
    assert Image.open(tmp_path / "new/a.png").width > 500
    page = (tmp_path / "new/b.html").read_text(encoding="utf-8")
    assert "never seen: emu" in page and "data:image/png;base64," in page
    assert main([*command, "--out", str(tmp_path / "c.pdf")]) == 1
    assert "expected a file that ends in .png or .html" in capsys.readouterr().err


def test_histograms_of_numbers() -> None:
    whole = of_numbers(np.arange(100), "x")
    assert whole.labels[0] == "0 to 4" and whole.labels[-1] == "95 to 99" and set(whole.counts) == {5}
    assert of_numbers(np.array([3, 3, 5]), "x").labels == ["3", "4", "5"]
    one = of_numbers(np.array([0.5]), "x")
    assert sum(one.counts) == 1 and len(one.counts) == 20
    far = of_numbers(np.concatenate([np.linspace(0, 1, 1000), [1e6]]), "x")
    assert float(far.labels[-1].split(" to ")[1]) < 2 and sum(far.counts) == 1001, "far numbers are in the last bin"


def test_points_of_all_channels_are_counted() -> None:
    side = 8 * int(POINTS**0.5 / 8 + 1)
    channels = [{"name": n, "unit": "K"} for n in ("a", "b", "c", "d")]
    content = {"modalities": {"bands": {"id": 1, "kind": "patches", "grid": [1, 1], "value": {"type": "map", "size": [side, side], "channels": channels, "range": [0, 10], "missing": "nan"}}}}  # fmt: skip
    stats = ModalityStats(catalog_from(content, "test")["bands"])
    value = np.broadcast_to(np.array([1, 2, 3, 4], np.float32), (side, side, 4)).copy()
    value[0, 0, 0] = 9  # one point of many
    value[1, 1, 1] = np.nan
    stats.add(value)
    assert stats.high == 9 and stats.unknown == 1
    found = {h.title: h for h in stats.histograms()}
    assert list(found) == [f"channel {name} in K" for name in "abcd"], "each channel has its own"
    assert found["channel c in K"].labels == ["3"] and found["channel b in K"].labels == ["2"]


def test_colors_and_many_channels() -> None:
    content = {"modalities": {
        "rgb": {"id": 1, "kind": "patches", "grid": [1, 1], "value": {"type": "image", "size": [4, 4], "channels": 3}},
        "cut": {"id": 2, "kind": "patches", "grid": [1, 1], "value": {"type": "image", "size": [4, 4], "channels": 3, "valid": "alpha"}},
        "net": {"id": 3, "kind": "patches", "grid": [1, 1], "value": {"type": "features", "size": [4, 4], "channels": 40}},
    }}  # fmt: skip
    catalog = catalog_from(content, "test")
    picture = np.full((4, 4, 4), [10, 20, 30, 255], np.uint8)
    picture[0, :, 3] = 0
    values = {"rgb": picture[..., :3], "cut": picture, "net": np.ones((4, 4, 40), np.float32)}
    titles = {}
    for name, value in values.items():
        stats = ModalityStats(catalog[name])
        stats.add(value)
        titles[name] = {h.title: sum(h.counts) for h in stats.histograms()}
    assert titles["rgb"] == {"channel red": 16, "channel green": 16, "channel blue": 16}
    assert titles["cut"]["channel red"] == 12, "transparent points are unknown"
    assert titles["net"] == {"numbers": 640}


def test_sounds_videos_and_dates(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "vocabularies": {"text": {"size": 900, "values": {"v0": 64, "v1": 64}}},
        "modalities": {
            "speech": {"id": 1, "kind": "grid", "grid": [4, 8], "value": {"type": "audio", "rate": 8000, "max_seconds": 0.512, "hop": 128, "window": 512}},
            "clip": {"id": 2, "kind": "grid", "grid": [2, 2, 2], "value": {"type": "video", "size": [4, 8, 8]}},
            "dates": {"id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "chunk": 2, "value": {"type": "metadata", "dates": 2, "keys": {"day": {"id": 0, "range": [1, 366], "date": "day_of_year"}}}},
        },
    }  # fmt: skip
    for name in content["modalities"]:
        (tmp_path / name).mkdir()
    for i in range(3):
        np.save(tmp_path / f"speech/{i}.npy", np.full(1024 * (i + 1), 0.1, np.float32))
        np.save(tmp_path / f"clip/{i}.npy", np.full((2 + i, 8, 8, 3), 100, np.uint8))
        (tmp_path / f"dates/{i}.json").write_text(json.dumps(["2021-03-05"]), encoding="utf-8")
    found = data_stats(str(tmp_path), catalog_from(content, "own.yaml")).modalities
    assert found["speech"].keys["seconds"] == [0.128, 0.256, 0.384] and found["speech"].high <= 0
    assert found["clip"].sizes == {(2, 8, 8): 1, (3, 8, 8): 1, (4, 8, 8): 1} and found["clip"].low == 100
    assert found["dates"].keys == {"day@0": [64.0] * 3} and found["dates"].never == ["day@1"]
    assert not found["speech"].never


def test_names_and_classes_with_dollar_signs_are_no_formulas(catalog: Catalog) -> None:
    animal = ModalityStats(catalog["animal"], present=1)
    animal.names.update({r"$\frac$": 2, "$": 1})
    figure = stats_figure(DataStats("here", 1, 1, {r"$\nothing$": animal}, []))
    assert figure.startswith(b"\x89PNG")
