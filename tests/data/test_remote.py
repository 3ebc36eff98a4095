"""Remote data: what is read is complete, is read once per machine, in bounded space, and survives failing storage and kills."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from remote_storage import Answers, Faults, faulty_proxy, http_folder, serving
from tiny_catalog import random_columns, same, tiny
from torch.utils.data import DataLoader

from maskweave import system
from maskweave.data import cache as caching
from maskweave.data import remote
from maskweave.data.cache import Cache, Prefetcher
from maskweave.data.remote import attempt, download, is_remote, list_files, state_of
from maskweave.data.token_store import TokenData, entry_fingerprint, write_column, write_starts
from maskweave.errors import FullDisk, MaskweaveError
from maskweave.files import write_json
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches


@pytest.fixture(autouse=True)
def small_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for name, size in (("a.bin", 1000), ("b.bin", 2000), ("inner/c.bin", 3000)):
        fs.pipe(f"/data/{name}", bytes([len(name)]) * size)
    yield "memory://data"
    fs.rm("/data", recursive=True)


def files(cache: Cache) -> dict[str, int]:
    return {p.name.partition("-")[2]: p.stat().st_size for p in (cache.folder / "files").iterdir()}


def test_urls_are_told_from_paths() -> None:
    assert all(map(is_remote, ("s3://b/x", "http://h/x", "hf://datasets/a/b", "memory://x")))
    assert not any(map(is_remote, ("data/x", "/data/x", "python: a.b:c", "C:\\x", "s3:/b")))


def test_files_are_listed_and_fetched_once(memory: str, tmp_path: Path) -> None:
    assert {name: state.size for name, state in list_files(memory).items()} == {
        "a.bin": 1000,
        "b.bin": 2000,
        "inner/c.bin": 3000,
    }
    cache = Cache(tmp_path / "c", 10_000)
    path = cache.fetch(f"{memory}/a.bin", "1")
    assert path.read_bytes() == bytes([5]) * 1000
    fsspec.filesystem("memory").pipe("/data/a.bin", b"new")
    assert cache.fetch(f"{memory}/a.bin", "1") == path, "of one version it is read once"
    assert cache.fetch(f"{memory}/a.bin", "2").read_bytes() == b"new"
    assert cache.fetch(f"{memory}/a.bin").read_bytes() == b"new", "without a version the storage is asked"


@pytest.mark.parametrize(
    "key", ["ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "created", "generation", "blob_id"]
)  # fmt: skip
def test_whatever_storage_tells_of_a_file_is_its_version(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3, web servers, Google's storage and the Hub tell different things."""
    told = {"name": "/a.bin", "size": 1000, "type": "file"}
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", lambda fs, path, **options: dict(told))
    told[key] = "one"
    first = state_of("memory://a.bin")
    told[key] = "another"
    assert state_of("memory://a.bin") == first._replace(version=first.version.replace("one", "another")) != first


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago(memory: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 5000)
    a, b = (cache.fetch(f"{memory}/{name}", "1") for name in ("a.bin", "b.bin"))
    os.utime(b, (1, 1))
    cache.fetch(f"{memory}/inner/c.bin", "1")
    assert a.exists() and not b.exists() and sum(files(cache).values()) == 4000
    with pytest.raises(MaskweaveError, match=r"c.bin: has .* but the cache .* holds .*; raise MASKWEAVE_CACHE_GB"):
        Cache(tmp_path / "small", 2500).fetch(f"{memory}/inner/c.bin", "1")


