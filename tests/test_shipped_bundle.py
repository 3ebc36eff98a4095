"""The bundle `scenes`, which ships with the package: small, found by its name, and better than the best constant on scenes that it never saw."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import load_catalog
from maskweave.provenance import read_provenance
from maskweave.shipped import shipped_bundle
from maskweave.synthetic.scenes import Scenes
from maskweave.training.recipe import load_recipe
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import run_transfer


def test_it_predicts_everything_from_one_picture() -> None:
    bundle = maskweave.load("scenes")
    scenes = Scenes(load_catalog("scenes").subset(["rgb", "depth", "semseg"]), 8, seed=99)
    samples = [scenes[i] for i in range(8)]
    results = bundle.generate_batch(
        [{"rgb": sample["rgb"]} for sample in samples], ["depth", "semseg", "caption"], seeds=range(8)
    )
    truth = np.stack([sample["depth"] for sample in samples])
    found = np.stack([result["depth"] for result in results])
    constant = np.median(truth, axis=0)
    assert np.abs(found / truth - 1).mean() < 0.7 * np.abs(constant / truth - 1).mean()
    right = np.mean(
        [(result["semseg"] == sample["semseg"]).mean() for result, sample in zip(results, samples, strict=True)]
    )
    assert right > 0.8
    assert all("object" in result["caption"] for result in results)


def test_it_is_small_and_says_where_it_comes_from() -> None:
    folder = shipped_bundle("scenes")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    assert read_provenance(folder).license == "apache-2.0"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| `rgb` | `depth` | AbsRel (lower) |" in card and "license: apache-2.0" in card
    assert card == maskweave.load("scenes").card("scenes"), (
        "maskweave card scenes --out src/maskweave/bundles/scenes/README.md"
    )


def test_opening_a_bundle_does_not_import_the_compiler() -> None:
    """It takes as long as torch itself."""
    program = "import sys, maskweave; maskweave.load('scenes'); print([n for n in ('torch._dynamo', 'sympy') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_recipes_start_from_it_by_its_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"start": "scenes", "inputs": ["rgb"], "target": "metadata", "label": "object_count"}
    data, train = {"source": "scenes", "samples": 16, "validation": 8}, {"steps": 2, "batch_size": 8}
    write_yaml(tmp_path / "count.yaml", {**content, "data": data, "train": train})
    monkeypatch.chdir(tmp_path)
    rows = run_transfer(load_transfer("count.yaml"), tmp_path / "out")
    assert (
        any(row.metric == "accuracy" for row in rows) and read_yaml(tmp_path / "out/recipe.yaml")["start"] == "scenes"
    )
    assert load_recipe("scenes", {"start": "scenes"}).start_folder == shipped_bundle("scenes")
    (tmp_path / "scenes").mkdir()
    assert load_transfer("count.yaml").start == str(tmp_path / "scenes"), "a folder of this name comes first"
    assert load_transfer("count.yaml", {"start": "hf://owner/name"}).start == "hf://owner/name"
    with pytest.raises(
        MaskweaveError, match="lost: no such folder in .*; expected the folder that 'maskweave run' made"
    ):
        load_transfer("count.yaml", {"start": "lost"}).load_catalog()
