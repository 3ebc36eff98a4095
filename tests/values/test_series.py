"""Series of any length: files, lengths, scores, ensembles; and from files to generated series that end where they should."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import maskweave
from maskweave.cli.main import main
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog, load_saved_catalog
from maskweave.training.learned_scaling import with_learned, with_learned_by_tokenizers
from maskweave.transfer.build import load_transferred
from maskweave.values.geometry import Geometry
from maskweave.values.lengths import cut_end, filled_up, known_length, likely_lengths, pad_end
from maskweave.values.remarks import listening
from maskweave.values.series import Series

NAN = np.nan
PLAIN: Any = {"mean": (0,), "std": (1,)}


def test_lengths() -> None:
    array = np.array([[1, NAN], [NAN, NAN], [NAN, 2], [NAN, NAN]])
    assert known_length(array) == 3 and known_length(array * NAN) == 0
    assert len(cut_end(array)) == 3 and len(cut_end(array * NAN)) == 1
    assert np.array_equal(pad_end(np.array([1, 2]), 4), [1, 2, NAN, NAN], equal_nan=True)
    assert filled_up(np.array([[1, NAN], [5, NAN], [NAN, NAN]]), 4).tolist() == [[1, 0], [5, 0], [5, 0], [5, 0]]
    assert filled_up(np.array([NAN, 1, NAN, NAN, 4]), 5).tolist() == [1, 1, 1, 4, 4]
    logits = np.array([[3, 2, -1, 4, -2, 0.5], [-1, -1, -1, -1, -1, -1], [1, 1, 1, 1, 1, 1]])
    assert likely_lengths(logits).tolist() == [4, 0, 6], "one weak point past the end does not extend it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [4, 4]}, r"a series has one axis: value.size is its longest length, found \[4, 4\]"),
        ({"missing": []}, "value.missing of a series must be predicted or nan"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    value = {"type": "series", "size": [8], **settings}
    entry = {"id": 1, "kind": "grid", "grid": [2] * len(value["size"]), "value": value}
    with pytest.raises(MaskweaveError, match=message):
        catalog_from({"modalities": {"a": entry}}, "c.yaml")


def test_shorter_series_are_unknown_past_their_end_and_longer_ones_follow_fit() -> None:
    value, array = Series((6,), 2, **PLAIN), np.arange(8, dtype=np.float32).reshape(4, 2)
    fitted = value.fit_sizes(array, "x")
    assert fitted.shape == (6, 2) and np.array_equal(fitted[:4], array) and np.isnan(fitted[4:]).all()
    assert np.array_equal(value.transform(array, Geometry()), fitted, equal_nan=True)
    long = np.arange(14, dtype=np.float32).reshape(7, 2)
    with pytest.raises(
        BadSample, match="x: found a series of 7 points; expected at most 6; raise value.size, or set value.fit"
    ):
        value.fit_sizes(long, "x")
    told: list[str] = []
    with listening(told.append):
        cut = Series((6,), 2, fit=("crop",), **PLAIN).fit_sizes(long, "x")
    assert np.array_equal(cut, long[:6]) and "series longer than 6 points, cut at their ends" in told[0]
    stretched = Series((6,), 2, fit=("resize",), **PLAIN)
    whole = stretched.transform(stretched.fit_sizes(long, "x"), Geometry())
    assert whole.shape == (6, 2) and np.isfinite(whole).all()
    assert len(value.check_batch([array, long[:6]], "a")[0]) == 6
    with pytest.raises(BadSample, match=r"a: value 1 of the batch: found shape \(7, 2\)"):
        value.check_batch([array, long], "a")


@pytest.mark.parametrize("channels", [1, 2])
def test_files_hold_the_series_without_its_end(channels: int) -> None:
    value = Series((6,), channels, **PLAIN)
    array = np.arange(3 * channels, dtype=np.float32).reshape(3, channels)
    array = array[:, 0] if channels == 1 else array
    padded = pad_end(array, 6)
    content, ending = value.to_file(padded, "x")
    assert ending == "npy" and np.array_equal(value.read(content, ending, "x"), array)
    assert value.read(value.to_file(padded * NAN, "x")[0], "npy", "x") is None, "nothing is known"
    text = "\n".join(",".join(map(str, np.atleast_1d(row))) for row in array)
    assert np.array_equal(value.read(text.encode(), "csv", "x"), array)
    assert {"npz", "h5", "csv", "txt", "fits"} <= {*value.endings}


def test_scores_compare_series_of_different_lengths() -> None:
    value = Series((6,), 2, channel_names=("a", "b"), **PLAIN)
    truth = pad_end(np.array([[1.0, 10], [2, 20], [3, 30], [4, 40]]), 6)
    metrics = value.metrics()
    exact = cut_end(truth)
    assert metrics["mae"].scores([exact], [truth]) == {"MAE": 0, "MAE a": 0, "MAE b": 0}
    early = metrics["mae"].scores([exact[:2]], [truth])
    assert early == {"MAE": (1 + 2 + 10 + 20) / 8, "MAE a": 3 / 4, "MAE b": 30 / 4}, "the last numbers are kept"
    late = np.concatenate([exact, [[9, 9]]])
    assert metrics["rmse"].score([late], [truth]) == 0
    assert [metrics["length_error"].score([p], [truth]) for p in (exact, exact[:2], late)] == [0, 2, 1]
    constant = metrics["mae"].best_constant([truth, truth + 2, exact[:1]])
    assert constant.shape == (6, 2) and constant[:2, 0].tolist() == [1, 3]
    assert len(metrics["length_error"].best_constant([exact, exact[:1], truth])) == 4


def test_ensembles_have_the_median_length() -> None:
    merged = Series((6,), **PLAIN).merge([np.array([1.0, 2, 3]), np.array([3.0]), np.array([2.0, 4, 5, 9])], 0.5)
    assert merged.tolist() == [2, 3, 4]


def test_figures_name_channels_and_units() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(5, 2))
    plain = Series((9,), 2, **PLAIN)
    named = Series((9,), 2, channel_names=("angle", "force"), channel_units=("rad", "N"), **PLAIN)
    assert named.curve_names() == ["angle (rad)", "force (N)"]
    first, second = (value.draw(array, (128, 192)) for value in (plain, named))
    assert first.shape == second.shape == (128, 192, 3) and not np.array_equal(first, second)
    assert plain.draw(pad_end(array, 9), (128, 192)).shape == (128, 192, 3)


def test_values_with_nothing_known_past_the_end_are_cut_by_their_logits() -> None:
    value = Series((6,), 2, **PLAIN)
    logits = torch.full((2, 2, 6), -3.0)
    logits[0, :, :4], logits[0, 1, 1], logits[1] = 3, -9, -5
    first, nothing = value.with_unknown(np.ones((2, 6, 2), np.float32), logits)
    assert len(first) == 4 and np.isnan(first[1, 1]) and np.isnan(first).sum() == 1, "a gap stays unknown"
    assert nothing.tolist() == [[1, 1]], "a predicted series has a point"


CATALOG = """\
modalities:
  cue: {id: 1, kind: vectors, max_tokens: 2, value: {type: vectors, channels: 2}}
  goal: {id: 9, kind: grid, grid: [6], value: {type: series, size: [24], channels: 2}}
  path: {id: 3, kind: patches, grid: [6], value: {type: series, size: [24], channels: 2}}
  motion:
    id: 2
    kind: grid
    grid: [6]
    value: {type: series, size: [24], channels: [{name: angle, unit: rad}, {name: height, unit: m}]}
    tokenizer: {width: 48, quantizer: {type: fsq, levels: [8, 6, 5]}}
    decoding: {temperature: 0, steps: 3}
