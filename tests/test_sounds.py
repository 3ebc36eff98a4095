"""From sound files to a sound: import, training, generation, the player of the report. Everything is tiny."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import maskweave
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.modality.catalogs import load_catalog
from maskweave.transfer.build import load_transferred

CATALOG = """\
modalities:
  speech:
    id: 1
    kind: grid
    grid: [2, 8]
    value: {type: audio, rate: 8000, max_seconds: 0.512, mels: 16, hop: 128, window: 512}
    tokenizer: {width: 32, quantizer: {type: vq, codes: 16, dim: 8}}
    decoding: {scheme: roar, steps: 2, temperature: 0.1}
    metrics: [mae, convergence, seconds]
  points:
    id: 2
    kind: patches
    source: speech
    grid: [2, 8]
    value: {type: audio, rate: 8000, max_seconds: 0.512, mels: 16, hop: 128, window: 512}
  pitch:
    id: 3
    kind: grid
    value: {type: label, classes: [low, high]}
"""
RECIPE = """\
catalog: catalog.yaml
data: {source: SOURCE, validation: 6, shard_size: 32}
tokenizers: {samples: 0, train: {steps: 60, batch_size: 16, learning_rate: 3.0e-3, log_every: 30, checkpoint_every: 0}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 12, target_tokens: 12}}
train: {steps: 60, batch_size: 16, learning_rate: 5.0e-3, checkpoint_every: 0, log_every: 30}
evaluate:
  samples: 6
  requests: [{inputs: [pitch], targets: [speech]}, {inputs: [points], targets: [pitch]}]
  sheets: [{inputs: [pitch], targets: [speech]}]
