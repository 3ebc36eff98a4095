"""A bounded folder of whole files from remote storage, shared by all processes of a machine.

    CACHE/files/HASH-NAME                       a complete file; its time of change is that of its last use
    CACHE/files/.HASH-NAME.SIZE.PID-….partial   a file that is being read; it takes its place only when it is complete
    CACHE/locks/000 … fff, space                locks, which the system releases when a process ends, however it ends

The folder is `MASKWEAVE_CACHE` (default `~/.cache/maskweave/data`) and has at most `MASKWEAVE_CACHE_GB` gigabytes (default 100). The least
recently used files are removed for new ones. A file that is removed while it is mapped stays readable.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from maskweave import system
from maskweave.data.remote import download, state_of
from maskweave.errors import MaskweaveError, shown
from maskweave.files import remove, short_name

T = TypeVar("T")

FOLDER_SETTING, SIZE_SETTING = "MASKWEAVE_CACHE", "MASKWEAVE_CACHE_GB"
DEFAULT_GB = 100.0
THREADS = 4
"""Files that a process reads ahead at the same time."""
LOOKS = 5
"""How often a file that other processes keep removing is fetched."""


class Cache:
    """The cached files.

    Args:
        limit: largest sum of the files' sizes, in bytes, with those that are being read.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        try:
            for part in ("files", "locks"):
                (folder / part).mkdir(parents=True, exist_ok=True)
                if not os.access(folder / part, os.W_OK):
                    raise OSError(errno.EACCES, "not writable")
        except OSError as error:
            raise MaskweaveError(
                f"{folder}: cannot be used as cache ({error.strerror}); set {FOLDER_SETTING} to another folder"
            ) from error

    @classmethod
    def of_machine(cls) -> "Cache":
        """Returns the cache that the environment names.

        Raises:
            MaskweaveError: its size is not a number above 0, or its folder cannot be written.
        """
        setting = os.environ.get(SIZE_SETTING, "").strip()
        try:
            size = float(setting) if setting else DEFAULT_GB
        except ValueError:
            size = math.nan
        if not 0 < size < math.inf:
            raise MaskweaveError(f"{SIZE_SETTING} is {shown(setting)}; expected a number of gigabytes above 0")
        folder = os.environ.get(FOLDER_SETTING, "").strip() or "~/.cache/maskweave/data"
        return cls(Path(folder).expanduser(), int(size * 1e9))

    def use(self, url: str, version: str, read: Callable[[Path], T]) -> T:
        """Returns what `read` makes of a file's local copy. If another process removes the copy first, it is fetched again.

        Raises:
            MaskweaveError: the errors of `fetch`; those of `read` name the URL, and the copy is removed, so that a repaired file is fetched.
        """
        for _ in range(LOOKS):
            path = self.fetch(url, version)
            try:
                return read(path)
            except OSError:
                if path.exists():
                    raise
            except MaskweaveError as error:
                if path.exists():
                    if not isinstance(
                        error.__cause__, OSError
                    ):  # which is not the file's fault, such as too many open files
                        with contextlib.suppress(OSError):  # on Windows it may still be open
                            remove(path)
                    raise type(error)(str(error).replace(str(path), url)) from error
        raise MaskweaveError(
            f"{url}: was removed from {self.folder} {LOOKS} times before it could be read: the cache is too small for what is in use; "
            f"raise {SIZE_SETTING}, now {self.limit / 1e9:g}, or lower data.shuffle_window"
        )

    def fetch(self, url: str, version: str = "", wait: bool = True) -> Path:
        """Returns the local copy of a file, which is read from the storage if it is not there.

        Args:
            version: text that changes with the file's content; "": the storage is asked each time.
            wait: until another process that reads the same file has finished; otherwise the path may not exist yet.

        Raises:
            MaskweaveError: the file cannot be read, or is larger than the cache.
        """
        state = None if version else state_of(url)
        digest = hashlib.sha256(json.dumps([url, version or state]).encode()).hexdigest()[:32]
        name = f"{digest}-{short_name(url.rstrip('/').rpartition('/')[2] or 'file')}"
        target = self.folder / "files" / name
        if _is_there(target):
            return target
        with locked(self._lock_of(name), wait) as held:
            if held and not _is_there(target):
                size = (state or state_of(url)).size
                partial = self._reserve(name, url, size)
                try:
                    download(url, partial, size)
                    system.make_file_durable(partial)
                    with locked(self.folder / "locks" / "space"):  # or who counts at this moment would see neither name
                        system.rename(partial, target)
                finally:
                    remove(partial)
        return target

    def _lock_of(self, name: str) -> Path:
        return self.folder / "locks" / name[:3]

    def _reserve(self, name: str, url: str, size: int | None) -> Path:
        """Free space for a file and return the path to write it to. It counts with its full size from now on."""
        size = size or 0
        if size > self.limit:
            raise MaskweaveError(
                f"{url}: has {size / 1e9:.3g} GB, but the cache {self.folder} holds {self.limit / 1e9:.3g} GB; raise {SIZE_SETTING}"
            )
        with locked(self.folder / "locks" / "space"):
            self._free(name, size)
            partial = self.folder / "files" / f".{name}.{size}.{os.getpid()}-{os.urandom(4).hex()}.partial"
            partial.touch()
        return partial

    def _free(self, name: str, size: int) -> None:
        """Remove files until one of a size fits. The lock of that file's name is held, so partial files of this name are abandoned."""
        total, used = size, []
        for entry in os.scandir(self.folder / "files"):
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                status = entry.stat()
                if not entry.name.endswith(".partial"):
                    used.append((status.st_mtime_ns, entry.path, status.st_size))
                    total += status.st_size
                elif entry.name.startswith(f".{name}.") or self._is_abandoned(entry.name):
                    remove(Path(entry.path))
                else:
                    total += max(status.st_size, int(entry.name.rsplit(".", 3)[1]))
        for _, path, freed in sorted(used):
            if total <= self.limit:
                return
            remove(Path(path))
            total -= freed

    def _is_abandoned(self, partial: str) -> bool:
        """Whether the process that wrote a partial file has ended: while it writes, it holds the lock."""
        with locked(self._lock_of(partial[1:]), wait=False) as held:
            return held


