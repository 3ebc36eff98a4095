"""The studies of 4M: what they set can be drawn, pre-trained, probed and learned from."""

from pathlib import Path

import modality_ablation
import more_modalities
import numpy as np
import pytest
import scaling
import token_allocation
import token_budget
import transfer_pretraining as transfer
import transfers
from pretraining import demo_for, pretrain, untrained

from maskweave import load
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.transfer.recipe import load_transfer

SETTINGS = transfer.SETTINGS | modality_ablation.SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_drawn(name: str) -> None:
    setting = SETTINGS[name]
    masking = MaskingConfig(**transfers.TOKENS, mixtures=[setting.mixture])
    recipe = demo_for(0, 1, masking, modalities=list(setting.modalities))
    assert recipe.model.masking == masking
    MaskSampler(recipe.load_catalog(), recipe.model.masking)
    assert recipe.train.processes == 1 and not recipe.evaluate.requests


@pytest.mark.parametrize("task", transfers.TASKS)
def test_every_task_can_be_loaded(task: str) -> None:
    how = transfers.TASKS[task]
    recipe = load_transfer(transfers.RECIPES / f"transfer-scenes-{how.recipe}.yaml", how.changes)
    assert recipe.inputs == ["rgb"] and recipe.tuning.parameters == "all"
    assert recipe.target == {"count": "metadata"}.get(task, task)
    assert set(transfer.TASKS) < set(transfers.TASKS)


def test_scaling_changes_one_thing_at_a_time() -> None:
    largest = scaling.Setting("4M")
    for axis, settings in scaling.axes_of("4M").items():
        assert settings[-1] == largest
        for setting in settings[:-1]:
            assert sum(a != b for a, b in zip(setting, largest, strict=True)) == 1, axis
    for family in scaling.FAMILIES:
        recipe = scaling.recipe_of(scaling.Setting(family, width=64), 30, 2)
        assert (recipe.model.width, recipe.model.heads, recipe.train.steps, recipe.train.samples_per_step) == (
            64,
            2,
            30,
            16,
        )
        assert (recipe.seed, recipe.train.seed) == (2, 2)
        recipe.family.check(recipe.model, recipe.load_catalog())


def test_a_power_law_is_found_again() -> None:
    law, x = scaling.PowerLaw(0.3, 20.0, 0.6), np.geomspace(100, 10_000, 6)
    rng = np.random.default_rng(0)
    found = scaling.PowerLaw.fit({one: law(one) * (1 + 1e-3 * rng.standard_normal(3)) for one in x})
    assert found is not None
    assert found.floor == pytest.approx(0.3, abs=0.05) and found.exponent == pytest.approx(0.6, abs=0.05)
    assert found(x) == pytest.approx(law(x), rel=0.02)


def test_no_law_has_an_error_of_zero() -> None:
    assert scaling.PowerLaw.fit({1: [0.5], 2: [0.25], 4: [0.1, 0.0]}) is None
    assert scaling.PowerLaw.fit({1: [0.5], 2: [0.25]}) is None


def test_the_size_of_m3ae_is_that_of_its_encoder() -> None:
    """Its parameters grow with the square of the width, but for vectors."""
    counts = []
    for width in (32, 64):
        recipe = scaling.recipe_of(scaling.Setting("M3AE", width=width), 30, 0)
        model = recipe.family.build_model(recipe.load_catalog(), recipe.model)
        counts.append(scaling.parameters_of("M3AE", model))
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.1)


def test_modalities_are_added_to_those_before() -> None:
    sets = more_modalities.SETS
    assert [len(names) for names in sets] == [3, 7, 11] and set(sets[0]) < set(sets[1]) < set(sets[2])
    steps = {name: setting.factor for name, setting in more_modalities.SETTINGS.items()}
    assert steps[f"11, {more_modalities.PER_MODALITY}"] == pytest.approx(11 / 3)
    for setting in more_modalities.SETTINGS.values():
        recipe = demo_for(0, 1, more_modalities.MASKING, modalities=list(setting.modalities))
        MaskSampler(recipe.load_catalog(), recipe.model.masking)


def test_counts_change_the_drawing_alone() -> None:
    recipes = [token_budget.recipe_of(count, 0, 5) for count in token_budget.COUNTS]
    assert [r.model.masking.target_tokens for r in recipes] == list(token_budget.COUNTS)
    assert len({repr(r.model.masking.mixtures) for r in recipes}) == 1


@pytest.mark.slow
def test_pretraining_of_some_modalities_on_shared_tokens(tiny_run: Path, tmp_path: Path) -> None:
    recipe = demo_for(0, 2, MaskingConfig(32, 32, [transfer.FROM_PICTURES]), modalities=["rgb", "tok_rgb"])
    pretrain(recipe, tmp_path / "trained", tiny_run)
    untrained(recipe, tmp_path / "untrained", tiny_run)
    assert (tmp_path / "trained/tokens").resolve() == tiny_run / "tokens"
    one, other = (load(tmp_path / name).model.state_dict() for name in ("trained", "untrained"))
    assert one.keys() == other.keys() and any((one[name] != other[name]).any() for name in one)


def test_a_step_has_16_samples() -> None:
    assert demo_for(0, 1).train.samples_per_step == 16
    scenes = token_allocation.recipe_of(Path(), token_allocation.DATA["scenes"])
    assert scenes.train.batch_size == 16
