"""Tables beside folders of files: labels, paths of further files, rows without a file, the metadata tables of image folders."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_folders import COUNT, array, imported, picture, samples, text, write_rows

from maskweave.init.project import make_project


def test_a_table_beside_files(tmp_path: Path) -> None:
    """Its columns are modalities; rows without a file, and files without a row, are told or lack them."""
    root = tmp_path / "files"
    rows = [["filename", "age", "kind", "note"]]
    for i in range(3 * COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        rows.append([f"img/{i:03d}.png", str(20 + i), "ab"[i % 2], f"patient {i}, is well"])
    rows[3][1] = ""
    del rows[-1]
    rows.append(["img/999.png", "1", "a", "no such picture"])
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    project, catalog, data = imported(root, tmp_path / "p")
    assert {name: m.value.type for name, m in catalog.items() if name in ("age", "kind", "note", "img")} == {
        "img": "image", "age": "scalar", "kind": "label", "note": "text",
    }  # fmt: skip
    assert "labels.csv, column filename: the names of the files" in project.survey_text()
    assert "labels.csv: 1 rows without a file" in project.survey_text()
    found = {data.key(i): data[i] for i in range(len(data))}
    assert sorted(found) == [f"{i:03d}" for i in range(3 * COUNT)]
    assert float(found["001"]["age"]) == 21 and found["004"]["note"] == "patient 4, is well"
    assert found["002"].get("age") is None and found["023"].get("kind") is None, "an empty cell, and no row"


def test_a_table_that_names_no_file_is_told(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "files" / "img" / f"{i:03d}.png", seed=i)
    text(tmp_path / "files" / "log.csv", "a,b\n1,2\n3,4\n")
    project = make_project(tmp_path / "files", tmp_path / "p", minutes=0.1)
    assert "log.csv: none of its columns has the names of the files" in project.survey_text()


SECRET = "a secret that no table may read"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_cannot_read_files_outside_its_folder(tmp_path: Path, ending: str) -> None:
    """Neither as paths nor as texts that look like paths."""
    root = tmp_path / "files"
    text(tmp_path / "secret" / "key.txt", SECRET)
    rows = []
    for i in range(COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        outside = str(tmp_path / "secret" / "key.txt") if i % 2 else "../secret/key.txt"
        rows.append({"file": f"{i:03d}.png", "caption": outside if i < 6 else f"a caption of number {i}"})
    write_rows(root / f"labels.{ending}", rows)
    project, catalog, _ = imported(root, tmp_path / "p")
    assert "column caption: paths of files that are not in" in project.survey_text() and "caption" not in catalog
    for path in (tmp_path / "p").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_columns_of_paths_beside_folders(tmp_path: Path) -> None:
    """Files that only the table names are a modality; those that a folder has anyway are not twice."""
    root = tmp_path / "files"
    for i in range(COUNT):
        picture(root / "images" / f"{i:03d}.png", seed=i)
        text(root / "more" / "notes" / f"n{i}.txt", f"a note of number {i}")
    rows = [{"id": i, "image": f"images/{i:03d}.png", "note": f"more/notes/n{i}.txt"} for i in range(COUNT)]
    write_rows(root / "labels.csv", rows)
    (root / "more").rename(root / ".more")  # hidden, so that only the table leads there
    for row in rows:
        row["note"] = f".{row['note']}"
    write_rows(root / "labels.csv", rows)
    _, catalog, data = imported(root, tmp_path / "p")
    found = {data.key(i): data[i] for i in range(len(data))}
    assert found["003"]["note"] == "a note of number 3" and len(found) == COUNT
    assert "image" not in catalog and catalog["note"].value.type == "text"


def test_words_that_mean_nothing_in_csv_and_long_lists(tmp_path: Path) -> None:
    """In JSON lines, `none` is a text; a list may be longer than csv allows a cell to be."""
    root = tmp_path / "files"
    rows = []
    for i in range(3 * COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        curve = np.random.default_rng(i).normal(size=9000).tolist()
        rows.append({"file": f"{i:03d}", "caption": ["None", f"number {i}"][i % 2], "flag": i % 3 == 0, "curve": curve})
    write_rows(root / "labels.jsonl", rows)
    _, catalog, data = imported(root, tmp_path / "p")
    found = {data.key(i): data[i] for i in range(len(data))}
    assert found["004"]["caption"] == "None" and catalog["caption"].value.type == "text"
    assert np.allclose(np.asarray(found["005"]["curve"]).ravel()[:9000], np.clip(rows[5]["curve"], -2.5, 2.5), atol=0.1)
    assert [str(found[key]["flag"]) for key in ("000", "001")] in (["1", "0"], ["1.0", "0.0"])


def test_tables_inside_and_beside_parts_are_told(tmp_path: Path) -> None:
    for i in range(COUNT):
        for part in ("train", "val"):
            picture(tmp_path / "files" / part / f"{i}.png", seed=i)
    for part in ("train", "val"):
        text(tmp_path / "files" / part / "list.jsonl", '{"file_name": "0.png", "text": "a"}\n')
        text(tmp_path / "files" / f"{part}.csv", "id,label\n0,a\n")
    project, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert len(data) == 2 * COUNT and "value" not in {one.name for one in project.listing.sets}
    assert "train/, val/: list.jsonl: a table about other files" in project.survey_text()
    assert "2 files that are in no folder of a modality: train.csv, val.csv" in project.survey_text()
    for i in range(COUNT):
        picture(tmp_path / "kinds" / "ab"[i % 2] / f"{i}.png", seed=i)
    text(tmp_path / "kinds" / "a" / "list.csv", "x\n1\n")
    picture(tmp_path / "kinds" / "cover.png")
    project, _, data = imported(tmp_path / "kinds", tmp_path / "q")
    assert len(data) == COUNT and "a/list.csv: a table about other files" in project.survey_text()
    assert "1 files that are in no folder of a modality: cover.png" in project.survey_text()


def metadata(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("parts", [("train",), ("train", "validation"), ("train", "validation", "test")])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("inner", ["", "a/"])
def test_metadata_of_image_folders(tmp_path: Path, parts: tuple[str, ...], ending: str, inner: str) -> None:
    """FOLDER/train/metadata.csv of Hugging Face datasets: file_name is relative to its folder. Files of several parts have the same name."""
    root = tmp_path / "files"
    for part in parts:
        rows = [{"file_name": f"{inner}{i}.png", "text": f"picture {i} of {part}"} for i in range(COUNT)]
        for row in rows:
            picture(root / part / row["file_name"])
        metadata(root / part / f"metadata.{ending}", [*rows, {"file_name": "gone.png", "text": "gone"}])
    project, _, data = imported(root, tmp_path / "p")
    told = project.survey_text()
    assert f"train/metadata.{ending}: 1 of 9 rows whose file_name is no file that is used" in told
    assert "a table about other files" not in told and "in no folder of a modality" not in told
    texts = {data.key(i): data[i].get("text") for i in range(len(data))}
    first = "train/" if len(parts) > 1 else inner
    assert len(texts) == COUNT * len(parts) and texts[f"{first}3"] == "picture 3 of train"
    assert sorted(filter(None, texts.values())) == sorted(f"picture {i} of {p}" for i in range(COUNT) for p in parts)
    if len(parts) > 1:
        assert texts["validation/3"] == "picture 3 of validation"
        assert "validation/3,validation" in (tmp_path / "p" / "split.csv").read_text(encoding="utf-8")


def test_metadata_of_image_folders_names_further_files(tmp_path: Path) -> None:
    root = tmp_path / "files"
    for part in ("train", "val"):
        for i in range(COUNT):
            picture(root / part / "image" / f"{i}.png", seed=i)
            text(root / part / "note" / f"{i}.txt", f"a note of number {i}")
            array(root / part / "map" / f"of_{i + COUNT}.npy", i)
        rows = [{"file_name": f"image/{i}.png", "depth": f"map/of_{i + COUNT}.npy"} for i in range(COUNT)]
        metadata(root / part / "metadata.csv", rows)
    _, _, data = imported(root, tmp_path / "p")
    assert samples(data) == {
        f"{part}/{i}": {"image", "note", "depth"} for i in range(COUNT) for part in ("train", "val")
    }
    i = [data.key(n) for n in range(len(data))].index("val/5")
    assert np.array_equal(np.asarray(data[i]["depth"]).squeeze(), np.load(root / "val" / "map" / f"of_{5 + COUNT}.npy"))
