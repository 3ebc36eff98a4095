"""From a recipe with external tokenizers to a bundle: training, generation, evaluation, copies, licenses. Everything is tiny."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_tokenizers as tiny
import torch

import maskweave
from maskweave.bundle.compress import compress
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import load_saved_catalog
from maskweave.provenance import Origin
from maskweave.tokenizers.external import ExternalGridTokenizer

CATALOG = """\
modalities:
  noise:
    id: 1
    kind: grid
    grid: [2, 20]
    value: {type: audio, rate: 2000, max_seconds: 0.08, mels: 8, hop: 16, window: 64}
    tokenizer: {external: MODELS/dac, codes: 16, depth: 2, tokens: separate}
    decoding: {scheme: roar, steps: 2, temperature: 0.1}
  hum:
    id: 2
    kind: grid
    grid: [20]
    source: noise
    value: {type: audio, rate: 2000, max_seconds: 0.08, mels: 8, hop: 16, window: 64, missing: nan}
    tokenizer: {external: MODELS/encodec, codes: 16, depth: 2}
  photo:
    id: 3
    kind: grid
    grid: [4, 4]
    value: {type: image, size: [16, 16], channels: 3}
    tokenizer: {external: MODELS/vq_model, codes: 16}
    decoding: {steps: 2}
  pitch:
    id: 4
    kind: grid
    value: {type: label, classes: [low, high]}
"""
RECIPE = """\
catalog: catalog.yaml
data: {source: "python: own_source:Samples", samples: 40, validation: 8, shard_size: 32}
tokenizers: {samples: 0}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, init_from_tokenizers: true, masking: {input_tokens: 16, target_tokens: 16}}
train: {steps: 8, batch_size: 8, checkpoint_every: 0, log_every: 4}
evaluate:
  samples: 4
  requests: [{inputs: [pitch], targets: [noise, photo]}]
  sheets: [{inputs: [photo], targets: [noise, hum]}]
"""
SOURCE = """\
import numpy as np
from maskweave.values.audio import Audio

