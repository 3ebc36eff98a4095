"""Agreement of two teachers as a weight, from `maskweave label` to the tokenizer's loss and the scores of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.files import write_yaml
from maskweave.generate.bundle import load
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source
from maskweave.training.tokenizers import train_tokenizers
from maskweave.values.weights import CLIPPED_AT

SMALL = {"width": 32, "heads": 2, "depth": 1, "decoder_depth": 1, "loss": "mse", "quantizer": {"type": "fsq", "levels": [8, 8, 8]}}  # fmt: skip
LEVEL = {"kind": "grid", "grid": [4, 4], "tokenizer": SMALL, "value": {"type": "map", "size": [16, 16], "fit": "crop", "range": [0, 1], "missing": "nan"}}  # fmt: skip


def catalog(weight: str = "sure") -> Catalog:
    rgb = {"id": 1, "kind": "patches", "grid": [4, 4], "value": {"type": "image", "size": [16, 16], "channels": 3}}
    teachers = {name: {"from": "rgb", "by": "teacher", "model": f"python: own_teachers:{function}"} for name, function in (("first", "brightness"), ("second", "redness"))}  # fmt: skip
    agree = {"from": "first", "by": "agreement", "with": "second"}
    entries: dict[str, Any] = {
        "rgb": rgb,
        "first": {"id": 2, **LEVEL, "derive": teachers["first"], **({"weight": weight} if weight else {})},
        "second": {"id": 3, **LEVEL, "derive": teachers["second"]},
        "sure": {"id": 4, **LEVEL, "kind": "patches", "derive": agree},
    }
    del entries["sure"]["tokenizer"]
    return catalog_from({"modalities": entries}, "test")


RECIPE = """\
catalog: HOME/labels.yaml
modalities: [rgb, first, sure]
data: {source: HOME/shards, validation: 8}
tokenizers: {train: {steps: 3, batch_size: 8, checkpoint_every: 0, log_every: 1}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 16, target_tokens: 16}}
train: {steps: 2, batch_size: 8, checkpoint_every: 0}
evaluate: {samples: 8, requests: [{inputs: [rgb], targets: [first]}]}
"""


def test_agreement_reaches_training_and_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "raw" / "rgb").mkdir(parents=True)
    for n in range(40):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "raw" / "rgb" / f"{n:02d}.png")
    entries = catalog()
    write_yaml(tmp_path / "labels.yaml", entries.to_plain())
    import_folders(tmp_path / "raw", tmp_path / "shards", entries)
    assert main(["label", str(tmp_path / "shards"), "--catalog", str(tmp_path / "labels.yaml"), "--allow-code"]) == 0
    shards = Shards(tmp_path / "shards", entries)
    for k in range(3):
        raw = shards.raw(k)
        first, red = raw["rgb"].mean(-1) / 255, raw["rgb"][..., 0] / 255
        spread = np.median(np.abs(first - np.median(first)))
        np.testing.assert_allclose(raw["sure"], 1 / (1 + ((first - red) / spread) ** 2), rtol=1e-4)

    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("HOME", str(tmp_path)), encoding="utf-8")
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    recipe = load_recipe(tmp_path / "recipe.yaml")
    train_tokenizers(recipe, catalog("").subset(["rgb", "first"]), tmp_path / "plain")
    losses = [read_metrics(tmp_path / run / "tokenizers" / "first")[0]["loss"] for run in ("plain", "run")]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.3)

    bundle = load(tmp_path / "run")
    source = open_source(recipe, bundle.catalog, "validation", samples=8)
    samples = [source[i] for i in range(len(source))]
    tokenizer, truth = bundle.tokenizers["first"], np.stack([sample["first"] for sample in samples])
    error = np.abs(tokenizer.decode(tokenizer.encode(truth)) - truth)
    weights = np.stack([sample["sure"] for sample in samples])
    weights = np.minimum(weights, np.quantile(weights, CLIPPED_AT))
    (mae,) = [
        row
        for row in json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
        if row["metric"] == "MAE"
    ]
    assert mae["tokenizer"] == pytest.approx((weights * error).sum() / weights.sum(), rel=1e-4)
    assert mae["tokenizer"] != pytest.approx(error.mean(), rel=1e-3)