"""
"""60 steps each: enough to run everything, not to learn much."""


TRANSFER = """\
start: run
inputs: [points]
target: pitch
data: {source: shards, validation: 6, shift: {points: 0.1}, noise: {points: 0.01}}
train: {steps: 4, batch_size: 8}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 tones of two pitches and many lengths; some at another rate, in stereo, too long or damaged."""
    home, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for name in ("speech", "pitch"):
        (home / "in" / name).mkdir(parents=True)
    for i in range(40):
        rate = 16_000 if i % 4 == 0 else 8_000
        hertz, seconds = ((300, 1200)[i % 2] * rng.uniform(0.95, 1.05), 0.7 if i == 9 else rng.uniform(0.2, 0.5))
        wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        soundfile.write(home / "in" / "speech" / f"{i:02d}.wav", np.stack([wave] * (1 + (i == 5)), -1), rate)
        if i != 11:
            (home / "in" / "pitch" / f"{i:02d}.txt").write_text(("low", "high")[i % 2], encoding="utf-8")
    (home / "in" / "speech" / "11.wav").write_bytes(b"RIFF of another kind")
    (home / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    (home / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(home / "shards")), encoding="utf-8")
    return home


def test_from_files_to_a_sound(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    arguments = ["data", "import", "in", str(home / "shards"), "--catalog", "catalog.yaml", "--limit", "0.1"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "speech: sounds of rate 16000, resampled to 8000: 10" in told
    assert "speech: sounds of several channels, mixed to one: 1" in told
    assert "speech: sounds longer than 0.512 s, cut at their end: 1" in told
    assert "11.wav: corrupt or truncated sound file" in (home / "shards" / "skipped.jsonl").read_text(encoding="utf-8")

    assert main(["run", "recipe.yaml", "--out", "run"]) == 0
    data = TokenData(home / "run" / "tokens" / "train", load_catalog(home / "catalog.yaml"))
    columns = data.columns(np.arange(len(data)))
    assert columns["speech"].valid is None and (columns["speech"].ids == 16).any(), "the end of a sound has a code"
    points = columns["points"]
    assert points.valid is not None and points.valid[points.present].any(axis=1).all()
    assert not points.valid[points.present].all(), "what is past the end is not used"

    bundle = maskweave.load(home / "run")
    tokenizer = bundle.tokenizers["speech"]
    short, long = (0.3 * np.ones(round(seconds * 8000), np.float32) for seconds in (0.16, 0.5))
    again = tokenizer.decode(tokenizer.encode([short, long]))
    assert again[0].seconds == pytest.approx(0.16, abs=0.064) and again[1].seconds == pytest.approx(0.5, abs=0.064)
    out = bundle.generate({"pitch": "high"}, ["speech"], seed=1)
    sound = out["speech"]
    assert sound.rate == 8000 and 0 < sound.seconds <= 0.512
    assert sound.waveform.dtype == np.float32 and np.isfinite(sound.waveform).all()
    folder = out.save(home / "result")
    stored, rate = soundfile.read(folder / "speech.wav")
    assert rate == 8000 and np.array_equal(stored, sound.waveform)
    assert (folder / "speech.picture.png").is_file()
    heard = bundle.generate({"points": (sound.waveform, 8000)}, ["pitch"])["pitch"]
    assert heard in ("low", "high")
    for given in (home / "in" / "speech" / "00.wav", soundfile.read(home / "in" / "speech" / "00.wav"), sound):
        assert bundle.read({"speech": given})["speech"].rate == 8000
    assert bundle.generate(out.as_inputs(), ["pitch"])["pitch"] in ("low", "high")
    merged = bundle.ensemble({"pitch": "low"}, ["speech"], samples=2)["speech"]
    assert merged.rate == 8000

    assert bundle.encoder(["points"])([{"points": sound}]).pooled.shape == (1, 32)
    capsys.readouterr()
    assert main(["probe", "run", "shards", "--inputs", "points", "--target", "pitch", "--validation", "6"]) == 0
    assert "accuracy" in capsys.readouterr().out
    for inputs, target in (("speech", "pitch"), ("points", "speech")):
        recipe = TRANSFER.replace("[points]", f"[{inputs}]").replace("pitch", target)
        (home / "transfer.yaml").write_text(recipe.replace("points: 0", f"{inputs}: 0"), encoding="utf-8")
        assert main(["transfer", "transfer.yaml", "--out", f"{inputs}-{target}"]) == 0
    told = load_transferred(home / "speech-pitch").predict([{"speech": sound}])
    assert told[0] in ("low", "high")
    denoised = load_transferred(home / "points-speech")
    rows = {
        row["metric"]: row
        for row in json.loads((home / "points-speech" / "evaluation.json").read_text(encoding="utf-8"))
    }
    assert rows["MAE"]["value"] < rows["MAE"]["constant"]
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(2000) / 8000)
    (heard,) = denoised.predict([{"points": (tone, 8000)}])
    assert heard.rate == 8000 and 0 < heard.seconds <= 0.512 and np.isfinite(heard.waveform).all()
    audio = denoised.catalog["speech"].value
    silent = audio.answers(torch.full((1, 1, *audio.size), -1.0))
    assert len(silent) == 1 and silent[0].log_mel.shape == (16, 1)
    ends = torch.full((1, 1, *audio.size), -1.0)
    ends[..., :5] = 0.5
    assert audio.answers(ends)[0].log_mel.shape == (16, 5)
    target = torch.full((1, 1, *audio.size), torch.nan)
    target[..., :5] = 0.5
    assert float(audio.task_loss(ends, target)[0]) == 0, "past its end, a sound is silent"

    report = (home / "run" / "report.html").read_text(encoding="utf-8")
    assert report.count('<audio controls preload="none" src="data:audio/wav;base64,') == 8, "four samples and truths"
    assert "media-src data:" in report and "speech, predicted" in report
    rows = json.loads((home / "run" / "evaluation.json").read_text(encoding="utf-8"))
    scored = {row["metric"]: row for row in rows if row["target"] == "speech"}
    assert set(scored) == {"MAE", "convergence", "seconds"}
    assert all(np.isfinite(row["value"]) and np.isfinite(row["constant"]) for row in scored.values())
