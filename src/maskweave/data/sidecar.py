"""Further modalities of the same samples, kept in a folder of their own: joined with a source by the samples' names.

Procedural scenes are made anew each time and an imported data set stays as it was imported; what is made of them later, the features of
a network for instance, lies beside them as tar shards.
"""

import os
from typing import Any

from maskweave.data.shards import Shards
from maskweave.data.source import Source, text_labels_of
from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.modality.catalogs import Catalog

RECORD = "features.json"
"""In a modality's folder: where its values come from, and whether all are there; written by `maskweave data features`."""


class SidecarSource:
    """A source whose samples get what tar shards hold under their names.

    Args:
        source: the samples.
        root: folder of tar shards, `ROOT/MODALITY/*.tar`.
        catalog: entries of what is there; folders that it does not name are left aside.

    Raises:
        MaskweaveError: root is missing, holds no tars of these modalities, or is not finished.
    """

    def __init__(self, source: Source, root: str | os.PathLike[str], catalog: Catalog):
        self.source, self.more = source, Shards(root, catalog)
        self.text_labels = text_labels_of(source)
        records = {name: self.more.root / name / RECORD for name in self.more.names}
        unfinished = [
            n for n, path in records.items() if path.is_file() and not read_json(path, limit=None).get("finished")
        ]
        if unfinished:
            raise MaskweaveError(
                f"{root}: the values of {', '.join(unfinished)} are not finished; start the same 'maskweave data features' again"
            )
        self._places = {self.more.key(j): j for j in range(len(self.more))}

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.source.names, *self.more.names)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample, place = self.source[i], self._places.get(self.key(i))
        return sample if place is None else {**sample, **self.more[place]}

    def key(self, i: int) -> str:
        return self.source.key(i)
