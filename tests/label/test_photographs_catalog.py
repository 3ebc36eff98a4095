"""The shipped catalog `photographs` with small networks of the same architectures in place of its teachers: from pictures alone to all modalities."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import photographs  # noqa: E402

from maskweave.cli.main import main  # noqa: E402
from maskweave.data.folders import import_folders  # noqa: E402
from maskweave.data.shards import Shards  # noqa: E402
from maskweave.files import read_yaml, write_yaml  # noqa: E402
from maskweave.label.derive import label  # noqa: E402
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog, shipped_folder  # noqa: E402
from maskweave.modality.derivation import TeacherDerivation  # noqa: E402

SCENE, COCO = {0: "wall", 1: "tree", 2: "bed "}, {0: "person", 1: "sofa", 2: "tree"}


def small(root: Path) -> Catalog:
    """The catalog with the small networks and their widths."""
    made: dict[str, str] = {}

    def teacher(model: str) -> str:
        kinds: dict[str, Any] = {
            "zoedepth": tiny_teachers.zoedepth,
            "Depth-Anything": tiny_teachers.depth_anything,
            "upernet": lambda folder: tiny_teachers.upernet(folder, SCENE),
            "rtdetr": lambda folder: tiny_teachers.rtdetr(folder, COCO),
            "blip": tiny_teachers.blip,
            "t5-base": tiny_teachers.t5,
            "vitpose": lambda folder: tiny_teachers.vitpose(folder, joints=17),
            "sam-vit": tiny_teachers.sam,
            "siglip": tiny_teachers.siglip,
            "dinov2": tiny_teachers.dinov2,
        }
        (kind,) = (name for name in kinds if name in model)
        if model not in made:
            made[model] = tiny_teachers.with_license(kinds[kind](root / kind), "mit")
        return made[model]

    content = load_catalog("photographs").to_plain()
    for entry in content["modalities"].values():
        if entry["tokenizer"] is None:
            del entry["tokenizer"]
        derive = entry["derive"]
        if derive is None or derive["by"] != "teacher":
            continue
        derive["model"] = teacher(derive["model"])
        derive["confidence"] = {}
        if derive["task"] in ("image-feature-extraction", "text-embedding"):
            entry["value"]["channels"] = 32
        if derive["task"] == "object-detection":
            derive["options"] = {"threshold": 0.01}
        if derive["task"] == "mask-generation":
            derive["options"] = {"points": 3, "quality": -99.0, "stability": 0.0}
    return catalog_from(content, "small")


def test_pictures_alone_give_all_modalities(tmp_path: Path) -> None:
    (tmp_path / "in" / "rgb@224").mkdir(parents=True)
    for n, picture in enumerate(photographs()):
        Image.fromarray(picture).save(tmp_path / "in" / "rgb@224" / f"{n}.png")
    catalog = small(tmp_path / "models")
    import_folders(tmp_path / "in", tmp_path / "out", catalog)
    report = label(tmp_path / "out", catalog)
    derived = {name for name, entry in catalog.items() if entry.derive is not None}
    assert not report.faults and report.labels == dict.fromkeys(derived, 3)
    assert "tok_semseg@224: classes that the entry lacks" not in str(report)  # "bed " is bed
    shards = Shards(tmp_path / "out", catalog)
    for i in range(3):
        sample = shards[i]  # all views fit together
        assert set(sample) == {*derived, "rgb@224"}
        assert sample["tok_clip@224"].shape == (14, 14, 32) and sample["tok_dinov2@224"].shape == (16, 16, 32)
        assert sample["tok_depth@224"].shape == sample["depth_meters"].shape == (224, 224)
        lengths = np.linalg.norm(sample["tok_normal@224"], axis=-1)
        assert np.allclose(lengths[~np.isnan(lengths)], 1, atol=1e-3)
        assert set(np.unique(sample["tok_semseg@224"])) <= {0, 4, 7}
        assert {box["class"] for box in sample["det"]} <= {"person", "couch"}
        assert len(sample["human_poses"]) <= len(sample["det"])
    again = label(tmp_path / "out", catalog)
    assert again.kept == len(shards.shards) and again.labels == report.labels
    shutil.rmtree(tmp_path / "models")


@pytest.mark.slow
def test_the_four_commands_with_small_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/teachers.md: import, label, run and generate, with the shipped recipe at a small size."""
    (tmp_path / "photographs").mkdir()
    for n, picture in enumerate([*photographs(), *(picture[:, ::-1] for picture in photographs())]):
        Image.fromarray(picture).save(tmp_path / "photographs" / f"{n}.png")
    content = small(tmp_path / "models").to_plain()
    for entry in content["modalities"].values():
        if entry["tokenizer"] is None:
            del entry["tokenizer"]
            continue
        entry["tokenizer"].update(width=32, heads=2, depth=1, decoder_depth=1)
        entry["tokenizer"]["quantizer"]["codes"] = 16
        if entry["tokenizer"]["quantizer"]["type"] == "memcodes":
            entry["tokenizer"]["quantizer"].update(dim=32, heads=4)
    write_yaml(tmp_path / "catalog.yaml", content)
    recipe = read_yaml(Path(__file__).parents[2] / "recipes" / "photographs.yaml")
    recipe["catalog"] = str(tmp_path / "catalog.yaml")
    recipe["data"].update(source=str(tmp_path / "shards"), validation=2, workers=0)
    recipe["data"]["augment"]["copies"] = 1
    short = {"steps": 1, "batch_size": 2, "log_every": 1, "precision": "float32"}
    recipe["tokenizers"]["train"].update(short)
    recipe["train"].update(short, workers=0)
    del recipe["model"]["size"]
    recipe["model"].update(width=32, heads=2, encoder_depth=1, decoder_depth=1)
    recipe["model"]["masking"].update(input_tokens=64, target_tokens=64)
    write_yaml(tmp_path / "recipe.yaml", recipe)
    pictures, shards, run = (str(tmp_path / name) for name in ("photographs", "shards", "run"))
    catalog = ["--catalog", str(tmp_path / "catalog.yaml")]
    assert main(["data", "import", pictures, shards, *catalog, "--single", "rgb@224"]) == 0
    assert main(["label", shards, *catalog]) == 0
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", run]) == 0
    words = [
        "--input",
        f"rgb@224={pictures}/0.png",
        "--target",
        "tok_depth@224,caption",
        "--out",
        str(tmp_path / "one"),
    ]
    assert main(["generate", run, *words]) == 0
    assert Path(run, "report.html").is_file() and "caption" in capsys.readouterr().out
    made = {path.name.partition(".")[0] for path in (tmp_path / "one").rglob("*")}
    assert {"tok_depth@224", "caption"} <= made, made


def test_every_teacher_names_its_license_and_ids_are_those_of_4m() -> None:
    catalog, published = load_catalog("photographs"), load_catalog("4m")
    teachers = [entry.derive for entry in catalog.values() if isinstance(entry.derive, TeacherDerivation)]
    assert len(teachers) > 8 and all(teacher.license in ("MIT", "Apache-2.0", "BSD-3-Clause") for teacher in teachers)
    for name in set(catalog) & set(published):
        assert catalog[name].id == published[name].id and catalog[name].kind == published[name].kind
    assert len(set(catalog) & set(published)) > 14
    page = Path(__file__).parents[2] / "docs" / "teachers.md"
    assert all(f"`{teacher.model}`" in page.read_text(encoding="utf-8") for teacher in teachers)
    assert (shipped_folder() / "photographs.yaml").is_file()
