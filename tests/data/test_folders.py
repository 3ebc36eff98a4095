"""Aligned folders to tar shards: what is written, what is refused, and what survives a crash."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_helpers import lacking
from job_parts import check_parts
from leftovers import left_aside
from PIL import Image

from maskweave.data.folders import ImportReport, import_folders
from maskweave.data.shards import Shards
from maskweave.errors import FullDisk, MaskweaveError
from maskweave.files import read_json, read_json_lines
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import Modality
from maskweave.values.metadata import Key, Metadata

NAMES = [f"set/{i:03d}" for i in range(10)]


@pytest.fixture
def catalog() -> Catalog:
    content = {
        "vocabularies": {"text": {"size": 600}},
        "modalities": {
            "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
            "tok_rgb": {"id": 2, "kind": "grid", "source": "rgb", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
            "depth": {"id": 3, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 9], "unit": "m", "fit": "crop"}},
            "caption": {"id": 7, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}},
        },
    }  # fmt: skip
    return catalog_from(content, "own.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    write(root, NAMES)
    return root


def write(root: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        for folder in ("rgb", "depth", "caption"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), i % 256, np.uint8)).save(root / "rgb" / f"{name}.png")
        np.save(root / "depth" / f"{name}.npy", np.full((8, 12), i % 9, np.float32))
        (root / "caption" / f"{name}.txt").write_text(f"number {i}")


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def run(root: Path, catalog: Catalog, **options: Any) -> ImportReport:
    return import_folders(root, root.parent / "out", catalog, **{"shard_size": 4, **options})


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
    (root / "caption" / f"{NAMES[0]}.txt").write_text("Größe 3.14 of 日本語")
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
        (root / "facts" / f"{name}.json").write_text(json.dumps(content))
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
    (root / "facts" / f"{NAMES[0]}.json").write_text(json.dumps({"hour": 1, **many}))
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
    (root / "caption" / f"{NAMES[5]}.txt").write_text("another caption")
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


# what cannot be imported


def test_missing_root(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="no such folder; expected a folder with one folder per modality"):
        run(tmp_path / "in", catalog)


def test_empty_root(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(
        MaskweaveError, match=r"is empty; expected folders named like the entries of own\.yaml: rgb, depth, caption"
    ):
        run(tmp_path / "in", catalog)


def test_root_of_unknown_folders(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "in" / "pictures").mkdir(parents=True)
    with pytest.raises(MaskweaveError, match="contains the folders pictures; expected folders named"):
        run(tmp_path / "in", catalog)


def test_folders_that_no_entry_reads_are_named(root: Path, catalog: Catalog) -> None:
    for name in ("thermal", "tok_rgb"):
        (root / name).mkdir()
    notes = "\n".join(run(root, catalog).notes)
    assert (
        "thermal: ignored: no entry of own.yaml has this name" in notes
        and "tok_rgb: ignored: its entry reads rgb/" in notes
    )


def test_a_folder_without_files(root: Path, catalog: Catalog) -> None:
    shutil.rmtree(root / "depth" / "set")
    with pytest.raises(
        MaskweaveError, match=r"depth: contains no files; expected map values as NAME\.EXT with EXT one of npy, npz"
    ):
        run(root, catalog)


def test_a_folder_without_matching_names(root: Path, catalog: Catalog) -> None:
    (root / "depth" / "set").rename(root / "depth" / "other")
    with pytest.raises(
        MaskweaveError,
        match=r"depth: none of its 10 file names \(other/000, other/001\) occurs in the folder of another.*rgb/: set/000",
    ):
        run(root, catalog)


def test_a_folder_of_unsupported_endings(root: Path, catalog: Catalog) -> None:
    for path in (root / "depth").rglob("*.npy"):
        path.rename(path.with_suffix(".exr"))
    with pytest.raises(MaskweaveError, match="10 files, none of them usable; expected map values"):
        run(root, catalog)


def test_an_unsupported_ending_is_a_fault_where_the_sample_exists_and_a_note_elsewhere(
    root: Path, catalog: Catalog
) -> None:
    (root / "depth" / f"{NAMES[3]}.npy").rename(root / "depth" / f"{NAMES[3]}.exr")
    (root / "depth" / "README.txt").write_text("about")
    (root / "depth" / ".DS_Store").write_text("")
    report = run(root, catalog, limit=0.1)
    assert [key for key, _ in report.faults.skipped] == [
        NAMES[3]
    ] and "ending cannot hold values of type 'map'" in report.faults.skipped[0][1]
    assert ["README.txt" in note for note in report.notes] == [True]


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


def test_a_zarr_folder_is_a_fault_that_says_how_to_pack_it(root: Path, catalog: Catalog) -> None:
    import zarr

    (root / "depth" / f"{NAMES[3]}.npy").unlink()
    zarr.create_array(root / "depth" / f"{NAMES[3]}.zarr", data=np.ones((8, 12), np.float32))
    report = run(root, catalog, limit=0.1)
    assert report.faults.skipped == [
        (
            NAMES[3],
            f"{root}/depth/set/003.zarr: found a Zarr folder; expected one file; pack it: cd 003.zarr && zip -0r ../003.zarr.zip .",
        )
    ]
    shutil.rmtree(root / "depth" / "set")
    zarr.create_array(root / "depth" / f"{NAMES[3]}.zarr", data=np.ones((8, 12), np.float32))
    with pytest.raises(MaskweaveError, match="003.zarr: found a Zarr folder; expected one file; pack it"):
        run(root, catalog)


def test_a_missing_package_stops_the_import(root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "depth" / f"{NAMES[3]}.npy").rename(root / "depth" / f"{NAMES[3]}.fits")
    lacking("astropy", monkeypatch)
    with pytest.raises(
        MaskweaveError, match=r"003.fits: reading this file needs astropy.*pip install 'maskweave\[astro\]'"
    ):
        run(root, catalog, limit=1.0)


def test_two_files_for_one_name(root: Path, catalog: Catalog) -> None:
    shutil.copy(root / "rgb" / f"{NAMES[0]}.png", root / "rgb" / f"{NAMES[0]}.jpg")
    report = run(root, catalog, limit=0.1)
    assert "two files for one name: set/000.jpg and set/000.png; keep one" in report.faults.skipped[0][1]


def test_links_are_not_followed(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (root / "caption" / "set" / "link.txt").symlink_to(secret)
    (root / "caption" / "all").symlink_to(tmp_path)
    report = run(root, catalog)
    assert report.samples == 10 and len([note for note in report.notes if "it is a link" in note]) == 2
    assert b"secret" not in b"".join(contents(tmp_path / "out").values())
    (root / "depth").rename(tmp_path / "elsewhere")
    (root / "depth").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MaskweaveError, match="depth: is a link, and links are not followed"):
        run(root, catalog)


@pytest.mark.parametrize("name", ["a\nb", "a\\..\\b", os.fsdecode(b"a\xff")])
def test_unsafe_names_are_faults(root: Path, catalog: Catalog, name: str) -> None:
    (root / "caption" / f"{name}.txt").write_text("x")
    (root / "caption" / f"{name}.md").write_text("x")
    report = run(root, catalog, limit=0.1)
    assert report.samples == 10 and "rename it" in report.faults.skipped[0][1]
    str(report).encode()


def test_odd_but_safe_names_come_back(root: Path, catalog: Catalog) -> None:
    odd = "set/Straße nach Überall, 1.5 km (" + "x" * 120 + ")"
    write(root, [*NAMES, odd])
    run(root, catalog)
    shards = Shards(root.parent / "out", catalog)
    place = [shards.key(i) for i in range(len(shards))].index(odd)
    assert shards[place]["caption"] == "number 10"


def test_out_inside_root_or_in_use(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="choose a folder outside"):
        import_folders(root, root / "out", catalog)
    (tmp_path / "mine" / "rgb").mkdir(parents=True)
    with pytest.raises(MaskweaveError, match="already contains files that no import wrote"):
        import_folders(root, tmp_path / "mine", catalog)
    (tmp_path / "file").write_text("")
    with pytest.raises(MaskweaveError, match="is a file"):
        import_folders(root, tmp_path / "file", catalog)


# bad samples


def test_one_bad_sample_in_two_hundred_is_skipped_and_named(tmp_path: Path, catalog: Catalog) -> None:
    names = [f"{i:03d}" for i in range(200)]
    write(tmp_path / "in", names)
    picture = tmp_path / "in" / "rgb" / "123.png"
    picture.write_bytes(picture.read_bytes()[:60])
    report = run(tmp_path / "in", catalog, shard_size=50, bad="sample")
    assert report.samples == 199 and report.faults.skipped[0][0] == "123"
    assert "rgb/123.png: corrupt or truncated png picture of 60 bytes" in str(report)
    again = run(tmp_path / "in", catalog, shard_size=50, bad="sample")
    assert again.kept == 4 and again.faults.skipped == report.faults.skipped


def test_a_bad_part_is_dropped_from_its_sample(root: Path, catalog: Catalog) -> None:
    picture = root / "rgb" / f"{NAMES[5]}.png"
    picture.write_bytes(picture.read_bytes()[:60])
    for name in NAMES[5:9]:
        (root / "depth" / f"{name}.npy").write_bytes(b"none")
    report = run(root, catalog, limit=0.5)
    assert report.samples == 10 and report.per_modality == {"rgb": 9, "depth": 6, "caption": 10}
    assert not report.faults.skipped and [fault.modality for fault in report.faults.dropped].count("depth") == 4
    said = str(report)
    assert "dropped 5 values of 4 samples" in said and "\n  depth: 4 values, such as set/005: " in said
    assert "; set/006: " in said and "; set/007: " not in said, "two examples"
    assert "rgb/set/005.png: corrupt or truncated" in said
    assert set(Shards(root.parent / "out", catalog)[5]) == {"caption"}
    again = run(root, catalog, limit=0.5)
    assert again.kept == 3 and again.faults.faults == report.faults.faults
    rows = list(read_json_lines(root.parent / "out" / "skipped.jsonl"))
    assert [row[0::2] for row in rows[:2]] == [["set/005", "rgb"], ["set/005", "depth"]]
    with pytest.raises(MaskweaveError, match="4 of 10 samples have unusable values"):
        run(root, catalog, limit=0.3)
    assert run(root, catalog, limit=0.5, bad="sample").samples == 6


def test_parts_that_say_nothing_are_missing(root: Path, catalog: Catalog) -> None:
    (root / "caption" / f"{NAMES[0]}.txt").write_text("")
    (root / "caption" / f"{NAMES[1]}.txt").write_text(" \n ")
    (root / "caption" / f"{NAMES[2]}.txt").unlink()
    (root / "caption" / f"{NAMES[2]}.json").write_text("null")
    report = run(root, catalog)
    assert report.samples == 10 and report.per_modality["caption"] == 7 and not report.faults.faults
    assert "caption: values that say nothing count as missing: 3" in str(report)
    assert str(run(root, catalog)).count("count as missing: 3") == 1, "also of what is kept"


@pytest.mark.parametrize("limit", [0.01, 1.0])
def test_an_import_that_keeps_nothing_fails(root: Path, catalog: Catalog, limit: float) -> None:
    for path in [p for p in root.rglob("*.*") if p.is_file()]:
        path.write_bytes(b"\x00")
    with pytest.raises(MaskweaveError, match=r"no sample can be imported|10 of 10 samples are unusable"):
        run(root, catalog, limit=limit)
    assert not (root.parent / "out" / "index.json").exists()


def test_reasons_lie_beside_the_index_and_never_lock_it(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "0.0001")
    write(tmp_path / "in", [f"{i:03d}" for i in range(40)])
    for i in range(20):
        (tmp_path / "in" / "rgb" / f"{i:03d}.png").write_bytes(b"none")
    report = run(tmp_path / "in", catalog, shard_size=20, limit=1, bad="sample")
    out = tmp_path / "out"
    index = read_json(out / "index.json", limit=None)
    assert index["skipped"] == len(report.faults.skipped) == 20
    assert (out / "index.json").stat().st_size > 0.0001 * 2**20 and str(out / "skipped.jsonl") in str(report)
    assert [(key, why) for key, why in read_json_lines(out / "skipped.jsonl")] == report.faults.skipped
    assert read_json(out / ".index" / "shard-00000.json", limit=None)["skipped"] == 20
    assert sorted(path.name for path in (out / ".index").glob("*.jsonl")) == ["shard-00000.skipped.jsonl"]
    assert len(Shards(out, catalog)) == 20
    again = run(tmp_path / "in", catalog, shard_size=20, limit=1, bad="sample")
    assert again.kept == 2 and again.faults.skipped == report.faults.skipped
    (out / ".index" / "shard-00000.skipped.jsonl").unlink()
    lost = run(tmp_path / "in", catalog, shard_size=20, limit=1, bad="sample").faults.skipped
    assert len(lost) == 20 and "shard-00000.skipped.jsonl is missing or damaged" in lost[0][1]


def test_too_many_bad_samples_stop_the_job(tmp_path: Path, catalog: Catalog) -> None:
    names = [f"{i:03d}" for i in range(300)]
    write(tmp_path / "in", names)
    for name in names[100:110]:
        np.save(tmp_path / "in" / "depth" / f"{name}.npy", np.full((8, 12), np.inf))
    with pytest.raises(
        MaskweaveError,
        match=r"(?s)10 of 150 samples have unusable values, more than the limit of 0.01.*depth/100\.npy: found 96 of 96 values NaN",
    ):
        run(tmp_path / "in", catalog, shard_size=50)
    out = tmp_path / "out"
    assert (out / "rgb" / "shard-00001.tar").exists() and not (out / "rgb" / "shard-00005.tar").exists()
    with pytest.raises(MaskweaveError, match="its import is not finished"):
        Shards(out, catalog)


def test_parts_that_show_different_views_are_a_fault(root: Path, catalog: Catalog) -> None:
    np.save(root / "depth" / f"{NAMES[2]}.npy", np.ones((12, 8), np.float32))
    report = run(root, catalog, limit=0.1)
    assert report.faults.skipped[0][0] == NAMES[2] and "aspect ratios must agree" in report.faults.skipped[0][1]


# crashes


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_full_disk_leaves_nothing_half_written_and_old_shards_whole(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run(root, catalog)
    out = root.parent / "out"
    before = contents(out)
    (root / "caption" / f"{NAMES[1]}.txt").write_text("changed")
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
    (root / "caption" / f"{NAMES[1]}.txt").write_text("changed")
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
    left_aside(out / "rgb" / "shard-00002.tar").write_text("half")  # as a kill in the middle leaves it
    from maskweave.modality.catalogs import load_catalog

    done = {path: path.stat().st_mtime_ns for path in out.glob("*/shard-0000[01].tar")}
    report = import_folders(tmp_path / "in", out, load_catalog("scenes"), shard_size=10)
    assert report.kept == 2 and report.samples == 60
    assert done and all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert not list(out.rglob("*.partial"))
    fresh = tmp_path / "fresh"
    import_folders(tmp_path / "in", fresh, load_catalog("scenes"), shard_size=10)
    assert contents(fresh) == contents(out)


# Values that names tell.


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
