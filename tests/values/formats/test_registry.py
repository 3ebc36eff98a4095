"""Endings and their readers: built-in ones, those of other packages, and what every type of value can read."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from format_helpers import stored, value

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values import formats
from maskweave.values.files import read_value

CACHED = (formats.installed, formats.array_endings, formats._long_endings, formats.reader)
READER = """\
import numpy as np
from maskweave.values.formats.base import Stored

def read(content, where, selection):
    return Stored(np.frombuffer(content, "u1").reshape(2, -1), np.frombuffer(content, "u1").reshape(2, -1) != 9)
"""


def install(site: Path, points: str) -> None:
    """As if another package were installed that declares these entry points."""
    info = site / "raw_files-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raw-files\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[maskweave.formats]\n{points}\n", encoding="utf-8")
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "raw_files.py").write_text(READER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    monkeypatch.undo()
    for cached in CACHED:
        cached.cache_clear()


def test_a_format_of_another_package(site: Path) -> None:
    install(site, "raw = raw_files:read\nraw.gz = raw_files:read")
    entry = value(type="classes", size=[2, 2], classes=["a", "b"])
    assert {"raw", "raw.gz"} <= set(entry.endings)
    (site / "scene.1.RAW.gz").write_bytes(b"\0\1\1\0")
    np.testing.assert_equal(read_value(site / "scene.1.RAW.gz", entry), [[0, 1], [1, 0]])
    np.testing.assert_equal(stored(b"\0\1\1\x09", "raw").ids(), [[0, 1], [1, -1]])
    assert formats.split_ending("scene.1.RAW.gz") == ("scene.1", "raw.gz")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("npy = raw_files:read", r"format 'npy' \(raw_files:read\): files with this ending have another reader"),
        ("RAW = raw_files:read", "format 'RAW' .*: expected an ending in lower case without a dot in front"),
        (
            "raw = no_such_package:read",
            r"format 'raw' \(no_such_package:read\): cannot be imported .*; fix or uninstall",
        ),
    ],
)
def test_a_bad_format_of_another_package(site: Path, points: str, message: str) -> None:
    install(site, points)
    with pytest.raises(MaskweaveError, match=message):
        stored(b"\0\1", "raw")


@pytest.mark.parametrize("ending", formats.BUILT_IN)
def test_every_ending_has_a_reader_that_refuses_what_it_cannot_read(ending: str) -> None:
    assert callable(formats.reader(ending))
    with pytest.raises(BadSample, match=f"^in/x.{ending}: "):
        stored(b"\xff\xfehello", ending)


def test_an_unknown_ending() -> None:
    with pytest.raises(MaskweaveError, match="no format reads files that end in 'exe'; known: npy, npz, "):
        stored(b"", "exe")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.npy", ("a", "npy")),
        ("a.b.NPY", ("a.b", "npy")),
        ("s/a.zarr.zip", ("s/a", "zarr.zip")),
        ("s/a.1.Zarr.ZIP", ("s/a.1", "zarr.zip")),
        ("a.zip", ("a", "zip")),
        ("s.d/a", ("s.d/a", "")),
        ("a", ("a", "")),
        (".npy", (".npy", "")),
        ("s/.zarr.zip", ("s/.zarr", "zip")),
    ],
)
def test_names_and_endings(name: str, parts: tuple[str, str]) -> None:
    assert formats.split_ending(name) == parts


def test_the_page_of_files_lists_every_ending() -> None:
    from maskweave.values.files import PICTURES
    from maskweave.values.formats.sound import SOUNDS

    page = (Path(__file__).parents[3] / "docs" / "files.md").read_text(encoding="utf-8")
    for ending in (*formats.BUILT_IN, *PICTURES, *SOUNDS, "json"):
        assert f"`.{ending}`" in page
    for extra in ("geo", "astro", "hdf", "av"):
        assert f"`[{extra}]`" in page


def test_readers_are_imported_when_a_file_is_read() -> None:
    module = importlib.import_module("maskweave.values.formats")
    assert all(reader.startswith("maskweave.values.formats.") for reader in module.BUILT_IN.values())
    import subprocess
    import sys

    program = (
        "import sys, maskweave.values; print([m for m in sys.modules if m.startswith('maskweave.values.formats.')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['maskweave.values.formats.base']"
