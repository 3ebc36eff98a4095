"""Smaller bundles: their size, the bounds of every weight, what stays as it is, and their predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_bundle import m3ae_bundle, save, small_bundle

import maskweave
from maskweave.bundle.compress import compress
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.modality.pretrained import find_pretrained
from maskweave.nn.int8 import quantize_rows
from maskweave.provenance import Provenance, write_provenance


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save(small_bundle(), tmp_path_factory.mktemp("bundles") / "whole")
    write_provenance(Provenance("mit"), made)
    return made


def weights(bundle: maskweave.Bundle) -> dict[str, torch.Tensor]:
    parts = {"model": bundle.model, **{n: t for n, t in bundle.tokenizers.items() if isinstance(t, torch.nn.Module)}}
    return {f"{part}/{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}


def test_rows_are_rounded_to_255_levels() -> None:
    rows = torch.tensor([[1.0, -2.54, 0.004], [0.0, 0.0, 0.0]])
    made = quantize_rows("w", rows)
    assert made["w"].tolist() == [[50, -127, 0], [0, 0, 0]] and made["w"].dtype == torch.int8
    assert made["w.int8_scale"][0].item() == pytest.approx(0.02)


@pytest.mark.parametrize(("kind", "ratio"), [("bf16", 0.55), ("int8", 0.4)])
def test_every_weight_stays_within_its_bound(kind: str, ratio: float, folder: Path, tmp_path: Path) -> None:
    made = compress(folder, tmp_path / "small", kind)  # type: ignore[arg-type]
    assert made.bytes_after < ratio * made.bytes_before
    before, after = maskweave.load(folder), maskweave.load(tmp_path / "small")
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys() and after.provenance.license == "mit"
    changed = 0
    for name, tensor in old.items():
        assert new[name].dtype == tensor.dtype and new[name].shape == tensor.shape
        if "quantizer." in name or not tensor.is_floating_point() or tensor.numel() <= 256:
            assert torch.equal(new[name], tensor), name
            continue
        changed += 1
        error = (new[name] - tensor).abs()
        if kind == "int8" and tensor.ndim > 1 and tensor.numel() >= 4096:
            bound = tensor.abs().flatten(1).amax(1).reshape(-1, *[1] * (tensor.ndim - 1)) / 254
        else:
            bound = tensor.abs() * 2**-8
        assert (error <= bound * (1 + 1e-5) + 1e-30).all(), name
    assert changed > 10


@pytest.mark.parametrize(("kind", "bound"), [("bf16", 2e-3), ("int8", 5e-3)])
def test_likelihoods_are_close(kind: str, bound: float, folder: Path, tmp_path: Path) -> None:
    compress(folder, tmp_path / "small", kind)  # type: ignore[arg-type]
    ids = np.random.default_rng(0).integers(0, 64, 64)
    values = {"depth": maskweave.Tokens(ids)}
    nats = [
        maskweave.load(place).score({"caption": "1 object: a large red cube."}, values)["depth"].total
        for place in (folder, tmp_path / "small")
    ]
    assert nats[1] == pytest.approx(nats[0], rel=bound) and nats[0] != nats[1]


def test_other_families_and_what_is_left_out(tmp_path: Path) -> None:
    folder = save(m3ae_bundle(), tmp_path / "whole")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("", encoding="utf-8")
    compress(folder, tmp_path / "small", "int8")
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"modalities.yaml", "model", "tokenizers"}
    assert any(t.dtype == torch.int8 for t in load_file(tmp_path / "small" / "model" / "model.safetensors").values())
    maskweave.load(tmp_path / "small")


def test_faults(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(folder), str(tmp_path / "small")]) == 0
    assert "MB instead of" in capsys.readouterr().out
    with pytest.raises(MaskweaveError, match="exists already; choose another folder"):
        compress(folder, tmp_path / "small")
    with pytest.raises(MaskweaveError, match="is in int8 already"):
        compress(tmp_path / "small", tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()
    assert main(["compress", str(tmp_path / "gone"), str(tmp_path / "x")]) == 1


def test_only_checkpoints_within_a_bundle_and_logs_are_left_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoints" / "whole"
    shutil.copytree(folder, source)
    (source / "tokenizers" / "depth" / "checkpoints").mkdir()
    for name in ("log.txt", "checkpoints/state.json"):
        (source / "tokenizers" / "depth" / name).write_text("{}", encoding="utf-8")
    compress(source, tmp_path / "small", "bf16")
    assert maskweave.load(tmp_path / "small").catalog.keys() == maskweave.load(folder).catalog.keys()
    assert not {"log.txt", "checkpoints"} & {path.name for path in (tmp_path / "small").rglob("*")}


def test_one_tokenizer_is_compressed_as_in_its_bundle(folder: Path, tmp_path: Path) -> None:
    name = next(path.parent.name for path in sorted((folder / "tokenizers").glob("*/model.safetensors")))
    source = tmp_path / "alone"
    shutil.copytree(folder / "tokenizers" / name, source)
    write_provenance(Provenance("mit"), source)
    (source / "checkpoints").mkdir()
    (source / "checkpoints" / "state.json").touch()
    whole, made = compress(folder, tmp_path / "whole"), compress(source, tmp_path / "small")
    assert sorted(path.name for path in made.folder.rglob("*")) == [
        "config.json",
        "model.safetensors",
        "provenance.json",
    ]
    ours, theirs = (
        load_file(made.folder / "model.safetensors"),
        load_file(whole.folder / "tokenizers" / name / "model.safetensors"),
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert made.bytes_after == (made.folder / "model.safetensors").stat().st_size < made.bytes_before
    assert find_pretrained(str(made.folder)) == made.folder
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(MaskweaveError, match="model.safetensors"):
        compress(source, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
