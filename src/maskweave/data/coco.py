"""COCO (https://cocodataset.org/#format-data): pictures with boxes, masks, captions and categories from its JSON files.

| feature | becomes |
| --- | --- |
| `image` | the picture |
| `boxes` | the boxes of its objects, with their classes |
| `instances` | the masks of its objects; needs the extra `[eval]` |
| `captions` | its captions; entries of text use the first |
| `categories` | the names of the classes in it, each once |

Crowds are skipped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.features import named_features, with_likely_features
from maskweave.data.mirror import origin, version
from maskweave.data.part_source import FilePart, PartSource, read_entries
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import read_json
from maskweave.modality.catalogs import Catalog
from maskweave.values.boxes import Boxes
from maskweave.values.files import MAX_PIXELS, read_bytes
from maskweave.values.formats import split_ending
from maskweave.values.formats.base import needs
from maskweave.values.instances import run_lengths
from maskweave.values.items import is_number

MAX_ANNOTATIONS_MB = 2048.0
"""Largest annotation file. The file of COCO's 118,000 training pictures has about 450 MB."""
FEATURES = ("image", "boxes", "instances", "captions", "categories")
OBJECTS = ("boxes", "instances", "categories")
_FORMAT = "expected images (id, file_name, width, height), categories (id, name) and annotations (image_id, category_id, bbox), or annotations with captions (image_id, caption)"


def coco_files(place: Path) -> list[Path]:
    """Returns the annotation files of a COCO folder, `ROOT/annotations/*.json`; those of captions only where there are none of objects."""
    found = sorted(place.glob("annotations/*.json"))
    return [path for path in found if _twin(path, "captions", "instances") not in found or "captions" not in path.name]


class CocoFolder:
    """What COCO's files hold.

    Args:
        place: a JSON file, or a folder with `annotations/NAME.json`. Captions in `captions_NAME.json` belong to `instances_NAME.json`.

    Raises:
        MaskweaveError: a file is not in COCO's format, or there are several.
    """

    def __init__(self, place: str | os.PathLike[str]):
        self.place = Path(place)
        self.path = _annotations(self.place)
        self.notes: list[str] = []
        content = read_json(self.path, limit=MAX_ANNOTATIONS_MB)
        captions = _twin(self.path, "instances", "captions")
        self.files = [self.path]
        try:
            self.images = [(im["id"], str(im["file_name"]), im["width"], im["height"]) for im in content["images"]]
            self._categories = {c["id"]: str(c["name"]) for c in content.get("categories") or ()}
            self._objects: dict[Any, list[tuple[str, dict[str, Any]]]] = {number: [] for number, *_ in self.images}
            self._captions: dict[Any, list[str]] = {}
            self._collect(content["annotations"])
            if captions != self.path and captions.is_file():
                self._collect(read_json(captions, limit=MAX_ANNOTATIONS_MB)["annotations"])
                self.files.append(captions)
                self.notes.append(f"{self.place}: captions are read from {captions}")
        except (KeyError, TypeError, AttributeError) as error:
            raise MaskweaveError(
                f"{self.path}: is not a COCO JSON file of boxes ({type(error).__name__}: {error}); {_FORMAT}"
            ) from error
        has = {"image": True, "captions": bool(self._captions), **dict.fromkeys(OBJECTS, bool(self._categories))}
        self.features = [feature for feature in FEATURES if has[feature]]
        self.classes = sorted(set(self._categories.values()))

    def _collect(self, annotations: list[dict[str, Any]]) -> None:
        for item in annotations:
            number = item["image_id"]
            if number not in self._objects:
                raise KeyError(number)
            if "caption" in item:
                self._captions.setdefault(number, []).append(str(item["caption"]).strip())
            elif not item.get("iscrowd"):
                self._objects[number].append((self._categories[item["category_id"]], item))

    @property
    def has_masks(self) -> bool:
        """Whether an object has a mask."""
        return any(item.get("segmentation") for objects in self._objects.values() for _, item in objects)

    def key(self, i: int) -> str:
        return check_key(self.images[i][1], str(self.path))

    def content(self, i: int, feature: str) -> Any:
        """Returns what a feature other than `image` has for picture i, as content for JSON; None if it is missing.

        Raises:
            BadSample: it is damaged.
        """
        number, _, width, height = self.images[i]
        if feature == "captions":
            return self._captions.get(number)
        objects, where = self._objects[number], f"{self.path}: image {number}"
        if feature == "categories":
            return sorted({name for name, _ in objects})
        if not all(is_number(side) and side > 0 for side in (width, height)) or width * height > MAX_PIXELS:
            raise BadSample(f"{where} has width {width} and height {height}; expected numbers of pixels above 0")
        if feature == "boxes":
            return [{"class": kind, "box": _box(item.get("bbox"), width, height, where)} for kind, item in objects]
        return [{"class": kind, "mask": _mask(item, width, height, where)} for kind, item in objects]

    def picture(self, i: int, pictures: Path) -> FilePart:
        path = pictures / self.key(i)
        return FilePart(read_bytes(path), split_ending(path.name)[1], str(path))

    def find_pictures(self, given: str | os.PathLike[str] = "") -> Path:
        """Returns the folder of the pictures: the given one, or the first one near the file that has its first picture.

        Raises:
            MaskweaveError: it does not exist, or none is found.
        """
        if str(given):
            if not Path(given).is_dir():
                raise MaskweaveError(f"{given}: no such folder; expected the pictures listed in {self.path}")
            return Path(given)
        base, split = self.path.parent, self.path.stem.rpartition("_")[2]
        tops = [base.parent, base] if base.name == "annotations" else [base]
        tried = [top / inner for top in tops for inner in (split, "images", f"images/{split}", "pictures", "")]
        first = self.key(0) if self.images else ""
        for folder in tried:
            if first and (folder / first).is_file():
                self.notes.append(f"{self.place}: pictures are read from {folder}")
                return folder
        raise MaskweaveError(
            f"{self.place}: the folder of the COCO file's pictures is missing: {shown(first)} is not in {', '.join(map(str, tried[:-1]))}; set data.pictures"
        )


