"""What each family declares, builds and shows, stated one by one; and its files."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_bundle import m3ae_bundle, scenes, small_bundle

from maskweave.errors import MaskweaveError
from maskweave.families import base, m3ae_sheets
from maskweave.families.base import ModelSettings, families, family_named
from maskweave.families.contrastive import ContrastiveSettings
from maskweave.families.fourm import FourMSettings
from maskweave.families.m3ae import M3AESettings
from maskweave.families.weights import load_model, made_from, read_config, save_model
from maskweave.files import read_json, write_json
from maskweave.masking.fourm import MaskingConfig
from maskweave.masking.m3ae import MaskRatio
from maskweave.modality.catalogs import load_catalog

SCENES = load_catalog("scenes")
PAIR = SCENES.subset(["rgb", "caption"])
SMALL: dict[str, Any] = {
    "fourm": FourMSettings(width=32, heads=2, encoder_depth=1, decoder_depth=1, masking=MaskingConfig(12, 34)),
    "m3ae": M3AESettings(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2, unpaired=0.25),
    "contrastive": ContrastiveSettings(width=32, heads=2, depth=1, group_size=4),
}
TABLE: dict[str, dict[str, Any]] = {
    "fourm": {
        "generates": True, "resumable": ("loss",), "learns_new_inputs": True, "shown_samples": 0, "tokens": 46, "multiple": 1, "targets": 34,
        "without inputs": False, "paths": True, "facts": {"input + target tokens": "12 + 34"}, "objective": "FourMObjective", "shuffles": [True, False],
    },
    "m3ae": {
        "generates": False, "resumable": ("loss_weight.*",), "learns_new_inputs": False, "shown_samples": 4, "tokens": 128, "multiple": 1, "targets": 0,
        "without inputs": None, "paths": False, "facts": {"masked": "75% of patches, 75% of sequences"}, "objective": "M3AEObjective", "shuffles": [True, False],
    },
    "contrastive": {
        "generates": False, "resumable": (), "learns_new_inputs": False, "shown_samples": 0, "tokens": 128, "multiple": 4, "targets": 0,
        "without inputs": None, "paths": False, "facts": {"compared": "4 samples at a time"}, "objective": "ContrastiveObjective", "shuffles": [True, False],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_families_are_what_the_table_says(name: str) -> None:
    family, settings = family_named(name), SMALL[name]
    family.check(settings, PAIR)
    model = family.build_model(PAIR, settings)
    data: Any = SimpleNamespace(catalog=PAIR, counts=(8,), weights=(1.0,), windows=(None,))
    batches: Any = [family.build_batches(settings, data, 4, 3, held_out) for held_out in (False, True)]
    found = {
        "generates": family.generates, "resumable": family.resumable, "learns_new_inputs": family.learns_new_inputs,
        "shown_samples": family.shown_samples, "tokens": family.tokens_per_sample(settings, PAIR), "multiple": family.batch_multiple(settings),
        "targets": family.target_tokens(settings), "without inputs": family.trained_without_inputs(settings),
        "paths": family.trained_paths(settings, PAIR) is not None, "facts": family.facts(settings),
        "objective": type(family.build_objective(model, settings, PAIR)).__name__, "shuffles": [one.order.shuffle for one in batches],
    }  # fmt: skip
    assert found == TABLE[name]
    assert [(one.seed, one.order.batch_size, len(one)) for one in batches] == [(3, 4, 2)] * 2
    assert settings.family == name and isinstance(settings, ModelSettings) and family.Settings is type(settings)
    assert [f.name for f in families()][:3] == [*TABLE]


def test_unpaired_samples_are_only_of_the_training() -> None:
    data: Any = SimpleNamespace(catalog=PAIR, counts=(8,), weights=(1.0,), windows=(None,))
    family: Any = family_named("m3ae")
    assert [family.build_batches(SMALL["m3ae"], data, 4, 0, held_out).unpaired for held_out in (False, True)] == [
        0.25,
        0.0,
    ]
    assert [family.build_batches(SMALL["m3ae"], data, 4, 0, held_out).ratio for held_out in (False, True)] == [
        MaskRatio()
    ] * 2
    others: Any = family_named("contrastive").build_batches(SMALL["contrastive"], data, 4, 0, False)
    assert others.ratio == MaskRatio(0.0, 0.0) and others.unpaired == 0.0


def test_budgets_and_unconditional_samples_of_4m() -> None:
    family: Any = family_named("fourm")
    settings = dataclasses.replace(SMALL["fourm"], masking=MaskingConfig(5, 6, unconditional=0.1), loss="token")
    objective = family.build_objective(family.build_model(PAIR, settings), settings, PAIR)
    assert objective.budgets == {"inputs": 5, "targets": 6} and objective.loss == "token"
    assert family.trained_without_inputs(settings) is True


@pytest.mark.parametrize(("given", "init"), [(True, True), (False, False)])
def test_a_4m_model_starts_from_its_tokenizers_if_asked(given: bool, init: bool) -> None:
    taken: list[dict[str, Any]] = []
    model: Any = SimpleNamespace(init_from_tokenizers=taken.append)
    settings = dataclasses.replace(SMALL["fourm"], init_from_tokenizers=given)
    family_named("fourm").initialize(model, settings, lambda: {"a": SimpleNamespace(token_embeddings=3)})  # type: ignore[dict-item]
    assert taken == ([{"a": 3}] if init else [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: M3AESettings(unpaired=1.1), "unpaired must be a share from 0 to 1, found 1.1"),
        (lambda: M3AESettings(unpaired=-0.1), "unpaired must be a share from 0 to 1"),
        (lambda: ContrastiveSettings(group_size=1), "group_size must be 2 or more, found 1"),
        (lambda: family_named("contrastive").check(SMALL["contrastive"], PAIR.subset(["rgb"])), "needs two or more, found rgb"),
        (lambda: family_named("smell"), "unknown model family 'smell'; known: fourm, m3ae, contrastive"),
        (lambda: family_named(3), "unknown model family 3"),
        (lambda: base.Family.warm_start(family_named("m3ae"), *[None] * 5), "a model of family 'm3ae' cannot start from another"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        make()
    assert M3AESettings(unpaired=1.0).unpaired == 1 and ContrastiveSettings(group_size=2).group_size == 2


# Files.


@pytest.mark.parametrize("name", TABLE)
def test_weights_come_back(name: str, tmp_path: Path) -> None:
    family = family_named(name)
    model = family.build_model(PAIR, SMALL[name])
    save_model(model, PAIR, tmp_path, "abc")
    again = load_model(tmp_path, PAIR)
    assert made_from(tmp_path) == "abc" and not again.training and family_of_name(tmp_path) == name
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    config = read_json(tmp_path / "model" / "config.json")
    assert [*config] == ["format", "family", "model", "entries", "checkpoint"] and config["format"] == 2
    assert config["entries"]["rgb"] == {
        "id": 1, "kind": "patches", "tokens": 64, "positions": "sine", "vocabulary": "", "input_only": False,
    }  # fmt: skip
    save_model(model, PAIR, tmp_path)
    assert made_from(tmp_path) == "" == made_from(tmp_path / "none")


def family_of_name(folder: Path) -> str:
    return str(read_config(folder / "model" / "config.json")["family"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": 1},
            "has format 1, from an older maskweave; this version reads format 2. Train the model again, or use the version",
        ),
        ({"format": 3}, "has an unknown format; this version reads format 2. Use the version that wrote it"),
        ({"format": "x"}, "has an unknown format"),
        ({"transfer": {}}, "this is the model of a transfer"),
        ({"entries": {}}, r"different entries: rgb, caption\); restore the old file"),
        ({"entries": 3}, r"different entries: all\)"),
        ({"family": "smell"}, "config.json: unknown model family 'smell'"),
    ],
)
def test_models_that_cannot_be_loaded(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_model(family_named("m3ae").build_model(PAIR, SMALL["m3ae"]), PAIR, tmp_path)
    path = tmp_path / "model" / "config.json"
    write_json(path, {**read_json(path), **changes})
    with pytest.raises(MaskweaveError, match=message):
        load_model(tmp_path, PAIR)
    with pytest.raises(MaskweaveError, match="has no trained model and no recipe.yaml; copy the complete folder again"):
        load_model(tmp_path / "other", PAIR)


# Sheets of a masked autoencoder.


def test_pictures_are_brighter_where_attention_is_higher() -> None:
    picture = np.full((4, 4, 3), 200, np.uint8)
    lit = m3ae_sheets._brightened(picture, torch.tensor([0.0, 1.0, 1.0, 1.0]), (2, 2))
    assert lit[0, 0].tolist() == [30, 30, 30] and lit[3, 3].tolist() == [200, 200, 200] and lit.dtype == np.uint8
    assert (m3ae_sheets._brightened(picture, torch.ones(4), (2, 2)) == 30).all(), "nothing stands out"


def test_rows_and_headings_of_reconstructions() -> None:
    bundle = m3ae_bundle()
    samples = [
        {name: sample[name] for name in names}
        for sample, names in zip(scenes(2), (("rgb", "caption"), ("rgb",)), strict=True)
    ]
    sheet = m3ae_sheets.restored_sheet(bundle.model, bundle.catalog, bundle.tokenizers, samples, (0.5, 0.9))  # type: ignore[arg-type]
    assert [(row.label, row.starts) for row in sheet.rows] == [("50%", True), ("90%", False)] * 2
    assert sheet.headings == ["rgb, visible", "restored", "truth", "caption, visible", "restored", "truth"]
    tiles = [[tile.modality for tile in row.tiles if tile is not None] for row in sheet.rows]
    assert tiles == [["rgb"] * 3 + ["caption"] * 3] * 4 and sheet.rows[2].tiles[3].value is None  # type: ignore[union-attr]
    assert (
        np.array_equal(sheet.rows[0].tiles[2].value, samples[0]["rgb"])
        and sheet.rows[0].tiles[5].value == samples[0]["caption"]
    )  # type: ignore[union-attr]
    assert sheet.rows[0].tiles[3].value.count("_") > 5  # type: ignore[union-attr]
    other = m3ae_sheets.restored_sheet(bundle.model, bundle.catalog, bundle.tokenizers, samples, (0.5,), seed=1)  # type: ignore[arg-type]
    assert not np.array_equal(other.rows[0].tiles[0].value, sheet.rows[0].tiles[0].value)  # type: ignore[union-attr]


def test_the_six_longest_words_are_shown_in_their_order() -> None:
    bundle = m3ae_bundle()
    sample = {"rgb": scenes(1)[0]["rgb"], "caption": "1 object: a large red cube in front of the small cylinder"}
    sheet = m3ae_sheets.attention_sheet(
        bundle.model, bundle.catalog, bundle.tokenizers, [sample, {"rgb": sample["rgb"]}]
    )  # type: ignore[arg-type]
    assert sheet is not None and len(sheet.rows) == 1
    notes = [tile.note for tile in sheet.rows[0].tiles if tile is not None]
    assert (
        notes[0] == ""
        and len(notes) == 7
        and notes[1:] == [word for word in sample["caption"].replace(":", "").split() if word in notes]
    )
    assert (
        m3ae_sheets.attention_sheet(bundle.model, bundle.catalog, bundle.tokenizers, [{"rgb": sample["rgb"]}]) is None
    )  # type: ignore[arg-type]
    assert small_bundle().family.name == "fourm"
