"""Going on from a trained model, with modalities added and left out."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_catalog import tiny, tiny_batch

from maskweave.errors import MaskweaveError
from maskweave.families.weights import save_model
from maskweave.modality.catalogs import Catalog, save_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.training.warm_start import other_tokenizers, warm_start

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
            "an M3AE can only start from one with the same modalities. caption: in .* not used",
        ),
        (m3ae("caption", "photo"), some("caption", "photo"), "has other ids for caption, photo"),
        (m3ae("photo", "caption", depth=2), both, "depth is 1 there and 2 here"),
        (FourM(both, CONFIG), both, "contains a model of family 'm3ae', expected 'fourm'"),
    ):
        with pytest.raises(MaskweaveError, match=f"start: .*{message}"):
            warm_start(other, entries, tmp_path)


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
            (place / ("tokenizer.json" if m.vocabulary else "model.safetensors")).write_text("same")
    assert other_tokenizers(ours, tmp_path / "ours", tmp_path / "theirs") == []
    (tmp_path / "ours" / "codes" / "model.safetensors").write_text("else")
    (notes,) = other_tokenizers(ours, tmp_path / "ours", tmp_path / "theirs")
    assert notes.startswith("codes: other tokenizers than") and "tokenizers.reuse: " in notes


def test_a_published_checkpoint_has_to_be_imported_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MaskweaveError, match="maskweave import 4m"):
        warm_start(FourM(tiny(), CONFIG), tiny(), tmp_path)
