"""Tokenizers that were trained elsewhere: each adapter against its own library, on tiny random models saved as the library saves them."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizers as tiny
import torch
from torch import Tensor

from maskweave.config import build
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.external import ExternalGridTokenizer, ExternalTokenizer, code_allowed
from maskweave.tokenizers.external.opening import ARCHITECTURES
from maskweave.tokenizers.folder import load_tokenizers, save_tokenizers
from maskweave.values.sound import Sound

SOUND = {"type": "audio", "rate": tiny.RATE, "max_seconds": 0.2, "mels": 8, "hop": 32, "window": 128}
FRAMES = 52
"""Frames of 0.2 s, which are 13 columns of the spectrogram."""
PICTURE = {"type": "image", "size": [16, 16], "channels": 3}
SOUNDS = ("encodec", "dac", "mimi")
PICTURES = {"janus": "janus_vqgan", "emu3": "emu3_vqgan", "vq_model": "VQModel"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Any]]]:
    """Each tiny model with its folder."""
    root = tmp_path_factory.mktemp("models")
    yield {name: (root / name, getattr(tiny, name)(root / name)) for name in (*SOUNDS, *PICTURES)}


def entry(value: dict[str, Any], grid: list[int], **tokenizer: Any) -> Modality:
    content = {"name": "thing", "id": 1, "kind": "grid", "grid": grid, "value": value, "tokenizer": tokenizer}
    return Catalog([build(Modality, content, "entry")])["thing"]


def sound_entry(place: Any, depth: int = 2, tokens: str = "joined", **value: Any) -> Modality:
    grid = [FRAMES] if tokens == "joined" else [depth, FRAMES]
    return entry({**SOUND, **value}, grid, external=str(place), codes=16, depth=depth, tokens=tokens)


def picture_entry(place: Any, codes: int = 16, **value: Any) -> Modality:
    return entry({**PICTURE, **value}, [4, 4], external=str(place), codes=codes)


def waves(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.8, 0.8, length).astype(np.float32) for length in lengths]


def test_every_architecture_is_tested() -> None:
    assert {*SOUNDS, *PICTURES.values()} == {*ARCHITECTURES}


LIBRARY: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "encodec": (
        lambda model, x, depth: model.encode(x, bandwidth=model.config.target_bandwidths[depth - 1]).audio_codes[0],
        lambda model, codes: model.decode(codes[None], [None]).audio_values[:, 0],
    ),
    "dac": (
        lambda model, x, depth: model.encode(x, n_quantizers=depth).audio_codes,
        lambda model, codes: model.decode(audio_codes=codes).audio_values,
    ),
    "mimi": (
        lambda model, x, depth: model.encode(x, num_quantizers=depth).audio_codes,
        lambda model, codes: model.decode(audio_codes=codes).audio_values[:, 0],
    ),
}
"""Codes (B, R, F) of waveforms (B, 1, S), and waveforms of codes, as the documentation of each model computes them."""


@pytest.mark.parametrize("tokens", ["joined", "separate"])
@pytest.mark.parametrize("name", SOUNDS)
@torch.inference_mode()
def test_sounds_have_the_codes_and_waveforms_of_the_library(models: Any, name: str, tokens: str) -> None:
    folder, model = models[name]
    tokenizer = ExternalGridTokenizer.open(sound_entry(folder, tokens=tokens, missing="nan"))
    given = waves(400, 150)
    padded = torch.zeros(2, 1, FRAMES * tiny.HOP)
    for row, wave in zip(padded, given, strict=True):
        row[0, : len(wave)] = torch.from_numpy(wave)
    encode, decode = LIBRARY[name]
    wanted = encode(model, padded, 2)
    assert wanted.shape == (2, 2, FRAMES) and len(wanted[:, 0].unique()) > 2 and len(wanted[:, 1].unique()) > 2

    ids = tokenizer.encode(given)
    assert ids.dtype == torch.int64 and tokenizer.vocabulary_size == (256 if tokens == "joined" else 16)
    codes = torch.stack([ids // 16, ids % 16], dim=1) if tokens == "joined" else ids
    assert torch.equal(codes, wanted)

    expected = decode(model, wanted)[:, : 13 * 32].clamp(-1, 1).numpy()
    for found, wave in zip(tokenizer.decode(ids), expected, strict=True):
        assert isinstance(found, Sound) and found.is_recorded and found.rate == tiny.RATE
        np.testing.assert_allclose(found.waveform[: len(wave)], wave, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", SOUNDS)
def test_generated_sounds_end_where_their_tokens_say_so(models: Any, name: str) -> None:
    tokenizer = ExternalGridTokenizer.open(sound_entry(models[name][0]))
    whole = ExternalGridTokenizer.open(sound_entry(models[name][0], missing="nan"))
    given = waves(416, 128)
    ids = tokenizer.encode(given)
    assert tokenizer.vocabulary_size == 257
    assert torch.equal(ids[0], whole.encode(given)[0]) and torch.equal(ids[1, :16], whole.encode(given)[1, :16])
    assert (ids[1, 16:] == 256).all(), "4 of 13 columns are known, which are 16 of 52 frames"
    assert [sound.num_samples for sound in tokenizer.decode(ids)] == [416, 128]
    assert torch.equal(whole.external.blank(), whole.encode([np.zeros(416, np.float32)])[0])  # type: ignore[arg-type]
    known = whole.known_tokens(whole.modality.value.check_batch(given, "x"))
    assert known.sum(axis=1).tolist() == [52, 16], "tokens after the end of a sound are neither inputs nor targets"


@pytest.mark.parametrize("name", SOUNDS)
@torch.inference_mode()
def test_embeddings_are_what_the_codes_add_to_the_latent(models: Any, name: str) -> None:
    folder, model = models[name]
    joined = ExternalGridTokenizer.open(sound_entry(folder)).token_embeddings
    separate = ExternalGridTokenizer.open(sound_entry(folder, tokens="separate", missing="nan")).token_embeddings
    codes = torch.tensor([[[3], [7]]])  # (B, R, F)
    latent = {
        "encodec": lambda: model.quantizer.decode(codes.transpose(0, 1)),
        "dac": lambda: model.quantizer.from_codes(codes)[0],
        "mimi": lambda: model.quantizer.decode(codes),
    }[name]()[0, :, 0]
    torch.testing.assert_close(joined[3 * 16 + 7], latent)
    width = len(latent)
    torch.testing.assert_close(separate[3, :width] + separate[7, width:], latent)
    assert joined.shape == (257, width) and not joined[256].any() and separate.shape == (16, 2 * width)


@pytest.mark.parametrize("name", PICTURES)
@torch.inference_mode()
def test_pictures_have_the_codes_and_pixels_of_the_library(models: Any, name: str) -> None:
    folder, model = models[name]
    tokenizer = ExternalGridTokenizer.open(picture_entry(folder))
    given = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    pixels = torch.from_numpy(given).movedim(-1, 1) / 127.5 - 1
    if name == "vq_model":
        wanted = model.quantize(model.encode(pixels).latents)[2][2].reshape(3, 4, 4)
        decoded = model(pixels).sample
    elif name == "emu3":
        wanted = torch.stack(model.encode(pixels, image_sizes=torch.tensor([[16, 16]] * 3)).image_tokens)
        decoded = model.decode(wanted)
    else:
        wanted = model.encode(pixels).image_tokens.reshape(3, 4, 4)
        decoded = model.decode(wanted.flatten(1))
    ids = tokenizer.encode(given)
    assert torch.equal(ids, wanted) and len(ids.unique()) > 3 and tokenizer.vocabulary_size == 16
    found = tokenizer.decode(ids)
    expected = ((decoded + 1) * 127.5).clamp(0, 255).movedim(1, -1).numpy()
    assert found.dtype == np.uint8 and found.shape == given.shape
    assert np.abs(found - expected).max() <= 0.5 + 1e-3 and found.std() > 5
    assert np.array_equal(tokenizer.decode(ids.flatten(1)), found), "a row of tokens is accepted, too"
    assert tokenizer.token_embeddings.shape == (16, 4) and isinstance(tokenizer, Tokenizer)


def test_decoding_needs_no_other_rows(models: Any) -> None:
    tokenizer = ExternalGridTokenizer.open(picture_entry(models["vq_model"][0]))
    tokenizer.external.batch = 2
    ids = torch.randint(0, 16, (5, 4, 4))
    alone = np.concatenate([tokenizer.decode(row[None]) for row in ids])
    assert np.abs(tokenizer.decode(ids).astype(int) - alone).max() <= 1
    assert tokenizer.decode(ids[:0]).shape[0] == 0 and tokenizer.encode([]).shape == (0, 4, 4)


@pytest.mark.parametrize("name", ["dac", "vq_model"])
def test_a_saved_tokenizer_is_complete_without_the_original(models: Any, tmp_path: Path, name: str) -> None:
    shutil.copytree(models[name][0], tmp_path / "original")
    modality = (sound_entry if name == "dac" else picture_entry)(tmp_path / "original")
    tokenizer = ExternalGridTokenizer.open(modality)
    save_tokenizers({"thing": tokenizer}, tmp_path / "saved")
    shutil.rmtree(tmp_path / "original")
    again = load_tokenizers(tmp_path / "saved", Catalog([modality]))["thing"]
    assert isinstance(again, ExternalGridTokenizer) and again.fingerprint == tokenizer.fingerprint
    given = waves(300) if name == "dac" else np.full((1, 16, 16, 3), 77, np.uint8)
    assert torch.equal(again.encode(given), tokenizer.encode(given))
    files = {path.name for path in (tmp_path / "saved" / "thing" / "external").iterdir()}
    assert "config.json" in files and all(file.endswith((".json", ".safetensors")) for file in files)
    again.save(tmp_path / "saved" / "thing")  # onto itself
    again.save(tmp_path / "twice")
    ExternalGridTokenizer.load(tmp_path / "twice", modality)
    other = sound_entry(tmp_path / "x", depth=1) if name == "dac" else picture_entry(tmp_path / "x")
    with pytest.raises(MaskweaveError, match=r"the entry of 'thing' has changed .* tokenizer\.external is"):
        ExternalGridTokenizer.load(tmp_path / "twice", other)
    (tmp_path / "twice" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="is not the configuration of an external tokenizer in format 1"):
        ExternalGridTokenizer.load(tmp_path / "twice", modality)


def test_other_weights_have_another_fingerprint(models: Any, tmp_path: Path) -> None:
    model = models["vq_model"][1]
    before = ExternalGridTokenizer.open(picture_entry(models["vq_model"][0])).fingerprint
    codes = model.quantize.embedding.weight.data
    codes[3] += 1
    tiny.save(model, tmp_path / "other")
    codes[3] -= 1
    assert ExternalGridTokenizer.open(picture_entry(tmp_path / "other")).fingerprint != before


# Faults


def opened(modality: Modality) -> ExternalGridTokenizer:
    return ExternalGridTokenizer.open(modality)


def test_entries_that_do_not_fit_say_what_to_set(models: Any) -> None:
    dac, janus, vq = (models[name][0] for name in ("dac", "janus", "vq_model"))
    for modality, problem in (
        (sound_entry(dac, rate=4000), r"takes 2000 samples per second, but value\.rate is 4000; set it to 2000"),
        (sound_entry(dac, max_seconds=0.4), r"have the grid \[100\], but the entry's is \[52\]; set grid: \[100\]"),
        (entry(SOUND, [FRAMES], external=str(dac), codes=8), r"has 16 codes, but tokenizer\.codes is 8; set it to 16"),
        (sound_entry(dac, depth=4), r"it has 3 levels of codes, but tokenizer\.depth is 4; set it to at most 3"),
        (picture_entry(dac), r"is for sounds, value\.type audio, but the entry's values are of type 'image'"),
        (sound_entry(vq), r"is for color pictures .* but the entry's values are audio of 0\.2 s"),
        (picture_entry(vq, size=[18, 16]), r"multiples of 4, but value\.size is \[18, 16\]; set it to \[16, 16\]"),
        (picture_entry(vq, channels=1), "is for color pictures"),
        (entry(PICTURE, [4, 4], external=str(vq), codes=16, depth=2), r"has one level of codes; remove tokenizer\.d"),
        (picture_entry(janus, size=[32, 32]), r"takes pictures of 16×16 pixels, but value\.size is \[32, 32\]"),
        (entry(PICTURE, [2, 2], external=str(vq), codes=16), r"the grid \[4, 4\], .* set grid: \[4, 4\]"),
    ):
        with pytest.raises(MaskweaveError, match=rf"'thing': .*{problem}"):
            opened(modality)


def test_models_whose_scales_are_not_codes_are_refused(tmp_path: Path) -> None:
    tiny.encodec(tmp_path / "normalized", normalize=True)
    with pytest.raises(MaskweaveError, match="with a scale each, which are not codes; choose a model without"):
        opened(sound_entry(tmp_path / "normalized"))
    tiny.encodec(tmp_path / "stereo", audio_channels=2)
    with pytest.raises(MaskweaveError, match="is for stereo, but values of type audio are mono"):
        opened(sound_entry(tmp_path / "stereo"))


def test_what_is_no_tokenizer_is_refused(models: Any, tmp_path: Path) -> None:
    def refused(problem: str) -> None:
        with pytest.raises(MaskweaveError, match=problem):
            opened(picture_entry(tmp_path / "model"))

    refused("no such folder")
    (tmp_path / "model").mkdir()
    refused(r"has no config\.json; expected EnCodec, DAC, Mimi")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    refused("expected weights in the format safetensors, found none")
    for pickled in ("pytorch_model.bin", "encoder.jit"):
        (tmp_path / "model" / pickled).write_bytes(b"\x80\x04")
        refused(rf"safetensors, found only {pickled}, and reading it can run code; convert them .* save_pretrained")
        (tmp_path / "model" / pickled).unlink()
    weights = tmp_path / "model" / "model.safetensors"
    shutil.copyfile(models["dac"][0] / "model.safetensors", weights)
    refused("is 'bert', which is not one of the tokenizers that can be opened")
    (tmp_path / "model" / "config.json").write_bytes((models["janus"][0] / "config.json").read_bytes())
    refused("its weights lack .* of JanusVQVAE; choose a complete tokenizer")
    weights.write_bytes(b"damaged")
    refused("cannot be opened as JanusVQVAE of transformers; expected its config.json and safetensors weights")
    (tmp_path / "model" / "config.json").write_text("{", encoding="utf-8")
    refused(r"config\.json")


@pytest.mark.parametrize(("name", "library", "extra"), [("janus", "transformers", "hf"), ("vq_model", "diffusers", "diffusion")])  # fmt: skip
def test_a_missing_extra_is_named(models: Any, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MaskweaveError, match=rf"needs {library}; install it with: pip install 'maskweave\[{extra}\]'"):
        opened(picture_entry(models[name][0]))


def test_a_subfolder_lies_within_the_tokenizer(models: Any, tmp_path: Path) -> None:
    shutil.copytree(models["vq_model"][0], tmp_path / "whole" / "vqvae")
    inside = {"external": str(tmp_path / "whole"), "codes": 16}
    assert opened(entry(PICTURE, [4, 4], **inside, subfolder="vqvae")).vocabulary_size == 16
    for wrong in ("vae", "../whole/vqvae/../..", str(models["vq_model"][0])):
        with pytest.raises(MaskweaveError, match=r"has no folder .*; correct tokenizer\.subfolder"):
            opened(entry(PICTURE, [4, 4], **inside, subfolder=wrong))


def test_contradictions_within_an_entry_are_told_without_opening_it() -> None:
    for value, grid, settings, problem in (
        (SOUND, [52], {"codes": 1}, r"tokenizer\.codes must be 2 or more, found 1"),
        (SOUND, [52], {"codes": 1024, "depth": 3}, r"more than 1,048,576 ids; lower depth, or set tokenizer\.tokens: sep"),
        (SOUND, [4, 52], {"codes": 16, "depth": 3, "tokens": "separate"}, r"so it must be tokenizer\.depth 3, found \[4"),
        (SOUND, [52], {"codes": 16, "options": {"a": 1}}, r"tokenizer\.options are arguments of a function python:"),
        (SOUND, [52], {"codes": 16, "width": 8}, r"unknown key 'tokenizer\.width'"),
        (SOUND, [52], {}, r"key 'tokenizer\.codes' is missing"),
        ({"type": "series", "size": [64], "channels": 1}, [8], {"codes": 16}, r"value\.scaling is learned .* set value\.r"),
    ):  # fmt: skip
        with pytest.raises(MaskweaveError, match=problem):
            entry(value, grid, external="a/b", **settings)
    content = {"kind": "grid", "grid": [4, 4], "value": PICTURE, "name": "x", "id": 1}
    with pytest.raises(MaskweaveError, match=r"'tokenizer\.width' expects a whole number, found 'wide'"):
        build(Modality, {**content, "tokenizer": {"width": "wide"}}, "entry")
    mean = {**content, "tokenizer": {"external": "a/b", "codes": 4}, "decoding": {"detokenize": "mean"}}
    with pytest.raises(MaskweaveError, match=r"detokenize 'mean' is for grids with a tokenizer network"):
        Catalog([build(Modality, mean, "entry")])


# The user's own code

OWN = """\
import torch
from maskweave.tokenizers.external import ExternalTokenizer

