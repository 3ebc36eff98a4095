"""What `recipe check` and the start of a run refuse: all that a run would refuse without any data. Nothing is written then."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskweave.cli.main import main
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import shipped_folder
from maskweave.training.buildable import check_buildable
from maskweave.training.distributed import check_device
from maskweave.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
COMMANDS = ("recipe check", "run", "tokenizer", "tokenize", "train")
Edit = Callable[[dict[str, Any]], None]


def own_catalog(folder: Path, edit: Edit) -> str:
    """The catalog of the scenes, changed."""
    content = read_yaml(shipped_folder() / "scenes.yaml")
    edit(content)
    write_yaml(folder / "own-catalog.yaml", content)
    return "own-catalog.yaml"


def recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"catalog": "scenes", "data": {"samples": 10}, **changes}), encoding="utf-8")
    return path


def few_values(content: dict[str, Any]) -> None:
    content["vocabularies"]["text"]["values"]["v0"] = 16


def unknown_words(content: dict[str, Any]) -> None:
    value = content["modalities"]["boxes"]["value"]
    value["classes"] = [*value["classes"], "orange pyramid"]  # which is not in the vocabulary's words


def short_sequence(content: dict[str, Any]) -> None:
    content["modalities"]["palette"]["max_tokens"] = 4


MISFITS: list[tuple[Edit, list[str], str]] = [
    (few_values, ["metadata"], "modality 'metadata': the most bins of value.keys needs v0=0 to v0=49, but vocabulary 'text' has 16 of v0"),
    (few_values, ["palette"], "modality 'palette': value.bins needs v0=0 to v0=63"),
    (unknown_words, ["boxes"], "modality 'boxes': value.classes: vocabulary 'text': has no entry for 'orange pyramid'"),
    (short_sequence, ["palette"], "modality 'palette': max_tokens is 4, but one color and the end take 5 tokens"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("edit", "names", "says"), MISFITS, ids=[f"{edit.__name__} {names[0]}" for edit, names, _ in MISFITS]
)
def test_entries_that_do_not_fit_their_vocabulary(
    command: str,
    edit: Edit,
    names: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = recipe(tmp_path, catalog=own_catalog(tmp_path, edit), modalities=names)
    out = [] if command == "recipe check" else ["--out", str(tmp_path / "run")]
    assert main([*command.split(), str(path), *out]) == 1
    said = capsys.readouterr()
    assert says in said.err and "valid" not in said.out and "\n" not in said.err.strip()
    assert not (tmp_path / "run").exists()


def test_corrected_entries_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, catalog=own_catalog(tmp_path, few_values), modalities=["metadata"])
    assert main(["recipe", "check", str(path)]) == 1
    own_catalog(tmp_path, lambda content: None)
    assert main(["recipe", "check", str(path)]) == 0
    assert "own.yaml: valid; 1 modalities (metadata); 10 samples" in capsys.readouterr().out


def test_words_that_texts_may_bring_are_not_missed(tmp_path: Path) -> None:
    """A class of one word may become a piece of the text tokenizer; one of two words never does."""

    def plain_classes(content: dict[str, Any]) -> None:
        content["modalities"]["boxes"]["value"]["classes"] = ["zebra", "okapi"]

    found = load_recipe(recipe(tmp_path, catalog=own_catalog(tmp_path, plain_classes), modalities=["boxes", "caption"]))
    assert check_buildable(found, found.load_catalog()) is None, "and nothing is refused"


def test_missing_folders_and_other_models_are_told(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(says: str, **changes: str) -> None:
        words = [word for key, value in changes.items() for word in (f"--{key.replace('__', '.')}", value)]
        for command, out in (("recipe check", []), ("run", ["--out", str(tmp_path / "run")])):
            assert main([*command.split(), str(tiny_recipe), *out, *words]) == 1
            assert says in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    refused("nowhere: no such folder in ", start=str(tmp_path / "nowhere"))
    refused("tokenizers.reuse: " + str(tmp_path / "gone"), tokenizers__reuse=str(tmp_path / "gone"))
    refused("has another architecture: width is 32 there and 64 here", start=str(tiny_run), model__width="64")
    ready = shutil.copytree(tiny_run / "tokenizers", tmp_path / "ready")
    own = own_catalog(tmp_path, lambda content: content["modalities"]["depth"]["value"].update(range=[0, 20]))
    refused(
        "the entry of 'depth' has changed since this tokenizer was trained",
        catalog=str(tmp_path / own),
        tokenizers__reuse=str(ready),
    )
    (ready / "text" / "tokenizer.json").write_text("{}", encoding="utf-8")
    refused("cannot be read as a tokenizer file", tokenizers__reuse=str(ready))


@pytest.mark.parametrize("key", ["train.device", "tokenizers.train.device"])
def test_a_device_that_is_not_here_is_told_first(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for command, out in (("recipe check", []), ("run", ["--out", str(tmp_path / "run")])):
        assert main([*command.split(), str(recipe(tmp_path)), *out, f"--{key}", "cuda"]) == 1
        assert "torch finds no CUDA device; set device to auto or cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_processes_than_gpus_are_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    path, out = str(recipe(tmp_path)), tmp_path / "run"
    assert main(["run", path, "--out", str(out), "--train.processes", "3"]) == 1
    assert "train.processes is 3, but this machine has 2 GPUs; set processes to 2 or auto" in capsys.readouterr().err
    assert not out.exists()
    assert main(["recipe", "check", path, "--train.processes", "3"]) == 0, "a recipe may be for another machine"
    check_device("auto", 2)
    check_device("cpu", 3)


def test_what_can_be_started_from_is_accepted(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--start", str(tiny_run), "--tokenizers.reuse", str(tiny_run / "tokenizers")]
    assert main(["recipe", "check", str(tiny_recipe), *words]) == 0
    assert ": valid; " in capsys.readouterr().out
    recipe = load_recipe(tiny_recipe, {"tokenizers.reuse": str(tmp_path / "gone")})
    check_buildable(
        recipe, recipe.load_catalog(), tiny_run
    )  # all tokenizers are there, so nothing is taken from elsewhere


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path, tmp_path: Path) -> None:
    if path.name.startswith("transfer-"):
        pytest.skip("of a transfer")
    # What they take from earlier runs is not here.
    recipe = load_recipe(path, {"tokenizers.reuse": "", "start": ""})
    check_buildable(recipe, recipe.load_catalog(), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.slow
def test_the_largest_model_takes_no_memory(tmp_path: Path) -> None:
    """In a process of its own, which may not take as much as the weights of XL would: 2.8 billion of them."""
    program = (
        "import resource\n"
        "from maskweave.models.fourm import FourM\n"
        "from maskweave.training.buildable import check_buildable\n"
        "from maskweave.training.recipe import load_recipe\n"
        f"recipe = load_recipe({str(RECIPES / '4m-21-xl.yaml')!r})\n"
        "check_buildable(recipe, recipe.load_catalog())\n"
        "model = FourM.without_weights(recipe.load_catalog(), recipe.model)\n"
        "print(sum(p.numel() for p in model.parameters()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    weights, memory = map(int, done.stdout.split())
    assert weights > 2e9 and memory < weights
