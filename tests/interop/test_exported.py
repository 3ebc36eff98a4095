"""Exported parts run in onnxruntime, and as programs of torch, with the numbers of the model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_bundle import m3ae_bundle, save, scenes, small_bundle

from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import Engine
from maskweave.generate.guidance import Pass
from maskweave.generate.token_state import TokenState, token_states
from maskweave.interop import exported
from maskweave.interop.exported import Format, export
from maskweave.masking.inputs import read_inputs
from maskweave.modality.decoding import Decoding

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything as ONNX, by the command."""
    home = tmp_path_factory.mktemp("export")
    saved, out = save(bundle, home / "bundle"), home / "out"
    words = ["--inputs", "depth,rgb", "--targets", "global", "--tokenizers", "depth"]
    assert main(["export", str(saved), str(out), *words]) == 0
    return out


def run(path: Path, **given: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, given)


def test_files_and_their_description(folder: Path) -> None:
    names = {"encoder.onnx", "predict-global.onnx", "depth.encode.onnx", "depth.decode.onnx"}
    assert {path.name for path in folder.iterdir()} == {*names, "export.json"}
    described = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert described["files"].keys() == names and described["license"] == "not stated"
    encoder = described["files"]["encoder.onnx"]
    assert encoder["inputs"] == {
        "rgb": {"type": "float32", "shape": ["batch", 64, 192]},
        "depth": {"type": "int64", "shape": ["batch", 64]},
    }
    assert encoder["outputs"]["pooled"] == {"type": "float32", "shape": ["batch", 32]}


