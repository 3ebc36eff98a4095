"""`maskweave studio`: wrong arguments are told before the page opens; right ones reach the server."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from maskweave.cli import studio as command
from maskweave.cli.main import main
from maskweave.studio.bounds import Bounds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere"),
        (["--data", "scenes", "--seconds", "0"], "--seconds is 0; expected a whole number"),
        (["--data", "scenes", "--upload-mb", "x"], "upload_mb"),
    ],
)
def test_wrong_arguments(words, said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "serve", Mock(side_effect=AssertionError("the page opens")))
    assert main(["studio", *words]) == 1
    assert said in capsys.readouterr().err


def test_the_page_is_served_with_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    serve = Mock()
    monkeypatch.setattr(command, "serve", serve)
    assert main(["studio", "--data", "scenes", "--no-browser", "--port", "7900", "--samples", "3"]) == 0
    (offered, bounds), options = serve.call_args
    assert list(offered.data) == ["scenes"] and list(offered.bundles) == ["scenes"]
    assert bounds == Bounds(samples=3) and options == {"port": 7900, "opens": False}


@pytest.mark.parametrize("holds", ["no runs", "results", "a run"])
def test_without_words_it_offers_the_runs_and_the_shipped_bundle(
    holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if holds != "no runs":
        (tmp_path / "runs" / "out").mkdir(parents=True)
    if holds == "a run":
        (tmp_path / "runs" / "out" / "recipe.yaml").touch()
    serve = Mock()
    monkeypatch.setattr(command, "serve", serve)
    assert main(["studio"]) == 0
    offered = serve.call_args.args[0]
    assert list(offered.bundles) == ["scenes"]
    assert list(offered.runs) == (["runs/out"] if holds == "a run" else [])
