"""Scalars, labels and tags from files to predictions: import, tokenizers, tokens, training, distributions, scores, ensembles, figures, transfer."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_blocks import ROOT, blocks

import maskweave
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import load_catalog
from maskweave.report.figures import draw
from maskweave.training.pipeline import run_recipe
from maskweave.training.recipe import load_recipe
from maskweave.transfer.build import Transferred, load_transferred
from maskweave.values.distribution import ClassDistribution, NumberDistribution, TagDistribution

CATALOG = """\
modalities:
  colors: {id: 1, kind: vectors, max_tokens: 2, value: {type: vectors, channels: 3}}
  redshift: {id: 2, kind: grid, value: {type: scalar, key: z, bins: 32, range: [0, 2]}}
  mass: {id: 3, kind: grid, value: {type: scalar, scale: log, unit: Msun}}
  kind: {id: 4, kind: grid, value: {type: label, classes: [spiral, elliptical], name_pattern: "_([a-z]+)$"}}
  traits: {id: 5, kind: grid, value: {type: tags, classes: [heavy, near, round]}}
"""
RECIPE = """\
catalog: CATALOG
data: {source: SOURCE, validation: 32}
model:
  width: 32
  heads: 2
  encoder_depth: 1
  decoder_depth: 1
  masking:
    {input_tokens: 4, target_tokens: 6, mixtures: [{inputs: {colors: 1}, targets: {redshift: 1, mass: 1, kind: 1, traits: 3}}]}
train: {steps: 200, batch_size: 32, learning_rate: 5.0e-3, checkpoint_every: 0, log_every: 50}
evaluate:
  samples: 32
  requests: [{inputs: [colors], targets: [redshift, mass, kind, traits]}]
  sheets: [{inputs: [colors], targets: [redshift, kind, traits]}]
