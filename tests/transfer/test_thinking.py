"""Thinking in modalities: generated tokens are inputs of the encoder, in training, evaluation and prediction."""

from pathlib import Path

import pytest
import torch
from small_transfer import make_bundle, write_recipe

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.synthetic.scenes import Scenes
from maskweave.transfer.build import load_transferred
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import run_transfer


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


def test_a_transfer_thinks_in_training_and_in_prediction(start: Path, tmp_path: Path) -> None:
    quick = {"steps": 2, "batch_size": 2, "checkpoint_every": 0, "log_every": 1}
    changes = {"target": "metadata", "label": "object_count", "think": ["semseg", "caption"], "train": quick}
    path = write_recipe(tmp_path, start, data={"samples": 4, "validation": 2}, **changes)
    rows = run_transfer(load_transfer(path), tmp_path / "run")
    assert rows[0].metric == "accuracy"
    model = load_transferred(tmp_path / "run")
    assert model.encoder.names == ["rgb", "semseg", "caption"] and model.encoder.given == ["rgb"]
    sample = Scenes(model.catalog, 1, seed=5)[0]
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    first = model.outputs([sample])
    assert torch.equal(first, model.outputs([{"rgb": sample["rgb"]}])), "only the inputs are read"
    by_itself = maskweave.load(start).generate({"rgb": sample["rgb"]}, ["semseg", "caption"], seed=0)
    for name in ("semseg", "caption"):
        assert (seen[0].content[name][0].numpy() == by_itself.tokens[name].flatten()).all()


@pytest.mark.parametrize(
    ("think", "message"),
    [
        (["rgb"], "'rgb' is an input already"),
        (["semsg"], "unknown modality 'semsg'; did you mean 'semseg'"),
    ],
)
def test_thoughts_that_are_refused(think, message, start: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, start, target="depth", think=think)
    with pytest.raises(MaskweaveError) as caught:
        run_transfer(load_transfer(path), tmp_path / "run")
    assert message in str(caught.value)
