"""TiTok: tiny networks of random weights with the codes and pixels that the published code computes for them.

`titok/KIND/` has `config.json` and `model.safetensors` (float16) as published, and `expected.npz`: pictures (2, 32, 32, 3), and their latents (2, T, K),
codes (2, K) and pixels (2, 3, 32, 32) in float32.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import Modality
from maskweave.tokenizers.external import ExternalGridTokenizer, titok
from maskweave.tokenizers.folder import load_tokenizers, save_tokenizers

KINDS = ("two_stage", "single_stage")
CASES = Path(__file__).parent / "titok"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published widths and norms are for networks of 84 million weights and more."""
    monkeypatch.setattr(titok, "HEAD_WIDTH", 8)
    monkeypatch.setattr(titok, "GROUPS", 2)


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> tuple[Path, Any]:
    folder = CASES / request.param
    return folder, np.load(folder / "expected.npz")


def entry(folder: Path, grid: tuple[int, ...] = (6,), size: tuple[int, int] = (32, 32), **tokenizer: Any) -> Modality:
    value = {"type": "image", "size": list(size), "channels": 3}
    settings = {"external": str(folder), "codes": 32, **tokenizer}
    content = {"id": 1, "kind": "grid", "grid": list(grid), "value": value, "tokenizer": settings}
    return catalog_from({"modalities": {"photo": content}}, "entry")["photo"]


def test_the_numbers_are_the_published_codes(case: tuple[Path, Any]) -> None:
    folder, expected = case
    network = titok.open_titok(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")), "x").eval()
    with torch.inference_mode():
        latents = network.latents(torch.from_numpy(expected["pictures"]).movedim(-1, 1) / 255)
        pixels = network.decode(torch.from_numpy(expected["codes"]))
    np.testing.assert_allclose(latents.mT, expected["latents"], atol=2e-5)
    np.testing.assert_allclose(pixels, expected["pixels"], atol=5e-5)


def test_pictures_become_a_row_of_codes_and_pictures_again(case: tuple[Path, Any]) -> None:
    folder, expected = case
    tokenizer = ExternalGridTokenizer.open(entry(folder))
    ids = tokenizer.encode(expected["pictures"])
    assert np.array_equal(ids, expected["codes"]) and len(ids.unique()) > 6 and tokenizer.vocabulary_size == 32
    found = tokenizer.decode(ids)
    wanted = expected["pixels"].transpose(0, 2, 3, 1).clip(0, 1) * 255
    assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 0.5 + 0.01 and found.std() > 5


def test_token_vectors_are_what_codes_are_compared_with() -> None:
    stored = {kind: safetensors.torch.load_file(CASES / kind / "model.safetensors") for kind in KINDS}
    vectors = {kind: stored[kind]["quantize.embedding.weight"].float() for kind in KINDS}
    found = {kind: ExternalGridTokenizer.open(entry(CASES / kind)).token_embeddings for kind in KINDS}
    torch.testing.assert_close(found["single_stage"], vectors["single_stage"])
    lengths = vectors["two_stage"].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found["two_stage"], vectors["two_stage"] / lengths)


def test_a_copy_is_complete(case: tuple[Path, Any], tmp_path: Path) -> None:
    folder, expected = case
    shutil.copytree(folder, tmp_path / "original")
    modality = entry(tmp_path / "original")
    save_tokenizers({"photo": ExternalGridTokenizer.open(modality)}, tmp_path / "saved")
    shutil.rmtree(tmp_path / "original")
    again = load_tokenizers(tmp_path / "saved", Catalog([modality]))["photo"]
    assert np.array_equal(again.encode(expected["pictures"]), expected["codes"])


def test_settings_that_old_files_lack_are_those_of_the_first_models(tmp_path: Path) -> None:
    shutil.copytree(CASES / "two_stage", tmp_path / "model")
    change(lambda config: config["model"]["vq_model"].pop("finetune_decoder"))(tmp_path / "model")
    expected = np.load(CASES / "two_stage" / "expected.npz")
    ids = ExternalGridTokenizer.open(entry(tmp_path / "model")).encode(expected["pictures"])
    assert np.array_equal(ids, expected["codes"])


