"""WebDataset tars: fields after the first dot, plain and compressed, damaged ones."""

import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leftovers import NO_PROCESS
from PIL import Image

from maskweave import locks, system
from maskweave.data import webdataset
from maskweave.data.import_source import import_data
from maskweave.data.opening import open_data
from maskweave.data.shards import Shards
from maskweave.data.source import Source
from maskweave.data.webdataset import WebTars, split_field, unpacked
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source

ENTRIES = {
    "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "tok_rgb": {"id": 2, "kind": "grid", "source": "rgb", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "seg": {"id": 3, "kind": "grid", "grid": [2, 2], "value": {"type": "classes", "size": [8, 8], "classes": ["a", "b", "c"]}},
    "caption": {"id": 7, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}},
}  # fmt: skip
CONTENT = {"vocabularies": {"text": {"size": 600}}, "modalities": ENTRIES}
FIELDS = {"rgb": "jpg;png", "caption": "txt"}


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from(CONTENT, "own.yaml")


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def samples(start: int, count: int = 3) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(start, start + count):
        members |= {
            f"set/{i:03d}.png": png(i),
            f"set/{i:03d}.seg.png": png(i % 3),
            f"set/{i:03d}.txt": f"number {i}".encode(),
            f"set/{i:03d}.json": b"{}",
        }
    return members


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_all_parts_of_a_sample_are_in_one_tar(tmp_path: Path, catalog: Catalog, ending: str) -> None:
    for i in range(2):
        write(tmp_path / "web" / f"a-{i:04d}.{ending}", samples(3 * i))
    data: Any = open_data(str(tmp_path / "web"), catalog, fields=FIELDS)
    assert isinstance(data, WebTars) and isinstance(data, Source)
    assert data.names == ("rgb", "seg", "caption") and len(data) == 6
    for source in (data, pickle.loads(pickle.dumps(data))):  # as worker processes get it
        for i in range(6):
            sample = source[i]
            assert source.key(i) == f"set/{i:03d}" and sample["caption"] == f"number {i}"
            assert (sample["rgb"] == i).all() and (sample["seg"] == i % 3).all()
    with pytest.raises(IndexError):
        data[6]


def test_one_tar_alone_and_a_part_that_is_missing(tmp_path: Path, catalog: Catalog) -> None:
    members = samples(0)
    del members["set/001.seg.png"]
    write(tmp_path / "x.tar", members)
    data = open_data(str(tmp_path / "x.tar"), catalog, fields=FIELDS)
    assert [sorted(data[i]) for i in range(3)] == [
        ["caption", "rgb", "seg"],
        ["caption", "rgb"],
        ["caption", "rgb", "seg"],
    ]


def test_the_field_is_what_follows_the_first_dot() -> None:
    assert split_field("a.b/c.22.05.Seg.PNG") == ("a.b/c", "22.05.seg.png")
    assert split_field("c.jpg") == ("c", "jpg") and split_field("README") == ("README", "")


def test_names_of_several_dots_and_texts_of_classes(tmp_path: Path, catalog: Catalog) -> None:
    write(tmp_path / "web" / "x.tar", {"a.22.05.seg.png": png(2), "a.22.05.jpg": png(9), "a.cls": b"cat"})
    fields = {"rgb": "22.05.jpg", "seg": "22.05.seg.png", "caption": "cls"}
    sample = WebTars(tmp_path / "web", catalog, fields)[0]
    assert sample["caption"] == "cat" and (sample["seg"] == 2).all() and (sample["rgb"] == 9).all()


def test_same_names_in_two_tars(tmp_path: Path, catalog: Catalog) -> None:
    for name in ("a.tar", "b.tar.gz"):
        write(tmp_path / "web" / name, samples(0))
    data = WebTars(tmp_path / "web", catalog, FIELDS)
    assert [data.key(i) for i in (0, 3)] == ["a/set/000", "b/set/000"]


