"""Data sets at URLs: tars, imported shards and folders give the same samples as on this machine."""

import functools
import os
import shutil
import tarfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from data_set_helpers import coco_folder
from remote_storage import Answers, Faults, faulty_proxy, http_folder, serving
from torch.utils.data import DataLoader

from maskweave.data import mirror, reading, remote
from maskweave.data.cache import Cache
from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.data.import_source import import_data
from maskweave.data.importing import ImportReport
from maskweave.data.mirror import local_place
from maskweave.data.opening import absolute, open_data
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.ranks import WHOLE, JobPart
from maskweave.synthetic.scenes import Scenes


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog("scenes").subset(["rgb", "depth", "caption"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    """The same 12 scenes in three layouts."""
    root = tmp_path_factory.mktemp("data")
    export(Scenes(catalog, 12, 0), catalog, root / "aligned")
    import_folders(root / "aligned", root / "shards", catalog, shard_size=3)
    (root / "tars").mkdir()
    keys = sorted({path.stem for path in (root / "aligned").glob("*/*")})
    for number in range(4):
        with tarfile.open(root / "tars" / f"{number}.tar", "w") as tar:
            for key in keys[3 * number : 3 * number + 3]:
                for path in sorted((root / "aligned").glob(f"*/{key}.*")):
                    tar.add(path, f"{key}.{path.parent.name}{path.suffix}")
    return root


def equal(a: Source, b: Source) -> None:
    assert len(a) == len(b) == 12 and a.names == b.names
    for i in range(12):
        assert a.key(i) == b.key(i)
        one, other = a[i], b[i]
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("layout", ["shards", "tars"])
def test_samples_of_tars_are_those_on_this_machine(layout: str, data: Path, catalog: Catalog, tmp_path: Path) -> None:
    with http_folder(data) as url:
        found = open_data(f"{url}/{layout}", catalog)
        equal(found, open_data(str(data / layout), catalog))
        again = open_data(f"{url}/{layout}", catalog)
        equal(again, found)
    tars = list((tmp_path / "cache" / "mirrors").rglob("*.tar"))
    assert tars and all(p.stat().st_blocks == 0 < p.stat().st_size for p in tars), "no content in the mirror"
    assert len(list((tmp_path / "cache" / "files").iterdir())) == len(tars)


def test_workers_that_were_not_forked_read_mirrors(
    data: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "DataLoader", functools.partial(DataLoader, multiprocessing_context="spawn"))
    with http_folder(data) as url:
        found = list(reading.read(open_data(f"{url}/tars", catalog), range(12), workers=1))
    expected = open_data(str(data / "tars"), catalog)
    for i, item in enumerate(found):
        assert not item.error and not item.dropped and item.key == expected.key(i)
        assert all(np.array_equal(item.sample[name], value) for name, value in expected[i].items())


def test_a_cache_smaller_than_the_data_is_enough(
    data: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    largest = max(p.stat().st_size for p in (data / "tars").iterdir())
    monkeypatch.setenv("MASKWEAVE_CACHE_GB", str(2.5 * largest / 1e9))
    with http_folder(data) as url:
        equal(open_data(f"{url}/tars", catalog), open_data(str(data / "tars"), catalog))
    assert sum(p.stat().st_size for p in (tmp_path / "cache" / "files").iterdir()) <= 2.5 * largest


def test_a_copy_that_the_cache_removes_before_it_is_read_is_fetched_again(
    data: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, removed = Cache.fetch, []

    def once(cache: Cache, url: str, version: str = "", wait: bool = True) -> Path:
        path = fetch(cache, url, version, wait)
        if wait and not removed:  # as to make room for another file
            path.unlink()
            removed.append(path)
        return path

    monkeypatch.setattr(Cache, "fetch", once)
    with http_folder(data) as url:
        equal(open_data(f"{url}/tars", catalog), open_data(str(data / "tars"), catalog))
    assert removed


def test_one_tar_is_a_data_set_too(data: Path, catalog: Catalog) -> None:
    with http_folder(data) as url:
        found, expected = (open_data(f"{place}/tars/1.tar", catalog) for place in (url, data))
    assert len(found) == len(expected) == 3 and found.key(0) == expected.key(0)


def test_names_with_other_characters_are_those_on_this_machine(tmp_path: Path, data: Path, catalog: Catalog) -> None:
    """Web servers quote them in their lists."""
    place = tmp_path / "data" / "ä b"
    (place / "rgb").mkdir(parents=True)
    picture = next((data / "aligned" / "rgb").iterdir())
    names = ["with space", "ümlaut", "100%", "a#b", "a+b", "a%20b", *(["q?x"] if os.name != "nt" else [])]
    for name in names:
        shutil.copy(picture, place / "rgb" / f"{name}.png")
    shutil.copy(data / "tars" / "1.tar", tmp_path / "data" / "1 ä.tar")
    only = catalog.subset(["rgb"])
    with http_folder(tmp_path / "data") as url:
        for address in (f"{url}/ä b", f"{url}/{quote('ä b')}/"):
            found, expected = (open_data(str(at), only) for at in (address, place))
            assert [found.key(i) for i in range(len(found))] == [expected.key(i) for i in range(len(expected))]
            assert len(found) == len(names)
            assert all(np.array_equal(found[i]["rgb"], expected[i]["rgb"]) for i in range(len(names)))
        for name in ("1 ä.tar", quote("1 ä.tar")):
            assert len(open_data(f"{url}/{name}", catalog)) == 3


def test_addresses_keep_their_queries(data: Path, catalog: Catalog) -> None:
    """As signed addresses have them, and lists that are sorted by a query."""
    picture = next((data / "aligned" / "rgb").iterdir()).read_bytes()
    tar = (data / "tars" / "1.tar").read_bytes()
    served = {
        "/set/": b'<a href="?C=N;O=D">Name</a> <a href="rgb/">rgb</a>',
        "/set/rgb/": b'<a href="?C=S;O=A">Size</a> <a href="a%20b.png?sign=xy%3D">a b</a>',
        "/set/rgb/a%20b.png?sign=xy%3D": picture,
        "/1.tar?sign=xy%3D": tar,
    }

    class Signed(Answers):
        def do_GET(self) -> None:
            content = served.get(self.path) or served.get(f"{self.path}/")
            if content is None:
                self.send_error(404)
            else:
                self.answer(content)

    with serving(Signed) as url:
        found = open_data(f"{url}/set/", catalog.subset(["rgb"]))
        assert [found.key(i) for i in range(len(found))] == ["rgb/a b.png"]
        assert len(open_data(f"{url}/1.tar?sign=xy%3D", catalog)) == 3


@pytest.mark.parametrize("listed", ["%2e%2e%2f%2e%2e%2fx.png", "%2Fx.png", "C%3A/x.png", "a%5Cx.png"])
def test_lists_that_lead_out_of_the_folder_are_refused(listed: str) -> None:
    class Leading(Answers):
        def do_GET(self) -> None:
            self.answer(f'<a href="{listed}">x</a>'.encode())

    with serving(Leading) as url, pytest.raises(MaskweaveError, match="leads out of its folder"):
        local_place(f"{url}/data/")


def test_folders_of_files_are_imported_from_urls(data: Path, catalog: Catalog, tmp_path: Path) -> None:
    faults = Faults(drop=0.1, cut=0.1, seed=2)
    with http_folder(data) as direct, faulty_proxy(direct, faults) as url:
        report = import_data(f"{url}/aligned", tmp_path / "out", catalog, shard_size=3)
    assert report.samples == 12 and faults.counts["drop"] > 1 and faults.counts["cut"] > 1
    for path in (data / "shards").glob("*/*.tar"):
        assert (tmp_path / "out" / path.relative_to(data / "shards")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("layout", ["aligned", "coco", "table.csv"])
def test_machines_divide_the_import_of_a_url(
    layout: str, data: Path, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each machine has a mirror of its own, with files of other times."""
    place = tmp_path / "data" / layout
    if layout == "aligned":
        catalog = catalog.subset(["rgb", "caption"])
        for name in catalog:
            shutil.copytree(data / "aligned" / name, place / name)
        changed = next((place / "caption").iterdir())
    elif layout == "coco":
        catalog = load_catalog("scenes").subset(["rgb"])
        changed = coco_folder(place) / "val2017" / "0.jpg"
    else:
        catalog = catalog.subset(["caption"])
        place.parent.mkdir()
        place.write_text("caption\n" + "a red cube\n" * 12, encoding="utf-8")
        changed = place
    with http_folder(tmp_path / "data") as url:

        def run(machine: int, part: JobPart = WHOLE) -> ImportReport:
            monkeypatch.setattr(mirror, "_mirrors", {})
            monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / f"cache-{machine}"))
            return import_data(f"{url}/{layout}", tmp_path / "out", catalog, shard_size=1, part=part)

        run(0, JobPart(0, 2))
        report = run(1, JobPart(1, 2))
        assert not report.unfinished and report.samples == (3 if layout == "coco" else 12)
        assert run(0).kept == run(1).kept == report.samples
        changed.write_bytes(changed.read_bytes() + b" ")
        assert run(1).kept == (0 if layout == "table.csv" else report.samples - 1)


def test_folders_larger_than_the_cache_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_CACHE_GB", "0.000001")
    with (
        http_folder(data) as url,
        pytest.raises(MaskweaveError, match="besides tars, and the cache .* raise MASKWEAVE_CACHE_GB"),
    ):
        local_place(f"{url}/aligned")


def test_mirrors_that_are_not_in_use_make_room(data: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 10_000)
    old, used = (cache.folder / "mirrors" / name for name in ("old", "used"))
    for folder in (old, used):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(os.urandom(8192))
        os.utime(folder, (2 - (folder == used), 2 - (folder == used)))  # what is in use was opened first
    with mirror.locked(cache.folder / "locks" / "used"):
        mirror._make_room(cache, 1000)
    assert not old.exists() and used.exists()


def test_urls_stay_as_they_are_in_recipes() -> None:
    assert absolute("s3://bucket/data") == "s3://bucket/data"
