"""Going on from a trained model, with modalities added and left out."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalog import SMALL, random_columns, tiny, tiny_batch

from maskweave.errors import MaskweaveError
from maskweave.families.weights import save_model
from maskweave.masking.batch import TokenBatch
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog, save_catalog
from maskweave.modality.external import ExternalSpec
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.training.warm_start import other_tokenizers, warm_start
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.metadata import Key, Metadata

CONFIG = FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1, separate=True)


def some(*names: str, **changes: object) -> Catalog:
    """These modalities, numbered anew, so that ids differ from those of other choices."""
    entries = [dataclasses.replace(tiny()[name], id=20 - i, source="") for i, name in enumerate(names)]
    entries[0] = dataclasses.replace(entries[0], **changes)
    return Catalog(entries, tiny().vocabularies.values())


def bundle(folder: Path, catalog: Catalog, config: FourMConfig = CONFIG) -> FourM:
    torch.manual_seed(1)
    model = FourM(catalog, config)
    save_catalog(catalog, folder)
    save_model(model, catalog, folder)
    return model


def test_what_both_know_is_taken_over_and_the_rest_begins_anew(tmp_path: Path) -> None:
    donor = bundle(tmp_path, some("photo", "caption", "spectrum", "facts"))
    ours = some("codes", "spectrum", "photo", "caption")
    torch.manual_seed(2)
    model = FourM(ours, CONFIG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    notes = warm_start(model, ours, tmp_path)
    assert notes == [
        f"codes: not in {tmp_path}, randomly initialized",
        f"facts: in {tmp_path} but not in this recipe, not used",
    ]
    given, now = donor.state_dict(), model.state_dict()
    fresh = {name for name in now if "codes" in name}
    assert len(fresh) == 2  # its table and its head
    for name in now.keys() - {"position_embedding.modality.weight"}:
        assert torch.equal(now[name], before[name] if name in fresh else given[name]), name
    theirs = some("photo", "caption", "spectrum", "facts")
    for name in ("spectrum", "photo", "caption"):
        rows = (
            now["position_embedding.modality.weight"][ours[name].id],
            given["position_embedding.modality.weight"][theirs[name].id],
        )
        assert torch.equal(*rows)
    assert torch.equal(
        now["position_embedding.modality.weight"][ours["codes"].id],
        before["position_embedding.modality.weight"][ours["codes"].id],
    )


def test_the_same_modalities_give_the_same_predictions(tmp_path: Path) -> None:
    donor = bundle(tmp_path, tiny()).eval()
    torch.manual_seed(2)
    model = FourM(tiny(), CONFIG).eval()
    batch = tiny_batch(tiny())
    assert warm_start(model, tiny(), tmp_path) == []
    with torch.no_grad():
        for name, (_, _, logits) in donor(batch).items():
            assert torch.equal(model(batch)[name][2], logits)


def m3ae(*names: str, **config: int) -> M3AE:
    torch.manual_seed(len(names))
    sizes = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, **config}
    return M3AE(some(*names), M3AEConfig(**sizes))


def test_an_m3ae_goes_on_with_the_same_modalities(tmp_path: Path) -> None:
    donor, both = m3ae("photo", "caption"), some("photo", "caption")
    save_catalog(both, tmp_path)
    save_model(donor, both, tmp_path)
    model = m3ae("photo", "caption")
    with torch.no_grad():
        model.class_token.zero_()
    assert warm_start(model, both, tmp_path) == []
    given = donor.state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())
    for other, entries, message in (
        (
            m3ae("photo"),
            some("photo"),
            "this model can only start from one with the same modalities. caption: in .* not used",
        ),
        (m3ae("caption", "photo"), some("caption", "photo"), "has other ids for caption, photo"),
        (m3ae("photo", "caption", depth=2), both, "depth is 1 there and 2 here"),
        (FourM(both, CONFIG), both, "contains a model of family 'm3ae', expected 'fourm'"),
    ):
        with pytest.raises(MaskweaveError, match=f"start: .*{message}"):
            warm_start(other, entries, tmp_path)


PHOTO, WIDE = Image((8, 8), 3), Image((8, 8), 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def scaled(value: Any, **changes: Any) -> Catalog:
    """A catalog of one picture with this value, and a caption."""
    return some("photo", "caption", value=value, **changes)


def pictures(catalog: Catalog) -> TokenBatch:
    """A batch of the same eight-bit pictures, scaled as the catalog's entry says."""
    rng = np.random.default_rng(3)
    columns = random_columns(catalog, 4, rng)
    return MaskSampler(catalog, MaskingConfig(12, 12))(columns, rng)


