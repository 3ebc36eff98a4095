"""Studies keep their trials, run what is missing, and tell of what failed."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from study import QUICK, Panel, Study, draw, parser, spread

from maskweave.errors import MaskweaveError


def trial(folder: Path, value: float, seed: int) -> dict[str, float]:
    import torch

    (folder / f"ran-{value}-{seed}").touch(exist_ok=False)  # a second time fails
    if value < 0 and not (folder / "mended").exists():
        raise ValueError("below nothing")
    print("heard")
    return {"score": value + seed, "threads": torch.get_num_threads()}


@pytest.mark.slow
def test_trials_are_kept_and_failed_ones_repeated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"one": 1.0, "bad": -1.0}
    study = Study(tmp_path / "s", steps=5)
    study.run(partial(trial, tmp_path), settings, seeds=2, jobs=2)
    assert study.values("one", "score") == [1, 2] and study.values("bad", "score") == []
    assert study.values("one", "threads") == [1, 1] and min(study.values("one", "seconds")) >= 0
    printed = capfd.readouterr()
    assert "bad, seed 1 failed: ValueError: below nothing" in printed.err and "2 of 4 trials failed" in printed.out
    assert "heard" not in printed.out and (tmp_path / "s/log.txt").read_text(encoding="utf-8").count("heard") == 2

    (tmp_path / "mended").touch()
    for path in tmp_path.glob("ran--1.0-*"):
        path.unlink()
    again = Study(tmp_path / "s", steps=5)
    again.run(partial(trial, tmp_path), settings, seeds=2, jobs=1)
    assert again.values("bad", "score") == [-1, 0] and again.values("one", "score") == [1, 2]
    assert len(json.loads((tmp_path / "s/results.json").read_text(encoding="utf-8"))["trials"]) == 4
    with pytest.raises(MaskweaveError, match="'steps': 5"):
        Study(tmp_path / "s", steps=6)


def test_table_and_figure(tmp_path: Path) -> None:
    study = Study(tmp_path / "s")
    study.trials = {("a", 0): {"score": 1.0}, ("a", 1): {"score": 2.0}, ("b", 0): {"score": 4.0, "rest": 7.0}}
    assert study.table(["a", "b", "never run"], {"score": "F1 ↑|.2f", "rest": "rest"}, "data").splitlines() == [
        "| data | F1 ↑ | rest | seeds |",
        "| --- | --- | --- | --- |",
        "| a | 1.50 ± 0.71 | – | 2 |",
        "| b | 4.00 | 7.000 | 1 |",
    ]
    assert spread([]) == "–"
    numbers = {0.25: [1.0, 2.0], 0.5: [3.0], 0.75: []}
    draw(
        tmp_path / "f.png",
        [Panel("t", "ratio", "score", {"a": numbers}, {"MAE": [1.0]}), Panel("t", "data", "", {"a": {"all": [1.0]}})],
    )
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width > 1.5 * picture.height


def test_common_options() -> None:
    options = parser("name", "What.\n\nMore.", steps=7).parse_args(["--seeds", "1"])
    assert (options.out, options.seeds, options.jobs, options.steps) == (Path("runs/studies/name"), 1, 2, 7)


def test_quick_has_a_folder_of_its_own() -> None:
    options = parser("s", "about", steps=500).parse_args(["--out", "runs/here", "--quick"])
    assert (options.steps, options.seeds, options.out) == (QUICK, 1, Path("runs/here_quick")) and options.quick
    assert not parser("s", "about", steps=500).parse_args([]).quick


def test_laws_are_drawn_on_logarithmic_axes(tmp_path: Path) -> None:
    points = {x: [2 / x, 2.1 / x] for x in (10, 100, 1000)}
    panels = [Panel("loss", "steps", "loss", {"4M": points}, curves={"4M": lambda x: 2.05 / x})] * 4
    draw(tmp_path / "a.png", panels, rows=2)
    with Image.open(tmp_path / "a.png") as picture:
        assert abs(picture.width / picture.height - 3.6 / 2.8) < 0.1, "two rows of two"