def _is_there(path: Path) -> bool:
    """Whether a complete file is there; marks it as just used."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock between processes and threads; yields whether it could be had."""
    with open(path, "ab") as file:
        if not system.lock_file(file, wait=wait):
            yield False
            return
        try:
            yield True
        finally:
            system.unlock_file(file)  # a forked process may have inherited the open file


class Prefetcher:
    """Reads files into the cache ahead of their use, in the background, in the order in which they are asked for.

    Files that another process is reading are left to it. Errors are left to the use of the file, which tries again and reports them.
    """

    def __init__(self, cache: Cache, threads: int = THREADS):
        self.cache, self.threads = cache, threads
        self._waiting: deque[tuple[str, str]] = deque()
        self._asked: list[tuple[str, str]] = []
        self._running = 0
        self._lock = threading.Lock()

    def ask(self, files: Sequence[tuple[str, str]]) -> None:
        """Replace what is waiting by these files, URLs with versions; those that were asked for before are not read again."""
        with self._lock:
            if self._asked == list(files):
                return
            before, self._asked = set(self._asked), list(files)
            waiting = set(self._waiting)
            self._waiting = deque(file for file in files if file in waiting or file not in before)
            start = min(self.threads - self._running, len(self._waiting))
            self._running += start
        for _ in range(start):
            threading.Thread(target=self._run, daemon=True, name="prefetch").start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                url, version = self._waiting.popleft()
            with contextlib.suppress(MaskweaveError, OSError):
                self.cache.fetch(url, version, wait=False)