def test_patches_of_another_mean_and_deviation_are_mapped(tmp_path: Path) -> None:
    donor, ours = bundle(tmp_path, scaled(PHOTO)).eval(), scaled(WIDE)
    model = FourM(ours, CONFIG).eval()
    (note,) = warm_start(model, ours, tmp_path)
    assert note.startswith("photo: value.mean is [] there, [0.5, 0.4, 0.3] here, value.std is [] there")
    assert note.endswith("its embedding was mapped, so the copied encoder sees the same as before")
    encoded = [
        m.encode(batch.inputs, batch.rows)[batch.inputs.modality != 0]
        for m, batch in ((donor, pictures(scaled(PHOTO))), (model, pictures(ours)))
    ]
    torch.testing.assert_close(*encoded, atol=1e-4, rtol=1e-4)


def test_both_scales_count(tmp_path: Path) -> None:
    dark = Image((8, 8), 3, mean=(0.1, 0.2, 0.15), std=(0.4, 0.5, 0.6))
    donor, ours = bundle(tmp_path, scaled(dark)).eval(), scaled(WIDE)
    model = FourM(ours, CONFIG).eval()
    warm_start(model, ours, tmp_path)
    encoded = [
        m.encode(batch.inputs, batch.rows)[batch.inputs.modality != 0]
        for m, batch in ((donor, pictures(scaled(dark))), (model, pictures(ours)))
    ]
    torch.testing.assert_close(*encoded, atol=1e-4, rtol=1e-4)


def test_maps_of_another_range_are_mapped(tmp_path: Path) -> None:
    theirs, ours = scaled(Map((8, 8), range=(0.0, 10.0))), scaled(Map((8, 8), range=(-5.0, 20.0)))
    donor = bundle(tmp_path, theirs)
    model = FourM(ours, CONFIG)
    (note,) = warm_start(model, ours, tmp_path)
    assert "value.range is [0.0, 10.0] there, [-5.0, 20.0] here; its embedding was mapped" in note
    rows, embedded = np.random.default_rng(0).uniform(0, 10, (5, 4)), []
    for m, entries in ((donor, theirs), (model, ours)):
        content = m.token_embedding.rows["photo"](torch.from_numpy(entries["photo"].value.normalize_rows(rows)))
        embedded.append(content + m.position_embedding.modality.weight[entries["photo"].id])
    torch.testing.assert_close(*embedded, atol=1e-4, rtol=1e-4)


def named(*names: str, top: float = 1.0) -> Map:
    return Map((8, 8), channels=len(names), range=(0.0, top), channel_names=names)


def test_channels_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    grid = {"kind": "patches", "grid": (4, 4)}
    donor = bundle(tmp_path, scaled(named("red", "green", "near"), **grid))
    ours = scaled(named("near", "green", "red"), **grid)
    model = FourM(ours, CONFIG)
    (note,) = warm_start(model, ours, tmp_path)
    assert "the weights of 3 are kept, matched by name" in note
    mine, its = (m.token_embedding.rows["photo"].weight.unflatten(1, (-1, 3)) for m in (model, donor))
    torch.testing.assert_close(mine, its[..., [2, 1, 0]])


def test_another_range_beside_other_channels_is_told(tmp_path: Path) -> None:
    grid = {"kind": "patches", "grid": (4, 4)}
    bundle(tmp_path, scaled(named("red", "green"), **grid))
    ours = scaled(named("red", "green", "near", top=1e4), **grid)
    notes = warm_start(FourM(ours, CONFIG), ours, tmp_path)
    assert any("value.range is [0.0, 1.0] there, [0.0, 10000.0] here; not mapped" in note for note in notes)


def test_an_m3ae_maps_its_patches(tmp_path: Path) -> None:
    sizes = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    theirs, ours = scaled(PHOTO), scaled(WIDE)
    donor, model = M3AE(theirs, M3AEConfig(**sizes)), M3AE(ours, M3AEConfig(**sizes))
    save_catalog(theirs, tmp_path)
    save_model(donor, theirs, tmp_path)
    (note,) = warm_start(model, ours, tmp_path)
    assert "the copied encoder sees the same as before; its predictions are not mapped" in note
    rows = np.random.default_rng(0).integers(0, 256, (5, 12)).astype(np.uint8)
    embedded = [
        m.token_embedding["photo"](torch.from_numpy(c["photo"].value.normalize_rows(rows)))
        for m, c in ((donor, theirs), (model, ours))
    ]
    torch.testing.assert_close(*embedded, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("value", "changed", "words"),
    [
        (
            Map((8, 8), range=(0, 10), unit="m"),
            {"unit": "mm"},
            "value.unit is 'm' there, 'mm' here, so its values mean",
        ),
        (Map((8, 8), range=(0, 10)), {"range": None, "trim_quantile": 0.1}, "trim_quantile is None there, 0.1 here"),
    ],
)
def test_what_is_no_linear_map_is_told(tmp_path: Path, value: Map, changed: dict[str, Any], words: str) -> None:
    kind = {} if "unit" in changed else {"kind": "grid", "tokenizer": SMALL}
    bundle(tmp_path, scaled(value, **kind))
    ours = scaled(dataclasses.replace(value, **changed), **kind)
    (note,) = warm_start(FourM(ours, CONFIG), ours, tmp_path)
    assert words in note and note.endswith("they are not mapped")


