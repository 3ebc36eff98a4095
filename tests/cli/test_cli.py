"""The commands, from a recipe to a report and to files, on a tiny run; and what is left when they are stopped or killed."""

import contextlib
import dataclasses
import errno
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser
from PIL import Image
from timeless import numbers

import maskweave
from maskweave.cli import main as commands
from maskweave.cli.main import COMMANDS, main
from maskweave.cli.train import typed_recipe
from maskweave.config import plain
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.families.base import ModelSettings
from maskweave.families.m3ae import M3AESettings
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.masking.m3ae import MaskRatio
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.synthetic.scenes import Scenes
from maskweave.training import launch
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import PATHS, Recipe, load_recipe
from maskweave.transfer.recipe import TransferRecipe, load_transfer

LAYOUT = {
    "checkpoints", "evaluation.json", "events", "metrics.jsonl", "modalities.yaml", "model", "recipe.yaml", "report.html", "sheets", "tokenizers", "tokens",
}  # fmt: skip
ROW = {
    "low",
    "high",
    "references",
    "inputs",
    "target",
    "metric",
    "better",
    "value",
    "constant",
    "tokenizer",
    "samples",
    "seed",
    "part",
}


def without_training(run: Path, to: Path) -> Path:
    """A copy of a run as it is when its tokens are there and its training has not begun."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("events"))
    for name in ("checkpoints", "model", "sheets"):
        shutil.rmtree(to / name)
    for name in ("metrics.jsonl", "evaluation.json", "report.html"):
        (to / name).unlink()
    return to


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_folder_has_the_documented_layout(tiny_run: Path, tiny_recipe: Path, scenes_catalog: Catalog) -> None:
    assert {path.name for path in tiny_run.iterdir()} == LAYOUT
    grids = {m.name for m in scenes_catalog.values() if m.kind == "grid"}
    assert {path.name for path in (tiny_run / "tokenizers").iterdir()} == grids | {"text"}
    for name in grids:
        assert {"config.json", "model.safetensors", "metrics.jsonl"} <= {
            path.name for path in (tiny_run / "tokenizers" / name).iterdir()
        }
    assert {path.name for path in (tiny_run / "model").iterdir()} == {"config.json", "model.safetensors"}
    assert [path.name for path in sorted((tiny_run / "checkpoints").iterdir())] == ["step-00000030", "step-00000040"]
    assert {path.name for path in (tiny_run / "tokens").iterdir()} == {"train", "validation"}
    written = yaml.safe_load((tiny_run / "recipe.yaml").read_text(encoding="utf-8"))
    assert written == plain(load_recipe(tiny_recipe)), "complete, with every default"
    assert load_catalog(tiny_run / "modalities.yaml").to_plain() == scenes_catalog.to_plain()


def test_the_evaluation_is_a_list_of_rows(tiny_run: Path) -> None:
    rows = json.loads((tiny_run / "evaluation.json").read_text(encoding="utf-8"))
    assert {row["target"] for row in rows} == {"depth", "normal", "semseg", "edges", "caption", "boxes", "tok_rgb"}
    for row in rows:
        assert set(row) == ROW
        assert row["better"] in ("lower", "higher")
        assert row["samples"] == 4 and row["seed"] == 1
        assert all(row[key] is None or isinstance(row[key], float) for key in ("value", "constant", "tokenizer"))


def test_the_report_holds_everything_itself(tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert "AbsRel" in page and "data:image/" in page and "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_same_command_again_does_nothing(
    tiny_run: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, began = files(tiny_run), time.process_time()
    assert main(["run", str(tiny_recipe), "--out", str(tiny_run)]) == 0
    assert time.process_time() - began < 5
    assert "already finished" in capsys.readouterr().out
    changed = {name for name, when in files(tiny_run).items() if before.get(name) != when}
    assert changed <= {"modalities.yaml"} and before.keys() == files(tiny_run).keys()


def test_a_recipe_names_its_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's copy is read again from other folders, to go on or to evaluate for instance."""
    monkeypatch.chdir(tmp_path)
    mix = "mix: {a: {source: one, sidecar: ../two}, b: {source: scenes, samples: 5}}"
    (tmp_path / "r.yaml").write_text(
        f"start: runs/b\ntokenizers: {{reuse: runs/b/tokenizers}}\ndata: {{{mix}}}\n", encoding="utf-8"
    )
    recipe = load_recipe("r.yaml")
    data = recipe.data
    assert (data.mix["a"].source, data.mix["a"].sidecar) == (str(tmp_path / "one"), str(tmp_path.parent / "two"))
    assert data.mix["b"].source == "scenes" and data.sidecar == ""
    assert (recipe.start, recipe.tokenizers.reuse) == (f"{tmp_path}/runs/b", f"{tmp_path}/runs/b/tokenizers")
    assert load_recipe("r.yaml", {"start": "owner/name"}).start == str(tmp_path / "owner" / "name")
    (tmp_path / "r.yaml").write_text(
        "inputs: [rgb]\nstart: runs/b\ndata: {held_out: scenes, pictures: scenes}\n", encoding="utf-8"
    )
    transfer = load_transfer("r.yaml", {"data.source": "three"})
    assert (transfer.start, transfer.data.source) == (f"{tmp_path}/runs/b", str(tmp_path / "three"))
    assert (transfer.data.held_out, transfer.data.pictures) == ("scenes", str(tmp_path / "scenes"))