class Means(ExternalTokenizer):
    def __init__(self, modality, levels):
        self.vocabulary_size, self.grid, self.modality, self.levels = levels, (3,), modality, levels

    def encode(self, values):
        means = torch.stack([torch.as_tensor(v).float().mean((0, 1)) for v in values])
        return (means / 256 * self.levels).long()

    def decode(self, ids):
        colors = ((ids + 0.5) / self.levels * 256).byte()
        return [c.expand(*self.modality.value.size, 3).numpy() for c in colors]

    @property
    def fingerprint(self):
        return f"means-{self.levels}"

def means(modality, levels=8):
    return Means(modality, levels)

def wrong(modality):
    tokenizer = Means(modality, 8)
    tokenizer.encode = lambda values: torch.full((len(values), 3), 8)
    tokenizer.decode = lambda ids: []
    return tokenizer

def nothing(modality):
    return None

def fails(modality):
    raise KeyError("gone")

def sizeless(modality):
    tokenizer = Means(modality, 8)
    del tokenizer.vocabulary_size
    return tokenizer

def has(modality, **found):
    tokenizer = Means(modality, 8)
    vars(tokenizer).update(found)
    return tokenizer

def returns(modality, encoded=None, decoded=None):
    tokenizer = Means(modality, 8)
    tokenizer.encode, tokenizer.decode = lambda values: encoded, lambda ids: decoded
    return tokenizer