"""
TARGETS = ["redshift", "mass", "kind", "traits"]
TRANSFER = """\
start: RUN
inputs: [colors]
target: TARGET
data: {source: SOURCE, validation: 32}
train: {steps: 60, batch_size: 32, learning_rate: 3.0e-3, checkpoint_every: 0}
"""


def galaxy(rng: np.random.Generator) -> tuple[np.ndarray, float, float, str]:
    """Colors (1, 3), redshift, mass over four powers of ten, kind; all follow from the colors, with noise."""
    z, mass, kind = rng.beta(1.5, 4) * 1.2 + 0.01, 10 ** rng.uniform(8, 12), int(rng.random() < 0.3)
    colors = np.array([[2 * z, (np.log10(mass) - 10) / 2, kind]]) + 0.02 * rng.normal(size=(1, 3))
    return colors.astype(np.float32), float(z), float(mass), ("spiral", "elliptical")[kind]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 galaxies; a tenth has no redshift, another no mass. Imported and trained on."""
    home, rng = tmp_path_factory.mktemp("galaxies"), np.random.default_rng(0)
    for i in range(256):
        colors, z, mass, kind = galaxy(rng)
        contents: dict[str, tuple[str, object]] = {"colors": ("npy", colors)}
        contents["redshift"] = ("json", {"z": z if rng.random() > 0.1 else None, "other": None})
        if rng.random() > 0.1:
            contents["mass"] = ("txt", mass)
        traits = {"heavy": mass > 1e10, "near": z < 0.3, "round": kind != "spiral"}
        contents["traits"] = ("json", [name for name, applies in traits.items() if applies])
        for name, (ending, content) in contents.items():
            path = home / "in" / name / f"{i:03d}_{kind}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, np.ndarray):
                np.save(path, content)
            else:
                path.write_text(json.dumps(content), encoding="utf-8")
    (home / "sky.yaml").write_text(CATALOG, encoding="utf-8")
    recipe = RECIPE.replace("SOURCE", str(home / "shards")).replace("CATALOG", str(home / "sky.yaml"))
    (home / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert main(["data", "import", str(home / "in"), str(home / "shards"), "--catalog", str(home / "sky.yaml")]) == 0
    assert main(["run", str(home / "recipe.yaml"), "--out", str(home / "run")]) == 0
    return home


def test_an_import_keeps_what_there_is(home: Path) -> None:
    index = read_json(home / "shards" / "index.json")
    counts = {name: part["samples"] for name, part in index["modalities"].items()}
    assert (
        counts["colors"] == counts["kind"] == counts["traits"] == 256
        and 200 < counts["redshift"] < 256 > counts["mass"] > 200
    )


def test_tokens_are_bins_of_equal_counts(home: Path) -> None:
    catalog = load_catalog(home / "sky.yaml")
    data = TokenData(home / "run" / "tokens" / "train", catalog)
    columns = data.columns(np.arange(len(data)))
    for name in ("redshift", "mass"):
        present = columns[name].present
        assert 0.8 < present.mean() < 0.97
        counts = np.bincount(columns[name].ids[present, 0])
        assert set(counts[:-1]) == {11} and counts[-1] <= 11, "about ten values each"
    assert set(columns["kind"].ids.ravel()) == {0, 1} and columns["traits"].ids.shape == (224, 3)
    assert (columns["traits"].ids[:, 2] == columns["kind"].ids[:, 0]).all()


def test_scores_beat_constants(home: Path) -> None:
    rows = {
        (row["target"], row["metric"]): row
        for row in json.loads((home / "run" / "evaluation.json").read_text(encoding="utf-8"))
    }
    for metric in ("MAE", "RMSE", "R²", "NLL"):
        row = rows["redshift", metric]
        sign = 1 if row["better"] == "lower" else -1
        assert sign * row["value"] < sign * row["constant"]
    assert rows["redshift", "R²"]["value"] > 0.5 and rows["mass", "R²"]["value"] > 0.5, "the mass on its scale"
    assert rows["redshift", "NLL"]["tokenizer"] is None and rows["redshift", "R²"]["tokenizer"] > 0.95
    coverage = rows["redshift", "coverage of 90%"]
    assert coverage["better"] == "0.9" and coverage["value"] > 0.7
    assert rows["kind", "accuracy"]["value"] > 0.9 and rows["kind", "accuracy"]["tokenizer"] == 1
    assert rows["kind", "macro F1"]["value"] > rows["kind", "macro F1"]["constant"]
    for metric in ("micro F1", "macro F1", "mAP"):
        assert rows["traits", metric]["value"] > max(0.8, rows["traits", metric]["constant"])
    assert rows["traits", "F1 round"]["value"] > 0.8 and rows["traits", "micro F1"]["tokenizer"] == 1
    report = (home / "run" / "report.html").read_text(encoding="utf-8")
    assert "made by rules, without training" in report and "coverage of 90% → 0.9" in report


def test_values_come_with_distributions(home: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(home / "run")
    rng = np.random.default_rng(5)
    samples = [galaxy(rng) for _ in range(20)]
    results = bundle.generate_batch([{"colors": colors} for colors, *_ in samples], TARGETS, chain=False)
    found, true = [r["redshift"] for r in results], [z for _, z, *_ in samples]
    assert np.corrcoef(found, true)[0, 1] > 0.8
    assert sum(r["kind"] == kind for r, (*_, kind) in zip(results, samples, strict=True)) >= 18
    result = results[0]
    redshift, kind = result.distribution("redshift"), result.distribution("kind")
    assert isinstance(redshift, NumberDistribution) and isinstance(kind, ClassDistribution)
    assert isinstance(result["redshift"], float) and result["redshift"] == redshift.value == pytest.approx(
        redshift.mean
    )
    assert 0 < redshift.std < 0.4 and redshift.interval()[0] < result["redshift"] < redshift.interval()[1]
    assert sum(kind.values()) == pytest.approx(1) and result["kind"] == kind.value
    assert result.distribution("mass").value < result.distribution("mass").mean, "a geometric mean"  # type: ignore[attr-defined]
    with pytest.raises(
        MaskweaveError, match="'colors' has no distribution in this result; redshift, mass, kind, traits has one"
    ):
        result.distribution("colors")

    traits = result.distribution("traits")
    assert isinstance(traits, TagDistribution) and result["traits"] == traits.value
    assert ("round" in result["traits"]) == (result["kind"] == "elliptical")

    result.save(tmp_path)
    assert json.loads((tmp_path / "redshift.json").read_text(encoding="utf-8")) == {"z": result["redshift"]}
    assert json.loads((tmp_path / "kind.json").read_text(encoding="utf-8")) == result["kind"]
    stored = json.loads((tmp_path / "redshift.distribution.json").read_text(encoding="utf-8"))
    assert stored["std"] == pytest.approx(redshift.std) and len(stored["bin_edges"]) == len(redshift.edges)
    for name in TARGETS:
        assert (tmp_path / f"{name}.picture.png").is_file()
        plain, whole = (draw(bundle.catalog[name], v, (96, 144)) for v in (result[name], result.prediction(name)))
        assert plain.std() > 2 and not np.array_equal(plain, whole)


@pytest.mark.filterwarnings("ignore:.*was (never|hardly) trained")
def test_the_example_of_the_page_runs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(home / "run", tmp_path / "runs/galaxies")
    np.save(tmp_path / "galaxy.npy", galaxy(np.random.default_rng(2))[0])
    monkeypatch.chdir(tmp_path)
    ((where, code),) = blocks("python", pages=[ROOT / "docs/generation.md"], alone=False)
    names: dict[str, Any] = {}
    exec(compile(code, where, "exec"), names)
    assert 0 <= names["redshift"].quantile([0.05, 0.95])[0] <= names["redshift"].mean


@pytest.mark.filterwarnings("ignore:.*was (never|hardly) trained")
def test_ensembles_average_distributions(home: Path) -> None:
    bundle = maskweave.load(home / "run")
    given = {"colors": galaxy(np.random.default_rng(5))[0]}
    one = bundle.generate(given, ["redshift", "kind", "traits"], chain=False)
    merged = bundle.ensemble(given, ["redshift", "kind", "traits"], samples=3, chain=False)
    assert merged["traits"] == one["traits"]
    assert merged["redshift"] == pytest.approx(one["redshift"], rel=0.01) and merged["kind"] == one["kind"]
    chained = bundle.ensemble(given, ["mass", "redshift"], samples=4)
    assert chained["redshift"] == chained.distribution("redshift").value
    assert sum(chained.distribution("redshift").probabilities) == pytest.approx(1)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*was (never|hardly) trained")
def test_they_are_inputs_and_are_scored(home: Path) -> None:
    bundle = maskweave.load(home / "run")
    from_text = bundle.generate({"redshift": "0.3", "kind": "spiral"}, ["mass"], seed=1)
    same = bundle.generate({"redshift": np.float32(0.3), "kind": 0}, ["mass"], seed=1)
    tokens = {
        name: bundle.tokenizers[name].encode([v])[0].numpy() for name, v in (("redshift", 0.3), ("kind", "spiral"))
    }
    again = bundle.generate({name: Tokens(ids) for name, ids in tokens.items()}, ["mass"], seed=1)
    assert from_text["mass"] == pytest.approx(same["mass"], rel=1e-5) == pytest.approx(again["mass"], rel=1e-5)
    with pytest.raises(MaskweaveError, match="input 'redshift': found 3; expected 0 to 2"):
        bundle.generate({"redshift": "3"}, ["mass"])
    colors, z, _, kind = galaxy(np.random.default_rng(7))
    right = bundle.score({"colors": colors}, {"redshift": z, "kind": kind})
    other = {"spiral": "elliptical", "elliptical": "spiral"}[kind]
    wrong = bundle.score({"colors": colors}, {"redshift": 1.15 - z, "kind": other})
    assert all(right[name].total > wrong[name].total for name in right)


def transferred(home: Path, target: str) -> tuple[dict[str, dict], Transferred]:
    recipe = (
        TRANSFER.replace("SOURCE", str(home / "shards")).replace("RUN", str(home / "run")).replace("TARGET", target)
    )
    (home / "transfer.yaml").write_text(recipe, encoding="utf-8")
    assert main(["transfer", str(home / "transfer.yaml"), "--out", str(home / f"tuned-{target}")]) == 0
    rows = {row["metric"]: row for row in read_json(home / f"tuned-{target}" / "evaluation.json")}
    return rows, load_transferred(home / f"tuned-{target}")


def test_a_label_is_a_target_of_transfer_and_probe(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, model = transferred(home, "kind")
    assert rows["accuracy"]["value"] > 0.9 > rows["accuracy"]["constant"]
    assert rows["macro F1"]["value"] > 0.9 > rows["macro F1"]["constant"]
    assert model.predict([{"colors": np.array([[0.5, 0, k]], np.float32)} for k in (0, 1)]) == ["spiral", "elliptical"]
    capsys.readouterr()
    words = ["probe", str(home / "run"), str(home / "shards"), "--inputs", "colors", "--target", "kind"]
    assert main([*words, "--validation", "64"]) == 0
    assert "linear-probe accuracy" in capsys.readouterr().out


def test_tags_are_a_target_of_transfer_and_probe(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, model = transferred(home, "traits")
    for metric in ("micro F1", "macro F1", "mAP"):
        assert rows[metric]["value"] > max(0.85, rows[metric]["constant"])
    given = [{"colors": np.array([[z, mass, 0]], np.float32)} for z, mass in ((0.2, 0.8), (1.5, -0.8))]
    assert model.predict(given) == [["heavy", "near"], []]
    capsys.readouterr()
    words = ["probe", str(home / "run"), str(home / "shards"), "--inputs", "colors", "--target", "traits"]
    assert main([*words, "--validation", "64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "traits" in line]
    assert len(lines) == 6
    for line in lines:
        if line[2] == "linear-probe":
            assert float(line[-2]) > max(0.85, float(line[-1]))


def test_other_bins_than_the_start_are_told(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle is self-contained, and its tokenizers can be used again."""
    shutil.copytree(home / "run", tmp_path / "copy", ignore=shutil.ignore_patterns("tokens"))
    assert set(maskweave.load(tmp_path / "copy").tokenizers) == set(TARGETS)
    short = {"start": str(tmp_path / "copy"), "train.steps": 1}
    run_recipe(load_recipe(home / "recipe.yaml", {**short, "data.samples": 150}), tmp_path / "fewer", "")
    assert "start: redshift, mass: other tokenizers than in" in capsys.readouterr().out
    reused = {**short, "data.samples": 150, "tokenizers.reuse": str(tmp_path / "copy" / "tokenizers")}
    run_recipe(load_recipe(home / "recipe.yaml", reused), tmp_path / "reused", "")
    assert "other tokenizers" not in capsys.readouterr().out
