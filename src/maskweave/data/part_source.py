"""Sources whose samples consist of parts that are like files: bytes with an ending. An import keeps these bytes as they are."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from maskweave.data.mirror import version
from maskweave.data.parts import read_part
from maskweave.data.transforms import fit
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality


class FilePart(NamedTuple):
    """One value of a sample as the bytes of a file."""

    content: bytes
    ending: str
    where: str
    """Name of the value in errors."""


class PartSource(ABC):
    """A data set that reads a sample's values one by one. Subclasses give `names`, `len`, `key` and `part`."""

    catalog: Catalog
    notes: list[str]
    """What was chosen or left out when the data set was opened, for messages."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, i: int) -> str: ...

    @abstractmethod
    def part(self, i: int, name: str) -> FilePart | None:
        """Returns one value of sample i; None if it is missing.

        Raises:
            BadSample: it cannot be read.
        """

    @abstractmethod
    def state(self) -> list[Any]:
        """Returns what changes when the files of the data set change, as content for JSON: their names and versions."""

    def named_files(self, i: int) -> Sequence[Path]:
        """Returns the files that sample i names, beside those of `state`. They need not exist."""
        return ()

    def parts(self, i: int) -> Iterator[tuple[str, FilePart, Any]]:
        """Yields the modality, bytes and checked value, at its own size, of each value of sample i. Missing ones are left out, and so are
        unusable ones in a context that drops them (`maskweave.data.parts`).

        Raises:
            BadSample: a value cannot be read, or is not valid for its entry.
        """
        for name in self.names:
            found = read_part(name, partial(self._read, i, name))
            if found is not None:
                yield name, *found

    def _read(self, i: int, name: str) -> tuple[FilePart, Any] | None:
        part = self.part(i, name)
        if part is None:
            return None
        value = self.catalog[name].value.read(*part)
        return None if value is None else (part, value)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns sample i with each value at its entry's size. Missing modalities are left out.

        Raises:
            BadSample: a value cannot be read.
            IndexError: i is not from 0 to len - 1.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        return fit({name: value for name, _, value in self.parts(i)}, self.catalog)


def version_of(path: Path) -> list[Any] | None:
    """Returns a file's version; None if it does not exist."""
    try:
        return version(path)
    except (OSError, ValueError):  # also a name that is too long, or that has a zero byte
        return None


def read_entries(catalog: Catalog) -> Mapping[str, Modality]:
    """The entries that are read from data; others use the values of these."""
    return {name: m for name, m in catalog.items() if not m.source}
