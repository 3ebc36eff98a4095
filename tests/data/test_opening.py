"""Layouts of data: each is told by what it holds, and what is ambiguous or unknown is refused with what was found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.data.coco import Coco
from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.data.labeled import ClassFolders
from maskweave.data.opening import open_data
from maskweave.data.pictures import Pictures
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.synthetic.scenes import Scenes

WANTED = ["rgb", "normal", "caption"]


@pytest.fixture(scope="module")
def files(scenes_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aligned folders of six scenes, not imported."""
    catalog = scenes_catalog.subset(WANTED)
    return export(Scenes(catalog, 6, 0), catalog, tmp_path_factory.mktemp("aligned") / "files")


@pytest.fixture(scope="module")
def imported(files: Path, scenes_catalog: Catalog) -> Path:
    import_folders(files, files.parent / "shards", scenes_catalog.subset(WANTED))
    return files.parent / "shards"


def pictures(root: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60, 3), 20 * level, np.uint8)).save(root / name)
    return root


def test_an_imported_set(imported: Path, scenes_catalog: Catalog, tmp_path: Path) -> None:
    found = open_data(str(imported), scenes_catalog, labeled=True)
    assert isinstance(found, Shards) and set(found.names) == set(WANTED) and len(found) == 6
    assert len(open_data(str(imported), scenes_catalog, samples=4)) == 4
    assert len(open_data(str(imported), scenes_catalog, samples=40)) == 6
    tars = shutil.copytree(imported, tmp_path / "tars")
    shutil.rmtree(tars / ".index")
    (tars / "index.json").unlink()
    assert isinstance(open_data(str(tars), scenes_catalog), Shards), "tars of other tools have no index"
    unfinished = shutil.copytree(imported, tmp_path / "unfinished")
    (unfinished / "index.json").unlink()
    with pytest.raises(MaskweaveError, match="its import is not finished"):
        open_data(str(unfinished), scenes_catalog)


def test_classes_called_like_modalities(tmp_path: Path, scenes_catalog: Catalog) -> None:
    root = pictures(tmp_path, "normal/0001.png", "normal/0002.png", "pneumonia/0001.png")
    (root / "index.json").write_text("{}", encoding="utf-8")  # of something else: an imported set has tars
    found = open_data(str(root), scenes_catalog, names=["rgb"], labeled=True)
    assert isinstance(found, ClassFolders) and found.classes == ("normal", "pneumonia") and len(found) == 3
    alone = open_data(str(root), scenes_catalog)
    assert isinstance(alone, Pictures) and alone.names == ("rgb",) and len(alone) == 3
    both = pictures(tmp_path / "both", "depth/a.png", "normal/b.png")
    labeled = open_data(str(both), scenes_catalog, names=["rgb"], labeled=True)
    assert isinstance(labeled, ClassFolders) and labeled.classes == ("depth", "normal")


def test_folders_may_be_links(tmp_path: Path, scenes_catalog: Catalog) -> None:
    pictures(tmp_path / "elsewhere", "cats/a.png", "dogs/b.png")
    (tmp_path / "root").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert len(open_data(str(tmp_path / "root"), scenes_catalog, labeled=True)) == 2


def test_color_pictures_before_others(tmp_path: Path, scenes_catalog: Catalog) -> None:
    import dataclasses

    rgb = scenes_catalog["rgb"]
    gray = dataclasses.replace(rgb, name="gray", id=99, value=dataclasses.replace(rgb.value, channels=1))
    both = Catalog([gray, rgb])
    root = pictures(tmp_path, "a.png")
    assert open_data(str(root), both).names == ("rgb",)
    assert open_data(str(root), both, names=["gray"]).names == ("gray",)


def test_coco_boxes(tmp_path: Path, scenes_catalog: Catalog) -> None:
    root = pictures(tmp_path / "pictures", "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "red cube"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 20]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content), encoding="utf-8")
    place = str(tmp_path / "boxes.json")
    found = open_data(place, scenes_catalog, names=["rgb", "boxes"], pictures=str(root))
    assert isinstance(found, Coco) and found.names == ("rgb", "boxes") and len(found) == 1
    assert open_data(place, scenes_catalog, names=["rgb", "depth"], pictures=str(root)).names == ("rgb",)


@pytest.mark.parametrize("labeled", [False, True])
def test_files_that_are_not_imported(labeled: bool, files: Path, scenes_catalog: Catalog) -> None:
    with pytest.raises(
        MaskweaveError, match=r"each modality \(caption, normal, rgb\).*not imported yet.*'maskweave data import'"
    ):
        open_data(str(files), scenes_catalog, labeled=labeled)


def test_shards_beside_pictures_are_ambiguous(imported: Path, scenes_catalog: Catalog, tmp_path: Path) -> None:
    tars = shutil.copytree(imported, tmp_path / "tars", ignore=shutil.ignore_patterns(".index", "index.json"))
    pictures(tars, "cats/a.png", "dogs/b.png")
    with pytest.raises(
        MaskweaveError,
        match=r"contains tar shards \(rgb, normal, caption\) and pictures as files \(cats, dogs\).*ambiguous",
    ):
        open_data(str(tars), scenes_catalog, labeled=True)
    with_index = shutil.copytree(imported, tmp_path / "with index")
    pictures(with_index, "sheets/a.png")
    assert isinstance(open_data(str(with_index), scenes_catalog), Shards), "its index says what it is"


def test_what_is_unknown_is_told_with_what_was_found(tmp_path: Path, imported: Path, scenes_catalog: Catalog) -> None:
    kinds = r"expected an imported data set or tar shards .* folders of pictures .*a COCO JSON file or folder, or a named source \(scenes"
    with pytest.raises(MaskweaveError, match=f"nowhere: no such folder; {kinds}"):
        open_data(str(tmp_path / "nowhere"), scenes_catalog)
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=f"notes.txt: is a file; {kinds}"):
        open_data(str(tmp_path / "notes.txt"), scenes_catalog)
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    with pytest.raises(
        MaskweaveError, match=f"contains no pictures and no tar shards, found no files and the folders cats; {kinds}"
    ):
        open_data(str(tmp_path / "empty"), scenes_catalog)
    other = tmp_path / "other"
    for path in (imported / "rgb").glob("*.tar"):
        (other / "photo").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / "photo")
    (other / "README.md").write_text("", encoding="utf-8")
    with pytest.raises(
        MaskweaveError,
        match=r"found files of .md \(1\), .tar \(1\) and the folders photo; expected .*MODALITY one of rgb, ",
    ):
        open_data(str(other), scenes_catalog)
    with pytest.raises(MaskweaveError, match="no modality of pictures is requested"):
        open_data(str(other), scenes_catalog, names=["caption"])
    with pytest.raises(MaskweaveError, match=r"samples must be 0 \(all\) or more, found -1"):
        open_data(str(imported), scenes_catalog, samples=-1)