def test_wrong_fields_are_told_with_those_found(tmp_path: Path, catalog: Catalog) -> None:
    write(tmp_path / "web" / "x.tar", {f"{i}.{field}": png(1) for i in range(2) for field in ("jpg", "mask.png")})
    place = str(tmp_path / "web")
    with pytest.raises(
        MaskweaveError,
        match=r"web: no field is named like a modality \(rgb, seg, caption\); found the fields jpg \(2\), mask.png \(2\); set data.fields",
    ):
        open_data(place, catalog)
    with pytest.raises(MaskweaveError, match=r"no sample has the field 'jpeg' of rgb; found the fields jpg \(2\)"):
        open_data(place, catalog, fields={"rgb": "jpeg"})
    with pytest.raises(
        MaskweaveError, match="data.fields has 'tok_rgb'; expected modalities of the catalog: rgb, seg, caption"
    ):
        open_data(place, catalog, fields={"tok_rgb": "jpg"})
    with pytest.raises(
        MaskweaveError, match="data.fields.seg: a field that ends in 'jpg' cannot hold values of type 'classes'"
    ):
        open_data(place, catalog, fields={"seg": "jpg"})
    (tmp_path / "plain").mkdir()
    with pytest.raises(MaskweaveError, match="data.fields is for WebDataset tars"):
        open_data(str(tmp_path / "plain"), catalog, fields=FIELDS)
    with pytest.raises(MaskweaveError, match="contains no tars"):
        WebTars(tmp_path / "plain", catalog)


def test_tars_beside_tars_of_each_modality_are_ambiguous(tmp_path: Path, catalog: Catalog) -> None:
    for name in ("x.tar", "rgb/x.tar"):
        write(tmp_path / "web" / name, {"a.png": png(1)})
    with pytest.raises(
        MaskweaveError, match=r"tars of all modalities \(x.tar\) and a folder of tars for each modality"
    ):
        open_data(str(tmp_path / "web"), catalog, fields={"rgb": "png"})


