"""Bundles of published parts: loaded, used, imported by the command, trained on from; and what does not go together."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_catalog import TEXT, tiny

import maskweave
from maskweave.cli.main import main
from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.files import write_yaml
from maskweave.interop.fourm import tokenizer_config
from maskweave.interop.fourm.bundle import load_bundle
from maskweave.interop.fourm.model import export_model
from maskweave.interop.fourm.tokenizers import export_tokenizer
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.provenance import Origin, Provenance
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.training.warm_start import warm_start

SPEC = TokenizerSpec(
    tail="none", width=16, heads=2, depth=2, decoder_depth=2, quantizer=Quantizer("vq", codes=20, dim=4)
)
ENTRIES = Catalog(
    [
        dataclasses.replace(m, tokenizer=SPEC, source="") if m.name == "codes" else m
        for m in tiny().values()
        if m.name in ("photo", "codes", "spectrum", "caption")
    ],
    [TEXT],
)
CONFIG = FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1, separate=True)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokenizer_config.VIT, "vit_s", tokenizer_config.ViTSize(16, 2, 2))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A published model, tokenizer and text tokenizer, and the catalog that names them."""
    torch.manual_seed(0)
    export_model(FourM(ENTRIES, CONFIG), ENTRIES, tmp_path / "model")
    export_tokenizer(GridTokenizer(ENTRIES["codes"]), tmp_path / "tokenizer")
    text = TextTokenizer.train(TEXT, ["a red cube on the left", "two blue cones"])
    (tmp_path / "text.json").write_text(text.tokenizer.to_str(), encoding="utf-8")
    write_yaml(tmp_path / "entries.yaml", ENTRIES.to_plain())
    return tmp_path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def test_a_bundle_generates(place: Path) -> None:
    bundle = load_bundle(place / "model", {"codes": place / "tokenizer"}, place / "text.json", ENTRIES)
    result = bundle.generate({"photo": picture()}, ["codes", "spectrum", "caption"], seed=1)
    assert result["codes"].shape == (8, 8, 3) and result["codes"].dtype == np.uint8
    assert isinstance(result["caption"], str)
    assert len(result.tokens["spectrum"]) == 5 and "spectrum" not in result.values  # no tokenizer: tokens alone
    assert isinstance(bundle.generate({}, ["caption"], seed=1)["caption"], str), (
        "published models generate from nothing, too"
    )


def test_a_bundle_says_where_each_part_is_from(place: Path) -> None:
    (place / "model" / "LICENSE").write_text("ours", encoding="utf-8")
    bundle = load_bundle(place / "model", {"codes": place / "tokenizer"}, place / "text.json", ENTRIES)
    parts = [
        Origin("model", "model", license="see LICENSE there"),
        Origin("tokenizers/codes", "tokenizer"),
        Origin("text", "text.json"),
    ]
    assert bundle.provenance == Provenance("", f"maskweave {maskweave.__version__}", parts)


def test_the_command_writes_the_same_bundle(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "4m", str(place / "model"), "--out", str(place / "bundle"), "--text", str(place / "text.json")]
    words += ["--tokenizer", f"codes={place / 'tokenizer'}", "--catalog", str(place / "entries.yaml")]
    assert main(words) == 0
    assert "4 modalities" in capsys.readouterr().out
    one = load_bundle(place / "model", {"codes": place / "tokenizer"}, place / "text.json", ENTRIES)
    two = maskweave.load(place / "bundle")
    results = [b.generate({"photo": picture()}, ["codes", "caption"], seed=3) for b in (one, two)]
    assert np.array_equal(results[0]["codes"], results[1]["codes"])
    assert results[0]["caption"] == results[1]["caption"]
    export_model(two.model, two.catalog, place / "model again")
    export_tokenizer(two.tokenizers["codes"], place / "tokenizer again")
    for name in ("model", "tokenizer"):
        found, expected = (load_file(place / folder / "model.safetensors") for folder in (f"{name} again", name))
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
        texts = [(place / folder / "config.json").read_text(encoding="utf-8") for folder in (f"{name} again", name)]
        assert json.loads(texts[0]) == json.loads(texts[1])
    assert main(words) == 1
    assert "exists already; choose another folder" in capsys.readouterr().err
    assert main(["import", "4m", str(place / "model"), "--out", str(place / "none"), "--tokenizer", "codes="]) == 1
    assert "--tokenizer 'codes=': expected NAME=FOLDER" in capsys.readouterr().err and not (place / "none").exists()


def test_training_goes_on_with_a_modality_added(place: Path) -> None:
    """With the bundle's own entries, which say of which architecture its tokenizers are."""
    load_bundle(place / "model", {"codes": place / "tokenizer"}, place / "text.json", ENTRIES).save(place / "bundle")
    sonar = plain(dataclasses.replace(ENTRIES["spectrum"], id=99))
    del sonar["name"]
    write_yaml(place / "own.yaml", {"include": "bundle/modalities.yaml", "modalities": {"sonar": sonar}})
    catalog = load_catalog(place / "own.yaml")
    assert "codes" in load_tokenizers(place / "bundle" / "tokenizers", catalog)
    notes = warm_start(FourM(catalog, CONFIG), catalog, place / "bundle")
    assert notes == [f"sonar: not in {place / 'bundle'}, randomly initialized"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_tokenizer": None}, r"predicts text \(caption\), so it needs a text tokenizer"),
        ({"tokenizers": {"sonar": "tokenizer"}}, "tokenizer for 'sonar': .* has no such grid; its grids are codes, spectrum"),
        ({"tokenizers": {"caption": "tokenizer"}}, "tokenizer for 'caption': .* has no such grid"),
        ({"tokenizers": {"spectrum": "tokenizer"}}, "is not a tokenizer for the entry 'spectrum'"),
        ({"text_tokenizer": "model"}, "tokenizer.json"),
        ({"model": "tokenizer"}, "config.json: not the configuration of a 4M model; missing: domains_in"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(place: Path, changes: dict, message: str) -> None:
    parts = {"model": "model", "tokenizers": {}, "text_tokenizer": "text.json", **changes}
    tokenizers = {name: place / folder for name, folder in parts["tokenizers"].items()}
    text = parts["text_tokenizer"] and place / parts["text_tokenizer"]
    with pytest.raises(MaskweaveError, match=message):
        load_bundle(place / parts["model"], tokenizers, text, ENTRIES)


def test_a_codebook_of_another_size_is_told(place: Path) -> None:
    config = json.loads((place / "tokenizer" / "config.json").read_text(encoding="utf-8"))
    more = dataclasses.replace(SPEC, quantizer=Quantizer("vq", codes=40, dim=4))
    export_tokenizer(GridTokenizer(dataclasses.replace(ENTRIES["codes"], tokenizer=more)), place / "larger")
    assert config["codebook_size"] == 20
    with pytest.raises(MaskweaveError, match="config.json: .*codebook_size is 40, expected 20"):
        load_bundle(place / "model", {"codes": place / "larger"}, place / "text.json", ENTRIES)


def test_a_text_tokenizer_of_another_vocabulary_is_told(place: Path) -> None:
    other = dataclasses.replace(TEXT, sentinels=9)
    (place / "other.json").write_text(TextTokenizer.train(other, ["a red cube"]).tokenizer.to_str(), encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"other.json: .*sentinels"):
        load_bundle(place / "model", {}, place / "other.json", ENTRIES)
