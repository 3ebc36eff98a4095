"""`maskweave generate` beyond one plain request: folders, samples, guidance, schedules, edits, and Ctrl-C."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.cli import main
from maskweave.generate.schedule import Condition, load_schedule


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("one", "two", "three")):
        picture = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def generate(*words: object) -> int:
    return main(["generate", *map(str, words)])


def test_a_folder_of_inputs_gives_a_folder_of_results_and_goes_on(tiny_run, photos, tmp_path, capsys) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    words = [tiny_run, "--input", f"rgb={photos}", "--target", "depth,caption", "--out", tmp_path / "out", "--batch", 2]
    assert generate(*words) == 0
    said = capsys.readouterr()
    assert "3 results written to" in said.out and "1 inputs left out" in said.out and "broken" in said.err
    results = {path.name for path in (tmp_path / "out").iterdir()}
    assert results == {"one", "two", "three", "request.yaml"}
    assert {p.name for p in (tmp_path / "out" / "one").iterdir()} >= {"depth.npy", "sheet.png", "schedule.yaml"}
    assert (
        generate(
            tiny_run, "--input", f"rgb={photos / 'two.png'}", "--target", "depth,caption", "--out", tmp_path / "two"
        )
        == 0
    )
    assert (tmp_path / "two" / "depth.npy").read_bytes() == (tmp_path / "out" / "two" / "depth.npy").read_bytes()
    shutil.rmtree(tmp_path / "out" / "two")
    before = (tmp_path / "out" / "one" / "depth.npy").stat().st_mtime_ns
    (photos / "broken.png").unlink()
    assert generate(*words) == 0
    assert "1 results written" in capsys.readouterr().out
    assert (tmp_path / "out" / "one" / "depth.npy").stat().st_mtime_ns == before
    assert generate(*words, "--seed", 3) == 1
    assert "holds results of another request" in capsys.readouterr().err


def test_samples_and_guidance(tiny_run, photos, tmp_path) -> None:
    words = [
        "--input",
        f"rgb={photos / 'one.png'}",
        "--input",
        "caption=a red cube",
        "--target",
        "tok_rgb",
        "--target",
        "depth",
    ]
    words += ["--condition", "rgb+caption=2", "--condition", "caption=-0.5", "--decoding", "depth.steps=2", "--grow"]
    assert generate(tiny_run, *words, "--samples", 2, "--out", tmp_path / "out") == 0
    schedules = [load_schedule(tmp_path / "out" / str(n) / "schedule.yaml") for n in range(2)]
    assert schedules[0] == schedules[1] and schedules[0].targets == ["tok_rgb", "depth"]
    assert schedules[0].of("depth")[0].guidance == (
        Condition(("rgb", "caption", "tok_rgb"), 2.0),
        Condition(("caption", "tok_rgb"), -0.5),
    )
    assert len(schedules[0].of("depth")) == 2
    a, b = ((tmp_path / "out" / str(n) / "tok_rgb.png").read_bytes() for n in range(2))
    assert a != b
    again = ["--input", f"rgb={photos / 'one.png'}", "--input", "caption=a red cube"]
    again += ["--schedule", tmp_path / "out" / "1" / "schedule.yaml", "--seed", 1]
    assert generate(tiny_run, *again, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "tok_rgb.png").read_bytes() == b


def test_edits(tiny_run, photos, tmp_path, capsys) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = [tiny_run, "--input", f"rgb={photos}", "--target", "rgb"]
    for n, region in enumerate((tmp_path / "mask.png", "0,0,1,0.5", "rgb=0.25")):
        assert generate(*words, "--edit", region, "--out", tmp_path / str(n)) == 0
    assert (tmp_path / "0" / "one" / "rgb.png").read_bytes() == (tmp_path / "1" / "one" / "rgb.png").read_bytes()
    assert (
        generate(tiny_run, "--input", "caption=a cube", "--target", "rgb", "--edit", "0.5", "--out", tmp_path / "o")
        == 1
    )
    assert "of the targets, given are none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--condition", "rgb=much"], "expected NAME=WEIGHT, the weight a number"),
        (["--condition", "boxes=2"], "condition 'boxes': 'boxes' is neither given nor a target"),
        (["--decoding", "depth=3"], "expected TARGET.KEY=VALUE"),
        (["--decoding", "depth.step=3"], "unknown key 'depth.step'; did you mean 'depth.steps'?"),
        (["--decoding", "depth.steps=0"], "steps is 0; expected 1 or more"),
        (["--decoding", "depth.steps={"], "found the value '{'"),
        (["--samples", "0"], "must be 1 or more, found 0"),
        (["--schedule", "nothing.yaml"], "nothing.yaml"),
        (["--edit", "nothing.png"], "of the targets, given are none"),
    ],
)
def test_words_that_are_not_understood(tiny_run, photos, tmp_path, capsys, words, message) -> None:
    assert (
        generate(tiny_run, "--input", f"rgb={photos / 'one.png'}", "--target", "depth", "--out", tmp_path / "o", *words)
        == 1
    )
    assert message in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_ctrl_c_keeps_what_is_done(tiny_run, photos, tmp_path, start: Callable[..., Any]) -> None:
    words = [
        "generate",
        tiny_run,
        "--input",
        f"rgb={photos}",
        "--target",
        "caption,depth",
        "--samples",
        40,
        "--batch",
        40,
    ]
    command = start(*words, "--out", tmp_path / "out")
    command.when(lambda: (tmp_path / "out" / "one" / "0" / "schedule.yaml").exists(), signal.SIGINT, group=True)
    _, said = command.end()
    assert command.code == 130 and "Traceback" not in said and "the same command goes on" in said
    assert not (tmp_path / "out" / "two" / "39" / "schedule.yaml").exists()
