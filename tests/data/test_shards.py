"""Reading tar shards: by index, by scanning, damaged, and hostile."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards, scan
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog

SAMPLES = 12


def picture(i: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    for name in ("rgb", "caption"):
        (root / "in" / name).mkdir(parents=True)
    for i in range(SAMPLES):
        (root / "in" / "rgb" / f"{i:02d}.png").write_bytes(picture(i))
        if i != 3:
            (root / "in" / "caption" / f"{i:02d}.txt").write_text(f"number {i}", encoding="utf-8")
    import_folders(root / "in", root / "out", load_catalog("photos"), shard_size=5)
    return root / "out"


@pytest.fixture
def out(imported: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(imported, tmp_path / "out"))


@pytest.fixture
def published(out: Path) -> Path:
    """The same shards as other tools write them: tars alone."""
    shutil.rmtree(out / ".index")
    (out / "index.json").unlink()
    return out


@pytest.fixture(scope="module")
def photos() -> Catalog:
    return load_catalog("photos")


def add(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_random_access_in_any_order_and_in_other_processes(imported: Path, photos: Catalog) -> None:
    shards = Shards(imported, photos)
    assert isinstance(shards, Source) and shards.names == ("rgb", "caption") and len(shards) == SAMPLES
    copy = pickle.loads(pickle.dumps(shards))
    for i in (11, 0, 5, 4, 3):
        expected = np.asarray(Image.open(io.BytesIO(picture(i))))
        np.testing.assert_array_equal(shards[i]["rgb"], expected)
        np.testing.assert_array_equal(copy[i]["rgb"], expected)
        assert shards[i].get("caption") == (None if i == 3 else f"number {i}")
    for i in (-1, SAMPLES):
        with pytest.raises(IndexError):
            shards[i]
    assert sum(1 for _ in shards) == SAMPLES  # type: ignore[call-overload]


def test_reads_from_worker_processes(imported: Path, photos: Catalog) -> None:
    from torch.utils.data import DataLoader

    shards = Shards(imported, photos)
    loader = DataLoader(shards, batch_size=None, shuffle=False, num_workers=1, collate_fn=lambda x: x)  # type: ignore[arg-type]
    assert [sample.get("caption") for sample in loader] == [shards[i].get("caption") for i in range(SAMPLES)]


def test_shards_without_an_index_are_scanned(published: Path, photos: Catalog) -> None:
    shards = Shards(published, photos)
    assert [shards.key(i) for i in range(len(shards))] == [f"{i:02d}" for i in range(SAMPLES)]
    assert "caption" not in shards[3] and shards[4]["caption"] == "number 4"


def test_keys_that_repeat_in_other_shards_are_told_apart(tmp_path: Path, photos: Catalog) -> None:
    for shard in ("a", "b"):
        add(tmp_path / "caption" / f"{shard}.tar", (member("./000.txt"), shard.encode()))
    shards = Shards(tmp_path, photos)
    assert [(shards.key(i), shards[i]["caption"]) for i in range(2)] == [("a/000", "a"), ("b/000", "b")]


def test_folders_that_the_catalog_does_not_name_are_left_aside(imported: Path, photos: Catalog) -> None:
    assert set(Shards(imported, photos.subset(["caption"]))[0]) == {"caption"}


# damage


def test_a_corrupt_member_is_a_bad_sample_and_the_others_stay(out: Path, photos: Catalog) -> None:
    path = out / "rgb" / "shard-00001.tar"
    _, offset, size = scan(path).members["06"]
    content = bytearray(path.read_bytes())
    content[offset + 50 : offset + size - 50] = bytes(size - 100)
    path.write_bytes(content)
    shards = Shards(out, photos)
    with pytest.raises(BadSample, match=r"rgb/shard-00001\.tar: 06\.png: corrupt or truncated png"):
        shards[6]
    assert shards[5] and shards[7]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_truncated_tar_keeps_the_members_before_the_fault(out: Path, photos: Catalog, indexed: bool) -> None:
    if not indexed:
        shutil.rmtree(out / ".index")
    path = out / "rgb" / "shard-00001.tar"
    path.write_bytes(path.read_bytes()[: scan(path).members["07"][1] + 100])
    if indexed:
        shards = Shards(out, photos)
    else:
        with pytest.warns(UserWarning, match=r"shard-00001\.tar: truncated or damaged after 2 members"):
            shards = Shards(out, photos)
    assert len(shards) == SAMPLES and shards[6]["rgb"].shape == (64, 64, 3)
    with pytest.raises(BadSample, match=r"member '07\.png' is cut off"):
        shards[7]
    with pytest.raises(
        BadSample, match=r"rgb/shard-00001\.tar: truncated or damaged after 2 members, at byte .* restore this file"
    ):
        shards[8]
    assert any("truncated or damaged" in problem for problem in shards.problems)


def test_a_tar_cut_between_two_members_is_noticed(out: Path, photos: Catalog) -> None:
    path = out / "caption" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[: scan(path).members["02"][1] - 512])
    shards = Shards(out, photos)
    assert shards[1]["caption"] == "number 1"
    with pytest.raises(BadSample, match="no end mark"):
        shards[2]


def test_a_missing_or_swapped_tar_is_not_taken_for_missing_values(out: Path, photos: Catalog) -> None:
    (out / "caption" / "shard-00000.tar").unlink()
    add(out / "caption" / "shard-00001.tar", (member("05.txt"), b"hello"))
    shards = Shards(out, photos)
    with pytest.raises(BadSample, match="No such file"):
        shards[0]
    with pytest.raises(BadSample, match=r"10,240 bytes and 1 members; expected 10,240 and 5 as imported"):
        shards[6]


def test_noise_is_no_tar(tmp_path: Path, photos: Catalog) -> None:
    (tmp_path / "caption").mkdir()
    (tmp_path / "caption" / "shard-00000.tar").write_bytes(np.random.default_rng(0).bytes(5000))
    with (
        pytest.warns(UserWarning, match="truncated or damaged after 0 members"),
        pytest.raises(MaskweaveError, match="its tars have no samples; .*damaged after 0 members.*restore the tars"),
    ):
        Shards(tmp_path, photos)


def test_a_header_with_a_negative_size_ends_the_scan(tmp_path: Path) -> None:
    info = member("00.txt")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "shard.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    assert "truncated or damaged" in scan(path).damage


# hostile tars


def test_links_and_devices_are_refused(tmp_path: Path, photos: Catalog) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    members = [
        (member("a.txt", tarfile.SYMTYPE, str(tmp_path / "secret.txt")), b""),
        (member("b.txt", tarfile.LNKTYPE, "c.txt"), b""),
        (member("c.txt"), b"fine"),
        (member("d.txt", tarfile.CHRTYPE), b""),
        (member("e.txt", tarfile.FIFOTYPE), b""),
    ]
    add(tmp_path / "caption" / "shard-00000.tar", *members)
    shards = Shards(tmp_path, photos)
    for i in range(len(shards)):
        if shards.key(i) == "c":
            assert shards[i] == {"caption": "fine"}
        else:
            with pytest.raises(BadSample, match="is a link, device or sparse file; refused"):
                shards[i]
    assert len(shards) == 5


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a.txt", "x/../../a.txt", "x\\a.txt"])
def test_names_that_lead_out_are_refused(tmp_path: Path, photos: Catalog, name: str) -> None:
    add(tmp_path / "caption" / "shard-00000.tar", (member(name), b"bad"), (member("b.txt"), b"fine"))
    with pytest.warns(UserWarning, match="rename it"):
        shards = Shards(tmp_path, photos)
    assert [shards.key(i) for i in range(len(shards))] == ["b"]


def test_overlong_repeated_and_unknown_members(
    tmp_path: Path, photos: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskweave.data.shards.MAX_BYTES", 1000)
    members = [
        (member("a.txt"), b"x" * 1001),
        (member("b.txt"), b"1"),
        (member("b.txt"), b"2"),
        (member("c.exe"), b"MZ"),
    ]
    add(tmp_path / "caption" / "shard-00000.tar", *members)
    shards = Shards(tmp_path, photos)
    for i, fault in enumerate(
        ["1,001 bytes; expected at most 1,000", "two members with the name", "ending cannot hold values of type 'text'"]
    ):
        with pytest.raises(BadSample, match=fault):
            shards[[shards.key(j) for j in range(3)].index("abc"[i])]


# data sets that cannot be opened


def test_no_folder_or_no_shards(tmp_path: Path, photos: Catalog) -> None:
    with pytest.raises(MaskweaveError, match="no such folder"):
        Shards(tmp_path / "none", photos)
    (tmp_path / "thermal").mkdir()
    with pytest.raises(MaskweaveError, match=r"contains thermal; expected tar shards as .* one of rgb, edges, caption"):
        Shards(tmp_path, photos)


def test_an_unfinished_or_damaged_index(out: Path, photos: Catalog) -> None:
    index = json.loads((out / "index.json").read_text(encoding="utf-8"))
    (out / "index.json").write_text(json.dumps({**index, "shards": []}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="its index is damaged"):
        Shards(out, photos)
    (out / "index.json").unlink()
    with pytest.raises(MaskweaveError, match="its import is not finished"):
        Shards(out, photos)


def test_another_meaning_of_the_same_name(tmp_path: Path) -> None:
    def entries(*classes: str) -> Catalog:
        value = {"type": "classes", "size": [8, 8], "classes": list(classes)}
        return catalog_from({"modalities": {"what": {"id": 1, "kind": "grid", "grid": [2, 2], "value": value}}}, "test")

    (tmp_path / "in" / "what").mkdir(parents=True)
    np.save(tmp_path / "in" / "what" / "a.npy", np.ones((8, 8), np.uint8))
    import_folders(tmp_path / "in", tmp_path / "out", entries("cat", "dog"))
    assert (Shards(tmp_path / "out", entries("cat", "dog"))[0]["what"] == 1).all()
    with pytest.raises(
        MaskweaveError,
        match=r"what: imported with value\.classes \['cat', 'dog'\], but the catalog says \['dog', 'cat'\]",
    ):
        Shards(tmp_path / "out", entries("dog", "cat"))
