"""Importing sources that are made by code, and what the import of any data set refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_parts import check_parts

from maskweave.cli.main import main
from maskweave.data.import_source import import_data
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.init.project import make_project
from maskweave.modality.catalogs import Catalog, catalog_from

ENTRIES: dict[str, Any] = {
    "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "tok_rgb": {"id": 2, "kind": "grid", "source": "rgb", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "depth": {"id": 3, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 1]}},
    "caption": {"id": 4, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}},
}  # fmt: skip


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from({"vocabularies": {"text": {"size": 600}}, "modalities": ENTRIES}, "own.yaml")


def test_a_source_made_by_code(tmp_path: Path, catalog: Catalog) -> None:
    report = import_data("python: own_sources:fixed", tmp_path / "out", catalog, shard_size=4)
    assert report.samples == 10 and report.per_modality == {"rgb": 10, "depth": 10, "caption": 10}
    sample = Shards(tmp_path / "out", catalog)[7]
    assert sample["caption"] == "level 7" and (sample["rgb"] == 7).all()
    np.testing.assert_array_equal(sample["depth"], np.full((8, 8), 7 / 256, np.float32))
    again = import_data("python: own_sources:fixed", tmp_path / "out", catalog, shard_size=4)
    assert again.kept == 0, "nobody knows whether the code changed"
    assert import_data("python: own_sources:fixed", tmp_path / "few", catalog, samples=3).samples == 3


def test_an_endless_source(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(MaskweaveError, match="is endless: set samples to 1 or more, found 0"):
        import_data("python: own_sources:Endless", tmp_path / "out", catalog)
    assert import_data("python: own_sources:Endless", tmp_path / "out", catalog, samples=5).samples == 5


def test_names_that_repeat(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(MaskweaveError, match="2 samples have the name 'twice'; expected each name once"):
        import_data("python: own_sources:repeated", tmp_path / "out", catalog)


def test_options_that_a_folder_does_not_take(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "in/caption").mkdir(parents=True)
    (tmp_path / "in/caption/a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="fields is for tables, tars and sources made by code"):
        import_data(str(tmp_path / "in"), tmp_path / "out", catalog, fields={"caption": "text"})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("title,n\n" + "".join(f"number {i},{i}\n" for i in range(5)), encoding="utf-8")
    catalog = tmp_path / "own.yaml"
    catalog.write_text('{"vocabularies": {"text": {"size": 600}}, "modalities": {"caption": {"id": 1, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}}}}', encoding="utf-8")  # fmt: skip
    options = ["--catalog", str(catalog), "--fields", "{caption: title, name: n}"]
    assert main(["data", "import", str(tmp_path / "t.csv"), str(tmp_path / "out"), *options]) == 0
    assert "5 samples in 1 shards: caption 5" in capsys.readouterr().out


def test_init_needs_files(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="is a source made by code, .* so there are no files to look at"):
        make_project(Path("python: own_sources:fixed"), tmp_path / "p")


def test_parts_of_an_import_of_code(tmp_path: Path, catalog: Catalog) -> None:
    report = check_parts(
        lambda out, part: import_data("python: own_sources:fixed", out, catalog, shard_size=4, part=part), tmp_path
    )
    assert not report.unfinished


def test_the_parts_of_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("title,n\n" + "".join(f"number {i},{i}\n" for i in range(5)), encoding="utf-8")
    words = [
        "data",
        "import",
        str(tmp_path / "t.csv"),
        str(tmp_path / "out"),
        "--shard-size",
        "2",
        "--fields",
        "{caption: title}",
    ]
    assert main([*words, "--part", "1/2"]) == 0
    assert (
        "part 1/2 is done; 2 of 3 shards are left to other parts, the last of which finishes" in capsys.readouterr().out
    )
    assert main([*words, "--part", "finish"]) == 1
    assert "2 of 3 shards are not finished" in capsys.readouterr().err
    assert main([*words, "--part", "0/2"]) == 0
    assert "5 samples in 3 shards" in capsys.readouterr().out
    assert main([*words, "--part", "2/2"]) == 1
    assert "--part is '2/2'; expected I/N with I from 0 to N - 1" in capsys.readouterr().err