def test_the_encoder_gives_the_features_of_real_samples(bundle: Bundle, folder: Path) -> None:
    """Through the path of features and transfer, which the export does not use."""
    rng = np.random.default_rng(0)
    samples = [
        bundle.read({"rgb": rng.integers(0, 256, (64, 64, 3), np.uint8), "depth": rng.random((64, 64), np.float32) * 5})
        for _ in range(5)
    ]
    encoder = bundle.family.encoder(bundle.model, bundle.catalog, ["rgb", "depth"])
    with torch.no_grad():
        inputs = read_inputs(samples, bundle.catalog, bundle.tokenizers, encoder.names)
        expected = encoder(inputs)
    features, pooled = run(folder / "encoder.onnx", **{name: t.numpy() for name, t in inputs.content.items()})
    np.testing.assert_allclose(features, expected.tokens.numpy(), atol=1e-5)
    np.testing.assert_allclose(pooled, expected.pooled.numpy(), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("make", [pytest.param(m3ae_bundle, marks=pytest.mark.slow), small_bundle])
def test_captions_of_any_length(make: Callable[[], Bundle], tmp_path: Path) -> None:
    """Of both families, as ONNX and as a program of torch."""
    bundle = make()
    encoder = bundle.family.encoder(bundle.model, bundle.catalog, ["rgb", "caption"])
    for format in ("onnx", "pt2"):
        out = tmp_path / format
        made = export(bundle, out, inputs=["caption", "rgb"], format=format)["files"][f"encoder.{format}"]  # type: ignore[arg-type]
        assert made["inputs"]["caption"]["shape"] == ["batch", "length caption"]
        assert made["outputs"]["features"]["shape"] == ["batch", "tokens", 32]
        for sample in scenes(3):
            inputs = read_inputs([sample], bundle.catalog, bundle.tokenizers, encoder.names)
            expected = encoder(inputs)
            if format == "onnx":
                features, pooled = run(out / "encoder.onnx", **{name: t.numpy() for name, t in inputs.content.items()})
            else:
                program = torch.export.load(out / "encoder.pt2").module()
                features, pooled = (t.numpy() for t in program(*inputs.content.values()))
            np.testing.assert_allclose(features, expected.tokens.numpy(), atol=1e-5)
            np.testing.assert_allclose(pooled, expected.pooled.numpy(), atol=1e-5)


def test_the_tokenizer_gives_the_same_tokens_and_values(bundle: Bundle, folder: Path) -> None:
    tokenizer, value = bundle.tokenizers["depth"], bundle.catalog["depth"].value
    maps = [np.full((64, 64), 1 + i, np.float32) + np.arange(64, dtype=np.float32) / 64 for i in range(3)]
    (ids,) = run(folder / "depth.encode.onnx", value=value.to_network(maps).numpy())
    assert np.array_equal(ids, tokenizer.encode(maps).numpy())
    (output,) = run(folder / "depth.decode.onnx", ids=ids)
    np.testing.assert_allclose(value.from_network(torch.from_numpy(output)), tokenizer.decode(ids), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_predictor_is_generation_in_one_step(bundle: Bundle, folder: Path, format: Format, tmp_path: Path) -> None:
    """Its logits are those of the engine that generates, and the likeliest token at every position is what one greedy step of MaskGIT predicts."""
    given = bundle.read({"rgb": np.zeros((64, 64, 3), np.uint8), "depth": np.full((64, 64), 2, np.float32)})
    encoder = bundle.family.encoder(bundle.model, bundle.catalog, ["rgb", "depth"])
    inputs = read_inputs([given], bundle.catalog, bundle.tokenizers, encoder.names)
    if format == "onnx":
        (logits,) = run(folder / "predict-global.onnx", **{name: t.numpy() for name, t in inputs.content.items()})
    else:
        made = export(bundle, tmp_path / "out", inputs=["depth", "rgb"], targets=["global"], format=format)
        assert made["files"]["predict-global.pt2"]["outputs"]["logits"]["type"] == "float32"
        logits = torch.export.load(tmp_path / "out" / "predict-global.pt2").module()(*inputs.content.values()).numpy()
    L = bundle.catalog["global"].tokens
    fields = {
        **token_states(bundle.catalog, [given], bundle.tokenizers),
        "global": TokenState.empty(1, L),
    }
    expected_LV = Engine(bundle.model, bundle.catalog).ask(
        fields, [Pass(1.0, frozenset(fields))], "global", np.ones((1, L), bool)
    )
    assert logits.shape == (1, *expected_LV.shape)
    np.testing.assert_allclose(logits[0], expected_LV.numpy(), rtol=1e-4, atol=1e-5)
    greedy = {"global": Decoding("maskgit", steps=1, temperature=0)}
    out = bundle.generate(given, ["global"], decoding=greedy)
    assert np.array_equal(logits.argmax(-1)[0], np.ravel(out.tokens["global"]))


def test_programs_of_torch(bundle: Bundle, tmp_path: Path) -> None:
    made = export(bundle, tmp_path / "out", tokenizers=["depth"], format="pt2")
    assert (
        made["files"].keys() == {"depth.encode.pt2", "depth.decode.pt2"}
        and (tmp_path / "out" / "depth.decode.pt2").is_file()
    )
    assert all(facts["largest_error"] < 1e-5 for facts in made["files"].values())


def test_a_file_with_other_numbers_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pt2 = exported._save_pt2
    monkeypatch.setattr(
        exported, "_save_pt2", lambda made, path: lambda given: [one + 1 for one in save_pt2(made, path)(given)]
    )
    with pytest.raises(
        MaskweaveError, match=r"depth\.encode\.pt2: its results differ from the model's by 1, more than 0"
    ):
        export(bundle, tmp_path / "out", tokenizers=["depth"], format="pt2")
    assert not (tmp_path / "out").exists()


def test_errors_of_onnx_are_told(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        MaskweaveError, match=r"depth\.encode\.onnx: torch cannot export this part \(no such operator\)"
    ):
        export(bundle, tmp_path / "out", tokenizers=["depth"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "nothing to export"),
        ({"targets": ["depth"]}, "targets are predicted from inputs; give inputs"),
        ({"inputs": ["rgb"], "targets": ["caption"]}, "'caption' cannot be predicted in one step"),
        ({"tokenizers": ["caption"]}, "'caption' has no tokenizer network"),
        ({"inputs": ["nothing"]}, "unknown modality 'nothing'"),
    ],
)
def test_what_cannot_be_exported(parts: dict[str, list[str]], message: str, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=message):
        export(bundle, tmp_path / "out", **parts)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_m3ae_predicts_nothing_in_one_step(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="expected a grid of a model that generates"):
        export(m3ae_bundle(), tmp_path / "out", inputs=["rgb"], targets=["caption"])
