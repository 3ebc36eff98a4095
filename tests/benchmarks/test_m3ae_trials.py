"""The labels that the studies of masked autoencoding read off the names of emoji."""

from types import SimpleNamespace

import numpy as np
import pytest
from m3ae_baselines import settings_of
from m3ae_trials import SHIFTS, SHOWN, Shift, _base, _features, _recipe, _shown, _tone, add_noise, shuffle_patches

from maskweave.data.columns import Column
from maskweave.masking.m3ae import MaskedTokens
from maskweave.modality.catalogs import load_catalog

TONED = "emoji modifier fitzpatrick type-"


@pytest.mark.parametrize(
    ("name", "shown", "tone"),
    [
        ("regional indicator symbol letter d e", "flag", None),
        ("regional indicator symbol letter d", None, None),
        ("waving black flag, tag latin small letter g b s c t", "flag", None),
        ("clock face one oclock", "clock", None),
        (f"woman, {TONED}4, rocket", "woman", 2),
        (f"runner, {TONED}1-2, female sign", "woman", 0),
        (f"man in tuxedo, {TONED}6, male sign", "man", 4),
        (f"man, {TONED}3, heavy black heart, woman, {TONED}6", None, None),
        (f"adult, {TONED}3, rocket", None, 1),
        (f"thumbs up sign, {TONED}5", "hand", 3),
        ("grinning face", "face", None),
        ("smiling face with smiling eyes and hand covering mouth", "face", None),
        (f"happy person raising one hand, {TONED}5", None, 3),
        (f"face with ok gesture, {TONED}3", None, 1),
        ("crystal ball", None, None),
    ],
)
def test_labels_of_emoji(name: str, shown: str | None, tone: int | None) -> None:
    parts = name.split(", ")
    found = _shown(parts)
    assert (None if found is None else list(SHOWN)[found]) == shown
    assert _tone(parts) == tone


def test_variants_of_an_emoji_stay_together() -> None:
    variants = ["adult, rocket", f"woman, {TONED}4, rocket", f"man, {TONED}6, rocket"]
    assert len({_base(name.split(", ")) for name in variants}) == 1
    assert _base(["runner", f"{TONED}3", "male sign"]) == "runner" != _base(["surfer"])


@pytest.mark.parametrize("kind", ["scenes", "emoji"])
def test_all_objectives_see_as_many_samples(kind: str) -> None:
    recipes = {name: _recipe(kind, 30, 16, setting, 1) for name, setting in settings_of(kind).items()}
    assert len({(r.train, r.seed) for r in recipes.values()}) == 1
    assert recipes["contrastive"].model.group_size == 16
    sizes = {name: recipe.model.resolved() for name, recipe in recipes.items()}
    assert len({(s.width, s.depth, s.heads, s.mlp_ratio) for s in sizes.values()}) == 1, "the same encoder"


def test_shifts_change_pictures_and_shuffling_only_their_patches() -> None:
    rows = np.random.default_rng(0).integers(0, 255, (3, 16, 12)).astype(float)
    shuffled = shuffle_patches(rows, np.random.default_rng(0))
    assert (shuffled != rows).any() and (np.sort(shuffled, axis=1) != rows).any()
    for before, after in zip(rows, shuffled, strict=True):
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    assert all(abs(shift(rows, np.random.default_rng(0)) - rows).mean() > 5 for shift in SHIFTS.values())


@pytest.mark.parametrize("shift", [add_noise, shuffle_patches])
def test_equal_pictures_are_shifted_each_in_its_own_way(shift: Shift) -> None:
    """Also those of another batch: features are computed 250 at a time."""
    pictures = load_catalog("scenes").subset(["rgb"])
    m = pictures["rgb"]
    row = np.random.default_rng(0).integers(50, 200, (1, m.tokens, m.row_width), dtype=np.uint8)

    def columns(numbers: np.ndarray) -> dict[str, Column]:
        return {"rgb": Column(np.ones(len(numbers), bool), rows=row.repeat(len(numbers), axis=0))}

    def features(parts: dict[str, MaskedTokens]) -> SimpleNamespace:
        return SimpleNamespace(pooled=parts["rgb"].content[:, :, :8].flatten(1))

    data, model = SimpleNamespace(catalog=pictures, columns=columns), SimpleNamespace(features=features)
    found = _features(model, data, {"any": [0] * 300}, shift)  # type: ignore[arg-type]
    assert len(found.unique(dim=0)) == 300