def test_another_range_of_a_key_is_told(tmp_path: Path) -> None:
    bundle(tmp_path, some("facts", "photo"))
    keys = {**tiny()["facts"].value.keys, "light": Key(1, (0, 20))}
    ours = some("facts", "photo", value=Metadata(keys=keys))
    (note,) = warm_start(FourM(ours, CONFIG), ours, tmp_path)
    assert note.startswith(
        "facts: value.keys.light.range is [0.0, 10.0] there, [0, 20] here, so its values mean something else"
    )


def test_settings_of_files_are_no_difference(tmp_path: Path) -> None:
    bundle(tmp_path, scaled(PHOTO))
    ours = scaled(Image((8, 8), 3, background=(0, 0, 0), fit=("resize",)))
    assert warm_start(FourM(ours, CONFIG), ours, tmp_path) == []


@pytest.mark.parametrize(
    ("ours", "config", "message"),
    [
        (
            some("photo", "caption"),
            dataclasses.replace(CONFIG, width=64, qk_norm=True),
            "width is 32 there and 64 here; qk_norm",
        ),
        (some("spectrum", grid=(4,)), CONFIG, r"'spectrum' .* grid is \(5,\) there and \(4,\) here"),
        (some("codes"), CONFIG, "has none of the modalities codes"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, ours: Catalog, config: FourMConfig, message: str) -> None:
    bundle(tmp_path, some("photo", "caption", "spectrum"))
    with pytest.raises(MaskweaveError, match=f"start: .*{message}"):
        warm_start(FourM(ours, config), ours, tmp_path)


def test_other_tokenizers_are_told(tmp_path: Path) -> None:
    ours, theirs = some("codes", "spectrum", "caption"), some("codes", "caption")
    for side, names in (("ours", ours), ("theirs", theirs)):
        for m in names.values():
            place = tmp_path / side / (m.vocabulary or m.name)
            place.mkdir(parents=True)
            (place / ("tokenizer.json" if m.vocabulary else "model.safetensors")).write_text("same", encoding="utf-8")
    assert other_tokenizers(ours, tmp_path / "ours", tmp_path / "theirs") == []
    (tmp_path / "ours" / "codes" / "model.safetensors").write_text("else", encoding="utf-8")
    (notes,) = other_tokenizers(ours, tmp_path / "ours", tmp_path / "theirs")
    assert notes.startswith("codes: other tokenizers than") and "tokenizers.reuse: " in notes


def test_other_external_tokenizers_are_told(tmp_path: Path) -> None:
    catalog = some("codes")
    code = dataclasses.replace(catalog["codes"], tokenizer=ExternalSpec("python: own:code", catalog["codes"].codes))
    external = SimpleNamespace(values=lambda: [code])
    sides = [tmp_path / side / "codes" for side in ("ours", "theirs")]

    def told() -> bool:
        return bool(other_tokenizers(external, *(side.parent for side in sides)))  # type: ignore[arg-type]

    def write(side: Path, fingerprint: str | None, **files: str) -> None:
        shutil.rmtree(side, ignore_errors=True)
        (side / "external").mkdir(parents=True)
        (side / "config.json").write_text(
            json.dumps({"fingerprint": fingerprint} if fingerprint else {}), encoding="utf-8"
        )
        for name, text in files.items():
            (side / "external" / f"{name}.safetensors").write_text(text, encoding="utf-8")

    write(sides[0], "a")
    assert not told(), "the bundle has no such tokenizer"
    write(sides[1], None)
    (sides[1] / "model.safetensors").write_text("trained", encoding="utf-8")
    assert told(), "a network instead of code"
    for fingerprint, expected in (("a", False), ("b", True), (None, False)):
        write(sides[1], fingerprint)
        assert told() == expected, "an older version stored none"
    for name in ("model", "diffusion_pytorch_model", "part-2"):
        write(sides[0], None, first="same", **{name: "same"})
        for files, expected in (({name: "same"}, False), ({name: "else"}, True), ({}, True), ({"third": "same"}, True)):
            write(sides[1], None, first="same", **files)
            assert told() == expected


def test_a_published_checkpoint_has_to_be_imported_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="maskweave import 4m"):
        warm_start(FourM(tiny(), CONFIG), tiny(), tmp_path)
