"""A run with all that small data sets ask for: augmentation, early stopping, a residual quantizer, advice."""

from pathlib import Path

import numpy as np
import pytest

import maskweave
from maskweave.cli.main import main
from maskweave.data.token_store import TokenData
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import shipped_folder
from maskweave.training.early_stopping import SPLIT
from maskweave.training.metrics import read_metrics


def test_a_run_with_everything_for_small_data(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = read_yaml(shipped_folder() / "scenes.yaml")
    catalog["modalities"]["depth"]["tokenizer"]["quantizer"] = {"type": "residual", "codes": 8, "dim": 8, "depth": 2}
    write_yaml(tmp_path / "own.yaml", catalog)
    recipe = read_yaml(tiny_recipe)
    early = {
        "validate_every": 2,
        "early_stopping": {"patience": 2, "min_delta": 5.0},
    }  # nothing falls so far: it stops at once
    recipe["catalog"], recipe["modalities"] = str(tmp_path / "own.yaml"), ["depth", "caption"]
    recipe["data"] |= {"augment": {"copies": 1, "crop": 0.5, "flip": 0.5, "noise": {"depth": 0.02}}}
    recipe["tokenizers"]["train"] |= {"steps": 12, **early}
    recipe["train"] |= early
    recipe["evaluate"] = {"samples": 4, "requests": [{"inputs": ["caption"], "targets": ["depth"]}]}
    write_yaml(tmp_path / "recipe.yaml", recipe)
    folder = tmp_path / "run"
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(folder)]) == 0
    out = capsys.readouterr().out

    data = TokenData(folder / "tokens" / "train", maskweave.load(folder).catalog)
    assert len(data) == 96
    ids = data.columns(np.arange(96))["depth"].ids
    assert ids is not None and ids.max() < 64 and len(np.unique(ids)) > 8, "codes of both levels"
    for part, last in ((folder, 40), (folder / "tokenizers" / "depth", 12)):
        (end,) = (line for line in read_metrics(part) if line["split"] == SPLIT)
        assert (end["step"], end["best_step"], end["last_step"]) == (6, 2, last)
    told = "advice: stopped early at step 6 of 40: the validation loss was lowest"
    assert told in out and "advice: tokenizer depth: stopped early at step 6 of 12" in out
    assert "stopped early at step 6 of 40" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(folder)]) == 0
    assert "already finished" in capsys.readouterr().out
