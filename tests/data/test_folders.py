"""Aligned folders to tar shards: what is written, and what survives a crash."""

import dataclasses
import errno
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_helpers import NAMES, contents, photos, run, write
from job_parts import check_parts
from leftovers import left_aside
from PIL import Image

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import FullDisk
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import Modality
from maskweave.values.metadata import Key, Metadata

pytestmark = pytest.mark.usefixtures("to_the_end")


@pytest.fixture
def catalog() -> Catalog:
    return photos()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "in", NAMES)
    return tmp_path / "in"


def test_one_shard_per_modality_and_range_with_the_original_bytes(root: Path, catalog: Catalog) -> None:
    (root / "depth" / f"{NAMES[5]}.npy").unlink()
    report = run(root, catalog)
    out = root.parent / "out"
    assert (report.samples, report.shards, report.kept) == (10, 3, 0)
    assert report.per_modality == {"rgb": 10, "depth": 9, "caption": 10}
    with tarfile.open(out / "depth" / "shard-00001.tar") as tar:
        assert tar.getnames() == [f"{name}.npy" for name in (NAMES[4], *NAMES[6:8])]
        member = tar.extractfile(f"{NAMES[6]}.npy")
        assert member is not None and member.read() == (root / "depth" / f"{NAMES[6]}.npy").read_bytes()
    shards = Shards(out, catalog)
    assert [shards.key(i) for i in range(10)] == NAMES
    assert set(shards[5]) == {"rgb", "caption"} and set(shards[6]) == {"rgb", "depth", "caption"}
    assert (
        shards[6]["rgb"].shape == (8, 8, 3) and (shards[6]["depth"] == 6).all() and shards[6]["caption"] == "number 6"
    )


def test_texts_that_are_cut_or_not_restored_are_told(root: Path, catalog: Catalog) -> None:
    assert run(root, catalog).texts == []
    (root / "caption" / f"{NAMES[0]}.txt").write_text("Größe 3.14 of 日本語", encoding="utf-8")
    (cut,) = run(root, catalog).texts
    assert cut.startswith(
        "caption: 10% of 10 texts are longer than max_tokens 9 and are cut: 'Größe 3.14 of 日本語' has"
    )
    words = dataclasses.replace(catalog.vocabularies["text"], type="wordpiece")
    report = run(root, Catalog(catalog.values(), [words], "own.yaml"))
    told = "caption: 10% of 10 texts are not restored exactly by the vocabulary 'text' of type 'wordpiece': 'Größe 3.14 of 日本語' becomes 'große 3. 14 of 日 本 語'"
    assert report.texts[0].startswith(told) and report.texts[0] in str(report)


