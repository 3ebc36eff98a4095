"""The labels that the studies of masked autoencoding read off the names of emoji."""

import numpy as np
import pytest
from m3ae_baselines import settings_of
from m3ae_trials import SHIFTS, SHOWN, _base, _recipe, _shown, _tone, shuffle_patches

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
    shuffled = shuffle_patches(rows)
    assert (shuffled != rows).any() and (np.sort(shuffled, axis=1) != rows).any()
    for before, after in zip(rows, shuffled, strict=True):
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    assert all(abs(shift(rows) - rows).mean() > 5 for shift in SHIFTS.values())
