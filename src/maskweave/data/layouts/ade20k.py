"""ADE20K as in its scene parsing challenge of 2016 (https://arxiv.org/abs/1608.05442): 150 classes of points.

ROOT/images/validation/ADE_val_00000001.jpg
ROOT/annotations/validation/ADE_val_00000001.png      classes from 1 on, in the order of ROOT/objectInfo150.txt; 0: other, which does not count
"""

from pathlib import Path
from typing import Any, ClassVar

from maskweave.data.layouts.base import CLASSES, PICTURE, DataLayout, numbered_classes, photograph
from maskweave.errors import MaskweaveError
from maskweave.values.base import ValueType
from maskweave.values.files import read_bytes, read_levels


class ADE20K(DataLayout):
    fields: ClassVar[tuple[str, ...]] = (PICTURE, CLASSES)

    def __init__(self, root: Path, split: str):
        self.maps = root / "annotations" / split
        self.files = sorted((root / "images" / split).glob("*.jpg"))
        if not self.files or not self.maps.is_dir():
            raise MaskweaveError(
                f"{root}: expected images/{split}/NAME.jpg and annotations/{split}/NAME.png, as ADEChallengeData2016.zip unpacks"
            )

    def __len__(self) -> int:
        return len(self.files)

    def key(self, i: int) -> str:
        return self.files[i].stem

    def read(self, i: int, field: str, value: ValueType) -> Any:
        if field == PICTURE:
            return photograph(self.files[i])
        path = self.maps / f"{self.files[i].stem}.png"
        return numbered_classes(read_levels(read_bytes(path), "png", str(path)), value)
