"""Folders of data on this machine or in remote storage, with one interface."""

import os
from collections.abc import Callable, Iterable, Sequence
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
        records: names of files of which one changes when any file does: their versions together are that of each file.

    Raises:
        NoSuchFile: a record does not exist; the first of them is named.
    """

    def __init__(self, url: str, records: Sequence[str]):
        self.url = url.rstrip("/")
        self.cache = Cache.of_machine()
        self.version = str([state_of(self.where(record)) for record in records])
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


def folder_at(place: str | os.PathLike[str], records: Sequence[str]) -> Folder:
    """Returns the folder at a path or URL; `records` as for `RemoteFolder`."""
    return RemoteFolder(str(place), records) if is_remote(place) else LocalFolder(Path(place))
