"""Labeled pictures: class folders ROOT/CLASS/.../NAME.EXT, and COCO's json of boxes (https://cocodataset.org/#format-data)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.pictures import Files, files_under
from maskweave.data.source import check_key
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json
from maskweave.modality.entry import Modality
from maskweave.values.files import read_value
from maskweave.values.items import is_number


class ClassFolders(Files):
    """One folder per class. Sample i is `{picture modality: value}`, and `labels[i]` is the index of its class in `classes`.

    Files are in a fixed random order, so that any part of them contains all classes. Hidden files and links are ignored.

    Raises:
        MaskweaveError: no such folder, fewer than two classes, or a class without files.
    """

    def __init__(self, root: str | os.PathLike[str], modality: Modality):
        root = Path(root)
        if not root.is_dir():
            raise MaskweaveError(f"{root}: no such folder; expected {root}/CLASS/NAME.{modality.value.endings[0]}")
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        self.classes = tuple(p.name for p in folders)
        if len(folders) < 2:
            raise MaskweaveError(
                f"{root}: contains {len(folders)} folders ({', '.join(self.classes) or 'none'}); expected one folder per class, for at least two classes"
            )
        files, labels = [], []
        for label, folder in enumerate(folders):
            found = files_under(folder, modality.value.endings)
            if not found:
                raise MaskweaveError(
                    f"{folder}: contains no {modality.name} files; expected NAME.{' or NAME.'.join(modality.value.endings)}"
                )
            files += found
            labels += [label] * len(found)
        order = np.random.default_rng(0).permutation(len(files))
        super().__init__(root, [files[i] for i in order], modality)
        self.labels: Sequence[int] = np.asarray(labels)[order].tolist()


MAX_ANNOTATIONS_MB = 2048.0
"""Largest annotation file. The file of COCO's 118,000 training pictures has about 450 MB."""


class CocoBoxes:
    """Pictures and their boxes. Sample i is `{picture modality: value, boxes modality: value}`, cropped to the center and resized.

    Boxes of crowds are skipped.

    Args:
        annotations: COCO's json.
        pictures: folder of the files listed in the json.
        picture: entry of the pictures.
        boxes: entry of the boxes; its classes must include the json's categories.

    Raises:
        MaskweaveError: the json is not in COCO's format, or its categories are not among the entry's classes.
    """

    def __init__(
        self, annotations: str | os.PathLike[str], pictures: str | os.PathLike[str], picture: Modality, boxes: Modality
    ):
        self.path, self.pictures, self.picture, self.boxes = Path(annotations), Path(pictures), picture, boxes
        if not self.pictures.is_dir():
            raise MaskweaveError(f"{pictures}: no such folder; expected the pictures listed in {annotations}")
        self.entries = {m.name: m for m in (picture, boxes)}
        content = read_json(annotations, limit=MAX_ANNOTATIONS_MB)
        try:
            self.images = [(im["id"], str(im["file_name"]), im["width"], im["height"]) for im in content["images"]]
            categories = {c["id"]: str(c["name"]) for c in content["categories"]}
            self.items: dict[Any, list[dict[str, Any]]] = {number: [] for number, *_ in self.images}
            for item in content["annotations"]:
                if not item.get("iscrowd"):
                    self.items[item["image_id"]].append({"class": categories[item["category_id"]], "box": item["bbox"]})
        except (KeyError, TypeError, AttributeError) as error:
            raise MaskweaveError(
                f"{annotations}: is not a COCO JSON file of boxes ({type(error).__name__}: {error}); "
                "expected images (id, file_name, width, height), categories (id, name) and annotations (image_id, category_id, bbox)"
            ) from error
        if unknown := sorted(set(categories.values()) - set(boxes.value.classes)):
            raise MaskweaveError(
                f"{annotations}: its categories {', '.join(unknown[:10])} are not among the {len(boxes.value.classes)} classes of the entry {boxes.name!r}; "
                "list all of them under its value.classes"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return (self.picture.name, self.boxes.name)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, i: int) -> str:
        return check_key(self.images[i][1], str(self.path))

    def __getitem__(self, i: int) -> dict[str, Any]:
        number, name, width, height = self.images[i]
        scale = (width, height)
        if not all(is_number(side) and side > 0 for side in scale):
            raise BadSample(
                f"{self.path}: image {number} has width {width} and height {height}; expected numbers of pixels above 0"
            )
        boxes = []
        for item in self.items[number]:
            box = item["box"]
            if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
                raise BadSample(
                    f"{self.path}: image {number} has the bbox {str(box)[:80]}; expected [x, y, width, height]"
                )
            low = [box[k] / scale[k] for k in (0, 1)]
            high = [(box[k] + box[k + 2]) / scale[k] for k in (0, 1)]
            boxes.append({"class": item["class"], "box": [min(max(x, 0.0), 1.0) for x in (*low, *high)]})
        picture = read_value(self.pictures / check_key(name, str(self.path)), self.picture.value)
        catalog: Any = self.entries  # `fit` only looks up entries by name
        return fit({self.picture.name: picture, self.boxes.name: boxes}, catalog)
