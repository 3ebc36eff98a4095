"""Tokenizer networks that an entry takes from a bundle, a run, a folder or the Hub instead of training them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from, load_saved_catalog
from maskweave.modality.external import ExternalSpec
from maskweave.modality.pretrained import find_pretrained
from maskweave.provenance import Origin, Provenance, read_provenance, write_provenance
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.external import ExternalGridTokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.pretrained import load_pretrained, taken_tokenizer


def catalog(
    pretrained: Any, size: tuple[int, int] = (64, 64), grid: tuple[int, int] = (8, 8), **changes: Any
) -> Catalog:
    value = {"type": "image", "size": list(size), "channels": 3, **changes.pop("value", {})}
    tokenizer = {"pretrained": pretrained, **changes.pop("tokenizer", {})}
    entry = {"id": 9, "kind": "grid", "grid": list(grid), "value": value, "tokenizer": tokenizer, **changes}
    return catalog_from({"modalities": {"photo": entry}}, "mine.yaml")


def pictures(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)


def test_a_tokenizer_of_a_shipped_bundle_gives_its_tokens_and_values() -> None:
    theirs = maskweave.load("scenes").tokenizers["tok_rgb"]
    ours = taken_tokenizer(catalog("scenes#tok_rgb")["photo"])
    assert isinstance(ours, GridTokenizer) and ours.spec.quantizer == theirs.spec.quantizer  # type: ignore[attr-defined]
    ids = ours.encode(pictures(64, 64))
    assert torch.equal(ids, theirs.encode(pictures(64, 64))) and len(ids.unique()) > 5
    assert np.array_equal(ours.decode(ids), theirs.decode(ids))


def test_it_works_at_other_sizes_of_the_same_patches() -> None:
    scene = Scenes(load_saved_catalog(find_pretrained("scenes#tok_rgb").parent.parent), 4, 0)
    small = np.stack([scene[i]["rgb"] for i in range(4)])
    large = np.concatenate([small, small[::-1]], axis=2)  # two scenes side by side: 64×128
    tokenizer = load_pretrained(catalog("scenes#tok_rgb", (64, 128), (8, 16))["photo"])
    ids = tokenizer.encode(large)
    assert ids.shape == (4, 8, 16) and tokenizer.decode(ids).shape == large.shape
    error = np.square(tokenizer.decode(ids).astype(float) - large).mean()
    same = load_pretrained(catalog("scenes#tok_rgb")["photo"])
    at_home = np.square(same.decode(same.encode(small)).astype(float) - small).mean()
    mean = np.square(large - large.mean(axis=(0, 1, 2))).mean()
    assert at_home < error < mean / 3, "worse than at the size that it was trained for, but far better than one color"


def test_places(tiny_run: Path, tmp_path: Path) -> None:
    folder = tiny_run / "tokenizers" / "depth"
    assert find_pretrained(f"{tiny_run}#depth") == find_pretrained(str(folder)) == folder
    shutil.copytree(folder, tmp_path / "one" / "tokenizers" / "depth")
    assert find_pretrained(str(tmp_path / "one")).name == "depth", "the only one needs no name"
    for place, problem in (
        (str(tiny_run), r"has \d tokenizer networks; name one of .*#depth, "),
        (f"{tiny_run}#dept", r"has no tokenizer network 'dept'; name one of .*#depth"),
        (f"{tiny_run}#../tokenizers/depth", "has no tokenizer network '../tokenizers/depth'"),
        (str(tmp_path), r"has 0 tokenizer networks; expected a bundle or tokenizer that ships"),
        ("runs/none#x", r"no such folder"),
        ("#x", "'#x'; expected a bundle or tokenizer that ships"),
    ):
        with pytest.raises(MaskweaveError, match=problem):
            find_pretrained(place)


def test_the_settings_come_with_the_network(tiny_run: Path, tmp_path: Path) -> None:
    ours = catalog("scenes#tok_rgb", (16, 24), (2, 3))["photo"]
    saved = load_saved_catalog(find_pretrained("scenes#tok_rgb").parent.parent)["tok_rgb"]
    assert ours.network is not None and saved.network is not None
    expected = dataclasses.replace(saved.network, pretrained="scenes#tok_rgb", trained_grid=(8, 8))
    assert ours.network == expected and ours.codes == saved.codes
    for pretrained, more, problem in (
        ("scenes#tok_rgb", {"width": 8}, r"mine\.yaml: .*tokenizer\.pretrained brings all settings .* remove width"),
        (3, {}, r"tokenizer\.pretrained is 3; expected a bundle"),
        ("scenes#text", {}, r"has no tokenizer network 'text'; name one of scenes#depth"),
    ):
        with pytest.raises(MaskweaveError, match=problem):
            catalog(pretrained, tokenizer=more)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_run / "tokenizers" / "depth", broken)
    (broken / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"config\.json: is not the configuration of a tokenizer network"):
        catalog(str(broken))
    content = json.loads((tiny_run / "tokenizers" / "depth" / "config.json").read_text(encoding="utf-8"))
    for grid in (5, None, ["a"]):
        content["modality"]["grid"] = grid
        (broken / "config.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(
            MaskweaveError, match=r"config\.json: modality\.grid is .*; expected a list of whole numbers"
        ):
            catalog(str(broken))


@pytest.mark.parametrize("place", ["someone/else#tok_rgb", "scenes#tok_rgb"])
def test_loading_a_bundle_looks_nowhere_else(
    place: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle could name a repository, or a folder of the user, that is read as soon as it is loaded."""
    asked: list[Any] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *given, **more: asked.append(given))
    monkeypatch.setattr("maskweave.modality.tokenizer.pretrained_settings", lambda *given: asked.append(given))
    bundle = shutil.copytree(tiny_run, tmp_path / "bundle", ignore=shutil.ignore_patterns("tokens", "checkpoints"))
    entries = bundle / "modalities.yaml"
    original = entries.read_text(encoding="utf-8")
    content = yaml.safe_load(original)
    content["modalities"]["depth"]["tokenizer"] = {"pretrained": place}
    entries.write_text(yaml.safe_dump(content), encoding="utf-8")
    message = rf"tokenizer\.pretrained is '{place}' without the settings of its network"
    with pytest.raises(MaskweaveError, match=message):
        maskweave.load(bundle)
    entries.write_text(original, encoding="utf-8")
    modality = load_saved_catalog(bundle)["depth"]
    config = bundle / "tokenizers" / "depth" / "config.json"
    saved = json.loads(config.read_text(encoding="utf-8"))
    saved["modality"]["tokenizer"] = {"pretrained": place}
    config.write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(MaskweaveError, match=rf"config\.json: modality: {message}"):
        maskweave.load(bundle)
    config.write_text(json.dumps({**saved, "format": 1}), encoding="utf-8")
    external = dataclasses.replace(modality, tokenizer=ExternalSpec("a/b", 4))
    with pytest.raises(MaskweaveError, match=message):
        ExternalGridTokenizer.load(config.parent, external)
    assert asked == []


