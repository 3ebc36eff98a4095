"""A bundle on disk: inputs in every form, outputs in their units, files, and folders that are not what they should be."""

import dataclasses
import json
import math
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_catalog import SMALL, TEXT, tiny
from torch import nn
from value_helpers import value_of

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.families.weights import save_model
from maskweave.generate.bundle import Bundle
from maskweave.generate.result import Generated
from maskweave.generate.schedule import load_schedule
from maskweave.modality.catalogs import Catalog, save_catalog
from maskweave.modality.decoding import Decoding
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.lora import LoRALinear, add_lora, merge_lora
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.boxes import Boxes
from maskweave.values.map import Map

LIKELIEST = {"depth": Decoding("roar", steps=1, temperature=0)}


def catalog() -> Catalog:
    extra = Modality("depth", 20, "grid", Map((8, 8), range=(0, 10), unit="m"), grid=(2, 2), tokenizer=SMALL)
    gray = Modality("gray", 21, "patches", value_of("image", size=(8, 8), channels=1), grid=(2, 2))
    return Catalog([*tiny().values(), extra, gray], [TEXT])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A bundle of untrained parts, as a run leaves it."""
    torch.manual_seed(0)
    folder, entries = tmp_path_factory.mktemp("bundle"), catalog()
    save_catalog(entries, folder)
    save_model(FourM(entries, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1)), entries, folder)
    TextTokenizer.train(TEXT, ["a red cube on a table"]).save(folder / "tokenizers" / "text")
    for name, m in entries.items():
        if m.kind == "grid":
            GridTokenizer(m).save(folder / "tokenizers" / name)
    return folder


@pytest.fixture(scope="module")
def bundle(folder) -> Bundle:
    return maskweave.load(folder)


def picture(height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_inputs_come_in_many_forms(bundle, tmp_path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "photo.png")
    depth = np.linspace(0, 10, 64, dtype=np.float32).reshape(8, 8)
    np.save(tmp_path / "depth.npy", depth)
    (tmp_path / "caption.txt").write_text("a red cube", encoding="utf-8")
    (tmp_path / "facts.json").write_text(json.dumps({"height": 3.0}), encoding="utf-8")
    forms = [
        {"photo": array, "depth": depth, "caption": "a red cube", "facts": {"height": 3.0}},
        {"photo": Image.fromarray(array), "depth": depth.tolist(), "caption": "a red cube", "facts": {"height": 3.0}},
        {
            name: tmp_path / f"{name}.{end}"
            for name, end in (("photo", "png"), ("depth", "npy"), ("caption", "txt"), ("facts", "json"))
        },
        {
            "photo": str(tmp_path / "photo.png"),
            "depth": str(tmp_path / "depth.npy"),
            "caption": "a red cube",
            "facts": str(tmp_path / "facts.json"),
        },
    ]
    results = [bundle.generate(form, ["spectrum", "codes"], seed=3) for form in forms]
    for result in results:
        assert result.tokens["spectrum"].tolist() == results[0].tokens["spectrum"].tolist()
        assert result.tokens["codes"].tolist() == results[0].tokens["codes"].tolist()
        np.testing.assert_array_equal(result.inputs["photo"], array)
        assert result.inputs["caption"] == "a red cube"


def test_pictures_are_cropped_resized_and_brought_to_their_channels(bundle) -> None:
    wide = Image.fromarray(picture(32, 64)).convert("RGBA")
    assert bundle.read({"photo": wide})["photo"].shape == (8, 8, 3)
    assert bundle.read({"photo": Image.fromarray(picture()).convert("L")})["photo"].shape == (8, 8, 3)
    gray = bundle.read({"gray": Image.fromarray(picture())})["gray"]
    assert gray.shape == (8, 8, 1)
    np.testing.assert_array_equal(gray[..., 0], np.asarray(Image.fromarray(picture()).convert("L")))


def test_outputs_are_in_their_units(bundle) -> None:
    found = bundle.generate({"photo": picture()}, ["depth", "spectrum", "photo", "caption", "facts"], seed=1)
    assert set(found.values) == {"depth", "spectrum", "photo", "caption", "facts"}
    assert found["depth"].shape == (8, 8) and found["depth"].dtype == np.float32
    assert found["depth"].min() >= 0 and found["depth"].max() <= 10
    assert found["spectrum"].shape == (20,)
    assert found["photo"].shape == (8, 8, 3) and found["photo"].dtype == np.uint8
    assert isinstance(found["caption"], str)
    assert isinstance(found["facts"], dict)
    assert "no [EOS]: the sequence has no end" in found.problems["caption"], (
        "an untrained model writes nonsense, and that is told"
    )
    np.testing.assert_array_equal(found["photo"], bundle.tokenizers["codes"].decode(found.tokens["codes"][None])[0])
    with pytest.raises(MaskweaveError, match="nothing"):
        found["nothing"]


def test_seeds_batches_and_neighbors(bundle) -> None:
    inputs = [
        {"photo": picture(seed=1)},
        {"caption": "a cube", "depth": np.full((8, 8), 2.0)},
        {},
        {"photo": picture(seed=1)},
    ]
    targets = ["caption", "codes", "facts", "spectrum"]
    together = bundle.generate_batch(inputs, targets, seeds=[4, 5, 6, 4], batch_size=3)
    for result, sample, seed in zip(together, inputs, (4, 5, 6, 4), strict=True):
        alone = bundle.generate(sample, targets, seed=seed)
        for name in targets:
            assert alone.tokens[name].tolist() == result.tokens[name].tolist()
    assert together[0].tokens["codes"].tolist() == together[3].tokens["codes"].tolist()
    assert bundle.generate({}, ["codes"], seed=7).tokens["codes"].tolist() != together[2].tokens["codes"].tolist()
    defaults = bundle.generate_batch([{}] * 2, ["codes"])
    assert [r.tokens["codes"].tolist() for r in defaults] == [
        bundle.generate({}, ["codes"], seed=s).tokens["codes"].tolist() for s in (0, 1)
    ]
    assert bundle.generate_batch([], ["codes"]) == []


def test_without_a_chain_every_target_sees_the_inputs_alone(bundle) -> None:
    greedy = {name: Decoding("maskgit", steps=4, temperature=0) for name in ("codes", "spectrum", "depth")}
    sample = {"photo": picture()}
    unchained = bundle.generate(sample, list(greedy), chain=False, decoding=greedy)
    chained = bundle.generate(sample, list(greedy), decoding=greedy)
    for name in greedy:
        alone = bundle.generate(sample, [name], decoding={name: greedy[name]})
        assert alone.tokens[name].tolist() == unchained.tokens[name].tolist()
    assert chained.tokens["codes"].tolist() == unchained.tokens["codes"].tolist()
    assert chained.tokens["depth"].tolist() != unchained.tokens["depth"].tolist()


def test_a_model_that_has_changed_is_used_as_it_is_now(folder) -> None:
    bundle = maskweave.load(folder)

    def depth() -> np.ndarray:
        return bundle.generate({"gray": np.full((8, 8), 9, np.uint8)}, ["depth"], decoding=LIKELIEST)["depth"]

    before = depth()
    copied = deepcopy(bundle)
    with torch.no_grad():
        for name, parameter in bundle.model.named_parameters():
            if "mlp" in name or "heads" in name:
                parameter.mul_(-1)
    changed = depth()
    assert not np.array_equal(changed, before)
    add_lora(bundle.model, 2, 2)
    assert np.allclose(depth(), changed, atol=1e-4)
    for layer in bundle.model.modules():
        if isinstance(layer, LoRALinear):
            nn.init.constant_(layer.lora_b, 0.5)
    corrected = depth()
    assert not np.allclose(corrected, changed, atol=1e-4)
    merge_lora(bundle.model)
    assert np.allclose(depth(), corrected, atol=1e-4)
    bundle = copied
    assert np.array_equal(depth(), before)


def test_a_target_that_is_given_is_generated_anew(bundle) -> None:
    depth = np.full((8, 8), 5.0, np.float32)
    found = bundle.generate({"depth": depth}, ["depth"], seed=2)
    assert found.tokens["depth"].tolist() == bundle.generate({}, ["depth"], seed=2).tokens["depth"].tolist()


def test_saved_values_decode_back(bundle, tmp_path) -> None:
    found = bundle.generate({"photo": picture()}, ["depth", "photo", "caption", "facts"], seed=1)
    found.values["caption"] = "a red cube"
    found.values["facts"] = {"height": 3.1, "light": 0.1}
    assert found.save(tmp_path / "out") == tmp_path / "out"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    values = [name for name in names if "picture" not in name and name != "sheet.png"]
    values.remove("schedule.yaml")
    assert {Path(name).stem for name in values} == {"depth", "photo", "caption", "facts"}
    assert load_schedule(tmp_path / "out" / "schedule.yaml") == found.schedule
    assert {name for name in names if "picture" in name} == {f"{n}.picture.png" for n in ("depth", "caption", "facts")}
    for name in values:
        path = tmp_path / "out" / name
        back = bundle.catalog[path.stem].value.read(path.read_bytes(), path.suffix[1:], name)
        if isinstance(found[path.stem], np.ndarray):
            np.testing.assert_allclose(back, found[path.stem], atol=1e-4)
        else:
            assert back == found[path.stem]
    for name in (n for n in names if n.endswith(".png")):
        with Image.open(tmp_path / "out" / name) as opened:
            assert min(opened.size) > 0 and len(np.unique(np.asarray(opened.convert("L")))) > 1, f"{name} is blank"
    assert found._repr_png_().startswith(b"\x89PNG")


def test_boxes_are_saved_beside_a_gray_picture(tmp_path) -> None:
    text = dataclasses.replace(TEXT, words=("cube",))
    boxes = Modality("boxes", 22, "sequence", Boxes(classes=("cube",)), max_tokens=11, vocabulary="text", chunk=5)
    entries = Catalog([catalog()["gray"], boxes], [text])
    value = [{"class": "cube", "box": [0.1, 0.2, 0.5, 0.6]}]
    found = Generated(entries, {"gray": picture()[..., :1]}, {"boxes": value})
    names = {path.name for path in found.save(tmp_path / "out").iterdir()}
    assert names == {"boxes.json", "boxes.picture.png", "sheet.png"}


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ({"sound": 1}, ["depth"], "unknown modality 'sound'; known: photo"),
        ({}, ["sound"], "unknown modality 'sound'"),
        ({}, ["feature"], "'feature' is of kind vectors, which is input only"),
        ({}, ["codes", "photo"], "targets: found one twice"),
        ({}, [], "no targets"),
        ({"photo": "nothing.png"}, ["depth"], "input 'photo': nothing.png: no such file"),
        ({"photo": np.zeros((8, 8, 3))}, ["depth"], "uint8"),
        ({"photo": np.zeros((8, 8, 2), np.uint8)}, ["depth"], "photo"),
        ({"depth": np.full((8, 8), np.nan, np.float32)}, ["codes"], "NaN"),
        ({"depth": np.full((8, 8), 11.0, np.float32)}, ["codes"], "0 to 10 m"),
        ({"depth": [[1.0, 2.0], [3.0]]}, ["codes"], "input 'depth': found [[1.0, 2.0], [3.0]]; expected an array"),
        ({"depth": None}, ["codes"], "depth"),
        ({"caption": 5}, ["codes"], "expected text"),
        ({"caption": "x" * 100_000}, ["codes"], "a text of 100,000 characters"),
        ({"facts": {"weight": 3}}, ["codes"], "height, light, count"),
        ({"facts": 3.0}, ["codes"], "input 'facts': found 3.0; expected keys and numbers"),
        ({"facts": {"height": math.nan}}, ["codes"], "input 'facts': found height = nan; expected a finite number"),
        ({"feature": np.zeros((2, 5), np.float32)}, ["codes"], "feature"),
    ],
)
def test_requests_that_do_not_fit(bundle, inputs, targets, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        bundle.generate(inputs, targets)
    assert message in str(caught.value)


def test_a_damaged_picture(bundle, tmp_path) -> None:
    Image.fromarray(picture(64, 64)).save(tmp_path / "half.png")
    whole = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MaskweaveError, match="half.png"):
        bundle.generate({"photo": tmp_path / "half.png"}, ["depth"])


def test_settings_that_do_not_fit(bundle) -> None:
    with pytest.raises(MaskweaveError, match="decoding of 'depth': not one of the targets codes"):
        bundle.generate({}, ["codes"], decoding={"depth": Decoding()})
    with pytest.raises(MaskweaveError, match="scheme 'autoregressive' is for sequences"):
        bundle.generate({}, ["codes"], decoding={"codes": Decoding("autoregressive")})
    with pytest.raises(MaskweaveError, match=r"decoding of 'codes' is \{'steps': 1\}; give a Decoding"):
        bundle.generate({}, ["codes"], decoding={"codes": {"steps": 1}})
    with pytest.raises(MaskweaveError, match="seeds: found 1 for 2 samples"):
        bundle.generate_batch([{}, {}], ["codes"], seeds=[1])
    with pytest.raises(MaskweaveError, match="seed is -1; expected a whole number of 0 or more"):
        bundle.generate({}, ["codes"], seed=-1)
    with pytest.raises(MaskweaveError, match="unknown option 'condition'; did you mean 'conditions'?"):
        bundle.generate({}, ["codes"], condition={"photo": 2.0})
    for request in (bundle.generate, lambda inputs, targets, **how: bundle.score(inputs, {"caption": "a"}, **how)):
        with pytest.raises(MaskweaveError, match="precision is 'fp16'; expected float32 or bf16"):
            request({}, ["codes"], precision="fp16")
    with pytest.raises(MaskweaveError, match=r"targets: found 'codes', expected a list of names, such as \['codes'\]"):
        bundle.generate({}, "codes")
    for inputs in ({"caption": "a cube"}, ["photo.png"]):
        with pytest.raises(
            MaskweaveError, match="inputs: found .+, expected .*a mapping of values by modality for each sample"
        ):
            bundle.generate_batch(inputs, ["codes"])
    for size in (0, -1):
        with pytest.raises(MaskweaveError, match=f"batch_size is {size}; expected a whole number of 1 or more"):
            bundle.generate_batch([{}], ["codes"], batch_size=size)


def test_decoding_is_named_as_the_target_was(bundle) -> None:
    once = Decoding("roar", steps=1)
    by_source, by_name = ({"photo": once}, {"codes": once})
    assert bundle.schedule([], ["photo"], decoding=by_source) == bundle.schedule([], ["photo"], decoding=by_name)
    assert len(bundle.schedule([], ["photo"], decoding=by_source).steps) == 1


def test_moving_takes_the_tokenizers_along(bundle) -> None:
    copied = Bundle(
        bundle.catalog,
        {"codes": GridTokenizer(bundle.catalog["codes"])},
        FourM(bundle.catalog, bundle.model.config),
    )
    copied.to(torch.device("meta"))
    assert copied.tokenizers["codes"].device.type == "meta"
    assert next(copied.model.parameters()).device.type == "meta"
    assert "modalities: photo, codes" in repr(copied)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "run"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def other_codebook(run: Path) -> None:
    m = dataclasses.replace(
        tiny()["codes"], tokenizer=dataclasses.replace(SMALL, quantizer=Quantizer("fsq", levels=(5, 5)))
    )
    GridTokenizer(m).save(run / "tokenizers" / "codes")


def other_text(run: Path) -> None:
    TextTokenizer.train(dataclasses.replace(TEXT, size=330), ["a"]).save(run / "tokenizers" / "text")


def other_model(run: Path) -> None:
    entries = catalog().subset(["codes", "caption"])
    save_model(FourM(entries, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1)), entries, run)


def older(run: Path) -> None:
    (run / "model" / "config.json").write_text('{"format": 1, "objective": "fourm"}', encoding="utf-8")
    entries = run / "modalities.yaml"
    entries.write_text(
        entries.read_text(encoding="utf-8").replace("quantizer", "quantiser"),  # codespell:ignore
        encoding="utf-8",
    )  # the keys of that time  # codespell:ignore


def older_tokenizer(run: Path) -> None:
    path = run / "tokenizers" / "depth" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 2', '"format": 1'), encoding="utf-8")


def other_family(run: Path) -> None:
    path = run / "model" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"family": "fourm"', '"family": "gone"'), encoding="utf-8")


def other_width(run: Path) -> None:
    path = run / "model" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"width": 32', '"width": 64'), encoding="utf-8")


def no_entries(run: Path) -> None:
    path = run / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "entries": None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "run: no such folder"),
        (lambda run: (run / "modalities.yaml").unlink(), "has no modalities.yaml, so it is not a run or bundle"),
        (lambda run: truncate(run / "modalities.yaml"), "modalities.yaml"),
        (
            lambda run: shutil.rmtree(run / "model"),
            "has no trained model and no recipe.yaml; copy the complete folder again",
        ),
        (lambda run: (run / "model" / "model.safetensors").unlink(), "model.safetensors: no such file"),
        (
            lambda run: truncate(run / "model" / "model.safetensors"),
            "model.safetensors: cannot be read as safetensors, probably truncated",
        ),
        (lambda run: truncate(run / "model" / "config.json"), "config.json: not valid JSON"),
        (
            lambda run: (run / "model" / "config.json").write_text('{"format": 99}', encoding="utf-8"),
            "has an unknown format; this version reads format 2. Use the version that wrote it",
        ),
        (older, "has format 1, from an older maskweave; this version reads format 2. Train the model again"),
        (older_tokenizer, "has format 1, written by another version of maskweave; this version reads format 2. Train"),
        (other_family, "config.json: unknown model family 'gone'; known: fourm, m3ae"),
        (lambda run: truncate(run / "tokenizers" / "depth" / "model.safetensors"), "probably truncated"),
        (lambda run: (run / "tokenizers" / "text" / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
        (other_codebook, "codes: the entry of 'codes' has changed since this tokenizer was trained"),
        (other_text, "text: was made for another vocabulary 'text' than"),
        (
            other_model,
            "model: modalities.yaml has changed since the model was trained (different entries: spectrum, ",
        ),
        (no_entries, "has changed since the model was trained (different entries: all)"),
        (other_width, "safetensors does not match the model's architecture. of another shape: "),
    ],
)
def test_folders_that_are_not_whole_or_foreign(copy, damage, message) -> None:
    damage(copy)
    with pytest.raises(MaskweaveError) as caught:
        maskweave.load(copy)
    assert message in str(caught.value)
    assert str(copy) in str(caught.value)