def test_no_process_counts_while_a_file_takes_its_place(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would see neither the partial file, which has gone, nor the complete one, and the cache would hold too much."""
    cache, rename, renamed = Cache(tmp_path / "c", 5000), system.rename, []

    def watched(source: Path, target: Path) -> None:
        with caching.locked(cache.folder / "locks" / "space", wait=False) as free:
            renamed.append(free)
        rename(source, target)

    monkeypatch.setattr(system, "rename", watched)
    cache.fetch(f"{memory}/a.bin", "1")
    assert renamed == [False]


def test_what_is_removed_before_it_is_read_is_fetched_again(memory: str, tmp_path: Path) -> None:
    cache, tries = Cache(tmp_path / "c", 5000), []

    def read(path: Path) -> bytes:
        tries.append(path)
        if len(tries) < 3:
            path.unlink()  # as another process would
        return path.read_bytes()

    assert cache.use(f"{memory}/a.bin", "1", read) == bytes([5]) * 1000 and len(tries) == 3
    with pytest.raises(MaskweaveError, match="was removed .* 5 times .* too small .* raise MASKWEAVE_CACHE_GB"):
        cache.use(f"{memory}/a.bin", "1", lambda path: (path.unlink(), path.read_bytes()))
    with pytest.raises(ZeroDivisionError):
        cache.use(f"{memory}/a.bin", "1", lambda path: 1 // 0)


def test_partial_files_of_killed_processes_are_removed_and_counted_until_then(memory: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 5000)
    left = cache.folder / "files" / f".{'0' * 32}-x.bin.4000.1-aa.partial"
    busy = cache.folder / "files" / f".{'1' * 32}-x.bin.4000.1-aa.partial"
    left.write_bytes(b"x" * 10)
    busy.write_bytes(b"x" * 10)
    with caching.locked(cache.folder / "locks" / "111"):
        a = cache.fetch(f"{memory}/a.bin", "1")
        assert not left.exists() and busy.exists()
        cache.fetch(f"{memory}/b.bin", "1")
        assert not a.exists(), "4000 bytes are taken by what is being read"


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bad in ("0", "-1", "much", "inf"):
        monkeypatch.setenv("MASKWEAVE_CACHE_GB", bad)
        with pytest.raises(MaskweaveError, match="MASKWEAVE_CACHE_GB is .*; expected a number of gigabytes above 0"):
            Cache.of_machine()
    monkeypatch.setenv("MASKWEAVE_CACHE_GB", "0.5")
    assert Cache.of_machine().limit == 500_000_000
    (tmp_path / "file").touch()
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MaskweaveError, match="cannot be used as cache .* set MASKWEAVE_CACHE"):
        Cache.of_machine()
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locks")  # as in a file system to read only
    with pytest.raises(MaskweaveError, match="cannot be used as cache .not writable.* set MASKWEAVE_CACHE"):
        Cache.of_machine()


def test_addresses_that_cannot_be(tmp_path: Path) -> None:
    for url, message in (
        ("memory://nothing/x", "no such file; check the address"),
        ("zip://a::memory://x", "expected a plain URL"),
        ("file:///etc/passwd", "or a path of this machine"),
        ("gs://bucket/x", r"gs:// needs a package that is missing .*pip install 'maskweave\[gs\]'"),
        ("nosuch://x/y", "not a URL that can be read"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            state_of(url)
    with pytest.raises(MaskweaveError, match="no such file or folder"):
        list_files("memory://nothing/x")


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), NoCredentialsError("Unable to locate credentials")])
def test_access_that_is_denied_is_not_tried_again(error: Exception) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(MaskweaveError, match="s3://b/x: access is denied .*; check the credentials"):
        attempt("s3://b/x", call)
    assert len(calls) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_access_that_a_web_server_denies(status: int, tmp_path: Path) -> None:
    class Denying(Answers):
        def do_GET(self) -> None:
            self.send_error(status)

    with serving(Denying) as url:
        for call in (state_of, list_files, lambda at: download(at, tmp_path / "x", None)):
            with pytest.raises(MaskweaveError, match="/x: access is denied .*; check the credentials"):
                call(f"{url}/x")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_web_server_that_is_busy_is_asked_again(status: int) -> None:
    asked: list[str] = []

    class Busy(Answers):
        def do_GET(self) -> None:
            asked.append(self.command)
            if len(asked) < 7:  # HEAD and GET of three attempts
                self.send_error(status)
            else:
                self.answer(b"abc")

    with serving(Busy) as url:
        assert state_of(f"{url}/x").size == 3 and asked == ["HEAD", "GET"] * 3 + ["HEAD"]


def test_a_full_disk_is_not_tried_again(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fs: object, path: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", full)
    cache = Cache(tmp_path / "c", 5000)
    with pytest.raises(FullDisk, match="while reading memory://data/a.bin into the cache; .* set MASKWEAVE_CACHE"):
        cache.fetch(f"{memory}/a.bin", "1")
    assert not files(cache)


def test_pauses_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    monkeypatch.setattr(remote._random, "uniform", lambda low, high: low + high)
    with pytest.raises(MaskweaveError, match="s3://b/x: cannot be reached, in 8 attempts .ZeroDivisionError"):
        attempt("s3://b/x", lambda: 1 // 0)
    assert pauses == [1.0, 2, 4, 8, 16, 32, 40], "twice those for a factor of 1"


def test_a_file_that_arrives_in_part_is_asked_for_again(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every file system notices by itself that a connection ended early."""
    asked: list[str] = []

    def cut_off(fs: object, path: str, target: str) -> None:
        asked.append(path)
        Path(target).write_bytes(bytes([5]) * (1000 if len(asked) == 3 else 500))

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", cut_off)
    cache = Cache(tmp_path / "c", 5000)
    assert cache.fetch(f"{memory}/a.bin", "1").read_bytes() == bytes([5]) * 1000 and len(asked) == 3
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    with pytest.raises(MaskweaveError, match="b.bin: cannot be reached, in 2 attempts .*read 500 of 2,000 bytes"):
        cache.fetch(f"{memory}/b.bin", "1")
    assert files(cache) == {"a.bin": 1000}, "nothing of the other is left"


def test_storage_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    with pytest.raises(
        MaskweaveError, match="http://127.0.0.1:9/x: cannot be reached, in 3 attempts .*check the network"
    ):
        state_of("http://127.0.0.1:9/x")


CATALOG = tiny()
SHARDS, SIZE = 10, 12


def write_tokens(root: Path) -> Path:
    fingerprints = {name: entry_fingerprint(m) for name, m in CATALOG.items()}
    write_json(root / "index.json", {"modalities": fingerprints, "samples": SHARDS * SIZE, "shard_size": SIZE})
    for shard in range(SHARDS):
        for name, column in random_columns(CATALOG, SIZE, np.random.default_rng(shard)).items():
            write_column(root, name, shard, column)
        write_json(root / "samples" / f"shard-{shard:05d}.json", {"keys": [f"s{shard}_{i}" for i in range(SIZE)]})
    write_starts(root, [SIZE] * SHARDS)
    return root


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


def batches(root: object) -> TokenBatches:
    return TokenBatches(TokenData(root, CATALOG, 2), MaskSampler(CATALOG, MaskingConfig(12, 12)), 8, seed=3)  # type: ignore[arg-type]


def test_tokens_at_a_url_give_the_same_batches(tokens: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = batches(tokens)
    with http_folder(tokens) as url:
        found = batches(url)
        assert all(same(found[i], expected[i]) for i in range(20))
        assert found.data.key(17) == expected.data.key(17) == "s1_5"  # type: ignore[union-attr]
        loader = DataLoader(batches(url), batch_size=None, sampler=range(20), num_workers=2, collate_fn=lambda b: b)
        assert all(same(batch, expected[i]) for i, batch in enumerate(loader)), "also in forked processes"
        (tokens / "samples" / "starts.npy").rename(tmp_path / "starts.npy")
        with pytest.raises(MaskweaveError, match="earlier version; run 'maskweave tokenize' once .* upload the folder"):
            TokenData(url, CATALOG)
        (tmp_path / "starts.npy").rename(tokens / "samples" / "starts.npy")
        with pytest.raises(MaskweaveError, match=r"samples/index.json: no such file; check the address"):
            TokenData(f"{url}/samples", CATALOG)


@pytest.mark.parametrize("name", ["index.json", "samples/starts.npy"])
def test_tokens_that_were_made_again_are_read_again(name: str, tmp_path: Path) -> None:
    """Plain servers have no versions but times."""
    root = write_tokens(tmp_path / "tokens")
    with http_folder(root) as url:
        before = batches(url)[0]
        for shard in range(SHARDS):  # of the same sizes
            for column, content in random_columns(CATALOG, SIZE, np.random.default_rng(100 + shard)).items():
                write_column(root, column, shard, content)
        os.utime(root / name, (1e9, 1e9))
        after = batches(url)[0]
        assert same(after, batches(root)[0]) and not same(after, before)


@pytest.mark.parametrize("damage", ["cut off", "of another length"])
def test_a_damaged_shard_is_named_by_its_url_and_read_again_when_it_is_repaired(damage: str, tmp_path: Path) -> None:
    root = write_tokens(tmp_path / "tokens")
    shard, indices = root / "codes" / "shard-00003.safetensors", np.arange(SHARDS * SIZE)
    whole = shard.read_bytes()
    if damage == "cut off":
        shard.write_bytes(whole[:-10])
    else:
        write_column(root, "codes", 3, random_columns(CATALOG, SIZE - 1, np.random.default_rng(0))["codes"])
    with http_folder(root) as url:
        with pytest.raises(MaskweaveError, match=f"^{url}/codes/shard-00003.safetensors: (contains|cannot be read)"):
            TokenData(url, CATALOG).columns(indices)
        shard.write_bytes(whole)
        found, expected = (TokenData(place, CATALOG).columns(indices)["codes"].ids for place in (url, root))
    assert np.array_equal(found, expected)


def test_a_copy_stays_where_its_file_is_not_at_fault(memory: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 5000)

    def read(path: Path) -> bytes:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise MaskweaveError(f"{path}: cannot be read") from error

    with pytest.raises(MaskweaveError, match=f"^{memory}/a.bin: cannot be read"):
        cache.use(f"{memory}/a.bin", "1", read)
    assert files(cache) == {"a.bin": 1000}


def test_all_of_a_shard_is_asked_for_before_the_next(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(Prefetcher, "ask", lambda self, files: asked.append([url for url, _ in files]))
    with http_folder(tokens) as url:
        data = TokenData(url, CATALOG, 2)
        data._prefetch(np.array([7, 0, 5, 3]))
    assert asked == [[f"{url}/{n}/shard-0000{shard}.safetensors" for shard in (7, 0, 5, 3) for n in data.names]]


def test_shards_are_read_ahead_and_once(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, str]] = []
    load = caching.download

    def counted(url: str, target: Path, size: int | None) -> None:
        fetched.append((url, threading.current_thread().name))
        load(url, target, size)

    monkeypatch.setattr(caching, "download", counted)
    with http_folder(tokens) as url:
        data = batches(url)
        for i in range(15):  # an epoch of 120 samples
            data[i]
            time.sleep(0.02)
        names = [file for file, _ in fetched]
        assert len(names) == len(set(names)), "every file is read once"
        wanted = {f"{url}/{name}/shard-{shard:05d}.safetensors" for name in CATALOG for shard in range(SHARDS)}
        assert wanted <= set(names)
        assert sum(thread == "prefetch" for _, thread in fetched) > len(wanted) / 2


def test_a_prefetcher_forgets_what_is_not_needed_and_goes_on_after_errors(memory: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 10_000)
    ahead = Prefetcher(cache, threads=1)
    with caching.locked(cache.folder / "locks" / "space"):  # nothing can be written
        ahead.ask([(f"{memory}/a.bin", "1"), (f"{memory}/b.bin", "1")])
        time.sleep(0.05)
        ahead.ask([(f"{memory}/gone.bin", "1"), (f"{memory}/inner/c.bin", "1")])
    for _ in range(100):
        time.sleep(0.02)
        if "c.bin" in files(cache):
            break
    assert set(files(cache)) == {"a.bin", "c.bin"}


def test_failing_storage_changes_nothing(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches(tokens)
    monkeypatch.setattr(remote, "STALL", 0.5)
    faults = Faults(drop=0.15, delay=0.08, cut=0.15, refuse=0.1, seconds=0.8)
    with http_folder(tokens) as url, faulty_proxy(url, faults) as worse:
        found = batches(worse)
        assert all(same(found[i], expected[i]) for i in range(15))
    assert min(faults.counts[kind] for kind in ("drop", "cut", "refuse", "delay")) >= 2


def _fetch(folder: Path, urls: list[str]) -> None:
    for url in urls:
        Cache(folder, 10**8).fetch(url, "1")


def test_processes_share_what_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for i in range(6):
        (tmp_path / "data" / f"{i}.bin").write_bytes(os.urandom(50_000))
    faults = Faults()
    with http_folder(tmp_path / "data") as direct, faulty_proxy(direct, faults) as url:
        urls = [f"{url}/{i}.bin" for i in range(6)]
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=_fetch, args=(tmp_path / "c", urls)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
            assert process.exitcode == 0
    assert faults.counts.total() == 12, "one HEAD and one GET for each file"
    assert files(Cache(tmp_path / "c", 10**8)) == {f"{i}.bin": 50_000 for i in range(6)}


def test_a_killed_process_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    content = os.urandom(3_000_000)
    (tmp_path / "data" / "x.bin").write_bytes(content)
    code = (
        "import sys, pathlib; from maskweave.data import cache\n"
        "def slow(url, target, size):\n    target.write_bytes(b'half'); print('writing', flush=True); import time; time.sleep(60)\n"
        "cache.download = slow\ncache.Cache(pathlib.Path(sys.argv[1]), 10**8).fetch(sys.argv[2], '1')"
    )
    with http_folder(tmp_path / "data") as url:
        command = [sys.executable, "-c", code, str(tmp_path / "c"), f"{url}/x.bin"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "writing\n"
            process.send_signal(signal.SIGKILL)
        cache = Cache(tmp_path / "c", 10**8)
        assert len(files(cache)) == 1
        assert cache.fetch(f"{url}/x.bin", "1").read_bytes() == content
    assert files(cache) == {"x.bin": 3_000_000}
