"""Evaluation of a run: its rows, its references, what is not a number, what cannot be evaluated."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from maskweave.cli.main import main
from maskweave.errors import BadSample, MaskweaveError
from maskweave.evaluate import run as evaluation
from maskweave.evaluate.predicting import as_inputs, scored_outcomes
from maskweave.evaluate.report import advice, make_report
from maskweave.evaluate.run import EvaluationRow, describe, evaluate, held_out_samples, read_recipe
from maskweave.files import read_yaml, write_yaml
from maskweave.generate.bundle import Bundle, load
from maskweave.report.html import is_current
from maskweave.training.recipe import EvaluationRequest
from maskweave.values.metrics import Metric

pytestmark = pytest.mark.usefixtures("to_the_end")


@pytest.fixture(scope="module")
def bundle(tiny_run: Path) -> Bundle:
    return load(tiny_run)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_the_references_are_what_they_say(bundle: Bundle, run: Path) -> None:
    rows = {(row.target, row.metric): row for row in evaluate(bundle, run)}
    recipe = read_recipe(run)
    samples = held_out_samples(bundle, recipe, None, 4)
    truth = np.stack([s["depth"] for s in samples]).astype(np.float64)
    tokenizer = bundle.tokenizers["depth"]
    back = tokenizer.decode(tokenizer.encode([s["depth"] for s in samples])).astype(np.float64)
    row = rows["depth", "AbsRel"]
    assert row.tokenizer == pytest.approx(float((np.abs(back - truth) / truth).mean()), abs=1e-4)
    assert row.constant < row.value, "next to nothing was learned"
    assert rows["caption", "F1"].tokenizer == 1, "text comes back exactly"
    assert rows["tok_rgb", "F1 of the caption read from it"].inputs == ["caption"]
    assert [row.better for row in rows.values()].count("lower") == 2


def test_a_prediction_does_not_depend_on_the_chunks(bundle: Bundle, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(bundle, run)
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    for one, other in zip(evaluate(bundle, run), whole, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-3), one.metric


def test_what_is_no_number_becomes_null(bundle: Bundle, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([math.nan, math.inf, -math.inf])
    monkeypatch.setattr(Metric, "finished", lambda metric, _: {metric.name: next(numbers, 0.5)})
    rows = evaluate(bundle, run)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    written = json.loads((run / "evaluation.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert (written[0]["value"], written[0]["constant"], written[0]["tokenizer"]) == (None, None, None)
    assert written[1]["value"] == 0.5
    assert "nan" in describe(rows)
    make_report(run)


def test_rows_have_the_documented_keys_in_order() -> None:
    names = [f.name for f in dataclasses.fields(EvaluationRow)]
    assert names == [
        "inputs",
        "target",
        "metric",
        "better",
        "value",
        "constant",
        "tokenizer",
        "samples",
        "seed",
        "part",
        "low",
        "high",
        "references",
    ]


def test_other_scenes_and_fewer_samples(bundle: Bundle, run: Path) -> None:
    recipe = read_recipe(run)
    ours, others = held_out_samples(bundle, recipe, None, 3), held_out_samples(bundle, recipe, 12345, 3)
    assert len(ours) == len(others) == 3
    assert not any(np.array_equal(a["rgb"], b["rgb"]) for a in ours for b in others)
    rows = evaluate(bundle, run, scenes_seed=12345, samples=2)
    assert {(row.samples, row.seed) for row in rows} == {(2, 12345)}


def test_unusable_samples_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Source:
        names = ("depth",)

        def __len__(self) -> int:
            return 3

        def key(self, i: int) -> str:
            return f"s{i}"

        def __getitem__(self, i: int) -> dict[str, float]:
            if i == 1:
                raise BadSample("s1.png: truncated")
            return {"depth": float(i)}

    assert evaluation.usable_samples(Source(), 3, "held-out samples") == [{"depth": 0.0}, {"depth": 2.0}]
    assert "skipped 1 of 3 samples:\n  s1: s1.png: truncated" in capsys.readouterr().err


def test_samples_that_lack_an_input_or_the_target_are_not_scored(
    bundle: Bundle, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(run)
    whole = held_out_samples(bundle, recipe, None, 4)
    without = [
        {n: v for n, v in s.items() if n != name} for s, name in zip(whole, ("rgb", "depth", "", ""), strict=True)
    ]
    sources = iter([without, [{"caption": "a red cube"}]])
    monkeypatch.setattr(evaluation, "usable_samples", lambda *_: next(sources))
    rows = {(row.target, row.metric): row for row in evaluate(bundle, run)}
    assert (rows["depth", "AbsRel"].samples, rows["normal", "angle"].samples, rows["caption", "F1"].samples) == (
        2,
        3,
        3,
    )
    assert rows["tok_rgb", "F1 of the caption read from it"].samples == 4
    assert math.isnan(rows["depth", "AbsRel"].constant), "no training sample has it"
    assert not math.isnan(rows["depth", "AbsRel"].value) and not math.isnan(rows["caption", "F1"].constant)


def test_what_was_generated_unsoundly_is_no_input(bundle: Bundle) -> None:
    boxes = [{"class": "red cube", "box": [0.1, 0.2, 0.3, 0.4]}]
    assert as_inputs(bundle, {"palette": [], "metadata": {}, "boxes": boxes}) == {"boxes": boxes}


def test_nothing_to_evaluate_is_said(bundle: Bundle, run: Path, tmp_path: Path) -> None:
    content = read_yaml(run / "recipe.yaml")
    content["evaluate"]["requests"] = []
    write_yaml(run / "recipe.yaml", content)
    with pytest.raises(MaskweaveError, match=r"no evaluate.requests.*add some to"):
        evaluate(bundle, run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaskweaveError, match=r"has no recipe.yaml, so it is not a run"):
        evaluate(bundle, tmp_path / "empty")


def test_a_report_tells_the_precision_that_the_training_used(run: Path) -> None:
    content = read_yaml(run / "recipe.yaml")
    content["train"]["precision"] = "auto"
    write_yaml(run / "recipe.yaml", content)
    page = make_report(run).read_text(encoding="utf-8")
    assert ">float32<" in page and ">auto<" not in page


def test_a_report_begins_with_what_to_do(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"inputs": ["rgb"], "target": "depth", "metric": "MAE", "better": "lower", "value": 0.5, "constant": 0.4}]
    (run / "evaluation.json").write_text(json.dumps(rows), encoding="utf-8")
    assert main(["report", str(run)]) == 0
    told = "depth from rgb: MAE is 0.5, not better than the best constant (0.4)"
    assert f"advice: {told}" in capsys.readouterr().out and told in (run / "report.html").read_text(encoding="utf-8")
    assert advice(run)[0].startswith(told)


@pytest.mark.parametrize("changed", ["recipe.yaml", "modalities.yaml", "model/config.json"])
def test_a_report_is_current_until_its_sources_change(run: Path, changed: str) -> None:
    assert make_report(run) == run / "report.html" and is_current(run)
    for path in run.rglob("*"):
        os.utime(path, (2e9, 2e9) if "report" in path.name else (3e9, 3e9))
    assert is_current(run), "times of files mean nothing"
    old = (run / changed).read_text(encoding="utf-8")
    os.utime(run / "report.html", (4e9, 4e9))
    (run / changed).write_text(old + " ", encoding="utf-8")
    assert not is_current(run)
    (run / changed).write_text(old, encoding="utf-8")
    assert is_current(run)


def test_sheets_of_many_inputs_have_names_that_can_be_written(
    bundle: Bundle, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(run)
    many = dataclasses.replace(recipe.evaluate.sheets[0], inputs=["rgb", "caption"] * 40)
    evaluated = dataclasses.replace(recipe.evaluate, sheets=[many, many])
    monkeypatch.setattr(evaluation, "read_recipe", lambda _: dataclasses.replace(recipe, evaluate=evaluated))
    shutil.rmtree(run / "sheets", ignore_errors=True)
    requests = evaluation.shown_requests(bundle, run, shown=1)
    assert len(evaluation.contact_sheets(bundle, run, requests)) == 2
    names = sorted(path.name for path in (run / "sheets").iterdir())
    assert len(names) == 2 and names[0].startswith("1-rgb+caption+rgb") and names[1].startswith("2-rgb+caption+rgb")


def test_requests_that_were_never_trained_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_yaml(run / "recipe.yaml")
    content["model"]["masking"]["mixtures"] = [{"inputs": {"rgb": 1}, "targets": {"depth": 1, "caption": 1}}]
    content["evaluate"]["requests"] = [
        {"inputs": ["rgb"], "targets": ["depth"]},
        {"inputs": ["caption"], "targets": ["tok_rgb"], "read": ["caption"]},
    ]
    write_yaml(run / "recipe.yaml", content)
    evaluate(load(run), run, samples=2)
    said = capsys.readouterr().err
    assert "tok_rgb from caption was never trained" in said
    assert "depth from rgb" not in said and "caption from rgb" not in said
    assert advice(run)[0].startswith("tok_rgb from caption was never trained")


def test_simple_references_and_intervals_stand_beside_the_scores(
    bundle: Bundle, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {(row.target, row.metric): row for row in evaluate(bundle, run)}
    depth = rows["depth", "AbsRel"]
    assert set(depth.references) == {"nearest neighbor", "ridge"} and min(depth.references.values()) < depth.value
    assert set(rows["semseg", "mIoU"].references) == {"nearest neighbor", "logistic regression"}
    assert set(rows["caption", "F1"].references) == {"nearest neighbor"}
    assert rows["tok_rgb", "F1 of the caption read from it"].references == {}
    assert all(row.low <= row.value <= row.high for row in rows.values() if not row.part)
    assert "ridge)" in describe([depth]) and " to " in describe([depth])
    page = make_report(run).read_text(encoding="utf-8")
    assert "<th class=number>simple</th>" in page and "(ridge)" in page
    assert any("not better than the simple reference" in text or "best constant" in text for text in advice(run))
    content = read_yaml(run / "recipe.yaml")
    content["evaluate"]["references"] = False
    content["evaluate"]["requests"] = [{"inputs": ["rgb"], "targets": ["depth"]}]
    write_yaml(run / "recipe.yaml", content)
    assert all(row.references == {} for row in evaluate(bundle, run))


def test_what_is_generated_on_the_way_is_what_thinking_generates(bundle: Bundle, run: Path) -> None:
    content = read_yaml(run / "recipe.yaml")
    direct = {"inputs": ["caption"], "targets": ["depth"]}
    content["evaluate"]["requests"] = [{**direct, "via": ["semseg"]}, direct]
    write_yaml(run / "recipe.yaml", content)
    through, straight = (row for row in evaluate(bundle, run, samples=3) if row.metric == "AbsRel")
    seed = read_recipe(run).evaluate.seed
    samples = held_out_samples(bundle, read_recipe(run), None, 3)
    for row, think in ((through, ["semseg"]), (straight, [])):
        found = [
            bundle.generate({"caption": sample["caption"]}, ["depth"], think=think, seed=seed + k)
            for k, sample in enumerate(samples)
        ]
        assert all([*one.values] == [*think, "depth"] for one in found)
        errors = [np.abs(one["depth"] - s["depth"]) / s["depth"] for one, s in zip(found, samples, strict=True)]
        assert row.value == pytest.approx(float(np.mean(errors)), rel=1e-4)
    assert through.value != pytest.approx(straight.value, rel=1e-3)
    request = EvaluationRequest(["caption"], ["depth", "tok_rgb"], via=["semseg"])
    outcomes = dict(scored_outcomes(bundle, request, samples, 5, lambda count: None))
    for k, sample in enumerate(samples):
        for name in request.targets:
            alone = bundle.generate({"caption": sample["caption"]}, [name], think=["semseg"], seed=5 + k)
            np.testing.assert_allclose(outcomes[name].predicted[k], alone[name], rtol=1e-4, atol=1e-3)


def test_sets_of_generated_values_are_scored(bundle: Bundle, run: Path) -> None:
    content = read_yaml(run / "recipe.yaml")
    content["evaluate"]["sets"] = ["frechet", "identification"]
    content["evaluate"]["requests"] = [{"inputs": ["caption"], "targets": ["tok_rgb"]}]
    write_yaml(run / "recipe.yaml", content)
    rows = {row.metric: row for row in evaluate(bundle, run, samples=3)}
    assert set(rows) == {"PSNR", "Fréchet distance", "identification"}
    assert rows["identification"].constant == pytest.approx(1 / 3) and rows["identification"].samples == 3
    features = lambda samples: np.stack([s["rgb"].mean(axis=(0, 1)) for s in samples])  # noqa: E731
    other = {row.metric: row for row in evaluate(bundle, run, samples=3, features=features)}
    assert other["Fréchet distance"].value != rows["Fréchet distance"].value > 0
    assert other["PSNR"].value == rows["PSNR"].value


def test_targets_that_the_network_cannot_read_have_no_scores_of_sets(
    bundle: Bundle, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_yaml(run / "recipe.yaml")
    content["evaluate"]["sets"] = ["identification"]
    content["evaluate"]["requests"] = [{"inputs": ["caption"], "targets": ["tok_rgb", "depth"]}]
    write_yaml(run / "recipe.yaml", content)
    features = lambda samples: np.stack([s["rgb"].mean(axis=(0, 1)) for s in samples])  # noqa: E731
    rows = evaluate(bundle, run, samples=2, features=features, readable=["rgb"])
    assert [row.target for row in rows if row.metric == "identification"] == ["tok_rgb"]
    assert any(row.target == "depth" for row in rows)
    assert capsys.readouterr().err.count("note: no scores of sets for depth") == 1


def test_a_run_is_calibrated_on_its_held_out_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run), "--inputs", "rgb", "--targets", "depth,caption", "--samples", "3"]) == 0
    said, bundle = capsys.readouterr().out, load(run)
    found = dict(bundle.calibration)
    assert {*found} == {"depth", "caption"} and "temperature" in said and str(run / "calibration.yaml") in said
    bundle.calibration.clear()
    expected = bundle.calibrate(held_out_samples(bundle, read_recipe(run), None, 3), ["rgb"], ["depth", "caption"])
    assert found == pytest.approx({name: one.temperature for name, one in expected.items()}, rel=1e-3)
    assert main(["calibrate", str(run), "--inputs", "rgb", "--targets", "rgb2"]) == 1
    assert "unknown modality 'rgb2'" in capsys.readouterr().err
    assert main(["calibrate", str(run), "--inputs", "rgb"]) == 1
    assert "--targets is missing" in capsys.readouterr().err