class Coco(PartSource):
    """Pictures and what is annotated in them. Values of the modalities are read from the features in `fields`; a modality that is not listed
    has the feature of its name. Of the rest, the first entry of photographs reads `image`, the first of type `boxes` reads
    `boxes`, and the only one of text reads `captions`.

    Args:
        place: as for `CocoFolder`.
        pictures: folder of the pictures; empty: it is searched near the file.
        catalog: the entries of the modalities.
        fields: feature of each modality.

    Raises:
        MaskweaveError: as `CocoFolder`; the pictures are not found, categories are not among an entry's classes, or no modality has a feature.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        pictures: str | os.PathLike[str],
        catalog: Catalog,
        fields: Mapping[str, str] | None = None,
    ):
        self.folder, self.catalog = CocoFolder(place), catalog
        self.notes = self.folder.notes
        self.chosen = _chosen(self.folder, catalog, dict(fields or {}))
        for name, feature in self.chosen.items():
            known = catalog[name].value.classes
            if feature in OBJECTS and (unknown := sorted(set(self.folder.classes) - set(known))):
                raise MaskweaveError(
                    f"{self.folder.path}: its categories {', '.join(unknown[:10])} are not among the {len(known)} classes of the entry {name!r}; list all of them under its value.classes"
                )
        self.pictures = self.folder.find_pictures(pictures) if "image" in self.chosen.values() else Path(pictures)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.chosen)

    def __len__(self) -> int:
        return len(self.folder.images)

    def key(self, i: int) -> str:
        return self.folder.key(i)

    def state(self) -> list[Any]:
        files = [[origin(path), *version(path)] for path in self.folder.files]
        return [files, origin(self.pictures), self.chosen]

    def named_files(self, i: int) -> list[Path]:
        return [self.pictures / self.key(i)] if "image" in self.chosen.values() else []

    def part(self, i: int, name: str) -> FilePart | None:
        feature = self.chosen[name]
        if feature == "image":
            return self.folder.picture(i, self.pictures)
        content = self.folder.content(i, feature)
        where = f"{self.folder.path}: image {self.folder.images[i][0]}"
        return None if content is None else FilePart(json.dumps(content).encode(), "json", where)


def _chosen(folder: CocoFolder, catalog: Catalog, fields: dict[str, str]) -> dict[str, str]:
    """Returns the feature of each modality that has one."""
    entries = read_entries(catalog)
    found = named_features(folder.place, list(entries), fields, folder.features)
    rest = {name: m.value for name, m in entries.items() if name not in found}
    photographs = [n for n, value in rest.items() if value.is_photograph and len(value.size) == 2]
    likely = {
        "image": [n for n in photographs if rest[n].channels == 3][:1] or photographs[:1],
        "boxes": [n for n, value in rest.items() if isinstance(value, Boxes)][:1],
        "captions": [n for n, value in rest.items() if value.is_text],
    }
    return with_likely_features(folder.place, list(entries), found, likely, folder.features)


def _annotations(place: Path) -> Path:
    if not place.is_dir():
        return place
    found = coco_files(place)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found[:10]) or "none"
        raise MaskweaveError(f"{place}: contains the annotation files {listed}; expected one; open one of them instead")
    return found[0]


def _twin(path: Path, kind: str, other: str) -> Path:
    """`captions_val2017.json` for `instances_val2017.json`."""
    return path.with_name(path.name.replace(kind, other, 1))


def _box(box: Any, width: float, height: float, where: str) -> list[float]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        raise BadSample(f"{where} has the bbox {str(box)[:80]}; expected [x, y, width, height]")
    corners = [box[0] / width, box[1] / height, (box[0] + box[2]) / width, (box[1] + box[3]) / height]
    return [min(max(x, 0.0), 1.0) for x in corners]


def _mask(item: Mapping[str, Any], width: int, height: int, where: str) -> dict[str, Any]:
    """The mask of an object as uncompressed run lengths."""
    with needs("pycocotools", "eval", where):
        from pycocotools import mask as coco_mask
    shape = item.get("segmentation")
    try:
        if isinstance(shape, Mapping) and [int(side) for side in shape["size"]] != [height, width]:
            raise BadSample(
                f"{where}: a mask has the size {shape['size']}; expected that of its picture, [{height}, {width}]"
            )
        if isinstance(shape, Mapping) and not isinstance(shape["counts"], list):
            packed = {"size": [height, width], "counts": shape["counts"]}
        else:
            packed = coco_mask.frPyObjects(shape, height, width)
        masks = np.asarray(coco_mask.decode(packed))
    except BadSample:
        raise
    except Exception as error:  # pycocotools raises many types of errors on broken masks
        raise BadSample(
            f"{where}: has the segmentation {shown(shape)} ({error}); expected polygons [[x, y, …]] or run lengths"
        ) from error
    return run_lengths(np.asarray(masks.reshape(height, width, -1).any(axis=-1)))
