"""`--part` of the commands that write shards: what parts make is what one process makes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from job_parts import check_parts
from jsonargparse import Namespace
from small_bundle import m3ae_bundle, save

from maskweave.cli.main import main
from maskweave.cli.shared import part_of
from maskweave.errors import MaskweaveError
from maskweave.ranks import WHOLE, JobPart

DATA = "data: {source: scenes, samples: 10, validation: 3, shard_size: 5, SIDECAR}\n"
CATALOGS = {"tokenize": "modalities: [rgb, caption]", "features": "catalog: scenes-global\nmodalities: [rgb, global]"}


def write_recipe(folder: Path, kind: str, data: str = "") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.yaml"
    path.write_text(f"{CATALOGS[kind]}\n{DATA.replace(', SIDECAR', data)}", encoding="utf-8")
    return str(path)


Check = Callable[[Callable[[Path], list[str]]], set[str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs a command in parts and as a whole, and returns the names of what is in its folder."""

    def job(words: list[str], part: JobPart) -> None:
        name = f"{part.index}/{part.count}" if part.count else "finish"
        if main([*words, *([] if part == WHOLE else ["--part", name])]):
            raise MaskweaveError(capsys.readouterr().err)

    def checked(command: Callable[[Path], list[str]]) -> set[str]:
        check_parts(lambda folder, part: job(command(folder), part), tmp_path / "out")
        return {path.name for path in (tmp_path / "out" / "parts").iterdir()}

    return checked


def test_parts_of_tokenize(check: Check, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "tokenize")
    assert main(["tokenizer", recipe, "--out", str(tmp_path / "run"), "--data.samples=15"]) == 0

    def command(folder: Path) -> list[str]:
        if not folder.exists():
            shutil.copytree(tmp_path / "run", folder)
        return ["tokenize", recipe, "--out", str(folder), "--data.samples=15"]

    assert check(command) == {"tokenizers", "tokens", "recipe.yaml", "modalities.yaml"}


def test_parts_of_retrieve_index(check: Check, tiny_run: Path) -> None:
    options = ["--views=rgb", "--samples=12", "--shard-size=4"]
    made = check(lambda folder: ["retrieve", "index", str(tiny_run), "scenes", f"--out={folder}", *options])
    assert "index.json" in made


def test_parts_of_data_features(check: Check, tmp_path: Path) -> None:
    options = [f"--encoder={save(m3ae_bundle(width=128), tmp_path / 'm3ae')}", "--modality=global", "--from=rgb"]

    def command(folder: Path) -> list[str]:
        return ["data", "features", write_recipe(tmp_path / folder.name, "features", f", sidecar: {folder}"), *options]

    assert check(command) == {"global"}


def test_launched_processes_have_their_parts_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a part typed in addition, shards would be done by none of them."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert part_of(Namespace(part=None)) == WHOLE
    with pytest.raises(MaskweaveError, match="--part is for processes that are not connected, .* remove it"):
        part_of(Namespace(part="0/2"))
