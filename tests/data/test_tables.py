"""Tables as data sets: csv manifests, parquet and folders of Hugging Face `datasets`, read by row and imported with the files' own bytes."""

import csv
import datetime
import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskweave.data import arrow
from maskweave.data.cells import NamedFiles, cell_part
from maskweave.data.csv_table import CsvTable
from maskweave.data.import_source import import_data
from maskweave.data.opening import open_data
from maskweave.data.parts import noting
from maskweave.data.reading import read
from maskweave.data.shards import Shards
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source
from maskweave.transfer.data import open_examples
from maskweave.transfer.recipe import TransferData

ENTRIES = {
    "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "tok_rgb": {"id": 2, "kind": "grid", "source": "rgb", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "caption": {"id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 30, "value": {"type": "text"}},
    "temp": {"id": 4, "kind": "grid", "grid": [1], "value": {"type": "scalar", "bins": 8}},
    "animal": {"id": 5, "kind": "grid", "grid": [1], "value": {"type": "label", "classes": ["cat", "dog"]}},
    "place": {"id": 6, "kind": "grid", "grid": [1], "value": {"type": "vector", "channels": 2}},
}  # fmt: skip
CONTENT = {"vocabularies": {"text": {"size": 600}}, "modalities": ENTRIES}
FIELDS = {"rgb": "image_path", "caption": "text", "place": "x, y", "name": "id"}
HEADER = ["id", "image_path", "text", "temp", "animal", "x", "y"]


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from(CONTENT, "own.yaml")


