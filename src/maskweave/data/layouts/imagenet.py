"""ImageNet-1K (https://arxiv.org/abs/1409.0575) as class folders: SPLIT/CLASS/NAME.JPEG.

The official validation archive has all pictures in one folder; their classes are then read from `LOC_val_solution.csv`, which is distributed beside it:

    ROOT/train/n01440764/n01440764_10026.JPEG
    ROOT/val/ILSVRC2012_val_00000001.JPEG
    ROOT/LOC_val_solution.csv                     ImageId,PredictionString: "n01751748 111 108 230 366 …", the class and its boxes

ROOT may also be the folder above, with ILSVRC/Data/CLS-LOC/SPLIT.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from maskweave.data.labeled import ClassFolders
from maskweave.data.layouts.base import PICTURE
from maskweave.data.pictures import Files, files_under
from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality

SOLUTION = "LOC_val_solution.csv"
INNER = Path("ILSVRC/Data/CLS-LOC")


class ImageNet(ClassFolders):
    """Pictures with their classes, in the order of the classes of the split `train`, if it is there."""

    fields: ClassVar[tuple[str, ...]] = (PICTURE,)

    def __init__(self, root: Path, split: str, entries: Sequence[Modality]):
        if len(entries) != 1:
            raise MaskweaveError(f"{root}: ImageNet has pictures only; expected one modality, found {len(entries)}")
        base = root / INNER if (root / INNER).is_dir() else root
        folder = base / split
        if (root / SOLUTION).is_file() and not any(path.is_dir() for path in folder.glob("n*")):
            self._flat(root, folder, entries[0])
        else:
            super().__init__(folder, entries[0])

    def _flat(self, root: Path, folder: Path, modality: Modality) -> None:
        try:
            with open(root / SOLUTION, newline="", encoding="utf-8") as file:
                classes = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
            raise MaskweaveError(
                f"{root / SOLUTION}: expected the columns ImageId,PredictionString ({error!r})"
            ) from error
        files = files_under(folder, modality.value.endings)
        if not files or (lost := [path.name for path in files if path.stem not in classes]):
            found = f"no class of {', '.join(lost[:5])}" if files else "no pictures"
            raise MaskweaveError(f"{folder}: {SOLUTION} and the folder do not fit: found {found}")
        self.classes = tuple(sorted(set(classes.values())))
        Files.__init__(self, folder, files, modality)
        self.labels = [self.classes.index(classes[path.stem]) for path in files]