"""
RECIPE = """\
catalog: HOME/motion.yaml
modalities: [cue, path, motion]
data: {source: HOME/shards, validation: 24}
tokenizers: {train: {steps: 400, batch_size: 32, learning_rate: 4.0e-3, checkpoint_every: 0, log_every: 200}}
model:
  {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 6, target_tokens: 6, mixtures: [{inputs: {cue: 1}, targets: {motion: 1}}, {inputs: {cue: 1, motion: 1}, targets: {motion: 1}}, {inputs: {path: 1}, targets: {motion: 1}}]}}
train: {steps: 250, batch_size: 32, learning_rate: 5.0e-3, checkpoint_every: 0, log_every: 125}
evaluate: {samples: 24, requests: [{inputs: [cue], targets: [motion]}, {inputs: [path], targets: [motion]}], sheets: [{inputs: [cue], targets: [motion]}]}
"""


MORE = """\
modalities:
  goal: {id: 9, kind: grid, grid: [6], value: {type: series, size: [24], channels: 2}}
  track: {id: 8, kind: patches, grid: [6], source: goal, value: {type: series, size: [24], channels: 2}}
"""
TRANSFER = """\
start: HOME/run
inputs: [path]
target: TARGET
data: {source: HOME/shards, validation: 24}
train: {steps: 8, batch_size: 32, learning_rate: 1.0e-3, checkpoint_every: 0}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motions whose cue tells their length and speed, imported and trained on. The second channel is near 1000 m."""
    home, rng = tmp_path_factory.mktemp("motion"), np.random.default_rng(0)
    for i in range(192):
        length, speed = int(rng.choice([6, 11, 17, 24])), rng.uniform(0.5, 2)
        t = np.arange(length)
        series = np.stack([np.sin(t * speed / 5), 1000 + 10 * speed * np.cos(t / 8)], 1)
        for name, array in (
            ("motion", series),
            ("goal", series),
            ("path", series * [1, 1e6]),
            ("cue", np.array([[length / 10, speed]])),
        ):
            (home / "in" / name).mkdir(parents=True, exist_ok=True)
            np.save(home / "in" / name / f"{i:03d}.npy", array)
    (home / "motion.yaml").write_text(CATALOG, encoding="utf-8")
    (home / "recipe.yaml").write_text(RECIPE.replace("HOME", str(home)), encoding="utf-8")
    assert main(["data", "import", str(home / "in"), str(home / "shards"), "--catalog", str(home / "motion.yaml")]) == 0
    assert main(["run", str(home / "recipe.yaml"), "--out", str(home / "run")]) == 0
    return home


def test_generated_series_end_where_they_should(home: Path) -> None:
    rows = json.loads((home / "run" / "evaluation.json").read_text(encoding="utf-8"))
    scores = {row["metric"]: row for row in rows if row["inputs"] == ["cue"]}
    assert scores["length error"]["value"] < 1.5 < 4 < scores["length error"]["constant"]
    assert scores["length error"]["tokenizer"] < 0.5
    assert scores["MAE height"]["tokenizer"] < 3 and scores["MAE height"]["value"] < scores["MAE height"]["constant"]
    bundle = maskweave.load(home / "run")
    inputs = [{"cue": np.array([[n / 10, 1.0]], np.float32)} for n in (6, 24)]
    short, long = (result["motion"] for result in bundle.generate_batch(inputs, ["motion"], seeds=[0, 0]))
    assert abs(len(short) - 6) <= 2 and abs(len(long) - 24) <= 3 and short.shape[1] == 2
    assert np.isfinite(short).all() and 950 < short[:, 1].mean() < 1050


def test_results_are_saved_and_read_again_and_merged(home: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(home / "run")
    result = bundle.generate({"cue": np.array([[1.1, 1.0]], np.float32)}, ["motion"], seed=0)
    folder = result.save(tmp_path / "out")
    saved = np.load(folder / "motion.npy")
    assert np.array_equal(saved, result["motion"], equal_nan=True) and (folder / "motion.picture.png").exists()
    again = bundle.generate({"cue": result.inputs["cue"], "motion": saved}, ["motion"], seed=0)
    assert np.array_equal(cut_end(again.inputs["motion"]), saved) and len(again.inputs["motion"]) == 24
    merged = bundle.ensemble({"cue": result.inputs["cue"]}, ["motion"], samples=3, seed=0)
    assert abs(len(merged["motion"]) - len(saved)) <= 3 and np.isfinite(merged["motion"]).all()


@pytest.mark.slow
def test_series_are_learned_in_transfer(home: Path, tmp_path: Path, capsys: Any) -> None:
    """`motion` has the statistics of its tokenizer in the run; `goal` has none, and learns them from the training examples."""
    (tmp_path / "more.yaml").write_text(MORE, encoding="utf-8")
    for target, extra in (("motion", ""), ("goal", f"catalog: {tmp_path}/more.yaml\n")):
        (tmp_path / "transfer.yaml").write_text(
            extra + TRANSFER.replace("HOME", str(home)).replace("TARGET", target), encoding="utf-8"
        )
        out = tmp_path / target
        assert main(["transfer", str(tmp_path / "transfer.yaml"), "--out", str(out)]) == 0
        assert "not mapped" not in capsys.readouterr().out
        rows = {row["metric"]: row for row in json.loads((out / "evaluation.json").read_text(encoding="utf-8"))}
        assert rows["MAE height" if target == "motion" else "MAE 1"]["value"] < 5
        assert load_saved_catalog(out)[target].value.fitted is not None
        assert load_transferred(out).predict([{"path": np.ones((5, 2), np.float32)}])[0].shape == (24, 2)


@pytest.mark.slow
def test_new_raw_inputs_of_a_transfer_learn_their_scaling(home: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(MORE, encoding="utf-8")
    recipe = TRANSFER.replace("HOME", str(home)).replace("TARGET", "motion").replace("[path]", "[track]")
    (tmp_path / "transfer.yaml").write_text(f"catalog: {tmp_path}/more.yaml\n{recipe}", encoding="utf-8")
    assert main(["transfer", str(tmp_path / "transfer.yaml"), "--out", str(tmp_path / "out")]) == 0
    fitted: Any = load_saved_catalog(tmp_path / "out")["track"].value
    assert fitted.fitted.center[1] == pytest.approx(1000, rel=0.05)
    assert load_transferred(tmp_path / "out").predict([{"track": np.ones((5, 2), np.float32)}])[0].shape == (24, 2)


def test_raw_patches_have_statistics_in_the_runs_entries(home: Path) -> None:
    entries = load_saved_catalog(home / "run")
    fitted: Any = entries["path"].value
    assert fitted.fitted.center[1] == pytest.approx(1e9, rel=0.05) and entries["motion"].value.fitted is None
    rows = json.loads((home / "run" / "evaluation.json").read_text(encoding="utf-8"))
    score = next(row for row in rows if row["inputs"] == ["path"] and row["metric"] == "length error")
    assert score["value"] < 0.6 * score["constant"]
    assert main(["train", str(home / "recipe.yaml"), "--out", str(home / "run")]) == 0, "the same run goes on"


def test_a_run_that_starts_from_another_takes_its_statistics(home: Path) -> None:
    entries = load_catalog(home / "motion.yaml")
    found: Any = with_learned(entries, home / "run")
    saved: Any = load_saved_catalog(home / "run")["path"].value
    assert found["path"].value == saved and found["motion"].value.fitted is None
    other = Catalog(
        [dataclasses.replace(entries["path"], value=dataclasses.replace(entries["path"].value, missing=("nan",)))]
    )
    changed: Any = with_learned(other, home / "run")["path"].value
    assert changed.fitted is None, "another entry learns its own"
    assert with_learned(entries, home / "in") is entries
    grids: Any = with_learned_by_tokenizers(entries, home / "run" / "tokenizers")["motion"].value
    assert grids.fitted.center[1] == pytest.approx(1000, rel=0.05)
