"""Scores, heads' starts and calibrations encode batches in the precision of the device; heads compute in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_transfer import catalog, make_bundle, write_recipe

from maskweave.synthetic.scenes import Scenes
from maskweave.transfer import calibration, linear_start, scoring
from maskweave.transfer.build import load_transferred
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import run_transfer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


def test_all_bulk_work_is_in_batches_and_the_precision_of_the_device(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the precision of bulk work is bf16."""
    seen: dict[str, list[Any]] = {"start": [], "calibrate": [], "score": []}
    for name, module in {"start": linear_start, "calibrate": calibration}.items():
        real = module.encoded_for_head

        def encoded(encoder: Any, inputs: Any, device: Any, precision: Any, name: str = name, real: Any = real) -> Any:
            found = real(encoder, inputs, device, precision)
            seen[name].append((len(found.tokens), precision, found.tokens.dtype))
            return found

        monkeypatch.setattr(module, "encoded_for_head", encoded)
        monkeypatch.setattr(module, "bulk_precision", lambda device: "bf16")
    outputs = scoring.Transferred.outputs

    def scored(model: Any, values: Any, precision: Any = "float32") -> Any:
        found = outputs(model, values, precision)
        seen["score"].append((len(values), precision, found.dtype))
        return found

    monkeypatch.setattr(scoring.Transferred, "outputs", scored)
    monkeypatch.setattr(scoring, "bulk_precision", lambda device: "bf16")
    number = {"target": "metadata", "label": "brightness"}
    train = {"steps": 2, "batch_size": 8, "log_every": 1}
    data = {"samples": 120, "validation": 70}
    head = {"form": "gaussian", "calibrate": 0.2}
    recipe = load_transfer(write_recipe(tmp_path, bundle, **number, train=train, data=data, head=head))
    run_transfer(recipe, tmp_path / "run")
    assert [size for size, *_ in seen["score"]][:2] == [64, 6]
    assert max(size for size, *_ in seen["start"]) == 32
    for calls in seen.values():
        assert calls and {(precision, dtype) for _, precision, dtype in calls} == {("bf16", torch.float32)}, seen


def test_bf16_changes_outputs_little(bundle: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, bundle, target="depth", train={"steps": 1, "batch_size": 4})
    run_transfer(load_transfer(recipe), tmp_path / "run")
    model = load_transferred(tmp_path / "run")
    samples = [{"rgb": sample["rgb"]} for sample in Scenes(catalog(["rgb"]), 3, 0)]
    exact, bulk = (model.outputs(samples, precision) for precision in ("float32", "bf16"))
    assert exact.dtype == bulk.dtype == torch.float32 and not torch.equal(exact, bulk)
    assert (exact - bulk).abs().max() < 0.05 * exact.abs().max()
