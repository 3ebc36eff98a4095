"""The bundle `scenes`, which ships with the package: small, found by its name, and better than the best constant on scenes that it never saw."""

import subprocess
import sys

import numpy as np

import maskweave
from maskweave.modality.catalogs import load_catalog
from maskweave.provenance import read_provenance
from maskweave.shipped import shipped_bundle
from maskweave.synthetic.scenes import Scenes


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
