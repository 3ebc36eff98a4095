"""Remote folders as folders of this machine, so that every layout can be read from a URL.

    CACHE/mirrors/HASH/NAME/…      the files of s3://bucket/NAME
    CACHE/locks/HASH               held while a process uses the mirror

Tars keep their name, size and date, but have no content: `with_local` reads them whole, through the cache, when they are used, and the tars that follow
ahead. All other files that are wanted are copied when the folder is opened, and must fit into the cache.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, TypeVar

from maskweave import system
from maskweave.data.cache import SIZE_SETTING, THREADS, Cache, Prefetcher, locked
from maskweave.data.remote import RemoteState, download, is_remote, is_web, list_files, unquoted
from maskweave.errors import MaskweaveError
from maskweave.files import short_name, stamp, write_aside

T = TypeVar("T")

TARS = (".tar", ".tar.gz", ".tgz")
AHEAD = 2
"""Tars of each modality that are read ahead."""


class Mirror:
    """A remote folder on this machine.

    Args:
        files: all files, by their path relative to the URL.
        lock: the open lock; it is held until this process ends. Worker processes need none: the process that started them holds it.
    """

    def __init__(self, url: str, files: dict[str, RemoteState], cache: Cache, lock: IO[bytes] | None):
        self.url, self.cache = url.rstrip("/"), cache
        self.files, self.lock = files, lock
        self.tars = {name: json.dumps(state) for name, state in files.items() if is_tar(name)}
        self._order = sorted({name.rpartition("/")[2] for name in self.tars})
        self._current = ""
        # With the process that it is of: a forked one has no threads.
        self._prefetcher: tuple[int, Prefetcher | None] = (0, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "lock": None, "_prefetcher": (0, None)}

    def use(self, name: str, read: Callable[[Path], T]) -> T:
        tar = name.rpartition("/")[2]
        if tar != self._current:
            self._current = tar
            self._prefetch(tar)
        return self.cache.use(self.files[name].url, self.tars[name], read)

    def _prefetch(self, tar: str) -> None:
        """Read the next tars, of all modalities."""
        process, prefetcher = self._prefetcher
        if prefetcher is None or process != os.getpid():
            prefetcher = Prefetcher(self.cache)
            self._prefetcher = (os.getpid(), prefetcher)
        following = set(self._order[(at := self._order.index(tar) + 1) : at + AHEAD])
        names = [name for name in self.tars if name.rpartition("/")[2] in following] if following else []
        prefetcher.ask([(self.files[name].url, self.tars[name]) for name in names])


_mirrors: dict[Path, Mirror] = {}
"""The mirrors of this process, by their folder. They stay in use until it ends."""


def mirrors() -> dict[Path, Mirror]:
    """Returns the mirrors of this process, which `adopt` gives to a worker process: one that was not forked has none."""
    return dict(_mirrors)


def adopt(parent: Mapping[Path, Mirror]) -> None:
    """Use the mirrors of the process that started this one."""
    _mirrors.update(parent)


def is_tar(name: str) -> bool:
    return name.lower().endswith(TARS)


def local_place(place: str, wanted: Sequence[str] = ("*",)) -> str:
    """Returns the folder or file of this machine to read a place from: itself, or the mirror of a URL.

    Args:
        wanted: patterns of `fnmatch` for the files of a folder that are needed, by their path relative to it. A URL's other files are not copied.

    Raises:
        MaskweaveError: there is nothing at the URL, or its files other than tars do not fit into the cache.
    """
    if not is_remote(place):
        return place
    files = list_files(place)
    if list(files) == [""]:  # a single file
        place, _, name = place.rpartition("/")
        name = unquoted(name) if is_web(place) else name
        files = {name: files[""]}
    else:
        name = ""
        files = {n: state for n, state in files.items() if any(fnmatchcase(n, pattern) for pattern in wanted)}
    cache = Cache.of_machine()
    digest = hashlib.sha256(json.dumps([place, files]).encode()).hexdigest()[:32]
    last = short_name(place.rstrip("/").rpartition("/")[2])
    root = cache.folder / "mirrors" / digest / ("data" if last in ("", ".", "..") else last)
    if root not in _mirrors:
        with locked(cache.folder / "locks" / "mirrors"):
            held = open(cache.folder / "locks" / digest, "ab")  # noqa: SIM115 (until this process ends)
            system.lock_file(held, shared=True)
            folder = cache.folder / "mirrors" / digest
            if folder.exists():
                os.utime(folder)
            else:
                _copy(place, files, folder, root.name, cache)
        _mirrors[root] = Mirror(place, files, cache, held)
    return str(root / name) if name else str(root)


def with_local(path: Path, read: Callable[[Path], T]) -> T:
    """Returns what `read` makes of a tar, which may be in a mirror."""
    mirror, name = _find(path)
    return mirror.use(name, read) if mirror is not None and name in mirror.tars else read(path)


def origin(path: Path) -> str:
    """Returns the URL of a file or folder in a mirror; of others, their path."""
    mirror, name = _find(path)
    return str(path) if mirror is None else f"{mirror.url}/{name}".removesuffix("/.")


def version(path: Path) -> list[Any]:
    """Returns what differs whenever a file's content was changed: its `stamp`; of a file in a mirror, whose times differ between machines, its name,
    size and version in the storage.

    Raises:
        OSError: there is no such file.
    """
    mirror, name = _find(path)
    return (
        stamp(path)
        if mirror is None or name not in mirror.files
        else [name, mirror.files[name].size, mirror.files[name].version]
    )


def _find(path: Path) -> tuple[Mirror | None, str]:
    """Returns the mirror that a path is in, and the path relative to it."""
    for root, mirror in _mirrors.items():
        if path.is_relative_to(root):
            return mirror, path.relative_to(root).as_posix()
    return None, ""


def _copy(url: str, files: dict[str, RemoteState], folder: Path, inner: str, cache: Cache) -> None:
    """Make the folder of a mirror, whose files are in its folder `inner`."""
    copied = [name for name in files if not is_tar(name)]
    size = sum(files[name].size or 0 for name in copied)
    if size > cache.limit:
        raise MaskweaveError(
            f"{url}: has {len(copied)} files with {size / 1e9:.3g} GB besides tars, and the cache {cache.folder} holds {cache.limit / 1e9:.3g} GB; "
            f"raise {SIZE_SETTING}, or import them into tar shards with 'maskweave data import' where they are"
        )
    _make_room(cache, size)
    with write_aside(folder) as aside:
        (aside / inner).mkdir(parents=True)
        for name, state in files.items():
            path = aside / inner / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if is_tar(name):
                with open(path, "wb") as file:
                    file.truncate(state.size or 0)
                changed = int(hashlib.sha256(state.version.encode()).hexdigest()[:7], 16)
                os.utime(path, (changed, changed))
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: download(files[n].url, aside / inner / n, files[n].size), copied))


def _make_room(cache: Cache, size: int) -> None:
    """Remove mirrors that no process uses, the longest unused first, until one of a size fits."""
    folders = sorted((cache.folder / "mirrors").glob("*"), key=lambda path: path.stat().st_mtime)
    sizes = [sum(system.used_bytes(file) for file in folder.rglob("*")) for folder in folders]
    total = size + sum(sizes)
    for folder, freed in zip(folders, sizes, strict=True):
        if total <= cache.limit:
            return
        with locked(cache.folder / "locks" / folder.name, wait=False) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
                total -= freed
