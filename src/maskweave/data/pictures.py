"""Pictures in a folder and its subfolders, as files and as a data set."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maskweave.data.parts import read_part
from maskweave.data.source import check_key
from maskweave.data.transforms import fit
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.files import PICTURES, read_value
from maskweave.values.formats import split_ending


def files_under(root: Path, endings: Sequence[str]) -> list[Path]:
    """Files with one of the endings, at any depth, sorted. Links, hidden files and hidden folders are ignored."""
    found = (p for p in root.rglob("*") if split_ending(p.name)[1] in endings and p.is_file() and not p.is_symlink())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


class Files:
    """Samples of one modality, each read from a file under `root`. A sample's key is its path relative to `root`."""

    def __init__(self, root: Path, files: Sequence[Path], modality: Modality):
        self.root, self.files, self.modality = root, files, modality
        self.catalog = Catalog([modality])

    @property
    def names(self) -> tuple[str, ...]:
        return (self.modality.name,)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, i: int) -> str:
        return self.files[i].relative_to(self.root).as_posix()

    def __getitem__(self, i: int) -> dict[str, Any]:
        check_key(self.key(i), str(self.root))
        value = read_part(self.modality.name, partial(read_value, self.files[i], self.modality.value))
        return {} if value is None else fit({self.modality.name: value}, self.catalog)


class Pictures(Files):
    """The pictures under a folder as values of a modality.

    Raises:
        MaskweaveError: the folder has no pictures.
    """

    def __init__(self, root: Path, modality: Modality):
        files = files_under(root, PICTURES)
        if not files:
            raise MaskweaveError(
                f"{root}: contains no pictures; expected files of {', '.join(PICTURES)} (links are ignored)"
            )
        super().__init__(root, files, modality)
