"""Pictures that are free to use, and the recipe and the study that use them."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.opening import open_data
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.synthetic import pictures
from maskweave.synthetic.pictures import FreePictures, crop, photographs, texture

ROOT = Path(__file__).parents[2]
SOURCE = "python: maskweave.synthetic.pictures:FreePictures"


def test_pictures_are_of_many_kinds_and_depend_on_the_seed_alone() -> None:
    catalog = load_catalog("pictures")
    source = open_data(SOURCE, catalog, samples=8, seed=3)
    assert source.names == ("free_picture",) and len(source) == 8 and source.key(2) == "3-0000002"
    found = [source[i]["free_picture"] for i in range(8)]
    assert all(picture.dtype == np.uint8 and picture.shape == (64, 64, 3) and picture.std() > 2 for picture in found)
    again, other = FreePictures(catalog, 8, 3), FreePictures(catalog, 8, 4)
    assert all(np.array_equal(picture, again[i]["free_picture"]) for i, picture in enumerate(found))
    assert not any(np.array_equal(picture, other[i]["free_picture"]) for i, picture in enumerate(found))
    with pytest.raises(IndexError, match="picture 8 does not exist; expected 0 to 7"):
        source[8]
    with pytest.raises(MaskweaveError, match=r"pictures are for color pictures of one size; remove other entries"):
        FreePictures(load_catalog("scenes"), 1)


def test_photographs_are_cropped_at_many_scales_without_reading_what_is_held_out() -> None:
    pytest.importorskip("skimage")
    assert len(photographs()) == len(pictures.PHOTOGRAPHS)
    rng = np.random.default_rng(0)
    path = next(path for path in photographs() if path.name == "chelsea.png")
    crops = np.stack([crop(path, (32, 48), rng) for _ in range(20)])
    assert crops.shape == (20, 32, 48, 3) and crops.mean(axis=(1, 2, 3)).std() > 3
    steps = np.abs(np.diff(crops.astype(int), axis=2)).mean(axis=(1, 2, 3))
    assert steps.max() > 1.5 * steps.min(), "near and far"


def test_textures_are_of_many_frequencies() -> None:
    rng = np.random.default_rng(0)
    found = np.stack([texture((32, 32), rng) for _ in range(30)])
    relative = np.abs(np.diff(found.astype(float), axis=2)).mean(axis=(1, 2, 3)) / found.std(axis=(1, 2, 3))
    assert relative.max() > 3 * relative.min()


def test_emoji_have_the_size_of_the_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hearts:
        """Stands in for the emoji of a font, which have its size."""

        def __init__(self, catalog: Catalog):
            self.names = tuple(catalog)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {self.names[0]: np.full((20, 20, 3), 40 * i + 7, np.uint8), self.names[1]: "heart"}

    (tmp_path / "font.ttf").touch()
    monkeypatch.setattr(pictures, "FONT", str(tmp_path / "font.ttf"))
    monkeypatch.setattr(pictures, "Emoji", Hearts)
    source = FreePictures(load_catalog("pictures"), 40)
    found = {int(source[i]["free_picture"][5, 5, 0]) for i in range(2, 40, 4)}
    assert found <= {7, 47, 87, 127, 167} and len(found) > 2
    assert source[2]["free_picture"].shape == (64, 64, 3)


def test_without_photographs_and_font_there_are_textures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "photographs", list)
    monkeypatch.setattr(pictures, "FONT", "/no/such/font.ttf")
    source = FreePictures(load_catalog("pictures"), 4)
    assert source[0]["free_picture"].std() > 2 and source[2]["free_picture"].std() > 2


@pytest.mark.slow
def test_the_recipe_makes_tokenizers_that_entries_can_take(tmp_path: Path) -> None:
    sizes = [f"--tokenizers.{key}" for key in ("samples", "train.steps", "train.batch_size")]
    words = [word for pair in zip(sizes, ("12", "2", "4"), strict=True) for word in pair]
    words += ["--data.samples", "12", "--data.validation", "4"]
    assert (
        main(["tokenizer", str(ROOT / "recipes/picture-tokenizer.yaml"), "--out", str(tmp_path / "run"), *words]) == 0
    )
    (tmp_path / "mine.yaml").write_text(
        "modalities:\n  photo:\n    id: 5\n    kind: grid\n    grid: [2, 3]\n    value: {type: image, size: [32, 48], channels: 3}\n"
        f'    tokenizer: {{pretrained: "{tmp_path}/run#picture-p16"}}\n',
        encoding="utf-8",
    )
    entry = load_catalog(tmp_path / "mine.yaml")["photo"]
    assert entry.network is not None and entry.network.trained_grid == (4, 4) and entry.codes == 12800


@pytest.mark.slow
def test_the_study_measures_photographs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "studies")
    study = importlib.import_module("picture_tokenizer")
    for name, value in (("MANY", 8), ("FEW", 4), ("LARGEST", 256), ("HELD_OUT", {"skimage": ("data/rocket.jpg",)})):
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(sys, "argv", ["picture_tokenizer.py", "--steps", "2", "--tokenizer", "picture-p8"])
    study.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rocket")]
    assert len(lines) == 3 and all("dB at 0.213 bits per pixel; JPEG" in line for line in lines)
    assert all(line.endswith("CPU seconds") for line in lines[:2]) and lines[2].endswith("trained elsewhere")
    ratios = [float(line.split(" dB")[0].split()[-1]) for line in lines]
    assert ratios[2] > max(ratios[:2]) + 5, "the one that ships is trained"
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    one, again = (
        study.trained(load_catalog("pictures")[study.ENTRIES[0]], pictures, 2)[0].state_dict() for _ in range(2)
    )
    assert all(torch.equal(one[key], again[key]) for key in one), "a training can be repeated"
    ((_, picture),) = study.photographs()
    coarse, few = study.by_jpeg(picture, 0.2)
    fine, many = study.by_jpeg(picture, 1.0)
    assert few <= 0.2 and few < many <= 1.0 and fine > coarse
    for name in ("a", "b"):
        Image.new("RGBA", (72, 72), (200, 0, 0, 0)).save(tmp_path / f"{name}.png")
    assert [picture.min() for picture in study.pictures_of(tmp_path)] == [255, 255], "white, whatever lies below"
    words = ["picture_tokenizer.py", "--steps", "0", "--tokenizer", "picture-p8", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    study.main()
    rocket, folder = capsys.readouterr().out.splitlines()
    assert rocket == lines[2], "the same without the trainings"
    assert folder.startswith(tmp_path.name) and float(folder.split(" dB")[0].split()[-1]) > 25