def test_metadata_keys_that_are_unknown_or_never_seen_are_counted(root: Path, catalog: Catalog) -> None:
    keys = {name: Key(id, (0, 10)) for id, name in enumerate(("brightness", "wind", "hour"))}
    value = Metadata(keys=keys)
    entry = Modality("facts", 10, "sequence", value, max_tokens=9, vocabulary="text", chunk=2)
    wider = Catalog([*catalog.values(), entry], catalog.vocabularies.values(), "own.yaml")
    (root / "facts" / "set").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        content = {
            "brightness" if i % 2 else "bright_ness": 1,
            "hour": 3,
            "note": "x",
            **({"extra": 1} if i == 3 else {}),
        }
        (root / "facts" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    said = str(run(root, wider)).splitlines()
    for line in (
        "facts: the key 'wind' is missing: 10 (all)",
        "facts: the key 'brightness' is missing: 5",
        "facts: the unknown key 'bright_ness' is ignored; did you mean 'brightness'?: 5",
        "facts: the unknown key 'note' is ignored: 10 (all)",
        "facts: the unknown key 'extra' is ignored: 1",
    ):
        assert line in said
    assert not any("'hour'" in line for line in said)
    many = {f"k{i}": 0 for i in range(99)}
    (root / "facts" / f"{NAMES[0]}.json").write_text(json.dumps({"hour": 1, **many}), encoding="utf-8")
    said = str(run(root, wider)).splitlines()
    assert "facts: more than 20 unknown keys are ignored: 1" in said and sum("unknown key 'k" in s for s in said) == 20


def test_the_same_folders_give_the_same_bytes(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    import_folders(root, tmp_path / "a", catalog, shard_size=4)
    import_folders(root, tmp_path / "b", catalog, shard_size=4, jobs=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_second_run_keeps_everything_and_a_changed_file_redoes_its_shard_alone(root: Path, catalog: Catalog) -> None:
    run(root, catalog)
    times = {path: path.stat().st_mtime_ns for path in (root.parent / "out").rglob("*.tar")}
    assert run(root, catalog).kept == 3
    (root / "caption" / f"{NAMES[5]}.txt").write_text("another caption", encoding="utf-8")
    assert run(root, catalog).kept == 2
    assert {path.stem for path, then in times.items() if path.stat().st_mtime_ns != then} == {"shard-00001"}
    assert Shards(root.parent / "out", catalog)[5]["caption"] == "another caption"


def test_fewer_files_leave_no_old_shards(root: Path, catalog: Catalog) -> None:
    run(root, catalog)
    for name in NAMES[4:]:
        for path in root.glob(f"*/{name}.*"):
            path.unlink()
    run(root, catalog)
    assert len(Shards(root.parent / "out", catalog)) == 4
    assert {path.stem for path in (root.parent / "out").rglob("*.tar")} == {"shard-00000"}


def test_a_damaged_shard_is_written_again(root: Path, catalog: Catalog) -> None:
    run(root, catalog)
    tar = root.parent / "out" / "rgb" / "shard-00002.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700])
    assert run(root, catalog).kept == 2
    assert tar.read_bytes() == whole


def test_files_of_other_fields_are_imported_as_they_are(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    import h5py
    import zarr

    for i, name in enumerate(NAMES):
        (root / "depth" / f"{name}.npy").unlink()
        if i % 2:
            with h5py.File(root / "depth" / f"{name}.h5", "w") as file:
                file["far"] = np.full((8, 12), i % 9, np.float32)
        else:
            with zarr.storage.ZipStore(root / "depth" / f"{name}.zarr.zip", mode="w") as store:
                zarr.create_array(store, data=np.full((8, 12), i % 9, np.float32))
    assert run(root, catalog).per_modality == {"rgb": 10, "depth": 10, "caption": 10}
    shards = Shards(tmp_path / "out", catalog)
    assert [shards[i]["depth"].mean() for i in range(10)] == [i % 9 for i in range(10)]
    with tarfile.open(tmp_path / "out" / "depth" / "shard-00000.tar") as tar:
        stored = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert stored[f"{NAMES[0]}.zarr.zip"] == (root / "depth" / f"{NAMES[0]}.zarr.zip").read_bytes()


def test_odd_but_safe_names_come_back(root: Path, catalog: Catalog) -> None:
    odd = "set/Straße nach Überall, 1.5 km (" + "x" * 120 + ")"
    write(root, [*NAMES, odd])
    run(root, catalog)
    shards = Shards(root.parent / "out", catalog)
    place = [shards.key(i) for i in range(len(shards))].index(odd)
    assert shards[place]["caption"] == "number 10"


def test_labels_are_read_from_the_names_of_samples(tmp_path: Path) -> None:
    patterned = {"type": "label", "classes": ["cat", "dog"], "name_pattern": "^([^/]+)/"}
    content = {
        "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
        "kind": {"id": 2, "kind": "grid", "value": patterned},
    }
    catalog = catalog_from({"modalities": content}, "own.yaml")
    for name in ("cat/0", "cat/1", "dog/0", "cow/0", "loose"):
        path = tmp_path / "in" / "rgb" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    (tmp_path / "in" / "kind").mkdir()
    report = import_folders(tmp_path / "in", tmp_path / "out", catalog, limit=1)
    assert report.per_modality == {"rgb": 5, "kind": 3}
    shards = Shards(tmp_path / "out", catalog)
    assert {shards.key(i): shards[i]["kind"] for i in range(5) if "kind" in shards[i]} == {
        "cat/0": "cat",
        "cat/1": "cat",
        "dog/0": "dog",
    }
    reasons = {fault.key: fault.reason for fault in report.faults.dropped}
    assert "name 'cow/0': found 'cow'; expected one of the entry's 2 classes: cat, dog" in reasons["cow/0"]
    assert "name 'loose': found no match; expected value.name_pattern" in reasons["loose"]
    assert [note for note in report.notes if "its entry reads the names of samples" in note]


def test_parts_of_an_import_make_the_whole(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    (root / "rgb" / f"{NAMES[4]}.png").write_bytes(b"no picture")
    last = check_parts(
        lambda out, part: import_folders(root, out, catalog, shard_size=4, limit=0.2, part=part), tmp_path
    )
    assert last.samples == 10 and len(last.faults.dropped) == 1 and not last.unfinished


# crashes


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_full_disk_leaves_nothing_half_written_and_old_shards_whole(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run(root, catalog)
    out = root.parent / "out"
    before = contents(out)
    (root / "caption" / f"{NAMES[1]}.txt").write_text("changed", encoding="utf-8")
    real, count = tarfile.TarFile.addfile, 0

    def full(self: tarfile.TarFile, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(FullDisk, match=r"no space left while writing .*shard-00000\.tar"):
            run(root, catalog)
    assert contents(out) == before
    assert Shards(out, catalog)[1]["caption"] == "number 1"
    assert run(root, catalog).kept == 2
    assert Shards(out, catalog)[1]["caption"] == "changed"


def test_a_disk_that_fills_at_the_very_end_of_a_tar_leaves_all_old_shards(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, catalog)
    before = contents(root.parent / "out")
    (root / "caption" / f"{NAMES[1]}.txt").write_text("changed", encoding="utf-8")
    real, count = tarfile.TarFile.close, 0

    def full(self: tarfile.TarFile) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "close", full)
        with pytest.raises(FullDisk):
            run(root, catalog)
    assert contents(root.parent / "out") == before


def test_a_killed_import_goes_on_with_the_finished_shards_kept(tmp_path: Path) -> None:
    write(tmp_path / "in", [f"{i:04d}" for i in range(60)])
    deadly = f"""
import os, signal
from maskweave.data import folders
from maskweave.modality.catalogs import load_catalog
read_bytes = folders.read_bytes
def read_or_die(path):
    if "0025" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_bytes(path)
folders.read_bytes = read_or_die
folders.import_folders({str(tmp_path / "in")!r}, {str(tmp_path / "out")!r}, load_catalog("scenes"), shard_size=10)
"""
    killed = subprocess.run([sys.executable, "-c", deadly], stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    assert not (out / "index.json").exists()
    left_aside(out / "rgb" / "shard-00002.tar").write_text(
        "half", encoding="utf-8"
    )  # as a kill in the middle leaves it
    from maskweave.modality.catalogs import load_catalog

    done = {path: path.stat().st_mtime_ns for path in out.glob("*/shard-0000[01].tar")}
    report = import_folders(tmp_path / "in", out, load_catalog("scenes"), shard_size=10)
    assert report.kept == 2 and report.samples == 60
    assert done and all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert not list(out.rglob("*.partial"))
    fresh = tmp_path / "fresh"
    import_folders(tmp_path / "in", fresh, load_catalog("scenes"), shard_size=10)
    assert contents(fresh) == contents(out)
