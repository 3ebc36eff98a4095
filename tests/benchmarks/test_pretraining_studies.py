"""The studies of 4M: what they set can be drawn, pre-trained, probed and learned from."""

from pathlib import Path

import pytest
import token_allocation
import token_budget
import transfer_pretraining as transfer
from pretraining import demo_for, pretrain, untrained

from maskweave import load
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.transfer.recipe import load_transfer


@pytest.mark.parametrize("name", transfer.SETTINGS)
def test_every_setting_can_be_drawn(name: str) -> None:
    setting = transfer.SETTINGS[name]
    masking = MaskingConfig(**transfer.TOKENS, mixtures=[setting.mixture])
    recipe = demo_for(0, 1, masking, modalities=list(setting.modalities))
    assert recipe.model.masking == masking
    MaskSampler(recipe.load_catalog(), recipe.model.masking)
    assert recipe.train.processes == 1 and not recipe.evaluate.requests


@pytest.mark.parametrize("task", transfer.TASKS)
def test_every_task_can_be_loaded(task: str) -> None:
    path = transfer.RECIPES / f"transfer-scenes-{task}.yaml"
    recipe = load_transfer(path, transfer.TASKS[task])
    assert recipe.inputs == ["rgb"] and recipe.tuning.parameters == "all"


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