def test_two_fields_for_one_modality_and_a_bad_part(tmp_path: Path, catalog: Catalog) -> None:
    write(tmp_path / "web" / "x.tar", {"a.jpg": png(1), "a.png": png(1), "b.png": b"no picture", "c.png": png(3)})
    data = WebTars(tmp_path / "web", catalog, {"rgb": "jpg;png"})
    with pytest.raises(BadSample, match=r"x.tar: a has two fields for rgb; expected one; keep one"):
        data[0]
    with pytest.raises(BadSample, match=r"x.tar: b \(rgb, png\): corrupt or truncated png picture"):
        data[1]
    assert (data[2]["rgb"] == 3).all()


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.filterwarnings("ignore")
def test_of_a_truncated_tar_the_rest_is_read(tmp_path: Path, catalog: Catalog, ending: str) -> None:
    path = tmp_path / "web" / f"x.{ending}"
    rng, members = np.random.default_rng(0), {}
    for i in range(10):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(buffer, "PNG")
        members[f"{i}.png"] = buffer.getvalue()
    write(path, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    data = WebTars(path.parent, catalog, {"rgb": "png"})
    assert 3 <= len(data) <= 6 and any(f"x.{ending}" in problem for problem in data.problems)
    assert data[0]["rgb"].shape == (8, 8, 3)
    with pytest.raises(BadSample, match=f"x.{ending}: member '{len(data) - 1}.png' is cut off"):
        data[len(data) - 1]


def test_what_is_no_gzip(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"hello")
    with (
        pytest.warns(UserWarning, match=r"x.tar.gz: damaged or truncated after 0 unpacked bytes"),
        pytest.raises(MaskweaveError, match="found the fields none"),
    ):
        WebTars(tmp_path, catalog, {})


def test_a_member_is_never_cut_silently(tmp_path: Path, catalog: Catalog) -> None:
    for place, name in ((tmp_path / "web", "0.txt"), (tmp_path / "shards" / "caption", "0.txt")):
        write(place / "x.tar", {name: b"number one " * 500})
    web, shards = WebTars(tmp_path / "web", catalog, {"caption": "txt"}), Shards(tmp_path / "shards", catalog)
    for source, path in ((web, tmp_path / "web" / "x.tar"), (shards, tmp_path / "shards" / "caption" / "x.tar")):
        with open(path, "r+b") as file:
            file.truncate(600)
        with pytest.raises(BadSample, match="x.tar: .*88 of 5,500 bytes"):
            source[0]


RECIPE = """\
catalog: own.yaml
data: {source: WEB, validation: 2, fields: {rgb: png, CAPTION: txt}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 8, target_tokens: 8}}
train: {steps: 1}
"""


def test_fields_of_a_recipe(tmp_path: Path) -> None:
    import yaml

    write(tmp_path / "web" / "x.tar.gz", samples(0, 6))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False), encoding="utf-8")
    for caption in ("caption", "captoin"):
        text = RECIPE.replace("WEB", str(tmp_path / "web")).replace("CAPTION", caption)
        (tmp_path / f"{caption}.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "caption.yaml")
    train, held_out = (open_source(recipe, recipe.load_catalog(), part) for part in ("train", "validation"))
    assert [len(train), len(held_out)] == [4, 2]
    assert held_out[1]["caption"] == f"number {int(held_out.key(1)[-3:])}"
    few = recipe.load_catalog().subset(["seg"])
    assert open_source(recipe, few, "train")[0].keys() == {"seg"}, "fields of other modalities are not needed"
    with pytest.raises(
        MaskweaveError,
        match=r"data.fields has 'captoin', which is no modality of .*own.yaml; expected some of rgb, tok_rgb, seg, caption",
    ):
        load_recipe(tmp_path / "captoin.yaml")
    catalog = recipe.load_catalog()
    (tmp_path / "own.yaml").unlink()  # a run has its own copy of the entries
    assert len(open_source(recipe, catalog, "validation")) == 2


def test_gzip_of_members_is_checked(tmp_path: Path, catalog: Catalog) -> None:
    write(tmp_path / "web" / "x.tar.gz", samples(0))
    content = bytearray((tmp_path / "web" / "x.tar.gz").read_bytes())
    content[-8] ^= 0xFF  # the checksum
    (tmp_path / "web" / "x.tar.gz").write_bytes(content)
    with pytest.raises(gzip.BadGzipFile), gzip.open(tmp_path / "web" / "x.tar.gz") as stream:
        stream.read()
    with pytest.warns(UserWarning, match="x.tar.gz: damaged or truncated"):
        WebTars(tmp_path / "web", catalog, FIELDS)


def test_a_tar_that_fills_the_disk(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB of zeros in 100 KB; of a disk of 1000 MB, 150 MB are free."""
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        for _ in range(100):
            file.write(bytes(2**20))
    disk, folder = shutil.disk_usage("/"), webdataset._folder()
    before = {*folder.iterdir()}

    def usage(path: Path) -> Any:
        written = sum(file.stat().st_size for file in folder.iterdir() if file not in before)
        return disk._replace(total=1000 * 2**20, free=150 * 2**20 - written)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(
        MaskweaveError, match=r"after 67,\d+,\d+ bytes, less than 10% of the disk is free.*free some space"
    ):
        WebTars(tmp_path, catalog)
    assert {*folder.iterdir()} == before, "what was written is removed"


def test_an_import_notices_other_fields(tmp_path: Path, catalog: Catalog) -> None:
    members = {"a.png": png(1), "a.txt": b"one", "a.alt.txt": b"two"}
    write(tmp_path / "in/a.tar", members)
    for field, kept, text in (("txt", 0, "one"), ("txt", 1, "one"), ("alt.txt", 0, "two")):
        fields = {"rgb": "png", "caption": field}
        assert import_data(str(tmp_path / "in"), tmp_path / "out", catalog, fields=fields).kept == kept
        assert Shards(tmp_path / "out", catalog)[0]["caption"] == text


def test_unpacked_tars_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(webdataset.SHARED, "")
    own, parent = (f"{locks.machine()}.{process}" for process in (os.getpid(), os.getppid()))
    dead = [f"{locks.machine()}.{NO_PROCESS}.1", f"{own}.{system.start_of(os.getpid()) + 1}"]
    living = [f"{parent}.{system.start_of(os.getppid())}", f"elsewhere-1.{NO_PROCESS}.1", "other"]
    for writer in (*dead, *living):
        (tmp_path / f"maskweave-tars.{writer}.0123abcd").mkdir()
        (tmp_path / f"maskweave-tars.{writer}.0123abcd" / "x.tar").touch()
    folder = webdataset._folder.__wrapped__()
    kept = {path.name.removesuffix(".0123abcd") for path in tmp_path.iterdir() if path != folder}
    assert kept == {f"maskweave-tars.{writer}" for writer in living}
    found = locks.split_signed(folder.name)
    assert found is not None and found[1].process == os.getpid(), "another process does not remove this one's"


def test_started_processes_share_unpacked_tars_and_changed_ones_are_unpacked_again(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    write(path, samples(0, 3))
    plain = unpacked(path, path.stat().st_mtime_ns)
    code = "import sys, pathlib; from maskweave.data.webdataset import unpacked; p = pathlib.Path(sys.argv[1]); print(unpacked(p, p.stat().st_mtime_ns))"
    before = plain.stat().st_ino
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(plain) and plain.stat().st_ino == before, "not written again, not removed at its exit"
    write(path, samples(0, 5))
    again = unpacked(path, path.stat().st_mtime_ns)
    assert again != plain and again.stat().st_size > plain.stat().st_size