def tells(modality, **found):
    class Telling(Means):
        fingerprint = property(lambda self: tell("fingerprint"))
        blank = lambda self: tell("blank")
        codebooks = lambda self: tell("codebooks")

    def tell(name):
        value = found.get(name, "found")
        return 1 / 0 if value == "raise" else torch.ones(value) if isinstance(value, list) else value

    return Telling(modality, 8)

def raises(modality):
    tokenizer = Means(modality, 8)
    tokenizer.encode = tokenizer.decode = lambda given: 1 / 0
    return tokenizer
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a tokenizer of three tokens for a whole picture, the mean of each channel."""
    (tmp_path / "own_tokenizer.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_tokenizer", raising=False)
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)
    return "python: own_tokenizer:means"


def test_own_code_runs_only_if_it_is_allowed(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modality = entry(PICTURE, [3], external=own, codes=8)
    with pytest.raises(
        MaskweaveError, match=r"is code, python: own_tokenizer:means, which runs only if .*ALLOW_CODE=1"
    ):
        opened(modality)
    assert "own_tokenizer" not in sys.modules
    with code_allowed():
        tokenizer = opened(modality)
    given = np.full((2, 16, 16, 3), (0, 100, 255), np.uint8)
    assert tokenizer.encode(given).tolist() == [[0, 3, 7]] * 2
    assert tokenizer.decode(tokenizer.encode(given))[1, 5, 5].tolist() == [16, 112, 240]
    with pytest.raises(MaskweaveError, match=r"has no codebook vectors .* set model\.init_from_tokenizers: false"):
        _ = tokenizer.token_embeddings
    tokenizer.save(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json"]
    saved = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert saved["fingerprint"] == "means-8-joined-1", "compared before a warm start"
    with pytest.raises(MaskweaveError, match="runs only if you allow it"):
        ExternalGridTokenizer.load(tmp_path / "saved", modality)
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    assert isinstance(ExternalGridTokenizer.load(tmp_path / "saved", modality).external, ExternalTokenizer)
    more = entry(PICTURE, [3], external=own, codes=4, options={"levels": 4})
    assert opened(more).encode(given).tolist() == [[0, 1, 3]] * 2


def test_faults_of_own_code_are_told(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    (tmp_path / "own_syntax.py").write_text("def x(:", encoding="utf-8")
    for place, problem in (
        ("python: own_tokenizer", r"expected python: package\.module:function"),
        ("python: not_there_at_all:x", "module not_there_at_all cannot be imported"),
        ("python: own_tokenizer:medians", "module own_tokenizer has no function or class medians"),
        ("python: own_tokenizer:nothing", "returned NoneType; expected a function"),
        ("python: own_syntax:x", "module own_syntax cannot be imported \\(SyntaxError: .*; correct its code"),
        ("python: own_tokenizer:fails", "called with \\(modality\\), it raised KeyError: 'gone'; correct its code"),
        ("python: own_tokenizer:sizeless", "the Means that it returned has no vocabulary_size; set it"),
    ):
        with pytest.raises(MaskweaveError, match=problem):
            opened(entry(PICTURE, [3], external=place, codes=8))
    for name, found in (("vocabulary_size", np.int64(8)), ("grid", tuple(np.array([3]))), ("batch", np.int32(2))):
        options = {name: found}  # NumPy's whole numbers, as shapes and sums are
        assert (
            opened(entry(PICTURE, [3], external="python: own_tokenizer:has", codes=8, options=options)).vocabulary_size
            == 8
        )
    for name, found, problem in (
        ("grid", 3, "3; expected a tuple of whole numbers of 1 or more"),
        ("grid", [3.5], r"\[3\.5\]; expected a tuple"),
        ("vocabulary_size", "8", "'8'; expected a whole number of 1 or more"),
        ("batch", 0, "0; expected a whole number of 1 or more"),
        ("batch", True, "True; expected a whole number"),
    ):
        with pytest.raises(MaskweaveError, match=f"own_tokenizer:has: its {name} is {problem}.*; correct its code"):
            opened(entry(PICTURE, [3], external="python: own_tokenizer:has", codes=8, options={name: found}))
    with pytest.raises(MaskweaveError, match=r"its grid is \(3,\), but the entry's is \(4,\); correct"):
        opened(entry(PICTURE, [4], external=own, codes=8))
    with pytest.raises(MaskweaveError, match=r"its size of the vocabulary is 8, but the entry's is 9"):
        opened(entry(PICTURE, [3], external=own, codes=9))
    with pytest.raises(MaskweaveError, match=r"may have unknown points, but the tokens of grid \[3\] are not patches"):
        opened(entry({**PICTURE, "valid": "alpha"}, [3], external=own, codes=8))
    wrong = opened(entry(PICTURE, [3], external="python: own_tokenizer:wrong", codes=8))
    with pytest.raises(MaskweaveError, match=r"encoded 1 values to torch\.int64 of shape \(1, 3\), 8 to 8; expected"):
        wrong.encode(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(MaskweaveError, match="decoded 2 rows of ids to 0 values"):
        wrong.decode(np.zeros((2, 3), int))
    with pytest.raises(MaskweaveError, match=r"called with \(modality, nope\), it raised TypeError: .*options"):
        opened(entry(PICTURE, [3], external=own, codes=8, options={"nope": 1}))
    values, ids = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 3), int)
    for function, options, result in (
        ("returns", {}, "returned NoneType; expected"),
        ("returns", {"encoded": "text", "decoded": 3}, "(raised|returned int; expected)"),
        ("raises", {}, "raised ZeroDivisionError: division by zero; correct its code"),
    ):
        broken = opened(entry(PICTURE, [3], external=f"python: own_tokenizer:{function}", codes=8, options=options))
        with pytest.raises(MaskweaveError, match=f"own_tokenizer:{function}: encode {result}"):
            broken.encode(values)
        with pytest.raises(MaskweaveError, match=f"own_tokenizer:{function}: decode {result}"):
            broken.decode(ids)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"fingerprint": "raise"}, r"fingerprint raised ZeroDivisionError: division by zero; correct its code"),
        ({"fingerprint": 3}, r"fingerprint is 3; expected a text that is not empty; correct its code"),
        ({"fingerprint": ""}, r"fingerprint is ''; expected a text"),
        ({"blank": "raise"}, r"blank raised ZeroDivisionError"),
        ({"blank": "text"}, r"blank raised TypeError: .*; correct its code"),
        ({"blank": [3]}, r"blank returned torch\.float32 of shape \(3,\); expected None, or whole numbers from 0 to 7 of shape \(3,\)"),
        ({"blank": 4}, r"blank returned torch\.int64 of shape \(\); expected None, or whole numbers"),
        ({"codebooks": "raise"}, r"codebooks raised ZeroDivisionError"),
        ({"codebooks": "text"}, r"codebooks raised TypeError"),
        ({"codebooks": [8, 5]}, r"codebooks returned torch\.float32 of shape \(8, 5\); expected None, or finite vectors \(levels, codes, width\) for 8 ids"),
        ({"codebooks": [1, 9, 5]}, r"codebooks returned torch\.float32 of shape \(1, 9, 5\); expected None"),
    ],
)  # fmt: skip
def test_what_own_code_tells_is_checked(
    own: str, found: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    series = {"type": "series", "size": [12], "channels": 1, "mean": 0, "std": 1}
    picture = series if "blank" in found else PICTURE
    tokenizer = opened(entry(picture, [3], external="python: own_tokenizer:tells", codes=8, options=found))
    with pytest.raises(MaskweaveError, match=f"^'thing': python: own_tokenizer:tells: {problem}"):
        if "fingerprint" in found:
            _ = tokenizer.fingerprint
        elif "codebooks" in found:
            _ = tokenizer.token_embeddings
        else:
            tokenizer.decode(np.full((1, 3), 8))