def png(level: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full(size, level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        dict(zip(HEADER, (f"s{i}", f"img/{i}.png", f'a "picture",\nnumber {i}', i / 4, "dog", i, -i), strict=True))
        for i in range(count)
    ]


def table(root: Path, content: list[dict[str, Any]], separator: str = ",") -> Path:
    (root / "img").mkdir(parents=True)
    for i in range(len(content)):
        (root / f"img/{i}.png").write_bytes(png(i))
    with open(root / "table.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, HEADER, delimiter=separator)
        writer.writeheader()
        writer.writerows(content)
    return root / "table.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_gives_values_and_files(tmp_path: Path, catalog: Catalog, separator: str) -> None:
    source = open_data(str(table(tmp_path, rows(), separator)), catalog, fields=FIELDS)
    assert len(source) == 6 and [source.key(i) for i in range(6)] == [f"s{i}" for i in range(6)]
    assert set(source.names) == {"rgb", "caption", "temp", "animal", "place"}
    sample = source[5]
    assert sample["rgb"].shape == (8, 8, 3) and (sample["rgb"] == 5).all()
    assert sample["caption"] == 'a "picture",\nnumber 5' and sample["temp"] == 1.25 and sample["animal"] == "dog"
    np.testing.assert_array_equal(sample["place"], [5, -5])
    with pytest.raises(IndexError):
        source[6]


def test_missing_cells_and_files_are_missing_and_counted(tmp_path: Path, catalog: Catalog) -> None:
    content = rows()
    content[1] |= {"image_path": "img/none.png", "text": "", "temp": "nan"}
    content[2] |= {"x": "", "y": ""}
    place = table(tmp_path / "in", content)
    source = open_data(str(place), catalog, fields=FIELDS)
    with noting("part") as notes:
        assert set(source[1]) == {"animal", "place"} and set(source[2]) == {"rgb", "caption", "temp", "animal"}
    assert not notes.dropped
    report = import_data(str(place), tmp_path / "out", catalog, fields=FIELDS)
    assert report.samples == 6 and report.per_modality == {"rgb": 5, "caption": 5, "temp": 5, "animal": 6, "place": 5}
    assert "rgb: files that the table names but that do not exist count as missing: 1" in str(report)


def test_an_import_keeps_the_bytes_and_resumes(tmp_path: Path, catalog: Catalog) -> None:
    place = table(tmp_path / "in", rows())
    first = import_data(str(place), tmp_path / "out", catalog, shard_size=4, fields=FIELDS)
    assert (first.shards, first.kept) == (2, 0)
    shards = Shards(tmp_path / "out", catalog)
    assert [shards.key(i) for i in range(6)] == [f"s{i}" for i in range(6)] and shards[3]["temp"] == 0.75
    assert png(3) in (tmp_path / "out/rgb/shard-00000.tar").read_bytes()
    assert import_data(str(place), tmp_path / "out", catalog, shard_size=4, fields=FIELDS).kept == 2
    place.write_text(place.read_text(encoding="utf-8").replace("dog", "cat"), encoding="utf-8")
    changed = import_data(str(place), tmp_path / "out", catalog, shard_size=4, fields=FIELDS)
    assert changed.kept == 0 and Shards(tmp_path / "out", catalog)[0]["animal"] == "cat"
    few = import_data(str(place), tmp_path / "few", catalog, fields=FIELDS, samples=2)
    assert few.samples == 2


def test_an_import_notices_a_changed_file_that_the_table_names(tmp_path: Path, catalog: Catalog) -> None:
    place = table(tmp_path / "in", rows())
    (tmp_path / "in/img/1.png").unlink()
    import_data(str(place), tmp_path / "out", catalog, shard_size=4, fields=FIELDS)
    (tmp_path / "in/img/1.png").write_bytes(png(200, (9, 9)))
    again = import_data(str(place), tmp_path / "out", catalog, shard_size=4, fields=FIELDS)
    assert again.kept == 1 and (Shards(tmp_path / "out", catalog)[1]["rgb"] == 200).all()


def test_an_import_notices_a_changed_file_of_a_cell_without_bytes(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    pq.write_table(pa.table({"rgb": [{"bytes": None, "path": "a.png"}]}), tmp_path / "t.parquet")
    for level, kept in ((1, 0), (1, 1), (200, 0)):
        if level != 1:
            (tmp_path / "a.png").write_bytes(png(level, (9, 9)))
        assert import_data(str(tmp_path / "t.parquet"), tmp_path / "out", catalog).kept == kept


def test_a_bad_cell_drops_only_its_part(tmp_path: Path, catalog: Catalog) -> None:
    content = rows()
    content[0] |= {"animal": "cow", "x": "west"}
    report = import_data(str(table(tmp_path / "in", content)), tmp_path / "out", catalog, fields=FIELDS, limit=1.0)
    assert report.samples == 6 and report.per_modality["animal"] == report.per_modality["place"] == 5
    assert "line 2: animal (animal): found 'cow'; expected one of" in str(report)
    assert "found 'west' in column x; expected a number" in str(report)


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    entries = {
        name: {"id": i, "kind": "grid", "grid": [1], "value": {"type": "label", "classes": classes}}
        for i, (name, classes) in enumerate((("kind", ["none", "NA", "cat"]), ("other", ["dog", "cat"])), 1)
    }
    (tmp_path / "t.csv").write_text("kind,other\nnone,none\nNA,dog\nna,na\n ,dog\ncat,cat\n", encoding="utf-8")
    source = open_data(str(tmp_path / "t.csv"), catalog_from({"modalities": entries}, "own.yaml"))
    assert [source[i].get("kind") for i in range(5)] == ["none", "NA", None, None, "cat"]
    assert [source[i].get("other") for i in range(5)] == [None, "dog", None, "dog", "cat"]


def test_a_long_text_in_a_column_of_paths_drops_only_its_part(tmp_path: Path, catalog: Catalog) -> None:
    content = rows()
    content[1] |= {"image_path": "long " * 100}
    place = str(table(tmp_path / "in", content))
    report = import_data(place, tmp_path / "out", catalog, fields=FIELDS, limit=1.0)
    assert report.per_modality["rgb"] == 5 and report.samples == 6
    with pytest.raises(BadSample, match=r"image_path \(rgb\): found 'long .*too long\); expected the path of a file"):
        open_data(place, catalog, fields=FIELDS)[1]


def test_paths_stay_in_the_folder(tmp_path: Path, catalog: Catalog) -> None:
    content = rows(3)
    (tmp_path / "secret.png").write_bytes(png(200))
    content[0] |= {"image_path": "../secret.png"}
    content[1] |= {"image_path": str(tmp_path / "secret.png")}
    content[2] |= {"image_path": "img/link.png"}
    place = table(tmp_path / "in", content)
    (tmp_path / "in/img/link.png").symlink_to(tmp_path / "secret.png")
    source = open_data(str(place), catalog, fields=FIELDS)
    for i in range(3):
        with pytest.raises(BadSample, match="leads out of the folder .*outside_paths: true"):
            source[i]
    allowed = open_data(str(place), catalog, fields=FIELDS, outside_paths=True)
    assert all((allowed[i]["rgb"] == 200).all() for i in range(3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rgb": "picture"}, "data.fields.rgb: there is no column 'picture'; found id, image_path, text"),
        ({"depth": "x"}, "data.fields has 'depth'; expected modalities of the catalog: rgb, caption"),
        ({"name": "nr"}, "data.fields.name: there is no column 'nr'"),
        ({"name": "animal"}, "line 4: the name 'dog' is also that of .*line 2; expected each name once"),
    ],
)
def test_wrong_fields(tmp_path: Path, catalog: Catalog, fields: dict[str, str], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        open_data(str(table(tmp_path, rows())), catalog, fields=fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found no text"),
        (b"temp,animal\n", "only the names of columns"),
        (b"temp,temp\n1,2\n", "two columns have the name 'temp'"),
        (b"temp,animal\n1\n", "line 2 has 1 cells; expected 2"),
        (b'temp,animal\n1,"dog\n', "cannot be read as a table"),
        (b"temp,animal\n1,d\xf6g\n", "not UTF-8"),
        (b"a,b\n1,2\n", "no column is named like a modality .*found the columns a, b; set data.fields: {rgb: COLUMN"),
    ],
)
def test_damaged_tables(tmp_path: Path, catalog: Catalog, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(MaskweaveError, match=message):
        open_data(str(tmp_path / "t.csv"), catalog)


def test_rows_without_names_and_a_recipe(tmp_path: Path) -> None:
    place = table(tmp_path, rows(12))
    (tmp_path / "own.yaml").write_text(json.dumps(CONTENT), encoding="utf-8")
    recipe = {
        "catalog": str(tmp_path / "own.yaml"),
        "modalities": ["rgb", "caption", "temp"],
        "data": {"source": str(place), "fields": {"rgb": "image_path", "caption": "text"}, "validation": 3},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    loaded = load_recipe(tmp_path / "recipe.yaml")
    catalog = catalog_from(CONTENT, "own.yaml").subset(["rgb", "caption", "temp"])
    train, held_out = (open_source(loaded, catalog, part) for part in ("train", "validation"))
    assert (len(train), len(held_out)) == (9, 3) and train.key(0).startswith("row-0000")
    assert set(train[0]) == {"rgb", "caption", "temp"}


def test_long_csv_needs_no_memory_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f'{i},"x\ny{i}"\n' for i in range(500)), encoding="utf-8")
    found = CsvTable(tmp_path / "t.csv")
    assert len(found) == 500 and found.row(321, ["b", "a"]) == {"b": "x\ny321", "a": "321"}
    assert found.where(1).endswith("line 4") and list(found.column("a"))[-1] == "499"


# Parquet and datasets


def columns(count: int, start: int = 0) -> dict[str, Any]:
    number = range(start, start + count)
    return {
        "image": [{"bytes": png(i), "path": f"{i}.png"} if i % 5 else None for i in number],
        "caption": [f"number {i}" for i in number],
        "temp": [float(i) if i != 2 else None for i in number],
        "animal": [i % 2 for i in number],
        "place": [[i, -i] for i in number],
    }


def features(schema: pa.Schema) -> pa.Schema:
    labels = {"info": {"features": {"animal": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}
    return schema.with_metadata({"huggingface": json.dumps(labels)})


def arrow_table(count: int, start: int = 0) -> pa.Table:
    made = pa.table(columns(count, start))
    return made.cast(features(made.schema))


def check(source: Any, count: int) -> None:
    assert len(source) == count and set(source.names) == {"rgb", "caption", "temp", "animal", "place"}
    for i in (count - 1, 0, 7, 2):  # in any order
        sample = source[i]
        assert sample["caption"] == f"number {i}" and sample["animal"] == ["dog", "cat"][i % 2]
        np.testing.assert_array_equal(sample["place"], np.float32([i, -i]))
        assert ("rgb" in sample) == (i % 5 != 0) and ("temp" in sample) == (i != 2)
        assert i % 5 == 0 or (sample["rgb"] == i).all()


def test_parquet_is_read_by_row_groups(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in/data").mkdir(parents=True)
    for part in range(2):
        path = tmp_path / f"in/data/train-{part:05d}-of-00002.parquet"
        pq.write_table(arrow_table(10, 10 * part), path, row_group_size=3)
    place = str(tmp_path / "in")
    source = open_data(place, catalog, fields={"rgb": "image"})
    check(source, 20)
    check(open_data(f"{place}/data/train-*.parquet", catalog, fields={"rgb": "image"}), 20)
    assert source.key(0) == "train-00000-of-00002/row-00000000" and len({source.key(i) for i in range(20)}) == 20
    one = open_data(f"{place}/data/train-00001-of-00002.parquet", catalog, fields={"rgb": "image"})
    assert len(one) == 10 and one.key(3) == "row-00000003" and one[3]["caption"] == "number 13"
    report = import_data(place, tmp_path / "out", catalog, fields={"rgb": "image"})
    check(Shards(tmp_path / "out", catalog), 20)
    assert report.per_modality == {"rgb": 16, "caption": 20, "temp": 19, "animal": 20, "place": 20}
    monkeypatch.setattr(arrow, "MAX_GROUP_BYTES", 10)
    with pytest.raises(MaskweaveError, match=r"row group 0 has .* bytes .*smaller row groups"):
        open_data(place, catalog, fields={"rgb": "image"})[0]


def test_cells_of_all_kinds(tmp_path: Path) -> None:
    cells = {
        "matrix": pa.array([[[1, 2], [3, 4]], None], pa.list_(pa.list_(pa.float64()))),
        "fixed": pa.array([[1.5, None], [2, 3]], pa.list_(pa.float32(), 2)),
        "ragged": pa.array([[[1, 2], [3]], []], pa.list_(pa.list_(pa.int64()))),
        "words": pa.array([["a", "b"], []]),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "nested": pa.array([{"a": 1, "b": [1, 2]}, None]),
        "day": pa.array([0, 1], pa.date32()),
    }
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    found = arrow.ParquetTable(str(tmp_path / "t.parquet"))
    row = found.row(0, ["matrix", "fixed", "words", "kind", "nested", "day"])
    np.testing.assert_array_equal(row["matrix"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(row["fixed"], [1.5, np.nan])
    assert row["words"] == ["a", "b"] and row["kind"] == "x" and row["nested"]["a"] == 1 and row["day"] == "1970-01-01"
    assert found.row(1, ["matrix", "nested"]) == {"matrix": None, "nested": None}
    with pytest.raises(BadSample, match="rows of 1 to 2 items"):
        found.row(0, ["ragged"])


def save_datasets(root: Path, count: int) -> Path:
    """As `save_to_disk` of datasets writes it."""
    root.mkdir(parents=True)
    made = arrow_table(count)
    with pa.OSFile(str(root / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as out:
        out.write_table(made, max_chunksize=4)
    (root / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}), encoding="utf-8"
    )
    labels = {"animal": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    (root / "dataset_info.json").write_text(json.dumps({"features": labels}), encoding="utf-8")
    return root


def test_times_and_arrays_inside_structures_become_texts_and_lists(tmp_path: Path) -> None:
    """Parquet files have types that JSON lacks."""
    entry = catalog_from({"modalities": {"tags": {"id": 1, "kind": "grid", "value": {"type": "tags", "classes": ["a", "b"]}}}}, "x")["tags"]  # fmt: skip
    cell = {"day": datetime.date(2026, 1, 2), "bins": np.arange(3), "n": np.int64(7)}
    part = cell_part(cell, entry, "cell", NamedFiles(tmp_path), paths=False)
    assert part is not None and json.loads(part.content) == {"day": "2026-01-02", "bins": [0, 1, 2], "n": 7}


def test_a_folder_of_datasets(tmp_path: Path, catalog: Catalog) -> None:
    root = save_datasets(tmp_path / "all/train", 12)
    check(open_data(str(root), catalog, fields={"rgb": "image"}), 12)
    import_data(str(root), tmp_path / "out", catalog, fields={"rgb": "image"})
    check(Shards(tmp_path / "out", catalog), 12)
    (tmp_path / "all/dataset_dict.json").write_text('{"splits": ["train"]}', encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"contains the splits train; expected one of them: .*all/train"):
        open_data(str(tmp_path / "all"), catalog)
    (tmp_path / "all/dataset_dict.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"dataset_dict.json: found \[1\]; expected a JSON object"):
        open_data(str(tmp_path / "all"), catalog)
    info = (root / "dataset_info.json").read_text(encoding="utf-8")
    (root / "dataset_info.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"dataset_info.json: found \[1\]; expected a JSON object"):
        open_data(str(root), catalog)
    (root / "dataset_info.json").write_text(info, encoding="utf-8")
    (root / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}', encoding="utf-8")
    with pytest.raises(MaskweaveError, match="no plain file name"):
        open_data(str(root), catalog)
    (root / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}', encoding="utf-8")
    (root / "x.arrow").write_bytes((root / "data-00000-of-00001.arrow").read_bytes()[:700])
    with pytest.raises(MaskweaveError, match=r"x.arrow: is missing or not a complete arrow file"):
        open_data(str(root), catalog)


def test_refused_parquet(tmp_path: Path, catalog: Catalog) -> None:
    for split in ("train", "test"):
        pq.write_table(arrow_table(4), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(MaskweaveError, match=r"several splits \(test, train\); expected one; .*test\*.parquet"):
        open_data(str(tmp_path), catalog)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "test-00000-of-00001.parquet").read_bytes()[:-50])
    with pytest.raises(MaskweaveError, match="is not a complete parquet file"):
        open_data(str(tmp_path / "cut.parquet"), catalog)
    pq.write_table(pa.table({"other": [1]}), tmp_path / "train-00001-of-00001.parquet")
    with pytest.raises(MaskweaveError, match="its columns differ from those of"):
        open_data(str(tmp_path / "train-*.parquet"), catalog)


def test_a_parquet_file_that_is_damaged_within(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": list(range(9000))}), path, compression="zstd", use_dictionary=False)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    rows = arrow.ParquetTable(str(path))
    for load in (lambda: rows.cells(0, 9, "x"), lambda: list(rows.column("x")), lambda: rows.row(0, ["x"])):
        with pytest.raises(BadSample, match=r"t.parquet: .*damaged \(.*\); replace the file"):
            load()
    pq.write_table(pa.table({"x": [[1], [2, 3]]}), path)
    with pytest.raises(BadSample, match=r"t.parquet: row 1, column x: found a list with rows of 1 to 2 items"):
        arrow.ParquetTable(str(path)).cells(0, 2, "x")


def test_without_pyarrow(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(arrow_table(4), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # as if it were not installed
    with pytest.raises(MaskweaveError, match=r"needs pyarrow.*pip install 'maskweave\[tables\]'"):
        open_data(str(tmp_path / "a.parquet"), catalog)


@pytest.mark.parametrize("kind", ["parquet", "datasets", "csv"])
def test_worker_processes_and_copies_read_the_same(kind: str, tmp_path: Path, catalog: Catalog) -> None:
    """Processes that are forked after a first read share neither file handles nor locks; others get a pickled source."""
    if kind == "parquet":
        pq.write_table(arrow_table(12), tmp_path / "a.parquet", row_group_size=5)
        source = open_data(str(tmp_path / "a.parquet"), catalog, fields={"rgb": "image"})
    elif kind == "datasets":
        source = open_data(str(save_datasets(tmp_path / "saved", 12)), catalog, fields={"rgb": "image"})
    else:
        source = open_data(str(table(tmp_path / "in", rows(12))), catalog, fields=FIELDS)
    first = [source[i] for i in range(12)]
    for found in ([item.sample for item in read(source, range(12), workers=2)], [*pickle.loads(pickle.dumps(source))]):
        assert [sample["caption"] for sample in found] == [sample["caption"] for sample in first]
        assert all(np.array_equal(a["place"], b["place"]) for a, b in zip(found, first, strict=True))


def test_examples_of_a_transfer(tmp_path: Path, catalog: Catalog) -> None:
    data = TransferData(source=str(table(tmp_path, rows(12))), fields=FIELDS, validation=3)
    parts = open_examples(data, catalog, ["rgb"], "animal", "")
    assert (len(parts.train), len(parts.held_out)) == (9, 3)
    assert set(parts.train[0]) == {"rgb", "animal"} and parts.held_out[0]["animal"] == "dog"
