"""From video files to a video: import of files and of folders of frames, training, generation, the moving pictures of the report."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskweave
from maskweave.cli.main import main
from maskweave.transfer.build import load_transferred
from maskweave.values.formats.video import read_video, write_mp4

CATALOG = """\
modalities:
  clip:
    id: 1
    kind: grid
    grid: [2, 2, 2]
    value: {type: video, size: [6, 16, 16], fps: 8}
    tokenizer: {width: 32, quantizer: {type: vq, codes: 16, dim: 8}}
    decoding: {scheme: roar, steps: 2, temperature: 0.1}
    metrics: [psnr, seconds]
  points:
    id: 2
    kind: patches
    source: clip
    grid: [2, 2, 2]
    value: {type: video, size: [6, 16, 16], fps: 8}
  color:
    id: 3
    kind: grid
    value: {type: label, classes: [red, blue]}
"""
RECIPE = """\
catalog: catalog.yaml
data: {source: SOURCE, validation: 4, shard_size: 32}
tokenizers: {samples: 0, train: {steps: 20, batch_size: 8, log_every: 10, checkpoint_every: 0}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 10, target_tokens: 10}}
train: {steps: 20, batch_size: 8, checkpoint_every: 0, log_every: 10}
evaluate:
  samples: 4
  requests: [{inputs: [color], targets: [clip]}, {inputs: [points], targets: [color]}]
  sheets: [{inputs: [color], targets: [clip]}]
"""


def moving(frames: int, red: bool, size: int = 16) -> np.ndarray:
    """A square that moves to the right."""
    video = np.full((frames, size, size, 3), 230, np.uint8)
    for i, frame in enumerate(video):
        frame[4:12, i : i + 6] = (220, 30, 30) if red else (30, 30, 220)
    return video


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 videos as mp4, as folders of frames and as arrays; some of another rate or length."""
    home = tmp_path_factory.mktemp("videos")
    for name in ("clip", "color"):
        (home / "in" / name).mkdir(parents=True)
    for i in range(24):
        path, video = home / "in" / "clip" / f"{i:02d}", moving(3 if i == 7 else 9 if i == 8 else 6, i % 2 == 0)
        if i % 3 == 0:
            video, fps = (np.repeat(video, 2, axis=0), 16) if i == 6 else (video, 8)
            path.with_suffix(".mp4").write_bytes(write_mp4(video, fps, "x"))
        elif i % 3 == 1:
            path.mkdir()
            for k, frame in enumerate(video):
                Image.fromarray(frame).save(path / f"{k}.png")
        else:
            np.save(path.with_suffix(".npy"), video)
        (home / "in" / "color" / f"{i:02d}.txt").write_text(("red", "blue")[i % 2], encoding="utf-8")
    (home / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (home / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(home / "shards")), encoding="utf-8")
    return home


def test_from_files_to_a_video(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    arguments = ["data", "import", "in", str(home / "shards"), "--catalog", "catalog.yaml"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "24 samples" in told and "clip 24" in told
    assert "clip: videos of 16 frames per second, resampled to 8: 1" in told
    assert "clip: videos longer than 6 frames, cut at their end: 1" in told
    assert main(arguments) == 0 and "24 kept" not in capsys.readouterr().err

    frame = home / "in" / "clip" / "01" / "0.png"
    frame.write_bytes(frame.read_bytes() + b"\0")
    assert main(arguments) == 0
    assert "kept from an earlier run" not in capsys.readouterr().out, "a changed frame is imported again"

    assert main(["run", "recipe.yaml", "--out", "run"]) == 0
    bundle = maskweave.load(home / "run")
    tokenizer = bundle.tokenizers["clip"]
    assert [len(video) for video in tokenizer.decode(tokenizer.encode([moving(3, True), moving(6, False)]))] == [3, 6]
    out = bundle.generate({"color": "red"}, ["clip"], seed=1)
    assert out["clip"].dtype == np.uint8 and out["clip"].shape[1:] == (16, 16, 3) and 1 <= len(out["clip"]) <= 6
    folder = out.save(home / "result")
    for ending in ("mp4", "gif"):
        video, rate = read_video((folder / f"clip.{ending}").read_bytes(), ending)
        assert len(video) == len(out["clip"]) and rate == pytest.approx(8, abs=0.4)
    strip = Image.open(io.BytesIO((folder / "clip.picture.png").read_bytes()))
    assert strip.width == 256
    for given in ("in/clip/00.mp4", Path("in/clip/01"), (moving(12, True), 16), out["clip"]):
        assert bundle.generate({"points": given}, ["color"])["color"] in ("red", "blue")
    assert bundle.ensemble({"color": "red"}, ["clip"], samples=2)["clip"].dtype == np.uint8
    (home / "transfer.yaml").write_text(
        "{start: run, inputs: [points, clip], target: color, data: {source: shards, validation: 4}, train: {steps: 2, batch_size: 8}}",
        encoding="utf-8",
    )
    assert main(["transfer", "transfer.yaml", "--out", "tuned"]) == 0
    given = [dict.fromkeys(("points", "clip"), video) for video in (moving(4, False), (moving(12, True), 16))]
    assert {*load_transferred(home / "tuned").predict(given)} <= {"red", "blue"}
    report = (home / "run" / "report.html").read_text(encoding="utf-8")
    assert report.count('src="data:image/gif;base64,') == 8 and "clip, truth" in report