@pytest.mark.parametrize(
    ("blocks", "widths", "tokens", "codes", "parameters", "tensors"),
    [
        ((24, 24), (1024, 1024), 32, (4096, 12), 641_054_735, 692),
        ((12, 12), (768, 768), 64, (4096, 12), 204_814_095, 404),
        ((8, 8), (512, 512), 128, (4096, 12), 83_674_639, 308),
        ((12, 24), (768, 1024), 64, (8192, 64), 390_016_148, 459),
        ((12, 24), (768, 1024), 128, (8192, 64), 390_179_988, 459),
        ((8, 24), (512, 1024), 256, (8192, 64), 330_260_884, 411),
    ],
    ids=["l32", "b64", "s128", "bl64", "bl128", "sl256"],
)
def test_the_published_sizes(
    blocks: tuple[int, int],
    widths: tuple[int, int],
    tokens: int,
    codes: tuple[int, int],
    parameters: int,
    tensors: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Networks of these shapes have as many parameters and tensors as the published code makes."""
    monkeypatch.undo()
    is_legacy = codes == (4096, 12)
    config = titok.TiTokConfig(
        256, *codes, tokens, 16, 16, use_l2_norm=is_legacy, finetune_decoder=is_legacy, is_legacy=is_legacy
    )
    shapes: dict[str, tuple[int, ...]] = {
        "latent_tokens": (tokens, widths[0]),
        "decoder.decoder_embed.weight": (widths[1], codes[1]),
    }
    for side, count in zip(("encoder", "decoder"), blocks, strict=True):
        shapes |= {f"{side}.transformer.{n}.ln_1.bias": (1,) for n in range(count)}
    if is_legacy:
        channels = (128, 128, 256, 256, 512)
        shapes |= {f"pixel_decoder.up.{n}.block.1.conv1.weight": (c, c, 3, 3) for n, c in enumerate(channels)}
        shapes |= {"pixel_quantize.embedding.weight": (1024, 256), "pixel_decoder.conv_in.weight": (512, 256, 3, 3)}
    with torch.device("meta"):
        network = titok.TiTok(config, titok.Shapes(shapes, "x"))
    assert sum(p.numel() for p in network.parameters()) == parameters and len(network.state_dict()) == tensors


# Faults


def change(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Returns a function that changes the `config.json` of a folder."""

    def changed(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        edit(config)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return changed


def state(**settings: Any) -> Callable[[Path], None]:
    return change(lambda config: config["model"]["vq_model"].update(settings))


def weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        edit(tensors)
        safetensors.torch.save_file(tensors, folder / "model.safetensors")

    return changed


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (state(quantize_mode="vae"), "is a TiTok with continuous tokens; choose one whose tokens are codes"),
        (state(finetune_decoder=False), "has no pixel decoder, so it cannot make pictures; choose a finished TiTok"),
        (state(is_legacy=False), "has a pixel decoder that its tokens do not fit"),
        (state(codebook_size="many"), r"config\.json: 'codebook_size' expects a whole number, found 'many'"),
        (state(num_latent_tokens=0), r"num_latent_tokens is 0; expected 1 to 65,536; get the tokenizer again"),
        (state(token_size=1 << 40), r"token_size is 1099511627776; expected 1 to 65,536"),
        (state(vit_enc_patch_size=7), "crop_size 32 is not a multiple of the patch size 7"),
        (change(lambda c: c["dataset"]["preprocessing"].update(crop_size=28)), "crop_size 28 is not a multiple of the patch size 8"),
        (change(lambda c: c.pop("dataset")), r"config\.json: key 'crop_size' is missing"),
        (state(num_latent_tokens=5), r"of another shape: .*latent_token_positional_embedding \(6, 16\), expected \(5, 16\)"),
        (weights(lambda w: w.pop("latent_tokens")), r"model\.safetensors: latent_tokens is missing; get the"),
        (weights(lambda w: w.update(latent_tokens=torch.ones(6, 15))), r"latent_tokens has the shape \(6, 15\); expected 1 to 65,536, a multiple of 8, at axis 1"),
        (weights(lambda w: w.update(latent_tokens=torch.ones(0, 1 << 31))), r"latent_tokens has the shape \(0, 2147483648\)"),
        (weights(lambda w: w.update({f"encoder.transformer.{n}.x": torch.ones(1) for n in range(300)})), "has 300 blocks enc"),
        (weights(lambda w: w.pop("encoder.ln_pre.bias")), r"'photo': .* missing in the file: encoder\.ln_pre\.bias"),
        (state(vit_dec_patch_size=32), r"missing|another shape"),
        (weights(lambda w: w.pop("pixel_decoder.up.1.block.1.conv1.weight")), r"up\.1\.block\.1\.conv1\.weight is missing"),
        (weights(lambda w: w["encoder.conv_out.bias"].fill_(torch.nan)), "encoder.conv_out.bias: has values from nan"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"{}"), r"model\.safetensors"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(fault: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    shutil.copytree(CASES / "two_stage", tmp_path / "model")
    fault(tmp_path / "model")
    with pytest.raises(MaskweaveError, match=problem):
        ExternalGridTokenizer.open(entry(tmp_path / "model"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"grid": (2, 3)}, r"have the grid \[6\], but the entry's is \[2, 3\]; set grid: \[6\]"),
        (
            {"size": (100, 100)},
            r"takes pictures of 32×32 pixels, but value\.size is \[100, 100\]; set it to \[32, 32\]",
        ),
        ({"size": (16, 32)}, r"takes pictures of 32×32 pixels, but value\.size is \[16, 32\]; set it to \[32, 32\]"),
        ({"codes": 16}, r"has 32 codes, but tokenizer\.codes is 16; set it to 32"),
    ],
)
def test_entries_that_do_not_fit_say_what_to_set(given: Any, problem: str) -> None:
    with pytest.raises(MaskweaveError, match=problem):
        ExternalGridTokenizer.open(entry(CASES / "two_stage", **given))