def test_other_values_are_refused() -> None:
    for changes, problem in (
        ({"size": (64, 64), "grid": (4, 4)}, r"its patches have \[8, 8\] points, those of the entry \[16, 16\]"),
        ({"value": {"channels": 1}}, r"value\.channels is 3 there, 1 here"),
        ({"value": {"mean": [0.5] * 3, "std": [0.2] * 3}}, r"value\.mean is \[\] there"),
        ({"value": {"type": "direction"}}, r"value\.type is 'image' there, 'direction' here"),
    ):
        with pytest.raises(
            MaskweaveError, match=rf"'photo': tokenizer\.pretrained: scenes#tok_rgb was made for other.*{problem}"
        ):
            load_pretrained(catalog("scenes#tok_rgb", **changes)["photo"])
    load_pretrained(catalog("scenes#tok_rgb", value={"fit": "pad", "background": [0, 0, 0]})["photo"])


RECIPE = """\
catalog: catalog.yaml
data: {source: scenes, samples: 16, validation: 4}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 8, target_tokens: 8, unconditional: 0.5}}
train: {steps: 2, batch_size: 4, checkpoint_every: 0}
"""


def test_a_run_copies_it_and_needs_the_bundle_no_more(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "older", ignore=shutil.ignore_patterns("tokens", "checkpoints"))
    write_provenance(Provenance("cc0", "maskweave 0"), tmp_path / "older")
    entry = {"id": 9, "kind": "grid", "grid": [4, 6], "value": {"type": "image", "size": [32, 48], "channels": 3}}
    entries = {"rgb": {**entry, "tokenizer": {"pretrained": "older#tok_rgb"}}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"modalities": entries}), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "check", "recipe.yaml"]) == 0
    assert main(["run", "recipe.yaml", "--out", "run"]) == 0, capsys.readouterr().err
    assert "train tokenizers" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / "older")
    bundle = maskweave.load(tmp_path / "run")
    assert bundle.tokenizers["rgb"].fingerprint == maskweave.load(tiny_run).tokenizers["tok_rgb"].fingerprint
    assert bundle.generate({}, ["rgb"])["rgb"].shape == (32, 48, 3)
    assert read_provenance(tmp_path / "run").origins == [Origin("tokenizers/rgb", "older", license="cc0")]
    saved = json.loads((tmp_path / "run" / "tokenizers" / "rgb" / "config.json").read_text(encoding="utf-8"))[
        "modality"
    ]["tokenizer"]
    assert saved["pretrained"] == "older#tok_rgb" and saved["trained_grid"] == [8, 8]