class Samples:
    names = ("noise", "photo", "pitch")

    def __init__(self, catalog, samples, seed):
        self.samples, self.seed, self.audio = samples, seed, catalog["noise"].value

    def __len__(self):
        return self.samples

    def key(self, i):
        return f"{self.seed}-{i}"

    def __getitem__(self, i):
        rng, high = np.random.default_rng([self.seed, i]), i % 2
        wave = np.sin(np.arange(rng.integers(40, 161)) * (0.2 + high)).astype(np.float32) * 0.5
        return {
            "noise": self.audio.check(wave, "wave"),
            "photo": np.full((16, 16, 3), 60 + 120 * high, np.uint8) + rng.integers(0, 40, (16, 16, 3), np.uint8),
            "pitch": ("low", "high")[high],
        }
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three published tokenizers, and a run that used them; then they are gone."""
    home = tmp_path_factory.mktemp("external")
    for name in ("dac", "encodec", "vq_model"):
        getattr(tiny, name)(home / name)
    (home / "encodec" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    (home / "own_source.py").write_text(SOURCE, encoding="utf-8")
    (home / "catalog.yaml").write_text(CATALOG.replace("MODELS", str(home)), encoding="utf-8")
    (home / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        assert main(["recipe", "check", str(home / "recipe.yaml")]) == 0
        assert main(["run", str(home / "recipe.yaml"), "--out", str(home / "run")]) == 0
    for name in ("dac", "encodec", "vq_model"):
        shutil.rmtree(home / name)
    return home


def test_a_run_gives_a_complete_bundle(home: Path) -> None:
    scores = json.loads((home / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert "noise" in json.dumps(scores) and (home / "run" / "report.html").is_file()
    bundle = maskweave.load(home / "run")
    assert all(isinstance(bundle.tokenizers[name], ExternalGridTokenizer) for name in ("noise", "hum", "photo"))
    assert bundle.catalog.vocabulary_size("noise") == 17 and bundle.catalog.vocabulary_size("hum") == 256

    out = bundle.generate({"pitch": "high"}, ["noise", "hum", "photo"], seed=3)
    assert out["photo"].dtype == np.uint8 and out["photo"].shape == (16, 16, 3)
    assert out["noise"].is_recorded and 16 <= out["noise"].num_samples <= 160 and out["hum"].num_samples == 160
    again = bundle.generate({"noise": out["noise"], "photo": out["photo"]}, ["pitch"])
    assert again["pitch"] in ("low", "high")


def test_tokens_past_the_end_of_a_sound_are_not_used(home: Path) -> None:
    data = TokenData(home / "run" / "tokens" / "train", load_saved_catalog(home / "run"))
    columns = data.columns(np.arange(8))
    noise, hum = columns["noise"], columns["hum"]
    assert noise.ids is not None
    ends = (noise.ids.reshape(8, 2, 20) == 16).sum(axis=-1)
    assert (ends[:, 0] == ends[:, 1]).all() and len(set(ends[:, 0])) > 2, "sounds of many lengths"
    assert hum.valid is not None and ((20 - hum.valid.sum(axis=1)) == ends[:, 0]).all()


def test_licenses_of_external_tokenizers_stay_with_the_bundle(home: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(home / "run")
    assert bundle.provenance.origins == [
        Origin("tokenizers/noise", "dac", license="mit"),
        Origin("tokenizers/hum", "encodec", license="cc-by-nc-4.0"),
        Origin("tokenizers/photo", "vq_model", license="mit"),
    ]
    assert "cc-by-nc-4.0 (tokenizers/hum)" in bundle.card()
    copy = bundle.save(tmp_path / "copy")
    shutil.copytree(copy, tmp_path / "elsewhere")
    again = maskweave.load(tmp_path / "elsewhere")
    assert again.provenance.origins == bundle.provenance.origins
    assert same(bundle, again)


def same(one: maskweave.Bundle, other: maskweave.Bundle) -> bool:
    a, b = (bundle.generate({"pitch": "low"}, ["noise", "photo"], seed=1) for bundle in (one, other))
    return bool(
        np.array_equal(a["photo"], b["photo"]) and np.allclose(a["noise"].waveform, b["noise"].waveform, atol=1e-6)
    )


def test_a_compressed_bundle_keeps_external_tokenizers_as_they_are(home: Path, tmp_path: Path) -> None:
    compress(home / "run", tmp_path / "small", "bf16")
    small = maskweave.load(tmp_path / "small")
    for name in ("noise", "hum", "photo"):
        assert small.tokenizers[name].fingerprint == maskweave.load(home / "run").tokenizers[name].fingerprint


def test_another_run_may_reuse_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(home))
    words = ["--tokenizers.reuse", str(home / "run" / "tokenizers")]
    assert main(["tokenizer", str(home / "recipe.yaml"), "--out", str(tmp_path / "run"), *words]) == 0, (
        capsys.readouterr().err
    )
    copied = tmp_path / "run" / "tokenizers" / "hum" / "external" / "model.safetensors"
    assert copied.read_bytes() == (home / "run" / "tokenizers" / "hum" / "external" / "model.safetensors").read_bytes()


def test_a_bundle_cannot_run_code_of_its_own_choice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planted.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n\ndef f(modality): ...\n", encoding="utf-8"
    )
    shutil.copytree(home / "run", tmp_path / "bundle", ignore=shutil.ignore_patterns("tokens"))
    for file in ("modalities.yaml", "tokenizers/photo/config.json"):
        path = tmp_path / "bundle" / file
        path.write_text(
            path.read_text(encoding="utf-8").replace(str(home / "vq_model"), "python:planted:f"), encoding="utf-8"
        )
    with pytest.raises(MaskweaveError, match="'photo': its tokenizer is code, python:planted:f, which runs only if"):
        maskweave.load(tmp_path / "bundle")
    assert main(["card", str(tmp_path / "bundle")]) == 1 and not (tmp_path / "ran").exists()
    with pytest.raises(MaskweaveError, match="returned NoneType"):
        maskweave.load(tmp_path / "bundle", allow_code=True)
    assert (tmp_path / "ran").exists()
    with pytest.raises(MaskweaveError, match="runs only if"):
        maskweave.load(tmp_path / "bundle")


def test_devices_follow_the_bundle(home: Path) -> None:
    bundle = maskweave.load(home / "run")
    tokenizer = bundle.tokenizers["photo"]
    assert isinstance(tokenizer, torch.nn.Module)
    tokenizer.train()
    assert not any(part.training for part in tokenizer.external.modules() if part is not tokenizer)  # type: ignore[union-attr]
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
