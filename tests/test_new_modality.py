"""New modalities by their entries alone: a spectrum (1-D) and a volume (3-D) from files to tokens, training, generation and back to their units.

No Python of the library knows of them; the catalog below is all there is.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import maskweave
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.modality.catalogs import load_catalog
from maskweave.training.metrics import read_metrics

CATALOG = """\
vocabularies:
  text: {size: 600, sentinels: 8}
modalities:
  spectrum:
    id: 21
    kind: grid
    grid: [8]
    value: {type: map, size: [64], range: [0, 50], unit: mJy}
    tokenizer: {width: 32, heads: 2, depth: 1, decoder_depth: 1, quantizer: {levels: [5, 5, 5]}}
  raw_spectrum:
    id: 22
    kind: patches
    source: spectrum
    grid: [8]
    value: {type: map, size: [64], range: [0, 50], unit: mJy}
  volume:
    id: 23
    kind: grid
    grid: [2, 2, 2]
    value: {type: map, size: [4, 8, 8], range: [-1000, 3000], unit: HU}
    tokenizer: {width: 32, heads: 2, depth: 1, decoder_depth: 1, quantizer: {type: lfq, codes: 64}}
  colors:
    id: 24
    kind: grid
    grid: [2]
    value: {type: vector, channels: 5}
    tokenizer: {model: mlp, width: 32, depth: 1, decoder_depth: 1, quantizer: {type: memcodes, codes: 16, dim: 8, heads: 2}}
  remark:
    id: 25
    kind: sequence
    vocabulary: text
    max_tokens: 12
    value: {type: text}
"""
RECIPE = """\
catalog: survey.yaml
data: {source: SOURCE, validation: 8, shard_size: 16}
tokenizers: {samples: 0, train: {steps: 300, batch_size: 16, learning_rate: 3.0e-3, log_every: 100, checkpoint_every: 0}, steps: {volume: 20, colors: 20}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 20, target_tokens: 20}}
train: {steps: 20, batch_size: 16, checkpoint_every: 0}
evaluate:
  samples: 4
  requests: [{inputs: [raw_spectrum], targets: [volume, remark]}, {inputs: [remark], targets: [spectrum]}]
  sheets: [{inputs: [remark], targets: [spectrum, volume]}]
"""


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of 64 sources, a catalog and a recipe, imported and trained."""
    home = tmp_path_factory.mktemp("survey")
    rng, wavelength = np.random.default_rng(0), np.arange(64)
    for name in ("spectrum", "volume", "colors", "remark"):
        (home / "in" / name).mkdir(parents=True)
    for i in range(64):
        line = 5 + 40 * np.exp(-(((wavelength - rng.uniform(10, 54)) / 6) ** 2))
        np.save(home / "in" / "spectrum" / f"{i:03d}.npy", line.astype(np.float32))
        np.save(home / "in" / "volume" / f"{i:03d}.npy", rng.uniform(-1000, 3000, (4, 8, 8)).astype(np.float32))
        np.save(home / "in" / "colors" / f"{i:03d}.npy", rng.standard_normal(5).astype(np.float32))
        if i % 4:
            (home / "in" / "remark" / f"{i:03d}.txt").write_text(f"source {i % 5} of the field", encoding="utf-8")
    (home / "survey.yaml").write_text(CATALOG, encoding="utf-8")
    (home / "survey-recipe.yaml").write_text(RECIPE.replace("SOURCE", str(home / "shards")), encoding="utf-8")
    assert main(["data", "import", str(home / "in"), str(home / "shards"), "--catalog", str(home / "survey.yaml")]) == 0
    assert main(["run", str(home / "survey-recipe.yaml"), "--out", str(home / "run")]) == 0
    return home


def test_the_run_learned_from_their_tokens(survey: Path) -> None:
    catalog = load_catalog(survey / "survey.yaml")
    data = TokenData(survey / "run" / "tokens" / "train", catalog)
    columns = data.columns(np.arange(len(data)))
    assert len(data) == 56
    assert (
        columns["spectrum"].ids.shape == (56, 8)
        and columns["volume"].ids.shape == (56, 8)
        and columns["colors"].ids.shape == (56, 2)
    )
    assert columns["raw_spectrum"].rows.shape == (56, 8, 8)
    assert len(np.unique(columns["spectrum"].ids)) > 10
    assert columns["remark"].present.sum() == 42, "samples that lack a modality are kept"
    losses = read_metrics(survey / "run")[-1]
    assert (
        losses["split"] == "validation"
        and {"loss/spectrum", "loss/volume", "loss/colors", "loss/remark"} <= losses.keys()
    ), losses.keys()


def test_its_tokenizer_keeps_the_value(survey: Path) -> None:
    bundle = maskweave.load(survey / "run")
    truth = np.stack([np.load(survey / "in" / "spectrum" / f"{i:03d}.npy") for i in range(64)])
    back = bundle.tokenizers["spectrum"].decode(bundle.tokenizers["spectrum"].encode(list(truth)))
    spread = np.abs(truth - np.median(truth, axis=0)).mean()
    assert np.abs(back - truth).mean() < 0.5 * spread


def test_it_is_generated_in_its_unit(survey: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(survey / "run")
    out = bundle.generate(
        {"raw_spectrum": survey / "in" / "spectrum" / "003.npy"}, ["volume", "colors", "remark"], seed=1
    )
    assert out["volume"].shape == (4, 8, 8) and out["volume"].dtype == np.float32
    assert -1000 <= out["volume"].min() < out["volume"].max() <= 3000
    assert out["colors"].shape == (5,) and isinstance(out["remark"], str)
    back = bundle.generate({"remark": "source 3 of the field"}, ["spectrum"])
    assert back["spectrum"].shape == (64,) and 0 <= back["spectrum"].min() <= back["spectrum"].max() <= 50
    words = [
        "generate",
        str(survey / "run"),
        "--input",
        f"volume={survey / 'in' / 'volume' / '000.npy'}",
        "--target",
        "spectrum",
    ]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "spectrum.npy").shape == (64,)
    assert (tmp_path / "out" / "spectrum.picture.png").exists()


def test_it_is_evaluated_and_reported(survey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((survey / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert {(row["target"], row["metric"]) for row in rows} >= {
        ("spectrum", "RMSE"),
        ("volume", "MAE"),
        ("remark", "F1"),
    }
    assert (survey / "run" / "report.html").stat().st_size > 10_000
    assert main(["modalities", str(survey / "survey.yaml")]) == 0
    said = capsys.readouterr().out
    assert "mJy" in said and "HU" in said and "-1000 to 3000" in said
