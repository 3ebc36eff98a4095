"""A new kind of value is one file: `examples/quaternion.py`, found by its entry point, from files to pictures."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import maskweave
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import catalog_from, load_catalog
from maskweave.report.figures import draw
from maskweave.training.metrics import read_metrics
from maskweave.values import value_types

CATALOG = """\
vocabularies:
  text: {size: 500, sentinels: 8}
modalities:
  pose:
    id: 31
    kind: grid
    grid: [4]
    value: {type: quaternion, order: xyzw}
    tokenizer: {model: mlp, width: 48, depth: 1, decoder_depth: 1, quantizer: {type: vq, codes: 64, dim: 8}}
    decoding: {scheme: roar, steps: 1, temperature: 0.1}  # the training too predicts all four tokens at once
  turn:
    id: 32
    kind: sequence
    vocabulary: text
    max_tokens: 8
    value: {type: text}
"""
RECIPE = """\
catalog: robot.yaml
data: {source: SOURCE, validation: 16, shard_size: 32}
tokenizers: {samples: 0, train: {steps: 250, batch_size: 16, learning_rate: 3.0e-3, log_every: 100, checkpoint_every: 0}}
model:
  {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 12, target_tokens: 12, mixtures: [{inputs: {turn: 1}, targets: {pose: 1}, keep: all}]}}
train: {steps: 350, batch_size: 16, learning_rate: 5.0e-3, checkpoint_every: 0, log_every: 20}
evaluate:
  samples: 16
  requests: [{inputs: [turn], targets: [pose]}]
  sheets: [{inputs: [turn], targets: [pose]}]
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The type as another package would install it: its file, and the entry point beside it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parents[1] / "examples" / "quaternion.py", site)
    info = site / "robot_values-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robot-values\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[maskweave.values]\nquaternion = quaternion:Quaternion\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site), prepend=":")
        value_types.cache_clear()
        yield site
    value_types.cache_clear()


@pytest.fixture(scope="module")
def robot(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 160 turns about two axes, imported and trained on."""
    home, rng = tmp_path_factory.mktemp("robot"), np.random.default_rng(0)
    for name in ("pose", "turn"):
        (home / "in" / name).mkdir(parents=True)
    for i in range(160):
        axis, degrees = i % 2, (0, 60, 120)[i // 2 % 3]
        half = np.radians(degrees + rng.normal() * 0.05) / 2
        xyz = np.eye(3)[axis] * np.sin(half)
        np.save(home / "in" / "pose" / f"{i:03d}.npy", np.array([*xyz, np.cos(half)], np.float32))  # x, y, z, w
        (home / "in" / "turn" / f"{i:03d}.txt").write_text(f"turn {degrees} about {'xy'[axis]}", encoding="utf-8")
    (home / "robot.yaml").write_text(CATALOG, encoding="utf-8")
    (home / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(home / "shards")), encoding="utf-8")
    assert main(["data", "import", str(home / "in"), str(home / "shards"), "--catalog", str(home / "robot.yaml")]) == 0
    assert main(["run", str(home / "recipe.yaml"), "--out", str(home / "run")]) == 0
    return home


def test_settings_and_values_are_checked(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"id": 1, "kind": "grid", "grid": [4], "value": {"type": "quaternion"}}
    with pytest.raises(MaskweaveError, match=r"value\.order must be wxyz or xyzw, found 'zyx'"):
        catalog_from({"modalities": {"pose": {**entry, "value": {"type": "quaternion", "order": "zyx"}}}}, "here")
    with pytest.raises(MaskweaveError, match="unknown key 'value.channels'"):
        catalog_from({"modalities": {"pose": {**entry, "value": {"type": "quaternion", "channels": 3}}}}, "here")
    value = catalog_from({"modalities": {"pose": entry}}, "here")["pose"].value
    assert np.allclose(value.check([-0.5, 0.5, 0.5, 0.5], "here"), [0.5, -0.5, -0.5, -0.5])
    with pytest.raises(MaskweaveError, match=r"here: found shape \(4,\) of length 2; expected a unit quaternion"):
        value.check(np.ones(4), "here")
    assert main(["values", "quaternion"]) == 0
    assert "| `order` | text | `wxyz` | Order of the components in files" in capsys.readouterr().out


def test_from_files_to_tokens_and_training(robot: Path) -> None:
    catalog = load_catalog(robot / "robot.yaml")
    data = TokenData(robot / "run" / "tokens" / "train", catalog)
    ids = data.columns(np.arange(len(data)))["pose"].ids
    assert ids.shape == (144, 4) and len(np.unique(ids, axis=0)) >= 6
    lines = [line for line in read_metrics(robot / "run") if line["split"] == "train"]
    assert lines[-1]["loss/pose"] < lines[0]["loss/pose"]


def test_generation_scores_ensemble_and_figure(robot: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(robot / "run")
    out = bundle.generate({"turn": "turn 120 about y"}, ["pose"], seed=1)
    assert out["pose"].shape == (4,) and np.linalg.norm(out["pose"]) == pytest.approx(1, abs=1e-5)
    assert out["pose"] @ [0.5, 0, np.sqrt(0.75), 0] == pytest.approx(1, abs=0.05), "w, x, y, z of the turn"
    out.save(tmp_path)
    stored = np.load(tmp_path / "pose.npy")
    assert np.allclose(stored, np.roll(out["pose"], -1), atol=1e-6), "files keep the entry's order"
    figure = draw(bundle.catalog["pose"], out["pose"], (96, 96))
    assert figure.shape == (96, 96, 3) and figure.std() > 5 and (tmp_path / "pose.picture.png").is_file()

    merged = bundle.ensemble({"turn": "turn 60 about x"}, ["pose"], samples=3, seed=0)["pose"]
    assert merged @ [np.sqrt(0.75), 0.5, 0, 0] == pytest.approx(1, abs=0.05)

    (row,) = json.loads((robot / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert (row["target"], row["metric"], row["better"]) == ("pose", "angle", "lower")
    assert max(row["tokenizer"], row["value"]) < 5 < row["constant"], "degrees"
    assert "pose" in (robot / "run" / "report.html").read_text(encoding="utf-8")
