"""COCO's panoptic annotations (https://cocodataset.org/#format-data) as classes of points: 80 kinds of things and 53 of stuff.

ROOT/val2017/000000000139.jpg
ROOT/annotations/panoptic_val2017.json
ROOT/annotations/panoptic_val2017/000000000139.png      id of a segment = R + 256 G + 65,536 B; 0: unlabeled
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskweave.data.coco import MAX_ANNOTATIONS_MB
from maskweave.data.layouts.base import CLASSES, PICTURE, DataLayout, class_ids, photograph, unknown_id
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json
from maskweave.values.base import ValueType


class CocoPanoptic(DataLayout):
    fields: ClassVar[tuple[str, ...]] = (PICTURE, CLASSES)

    def __init__(self, root: Path, split: str):
        self.pictures, self.maps = root / split, root / "annotations" / f"panoptic_{split}"
        self.path = self.maps.with_suffix(".json")
        if not (self.path.is_file() and self.maps.is_dir() and self.pictures.is_dir()):
            raise MaskweaveError(
                f"{root}: expected the folders {split} and annotations/panoptic_{split}, and annotations/panoptic_{split}.json; "
                "unpack COCO's panoptic annotations, and the archive of the same name inside them"
            )
        content = read_json(self.path, limit=MAX_ANNOTATIONS_MB)
        try:
            self.categories = {c["id"]: str(c["name"]) for c in content["categories"]}
            files = {image["id"]: self._name(image) for image in content["images"]}
            self.samples = [
                (files[a["image_id"]], self._name(a), {s["id"]: s["category_id"] for s in a["segments_info"]})
                for a in content["annotations"]
            ]
        except (KeyError, TypeError) as error:
            raise MaskweaveError(f"{self.path}: is not a file of panoptic annotations ({error!r})") from error

    def _name(self, item: Mapping[str, Any]) -> str:
        return check_key(str(item["file_name"]), str(self.path))

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, i: int) -> str:
        return self.samples[i][0]

    def read(self, i: int, field: str, value: ValueType) -> Any:
        picture, name, segments = self.samples[i]
        if field == PICTURE:
            return photograph(self.pictures / picture)
        index = class_ids(self.categories, value, str(self.path))
        r, g, b = np.moveaxis(photograph(self.maps / name).astype(np.int64), -1, 0)
        numbers, place = np.unique(r + 256 * g + 65536 * b, return_inverse=True)
        unknown = [int(n) for n in numbers if n and segments.get(int(n)) not in index]
        if unknown:
            raise BadSample(
                f"{self.maps / name}: has segments {unknown[:5]} that {self.path.name} does not list with a known category"
            )
        nothing = unknown_id(value)
        ids = np.array([index[segments[int(n)]] if n else nothing for n in numbers], np.int32)
        return ids[place].reshape(r.shape)
