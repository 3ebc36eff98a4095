"""Folders of data on this machine or in remote storage, with one interface."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from maskweave.data.cache import Cache, Prefetcher
from maskweave.data.remote import is_remote, state_of

T = TypeVar("T")


class Folder(Protocol):
    """A folder of files, by their names relative to it."""

    def use(self, name: str, read: Callable[[Path], T]) -> T:
        """Returns what `read` makes of a file, given a path on this machine."""
        ...

    def prefetch(self, names: Iterable[str]) -> None:
        """Prepare for files that are needed next, in this order."""
        ...

    def where(self, name: str) -> str:
        """The file's place, for messages."""
        ...


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, root: Path):
        self.root = root

    def use(self, name: str, read: Callable[[Path], T]) -> T:
        return read(self.root / name)

    def prefetch(self, names: Iterable[str]) -> None:
        pass

    def where(self, name: str) -> str:
        return str(self.root / name)


class RemoteFolder:
    """A folder at a URL. Its files are used through the cache of this machine.

    Args:
        record: name of a file that is written last and changes with the others: its version is theirs.
    """

    def __init__(self, url: str, record: str):
        self.url = url.rstrip("/")
        self.cache = Cache.of_machine()
        self.version = str(state_of(self.where(record)))
        self._prefetcher = (0, Prefetcher(self.cache))  # the process that it is of: a forked one has no threads

    def use(self, name: str, read: Callable[[Path], T]) -> T:
        return self.cache.use(self.where(name), self.version, read)

    def prefetch(self, names: Iterable[str]) -> None:
        if self._prefetcher[0] != os.getpid():
            self._prefetcher = (os.getpid(), Prefetcher(self.cache))
        self._prefetcher[1].ask([(self.where(name), self.version) for name in names])

    def where(self, name: str) -> str:
        return f"{self.url}/{name}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_prefetcher": (0, None)}


def folder_at(place: str | os.PathLike[str], record: str) -> Folder:
    """Returns the folder at a path or URL; `record` as for `RemoteFolder`."""
    return RemoteFolder(str(place), record) if is_remote(place) else LocalFolder(Path(place))
