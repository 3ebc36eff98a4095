"""Two processes that share the features and the scores of transfers get what one process gets, bit for bit."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_transfer import make_bundle, write_recipe

from maskweave import ranks
from maskweave.modality.catalogs import save_catalog
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.training.processes import run_together
from maskweave.transfer import linear_start, scoring
from maskweave.transfer.build import build_objective, load_transferred, save_transferred
from maskweave.transfer.data import open_examples
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import FITTED
from maskweave.transfer.scoring import score_transfer
from maskweave.transfer.shares import answers
from maskweave.transfer.task import fit_facts

pytestmark = pytest.mark.slow  # tests/evaluate/test_evaluation_together.py has two processes in the fast set

TASKS: dict[str, dict[str, Any]] = {
    "label": {"target": "metadata", "label": "object_count"},
    "number": {"target": "metadata", "label": "brightness"},
    "depth": {"target": "depth"},
    "boxes": {"target": "boxes"},
    "boxes3d": {"target": "boxes3d", "catalog": "scenes-3d"},
}


def scored(root: Path, out: Path) -> None:
    """Starts the head of each task from a linear model, saves it, and scores it; files are written by the first process."""
    scoring.BATCH, linear_start.BATCH = 3, 5
    for name in TASKS:
        recipe = load_transfer(root / name / "transfer.yaml")
        catalog = recipe.load_catalog()
        examples = open_examples(recipe.data, catalog, recipe.inputs, recipe.target, recipe.label)
        target = examples.train.target
        facts = fit_facts(target, answers(examples.train, FITTED), recipe.head)
        objective, _ = build_objective(recipe, catalog, target, facts)
        tokenizers = load_tokenizers(Path(recipe.start) / "tokenizers", objective.encoder.catalog)
        linear_start.start_from_linear(objective, examples.train, tokenizers)
        rank = ranks.rank()
        save_file(objective.head.state_dict(), out / f"{name}-{rank}.safetensors")
        if not (root / name / "model").exists() and rank == 0:
            save_transferred(objective, catalog, target, recipe, root / name)
        rows = score_transfer(load_transferred(root / name), *examples, seed=0)
        assert bool(rows) == (rank == 0)
        if rank == 0:
            (out / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("together")
    start = make_bundle(root / "start")
    for name, task in TASKS.items():
        (root / name).mkdir()
        recipe = load_transfer(write_recipe(root / name, start, **task, data={"samples": 40, "validation": 11}))
        save_catalog(recipe.load_catalog(), root / name)
        shutil.copytree(start / "tokenizers", root / name / "tokenizers")
    for name in ("one", "two"):
        (root / name).mkdir()
    before = scoring.BATCH, linear_start.BATCH
    scored(root, root / "one")
    scoring.BATCH, linear_start.BATCH = before
    run_together(2, scored, root, root / "two")
    return root / "one", root / "two"


@pytest.mark.parametrize("task", TASKS)
def test_scores_and_heads_are_those_of_one_process(folders: tuple[Path, Path], task: str) -> None:
    one, two = folders
    assert (
        (one / f"{task}.json").read_text(encoding="utf-8") == (two / f"{task}.json").read_text(encoding="utf-8") != "[]"
    )
    alone = load_file(one / f"{task}-0.safetensors")
    for rank in range(2):
        together = load_file(two / f"{task}-{rank}.safetensors")
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name], together[name]) for name in alone), rank
