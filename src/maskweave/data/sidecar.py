"""More modalities of the same samples, in a separate folder of tar shards. They are joined with a source by the samples' names.

Scenes are generated again each time and an imported data set does not change after its import. Values computed from them later, such as the
features of a network, are stored in a sidecar folder.
"""

import os
from typing import Any

from maskweave.data.shards import Shards
from maskweave.data.source import Source, text_labels_of
from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.modality.catalogs import Catalog

RECORD = "features.json"
"""File in a modality's folder, written by `maskweave data features`: the origin of the values, and whether they are complete."""


class SidecarSource:
    """A source that adds to each sample the values that tar shards have under the sample's name.

    Args:
        source: the samples.
        root: folder of tar shards, `ROOT/MODALITY/*.tar`.
        catalog: entries of the modalities in the shards; other folders are ignored.

    Raises:
        MaskweaveError: root is missing, has no tars of these modalities, or is not finished.
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
                f"{root}: the values of {', '.join(unfinished)} are not complete; run the same 'maskweave data features' command again"
            )
        self._indices = {self.more.key(j): j for j in range(len(self.more))}

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.source.names, *self.more.names)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample, j = self.source[i], self._indices.get(self.key(i))
        return sample if j is None else {**sample, **self.more[j]}

    def key(self, i: int) -> str:
        return self.source.key(i)
