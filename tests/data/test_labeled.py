"""Labeled pictures: folders of classes and COCO's json, sound and broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.data.labeled import ClassFolders
from maskweave.data.reading import read
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import load_catalog

CATALOG = load_catalog("scenes")
RGB = CATALOG["rgb"]


def picture(path: Path, value: int, size: tuple[int, int] = (70, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def test_folders_are_classes(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee", "cat")):
        for i in range(4):
            picture(tmp_path / name / ("more" if i else "") / f"{i}.png", 80 * label)
    (tmp_path / "ant" / "notes.txt").write_text("left aside", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    found = ClassFolders(tmp_path, RGB)
    assert isinstance(found, Source) and found.classes == ("ant", "bee", "cat") and len(found) == 12
    assert all(
        found[i]["rgb"].shape == (64, 64, 3) and found[i]["rgb"][0, 0, 0] == 80 * found.labels[i] for i in range(12)
    )
    assert len({found.key(i) for i in range(12)}) == 12
    assert len(set(found.labels[:6])) == 3, "any part has all classes"
    assert ClassFolders(tmp_path, RGB).files == found.files
    (tmp_path / found.key(0)).write_bytes(b"no picture")
    with pytest.raises(BadSample, match="0.png|1.png|2.png|3.png"):
        found[0]


def test_a_file_with_a_name_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("ant/0.png", "bee/0.png", "bee/1\n.png"):
        picture(tmp_path / name, 0)
    errors = {item.key: item.error for item in read(ClassFolders(tmp_path, RGB), range(3))}
    assert "control character" in errors.pop("bee/1\n.png") and set(errors.values()) == {""}


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="no such folder; expected .*/CLASS/NAME.png"):
        ClassFolders(tmp_path / "nowhere", RGB)
    picture(tmp_path / "ant" / "0.png", 0)
    with pytest.raises(
        MaskweaveError, match=r"contains 1 folders \(ant\); expected one folder per class, for at least two classes"
    ):
        ClassFolders(tmp_path, RGB)
    (tmp_path / "bee").mkdir()
    with pytest.raises(MaskweaveError, match="bee: contains no rgb files"):
        ClassFolders(tmp_path, RGB)
