"""Copies at URLs: nothing opens before it is complete, interrupted copies are resumed, other files are never mixed in."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from small_bundle import m3ae_bundle

import maskweave
from maskweave.cli.main import main
from maskweave.data import publishing, remote
from maskweave.data.import_source import import_data
from maskweave.data.opening import open_data
from maskweave.data.publishing import publish
from maskweave.errors import MaskweaveError
from maskweave.locks import Locked, lock
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.ranks import JobPart

URL = "memory://bucket/set"


@pytest.fixture(autouse=True)
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("rgb", "other"):
        for i in range(5):
            path = tmp_path / "files" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(path)
    return tmp_path / "files"


def catalog() -> Catalog:
    return load_catalog("photos").subset(["rgb"])


def test_an_import_to_a_url_is_read_from_it(pictures: Path, tmp_path: Path) -> None:
    report = import_data(str(pictures), URL, catalog(), shard_size=2)
    assert report.out == URL and f"{URL}: 5 samples in 3 shards" in str(report)
    source = open_data(URL, catalog())
    assert len(source) == 5 and source[3]["rgb"][0, 0, 0] == 120
    assert not list((tmp_path / "cache" / "outgoing").iterdir())
    with pytest.raises(MaskweaveError, match="already holds 7 files; choose another URL"):
        import_data(str(pictures), URL, catalog(), shard_size=3)
    assert not list((tmp_path / "cache" / "outgoing").iterdir()), "told before any work"
    with pytest.raises(MaskweaveError, match="parts of an import need a folder"):
        import_data(str(pictures), URL, catalog(), part=JobPart(0, 2))
    with pytest.raises(MaskweaveError, match="can only be read"):
        import_data(str(pictures), "http://127.0.0.1/set", catalog())


def test_an_interrupted_copy_does_not_open_and_is_resumed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: fsspec.AbstractFileSystem
) -> None:
    folder = tmp_path / "set"
    import_data(str(pictures), folder, catalog(), shard_size=1)
    count, real = publish(folder, "memory://bucket/whole"), remote.upload
    for broken in range(count + 1):
        url, done = f"memory://bucket/{broken}", list[str]()

        def upload(source: Path, to: str, done: list[str] = done, most: int = broken) -> None:
            if len(done) > most:
                raise MaskweaveError("the network is gone")
            real(source, to)
            done.append(to)

        monkeypatch.setattr(publishing, "THREADS", 1)
        monkeypatch.setattr(publishing, "upload", upload)
        if broken < count:
            with pytest.raises(MaskweaveError, match="network is gone"):
                publish(folder, url)
            with pytest.raises(MaskweaveError, match="is not complete; run the command that uploads it again"):
                open_data(url, catalog())
        monkeypatch.setattr(publishing, "upload", real)
        assert publish(folder, url) == count
        assert len(open_data(url, catalog())) == 5
        found = {name: storage.cat(name) for name in storage.find(url)}
        whole = {
            name.replace("/whole/", f"/{broken}/"): storage.cat(name) for name in storage.find("memory://bucket/whole")
        }
        assert found == whole


def test_a_file_that_arrives_in_part_is_sent_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: fsspec.AbstractFileSystem
) -> None:
    import_data(str(pictures), tmp_path / "set", catalog(), shard_size=2)
    sent: list[str] = []

    def in_part(fs: fsspec.AbstractFileSystem, source: str, path: str) -> None:
        sent.append(path)
        content = Path(source).read_bytes()
        fs.pipe(path, content[:-1] if path.endswith(".tar") and sent.count(path) < 3 else content)

    monkeypatch.setattr(type(storage), "put_file", in_part)
    publish(tmp_path / "set", URL)
    tars = [path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.tar")]
    assert {name: sent.count(f"/bucket/set/{name}") for name in tars} == dict.fromkeys(tars, 3)
    assert all(storage.cat(f"/bucket/set/{name}") == (tmp_path / "set" / name).read_bytes() for name in tars)


def test_the_index_comes_last(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_data(str(pictures), tmp_path / "set", catalog(), shard_size=2)
    order: list[str] = []
    real = remote.upload
    monkeypatch.setattr(publishing, "upload", lambda source, url: (order.append(url), real(source, url)))
    publish(tmp_path / "set", URL)
    assert order[0].endswith(remote.UNFINISHED) and order[-2:] == [f"{URL}/index.json", f"{URL}/{remote.MANIFEST}"]


def test_other_files_are_never_mixed_in(pictures: Path, tmp_path: Path, storage: fsspec.AbstractFileSystem) -> None:
    import_data(str(pictures), tmp_path / "set", catalog())
    storage.pipe("/bucket/set/notes.txt", b"mine")
    with pytest.raises(MaskweaveError, match="already holds 1 files"):
        publish(tmp_path / "set", URL)
    storage.pipe(f"/bucket/set/{remote.UNFINISHED}", b"{}")
    with pytest.raises(MaskweaveError, match="holds an unfinished upload of other files"):
        publish(tmp_path / "set", URL)


def test_a_complete_copy_is_compared_by_its_manifest(
    pictures: Path, tmp_path: Path, storage: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage tells nothing that depends on the content alone."""
    folder = tmp_path / "set"
    import_data(str(pictures), folder, catalog(), shard_size=2)
    count = publish(folder, URL)
    assert remote.MANIFEST not in remote.list_files(URL) and len(remote.list_files(URL)) == count
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "upload", lambda source, url: pytest.fail(f"{url} is sent again"))
        assert publish(folder, URL) == count
    tar = next(folder.glob("rgb/*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(MaskweaveError, match=f"already holds {count} files, which differ"):
        publish(folder, URL)


@pytest.mark.parametrize("change", ["mark", "ended", "file", "size"])
def test_two_uploads_to_one_url_do_not_mix(
    change: str, pictures: Path, tmp_path: Path, storage: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another upload begins, or ends, in the middle of this one: the index, without which nothing opens, is not uploaded."""
    folder, real = tmp_path / "set", remote.upload
    import_data(str(pictures), folder, catalog(), shard_size=2)
    first = min(path.name for path in folder.glob("rgb/*.tar"))

    def upload(source: Path, url: str) -> None:
        real(source, url)
        if url.endswith(f"rgb/{first}"):
            if change == "mark":
                storage.pipe(f"/bucket/set/{remote.UNFINISHED}", b"{}")
            elif change == "ended":
                storage.rm_file(f"/bucket/set/{remote.UNFINISHED}")
            else:
                storage.pipe(f"/bucket/set/rgb/{'other.tar' if change == 'file' else first}", b"other")

    monkeypatch.setattr(publishing, "upload", upload)
    with pytest.raises(
        MaskweaveError, match="another upload to this URL|something else changed files during this upload"
    ):
        publish(folder, URL)
    assert not storage.exists("/bucket/set/index.json") and not storage.exists(f"/bucket/set/{remote.MANIFEST}")


def test_a_folder_is_locked_while_it_is_copied(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    import_data(str(pictures), folder, catalog(), shard_size=2)

    def in_turn(call: Callable[[], object]) -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(Locked, match="is writing to this folder"):
            pool.submit(call).result()

    with lock(folder):
        in_turn(lambda: publish(folder, URL))
    with publishing.staging(URL) as outgoing:
        in_turn(lambda: import_data(str(pictures), URL, catalog(), shard_size=2))
        import_data(str(pictures), outgoing, catalog(), shard_size=2)
    assert not outgoing.exists() and len(open_data(URL, catalog())) == 5


def test_what_is_not_finished_is_not_copied(tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaskweaveError, match="found no finished data set, token shards, bundle or run"):
        publish(tmp_path / "empty", URL)
    with pytest.raises(MaskweaveError, match="missing: no such folder"):
        publish(tmp_path / "missing", URL)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "run/tokens/train/samples").mkdir(parents=True)
    (tmp_path / "run/tokens/train/index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="unfinished token shards; run 'maskweave tokenize'"):
        publish(tmp_path / "run", URL)


def test_a_bundle_is_saved_to_a_url_and_loaded_from_it() -> None:
    bundle = m3ae_bundle()
    assert bundle.save(URL) == URL
    loaded = maskweave.load(URL)
    ours, theirs = bundle.model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys() and all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_a_file_among_the_tokenizers_is_copied(tmp_path: Path, storage: fsspec.AbstractFileSystem) -> None:
    for name in (
        "modalities.yaml",
        "model/config.json",
        "tokenizers/notes.txt",
        "tokenizers/depth/events/x",
        "events/y",
    ):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}", encoding="utf-8")
    assert publish(tmp_path / "run", URL) == 3
    assert storage.exists("/bucket/set/tokenizers/notes.txt")


def test_a_run_is_uploaded_without_its_checkpoints(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: fsspec.AbstractFileSystem
) -> None:
    assert main(["upload", str(tiny_run), URL]) == 0
    names = [name.removeprefix("/bucket/set/") for name in storage.find(URL)]
    names.remove(remote.MANIFEST)
    assert f"{URL}: {len(names)} files" in capsys.readouterr().out
    assert "model/config.json" in names and "tokens/train/samples/starts.npy" in names and "recipe.yaml" in names
    assert not [name for name in names if "checkpoints/" in name or name.startswith(".")]
    assert any((tiny_run / "checkpoints").iterdir()) and maskweave.load(URL).catalog.keys()
    (copied,) = (tmp_path / "cache" / "mirrors").glob("*/set")
    inner = {path.relative_to(copied).parts[0] for path in copied.rglob("*") if path.is_file()}
    assert inner == {"modalities.yaml", "recipe.yaml", "evaluation.json", "model", "tokenizers"}, (
        "no tokens and no reports"
    )
    assert len(list((copied / "tokenizers").glob("*/*.safetensors"))) > 0
    with pytest.raises(MaskweaveError, match="has no modalities.yaml"):
        maskweave.load(f"{URL}/tokens")
    assert main(["upload", str(tiny_run), os.fspath(tiny_run)]) == 1
    assert main(["run", str(tiny_run / "recipe.yaml"), "--out", URL]) == 1
    assert "copy it with: maskweave upload FOLDER" in capsys.readouterr().err
