"""Aligned folders to tar shards: what is refused, skipped or dropped."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from folder_helpers import NAMES, contents, photos, run, write
from format_helpers import lacking

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_json_lines
from maskweave.modality.catalogs import Catalog


@pytest.fixture
def catalog() -> Catalog:
    return photos()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "in", NAMES)
    return tmp_path / "in"


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
    (root / "depth" / "README.txt").write_text("about", encoding="utf-8")
    (root / "depth" / ".DS_Store").write_text("", encoding="utf-8")
    report = run(root, catalog, limit=0.1)
    assert [key for key, _ in report.faults.skipped] == [
        NAMES[3]
    ] and "ending cannot hold values of type 'map'" in report.faults.skipped[0][1]
    assert ["README.txt" in note for note in report.notes] == [True]


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
    secret.write_text("secret", encoding="utf-8")
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
    (root / "caption" / f"{name}.txt").write_text("x", encoding="utf-8")
    (root / "caption" / f"{name}.md").write_text("x", encoding="utf-8")
    report = run(root, catalog, limit=0.1)
    assert report.samples == 10 and "rename it" in report.faults.skipped[0][1]
    str(report).encode()


def test_out_inside_root_or_in_use(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="choose a folder outside"):
        import_folders(root, root / "out", catalog)
    (tmp_path / "mine" / "rgb").mkdir(parents=True)
    with pytest.raises(MaskweaveError, match="already contains files that no import wrote"):
        import_folders(root, tmp_path / "mine", catalog)
    (tmp_path / "file").write_text("", encoding="utf-8")
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
    (root / "caption" / f"{NAMES[0]}.txt").write_text("", encoding="utf-8")
    (root / "caption" / f"{NAMES[1]}.txt").write_text(" \n ", encoding="utf-8")
    (root / "caption" / f"{NAMES[2]}.txt").unlink()
    (root / "caption" / f"{NAMES[2]}.json").write_text("null", encoding="utf-8")
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
