"""What a message advises is what helps."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from maskweave.cli.main import main
from maskweave.training import pipeline


@pytest.mark.parametrize("name", ["train", "run"])
def test_an_interrupted_command_is_resumed_by_itself(
    name: str, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def stop(recipe: Any, *arguments: Any) -> None:
        said.append(arguments[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "claim", lambda recipe, folder: None)
    monkeypatch.setattr(pipeline, "train_model", stop)
    monkeypatch.setattr(pipeline, "run_recipe", stop)
    out = tmp_path / "a run"
    assert main([name, str(tiny_recipe), "--out", str(out), "--train.steps", "7"]) == 130
    assert shlex.split(said[0]) == ["maskweave", name, str(tiny_recipe), "--out", str(out), "--train.steps", "7"]
    assert not out.exists()
