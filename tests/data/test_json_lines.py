"""Files of JSON lines as tables: rows, damaged lines, paths, and a project made from one."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.json_lines import JsonLines
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.init.project import make_project
from maskweave.modality.catalogs import load_catalog

COUNT = 24


def rows(root: Path) -> list[dict[str, Any]]:
    """Rows about pictures, which are written."""
    found: list[dict[str, Any]] = []
    for i in range(COUNT):
        path = root / "images" / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        row = {
            "image": f"images/{i:03d}.jpg",
            "caption": f'number "{i}"\nis here',
            "age": i / 7,
            "curve": [i, i + 0.5, 2.0],
        }
        found.append({**row, "tags": [["wood"], ["stone", "glass"], []][i % 3]})
    found[4]["age"] = None
    del found[5]["caption"]
    return found


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("folder", [False, True])
def test_a_project(tmp_path: Path, folder: bool) -> None:
    """Of the file, and of the folder with the file and the pictures, whose names it gives."""
    root = tmp_path / "files"
    content = rows(root)
    table = write(root / "data.jsonl", content)
    project = make_project(root if folder else table, tmp_path / "p", minutes=0.1)
    assert main(shlex.split(project.import_command)[1:]) == 0
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    picture = "images" if folder else "image"
    types = {name: catalog[name].value.type for name in (picture, "caption", "age", "curve", "tags")}
    assert types == {picture: "image", "caption": "text", "age": "scalar", "curve": "map", "tags": "tags"}
    data = Shards(tmp_path / "p" / "data", catalog)
    found = {data.key(i)[-3:]: data[i] for i in range(len(data))}
    assert len(found) == COUNT
    assert found["007"]["caption"] == 'number "7"\nis here' and float(found["007"]["age"]) == pytest.approx(1)
    assert found["004"].get("age") is None and found["005"].get("caption") is None
    assert np.allclose(np.asarray(found["009"]["curve"]).ravel(), [9, 9.5, 2])


def test_rows_and_columns(tmp_path: Path) -> None:
    table = JsonLines(write(tmp_path / "x.jsonl", [{"a": "x", "b": 1}, {"b": [1, 2], "c": None}]))
    row = table.row(1, ["a", "b", "c"])
    assert (len(table), table.columns) == (2, ["a", "b", "c"]) and row["a"] is None and row["c"] is None
    assert isinstance(row["b"], np.ndarray) and row["b"].tolist() == [1, 2], "lists of numbers are arrays"
    assert next(table.column("b")) == 1 and table.is_text("a") and not table.is_text("b")
    assert table.where(1) == f"{tmp_path / 'x.jsonl'}: line 3", "empty lines count"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no lines"),
        ("\n \n", "found no lines"),
        ('{"a": 1}\n[1, 2]\n', r"line 2: found .*; expected an object"),
        ('{"a": 1}\n{"a": \n', "line 2: corrupt or truncated JSON"),
        ('{"a": 1, "a": 2}\n', "line 1: .*twice|line 1: corrupt"),
        ("[" * 100_000 + "\n", "line 1"),
    ],
)
def test_damage(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(MaskweaveError, match=message):
        JsonLines(tmp_path / "x.jsonl")


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("", encoding="utf-8")])
def test_a_file_that_changes(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = write(tmp_path / "x.jsonl", [{"a": 1}, {"a": 2}])
    table = JsonLines(path)
    change(path)
    with pytest.raises(MaskweaveError, match="cannot be read|the file changed"):
        table.row(1, ["a"])