def texts_of(kind: Any, key: str = "") -> set[str]:
    """The keys of a recipe that take one text."""
    if dataclasses.is_dataclass(kind):
        return {key for name, hint in get_type_hints(kind).items() for key in texts_of(hint, name)}
    return {key} if kind is str else texts_of(get_args(kind)[1]) if get_origin(kind) is dict else set()


def test_every_text_of_a_recipe_is_known_to_be_a_path_or_none() -> None:
    no_paths = {
        "catalog",
        "family",
        "size",
        "target",
        "label",
        "group",
        "",
    }  # a catalog is told by its ending; "": fields of tars by modality
    models = {key for settings in ModelSettings.variants() for key in texts_of(settings)}
    assert texts_of(Recipe) | texts_of(TransferRecipe) | models == {*PATHS, *no_paths}


@pytest.mark.parametrize(
    ("words", "new"),
    [
        ("run R --drawing.input_tokens 3", "--model.masking.input_tokens"),
        ("run R --drawing.input_tokens=3", "--model.masking.input_tokens"),
        ("train R --objective m3ae", "--model.family"),
        ("tokenize R --loss token", "--model.loss"),
        ("recipe check R --m3ae.model.size B", "--model.size"),
        ("run R --m3ae.unpaired 0.5", "--model.unpaired"),
        ("run R --data.beside x", "--data.sidecar"),
        ("run R --data.mix.web.beside x", "--data.mix.web.sidecar"),
        ("run R --model.informed true", "--model.init_from_tokenizers"),
        ("run R --model.normalised_patches true", "--model.normalized_patches"),  # codespell:ignore
        ("run R --catalogue scenes", "--catalog"),  # codespell:ignore
        ("transfer R --catalogue scenes", "--catalog"),  # codespell:ignore
        ("data import A B --catalogue photos", "--catalog"),  # codespell:ignore
        ("data label A --catalogue photos", "--catalog"),  # codespell:ignore
        ("import 4m M --catalogue 4m", "--catalog"),  # codespell:ignore
        ("generate R --apart", "--no-chain"),
        ("generate R --grow", "--guide-with-finished"),
        ("retrieve index R D --through global", "--feature-modality"),
    ],
)
def test_an_old_option_names_the_new_one(words: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    old = next(word for word in words.split() if word.startswith("--")).partition("=")[0]
    assert f"the option {old!r} is now {new!r}; rename it" in said and said.count("\n") == 1


def test_an_old_name_of_the_package_names_the_new_one() -> None:
    with pytest.raises(
        AttributeError,
        match="maskweave.load_catalogue is now maskweave.load_catalog",  # codespell:ignore
    ):  # codespell:ignore
        maskweave.load_catalogue  # codespell:ignore
    assert maskweave.load_catalog is load_catalog


def test_a_recipe_s_model_keys_can_be_typed_for_every_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(*words: str) -> Recipe:
        parser = ArgumentParser(exit_on_error=False)
        COMMANDS["run"].add_arguments(parser)
        recipe, _, _ = typed_recipe(parser.parse_args([str(path), *words], defaults=False))
        return recipe

    path = tmp_path / "r.yaml"
    path.write_text("modalities: [rgb, caption]\ndata: {samples: 5}\n", encoding="utf-8")
    mixtures = '[{"inputs": {"rgb": 1}, "targets": {"caption": 1}}]'
    model = typed(
        "--model.masking.input_tokens", "5", "--model.masking.mixtures", mixtures, "--model.width", "64"
    ).model
    assert model.masking == MaskingConfig(5, mixtures=[Mixture({"rgb": 1.0}, {"caption": 1.0})]) and model.width == 64
    model = typed("--model.family", "m3ae", "--model.mask_ratio.patches", "0.5", "--model.width", "64").model
    assert model == M3AESettings(width=64, mask_ratio=MaskRatio(patches=0.5))
    assert main(["recipe", "check", str(path), "--model.family", "m3ae", "--model.masking.input_tokens", "5"]) == 1
    assert "unknown key 'model.masking'; it is only valid if model.family is 'fourm'" in capsys.readouterr().err


def test_a_run_goes_on_from_another_folder(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = without_training(tiny_run, tmp_path / "run")
    (folder / "recipe.yaml").unlink()
    monkeypatch.chdir(tiny_run.parent)
    words = ["--start", tiny_run.name, "--tokenizers.reuse", f"{tiny_run.name}/tokenizers", "--train.steps", "2"]
    assert main(["tokenizer", str(tiny_recipe), "--out", str(folder), *words]) == 0
    shutil.rmtree(folder / "tokenizers" / "edges")
    monkeypatch.chdir(tmp_path)
    for command in ("tokenizer", "train"):
        assert main([command, "run/recipe.yaml", "--out", "run"]) == 0
    reused, taken = (run / "tokenizers" / "edges" / "model.safetensors" for run in (folder, tiny_run))
    assert reused.read_bytes() == taken.read_bytes()


def test_another_recipe_in_the_same_folder_is_refused(
    tiny_run: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tiny_run)
    assert main(["run", str(tiny_recipe), "--out", str(tiny_run), "--seed", "7", "--model.size", "micro"]) == 1
    said = capsys.readouterr().err
    assert "another recipe" in said and "seed" in said and "model.size" in said and "--out" in said
    assert main(["run", str(tiny_recipe), "--out", str(tiny_run), "--train.batch_size", "4"]) == 1
    assert "its steps have" in capsys.readouterr().err
    assert files(tiny_run) == before


def test_more_steps_go_on_from_a_finished_run(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["run", str(tiny_recipe), "--out", str(longer), "--train.steps", "44"]) == 0
    assert [line["step"] for line in read_metrics(longer) if line["split"] == "train"] == list(range(1, 45))
    assert "already finished" not in capsys.readouterr().out, "the evaluation is of the new model"
    assert (longer / "model" / "model.safetensors").read_bytes() != (
        tiny_run / "model" / "model.safetensors"
    ).read_bytes()


def test_two_runs_of_a_recipe_are_identical(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    assert main(["tokenizer", str(tiny_recipe), "--out", str(tmp_path / "run")]) == 0
    assert main(["tokenize", str(tiny_recipe), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", str(tiny_recipe), "--out", str(tmp_path / "run")]) == 0
    assert numbers(tmp_path / "run") == numbers(tiny_run)
    for name in ("depth", "tok_rgb"):
        assert numbers(tmp_path / "run" / "tokenizers" / name) == numbers(tiny_run / "tokenizers" / name)
    assert not (tmp_path / "run" / "cache").exists()


def test_evaluate_on_other_scenes_repeats_exactly(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    found = []
    for _ in range(2):
        assert main(["evaluate", str(copy), "--scenes-seed", "12345", "--samples", "8"]) == 0
        found.append((copy / "evaluation.json").read_bytes())
    assert found[0] == found[1] != (tiny_run / "evaluation.json").read_bytes()
    assert all(row["seed"] == 12345 and row["samples"] == 8 for row in json.loads(found[0]))
    assert "AbsRel" in capsys.readouterr().out


def test_generate_writes_values_and_pictures(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(photo)
    words = ["generate", str(tiny_run), "--input", f"rgb={photo}", "--target", "depth,caption", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    assert str(tmp_path / "a") in capsys.readouterr().out
    depth = np.load(tmp_path / "a" / "depth.npy", allow_pickle=False)
    assert depth.shape == (64, 64) and 0 <= depth.min() <= depth.max() <= 16
    assert isinstance((tmp_path / "a" / "caption.txt").read_text(encoding="utf-8"), str)
    for name in ("depth.picture.png", "caption.picture.png", "sheet.png"):
        with Image.open(tmp_path / "a" / name) as picture:
            assert picture.width > 60
    assert main([*words, str(tmp_path / "b")]) == 0
    assert main([*words, str(tmp_path / "c"), "--seed", "5"]) == 0
    a, b, c = ((tmp_path / name / "caption.txt").read_bytes() for name in "abc")
    assert a == b != c


def test_scenes_written_as_files_import_back_equal(
    tmp_path: Path, scenes_catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "3", "--seed", "5"]) == 0
    written = {path.name for path in (tmp_path / "files").iterdir()}
    assert written == {m.name for m in scenes_catalog.values() if not m.source}
    import_folders(tmp_path / "files", tmp_path / "shards", scenes_catalog)
    back, scenes = Shards(tmp_path / "shards", scenes_catalog), Scenes(scenes_catalog, 3, 5)
    assert len(back) == 3
    for i in range(3):
        found, wanted = back[i], scenes[i]
        assert back.key(i) == scenes.key(i) and found.keys() == wanted.keys()
        for name, value in wanted.items():
            if name == "instances":
                assert [item["class"] for item in found[name]] == [item["class"] for item in value]
                assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(found[name], value, strict=True))
            elif isinstance(value, np.ndarray):
                np.testing.assert_allclose(
                    np.asarray(found[name], float), np.asarray(value, float), atol=1e-6, err_msg=name
                )
            else:
                assert found[name] == value, name
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "3"]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow  # tests/training/test_resume.py kills a run in the fast set
@pytest.mark.parametrize("at", [3, 25])
def test_killed_while_training(
    at: int, tiny_run: Path, tiny_recipe: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    folder = without_training(tiny_run, tmp_path / "run")
    command = start("run", tiny_recipe, "--out", folder, at=(folder / "metrics.jsonl", f'"step": {at},'))
    assert command.code == -signal.SIGKILL and not (folder / "model").exists()
    assert main(["run", str(tiny_recipe), "--out", str(folder)]) == 0
    assert numbers(folder) == numbers(tiny_run)
    assert (folder / "evaluation.json").read_bytes() == (tiny_run / "evaluation.json").read_bytes()
    assert {path.name for path in folder.iterdir()} == LAYOUT, "nothing half-written stays"


@pytest.mark.slow  # tests/training/test_resume.py kills a run in the fast set
def test_killed_while_tokenizing(tiny_run: Path, tiny_recipe: Path, tmp_path: Path, start: Callable[..., Any]) -> None:
    folder = without_training(tiny_run, tmp_path / "run")
    shutil.rmtree(folder / "tokens")
    lists = folder / "tokens" / "train" / "samples"
    command = start("run", tiny_recipe, "--out", folder, at=(lists / "shard-00001.json", ""))
    assert command.code == -signal.SIGKILL and not (folder / "tokens" / "validation").exists()
    kept = files(lists)
    assert main(["train", str(tiny_recipe), "--out", str(folder)]) == 1, "tokens are missing"
    assert main(["tokenize", str(tiny_recipe), "--out", str(folder)]) == 0
    assert main(["train", str(tiny_recipe), "--out", str(folder)]) == 0
    assert numbers(folder) == numbers(tiny_run)
    assert kept.items() <= files(lists).items(), "finished shards are kept"
    assert not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_ctrl_c_while_training_tells_how_to_go_on(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    folder = without_training(tiny_run, tmp_path / "a run")
    command = start(
        "run", tiny_recipe, "--out", folder, at=(folder / "metrics.jsonl", '"step": 3,'), send=signal.SIGINT
    )
    _, said = command.end()
    assert command.code == 130 and "Traceback" not in said
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert str(checkpoint) in said
    again = shlex.split(said.split("resume with: ")[1].splitlines()[0])
    assert again[0] == "maskweave" and main(again[1:]) == 0
    assert numbers(folder) == numbers(tiny_run)


@pytest.mark.slow
def test_ctrl_c_while_tokenizers_train_side_by_side(
    tiny_recipe: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    words = ["tokenizer", tiny_recipe, "--out", folder, "--only", "depth,edges"]
    words += ["--tokenizers.jobs", "2", "--tokenizers.train.log_every", "1"]
    words += ["--tokenizers.train.steps", "100000", "--tokenizers.train.checkpoint_every", "0"]  # one may be far ahead
    command = start(*words)
    tokenizers = [folder / "tokenizers" / name for name in ("depth", "edges")]
    command.when(
        lambda: all((tokenizer / "metrics.jsonl").exists() for tokenizer in tokenizers), signal.SIGINT, group=True
    )
    _, said = command.end()
    assert command.code in (1, 130) and "Traceback" not in said and "checkpoints" in said
    steps = []
    for tokenizer in tokenizers:
        (checkpoint,) = (tokenizer / "checkpoints").iterdir()
        steps.append(int(checkpoint.name.removeprefix("step-")))
        assert not (tokenizer / "config.json").exists()
    command = start(*words)
    command.when(
        lambda: all(
            any(
                line["step"] > step for line in read_metrics(tokenizer)
            )  # none yet if it was stopped before its first step
            for tokenizer, step in zip(tokenizers, steps, strict=True)
        ),
        signal.SIGKILL,
    )
    assert command.code == -signal.SIGKILL
    said = "".join(command.end())  # the pipes close when the last child has ended
    assert "Traceback" not in said, "children of a killed command end by themselves"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_names_every_argument(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    COMMANDS[name].add_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert COMMANDS[name].summary in " ".join(said.split())
    options = [option for action in parser._actions for option in action.option_strings[-1:] or [str(action.metavar)]]
    assert len(options) > (name != "doctor"), "doctor has no options but --help"
    assert [option for option in options if option not in said] == []


@pytest.mark.parametrize(("name", "rank"), [("generate", 0), ("generate", 1), ("run", 0), ("run", 1)])
def test_help_under_a_launcher_is_shown_once_and_ends_all(
    name: str, rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where only the first process has something to do."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    left: list[int] = []
    monkeypatch.setattr(launch, "launched", lambda: None)
    monkeypatch.setattr(launch, "leave", lambda: left.append(rank))
    with warnings.catch_warnings(), contextlib.suppress(SystemExit):
        main([name, "--help"])
    assert left == [rank], "it waits for the others, which wait for it"
    assert ("usage: maskweave" in capsys.readouterr().out) == (rank == 0)


def test_a_process_that_exits_with_an_error_does_not_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    left: list[int] = []
    monkeypatch.setattr(launch, "launched", lambda: None)
    monkeypatch.setattr(launch, "leave", lambda: left.append(0))
    with pytest.raises(SystemExit, match="3"), commands._launched_as_one("run"):
        raise SystemExit(3)
    assert left == []


def test_every_key_of_a_recipe_is_explained() -> None:
    parser = ArgumentParser()
    COMMANDS["run"].add_arguments(parser)
    keys = {action.dest: action.help for action in parser._actions if "." in action.dest}
    assert "Number of weight updates." in str(keys["train.steps"]) and len(keys) > 40
    assert [key for key, said in keys.items() if not said] == []


def test_the_overview_of_a_group_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert all((f"  {name} " in said) == name.startswith("data ") for name in COMMANDS)
    assert main(["data", "exporrt"]) == 2
    assert "unknown command 'data exporrt'" in capsys.readouterr().err


def test_the_overview_names_every_command(start: Callable[..., Any]) -> None:
    command = start("--help")
    said, _ = command.end()
    assert command.code == 0 and all(f"  {name} " in said for name in COMMANDS)
    assert main(["--version"]) == 0
    assert main(["runs"]) == 2


def test_the_overview_comes_at_once() -> None:
    program = "import sys; from maskweave.cli.main import main; main(['--help']); print({'torch', 'numpy', 'jsonargparse'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "not there", b"/a/b"), "/a/b: not there; check the path and its permissions"),
        (OSError(errno.ENOSPC, "no space left"), "no space left; free some space and run the same command again"),
        (OSError(5, "lost"), "lost; check the path and its permissions"),
    ],
)
def test_errors_of_the_system(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("maskweave.cli.data.values", fail)
    assert main(["values"]) == 1 and capsys.readouterr().err == f"maskweave values: {said}\n"
