"""Augmentation: aligned by view, drawn from the sample's name, in tokens and in the training of tokenizers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskweave.config import build
from maskweave.data.augment import Augment, Augmented, AugmentedValues
from maskweave.data.batches import ValueBatches
from maskweave.data.source import Subset
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.modality.vocabulary import Vocabulary
from maskweave.training.pipeline import claim, make_tokens
from maskweave.training.recipe import load_recipe
from maskweave.training.run_folder import read_run_recipe
from maskweave.training.tokenizers import train_tokenizers
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.text import Text

ENTRIES = Catalog(
    [
        Modality("photo", 1, "patches", Image((8, 8), 3), grid=(4, 4)),
        Modality("depth", 2, "patches", Map((8, 8), range=(0, 255)), grid=(4, 4)),
        Modality("wrist", 3, "patches", Map((8, 8), range=(0, 255)), grid=(4, 4), view="wrist"),
        Modality("speech", 4, "patches", Map((20,), range=(0, 20)), grid=(5,), view="sound"),
        Modality("pitch", 5, "patches", Map((20,), range=(0, 20)), grid=(5,), view="sound"),
        Modality("caption", 6, "sequence", Text(), max_tokens=8, vocabulary="text"),
    ],
    [Vocabulary("text", 320, sentinels=8, values={}, type="wordpiece")],
)


class Samples:
    names = tuple(ENTRIES)

    def __len__(self) -> int:
        return 6

    def key(self, i: int) -> str:
        return f"s{i}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        plane = np.random.default_rng(i).integers(0, 256, (8, 8)).astype(np.float32)
        ramp = np.arange(20, dtype=np.float32)
        photo = np.repeat(plane[..., None], 3, -1).astype(np.uint8)
        return {"photo": photo, "depth": plane, "wrist": plane, "speech": ramp, "pitch": ramp, "caption": "left hand"}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_copies_follow_the_unchanged_samples_and_depend_on_the_name_only() -> None:
    augment = Augment(copies=2, crop=0.4, flip=0.5)
    source = Augmented(Samples(), augment, ENTRIES, seed=3)
    assert len(source) == 18 and source.key(2) == "s2" and source.key(8) == "s2~1" and source.key(14) == "s2~2"
    assert equal(source[2], Samples()[2])
    assert equal(source[8], source[8]) and not equal(source[8], source[14]) and not equal(source[8], Samples()[2])
    fewer = Augmented(Subset(Samples(), [2, 5]), augment, ENTRIES, seed=3)
    assert fewer.key(2) == "s2~1" and equal(fewer[2], source[8]), "where a sample stands changes nothing"
    assert not equal(Augmented(Samples(), augment, ENTRIES, seed=4)[8], source[8])


def test_a_view_is_cropped_and_shifted_as_one() -> None:
    augment = Augment(crop=0.4, flip=0.5, shift={"speech": 0.3, "pitch": 0.3})
    apart = False
    for i in range(10):
        sample = augment(Samples()[0], ENTRIES, np.random.default_rng(i))
        assert np.abs(sample["photo"][..., 0] - sample["depth"]).max() <= 1, "rounded to whole levels"
        assert np.array_equal(sample["speech"], sample["pitch"])
        apart |= not np.array_equal(sample["depth"], sample["wrist"])
    assert apart


def test_flipped_captions_swap_left_and_right() -> None:
    assert Augment(flip=1.0)(Samples()[0], ENTRIES, np.random.default_rng(0))["caption"] == "right hand"


def test_only_what_is_asked_for_changes() -> None:
    before = Samples()[0]
    after = Augment(color=0.5, noise={"depth": 0.1})(before, ENTRIES, np.random.default_rng(0))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"photo", "depth"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"copies": 2}, "nothing says how they differ; set crop"),
        ({"copies": 5000, "flip": 0.5}, "copies must be 0 to 1024, found 5000"),
        ({"crop": 0.0}, "crop must be above 0 to 1, found 0"),
        ({"color": 1.0}, "color must be 0 to below 1, found 1"),
        ({"noise": {"photo": -1.0}}, "noise.photo must be 0 to 10, found -1"),
        ({"shift": {"photo": 2.0}}, "shift.photo must be 0 to 1, found 2"),
    ],
)
def test_settings_out_of_range(content: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        build(Augment, content, "recipe.yaml")


def test_names_are_checked_with_the_recipe(tiny_recipe: Path) -> None:
    with pytest.raises(MaskweaveError, match=r"data.augment.noise has 'deepth': unknown; expected some of .*depth"):
        load_recipe(tiny_recipe, {"data.augment": {"noise": {"deepth": 0.1}}})
    with pytest.raises(MaskweaveError, match=r"data.augment.noise has 'caption': values of type 'text' have none"):
        load_recipe(tiny_recipe, {"data.augment": {"noise": {"caption": 0.1}}})


def test_batches_of_a_tokenizer_are_augmented_by_their_number() -> None:
    m = replace(ENTRIES["depth"], kind="grid", tokenizer=TokenizerSpec())
    values = np.stack([Samples()[i]["depth"] for i in range(6)])
    augment = AugmentedValues(Augment(crop=0.5, flip=0.5, noise={"depth": 0.1}), m, seed=0)
    batches, plain = ValueBatches(m, values, 4, augment=augment), ValueBatches(m, values, 4)
    assert torch.equal(batches[5].values, batches[5].values)
    again = ValueBatches(m, values, 4, augment=AugmentedValues(augment.augment, m, seed=0))
    assert torch.equal(again[5].values, batches[5].values), "a resumed run draws the same"
    assert not torch.equal(batches[5].values, plain[5].values) and batches[5].values.shape == plain[5].values.shape


def test_tokens_of_copies(tiny_recipe: Path, tmp_path: Path) -> None:
    changes = {"modalities": ["depth", "caption"], "data.augment": {"copies": 2, "crop": 0.4}, "data.samples": 12}
    changes |= {"evaluate.requests": [], "evaluate.sheets": []}
    recipe = load_recipe(tiny_recipe, changes)
    catalog = claim(recipe, tmp_path)
    train_tokenizers(recipe, catalog, tmp_path)
    make_tokens(recipe, catalog, tmp_path)
    data = TokenData(tmp_path / "tokens" / "train", catalog)
    assert len(data) == 36 and len(TokenData(tmp_path / "tokens" / "validation", catalog)) == recipe.data.validation
    assert data.key(12) == f"{data.key(0)}~1"
    ids = data.columns(np.arange(36))["depth"].ids
    assert ids is not None and (ids[:12] != ids[12:24]).any() and (ids[12:24] != ids[24:]).any()
    before = (tmp_path / "tokens" / "train" / "depth" / "shard-00000.safetensors").read_bytes()
    for path in (tmp_path / "tokens" / "train" / "samples").iterdir():
        path.unlink()
    make_tokens(recipe, catalog, tmp_path)
    assert (tmp_path / "tokens" / "train" / "depth" / "shard-00000.safetensors").read_bytes() == before


def test_recipes_of_earlier_versions_mean_no_augmentation(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {source: scenes, split: {by: hash}}\n", encoding="utf-8")
    wanted = {"data": {"source": "scenes", "split": {}, "color": 0.0, "noise": {}, "shift": {}}}
    found = read_run_recipe(path, wanted)["data"]
    assert (found["color"], found["noise"], found["shift"]) == (0.0, {}, {})
    assert "color" not in read_run_recipe(path, {"data": {"augment": None}})["data"]
