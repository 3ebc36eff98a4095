"""What a message advises is what helps: each test makes the situation, reads the advice out of the message, and follows it."""

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from jsonargparse import ArgumentParser
from small_bundle import save, small_bundle
from tiny_catalog import tiny

import maskweave
from maskweave.cli.main import COMMANDS, OF_RECIPES, RENAMED, main
from maskweave.data import tokenizing
from maskweave.data.folders import AlignedFiles
from maskweave.errors import MaskweaveError, shown_command
from maskweave.interop.m3ae import load_m3ae, save_m3ae
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.training import launch, layout, processes
from maskweave.training.loop import Stepper
from maskweave.training.warm_start import warm_start
from maskweave.transfer.build import load_transferred

PACKAGE = Path(maskweave.__file__).parent
RECIPE = """\
catalog: scenes
modalities: [rgb, semseg]
data: {source: scenes, samples: 16, validation: 4, shard_size: 8}
tokenizers: {samples: 8, train: {steps: 3, batch_size: 8}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 3, batch_size: 8}
evaluate: {samples: 2, requests: [{inputs: [rgb], targets: [semseg]}]}
"""
TRANSFER = """\
start: "{bundle}"
inputs: [rgb]
target: depth
data: {{samples: 16, validation: 4}}
head: {{width: 8, depth: 1, heads: 2, linear_start: false}}
train: {{steps: 3, batch_size: 8}}
"""
OPENING = (
    "evaluate RUN", "evaluate RUN --suite scenes", "report RUN", "card RUN", "generate RUN --target semseg --out made", "probe RUN scenes",
    "retrieve index RUN scenes --out index", "compress RUN small", "export RUN exported",
)  # fmt: skip
"""Commands that open a run. `studio` is not one of them: it shows a run in training."""


class Told(NamedTuple):
    """A message, what it advises, and what follows the advice: commands, and what is done by hand."""

    message: str
    advice: str
    then: list[list[Any] | Callable[[], Any]]


def tried(*words: object) -> tuple[int, str]:
    """Returns the exit code of a command, and its messages."""
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        code = main([*map(str, words)])
    return code, said.getvalue()


def interrupted(owner: Any, name: str, at: int, *words: object) -> str:
    """Returns the messages of a command that gets Ctrl-C when it calls a function the `at`th time."""
    whole, calls = getattr(owner, name), list[int]()

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, called)
        code, said = tried(*words)
    assert code == 130 and "Traceback" not in said, said
    return said


def command_in(message: str) -> list[str]:
    """Returns the words of the command that a message ends with."""
    (command,) = set(re.findall(r"with: maskweave (.+?)(?=;|$)", message, re.MULTILINE))
    return shlex.split(command)


class Place(NamedTuple):
    recipe: Path
    transfer: Path
    bundle: Path
    tokens: Path
    """A run folder with tokenizers and tokens."""
    out: Path
    """An empty folder of the test."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("advice") / "it's here"
    folder.mkdir()
    place = Place(*(folder / name for name in ("a recipe.yaml", "transfer.yaml", "bundle", "tokens", "")))
    save(small_bundle(), place.bundle)
    place.recipe.write_text(RECIPE, encoding="utf-8")
    place.transfer.write_text(TRANSFER.format(bundle=place.bundle), encoding="utf-8")
    assert tried("tokenizer", place.recipe, "--out", place.tokens)[0] == 0
    assert tried("tokenize", place.recipe, "--out", place.tokens)[0] == 0
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return made._replace(out=tmp_path / "it's out")


@pytest.mark.parametrize("name", [name for name in OF_RECIPES if name != "recipe check"])
def test_an_unfinished_folder_is_finished_as_the_commands_that_open_it_advise(name: str, place: Place) -> None:
    run = place.out / "run"
    if name in ("train", "tokenize"):
        shutil.copytree(place.tokens, run)
    where = (Stepper, "__call__", 2)
    if name == "tokenize":
        shutil.rmtree(run / "tokens")
        where = (tokenizing, "_write_shard", 2)
    interrupted(*where, name, place.transfer if name == "transfer" else place.recipe, "--out", run)
    messages = {}
    for command in OPENING:
        code, said = tried(*(run if word == "RUN" else word for word in command.split()))
        assert code or (command == "report RUN" and name != "transfer"), said  # it may report what there is
        if code:
            messages[command] = said
    if name == "transfer":
        with pytest.raises(MaskweaveError) as told:
            load_transferred(run)
        messages["load_transferred"] = str(told.value)
    (advised,) = {tuple(command_in(message)) for message in messages.values()}
    code, said = tried(*advised)
    assert code == 0 and (run / "evaluation.json").is_file(), said


def train_is_interrupted(place: Place) -> Told:
    run = shutil.copytree(place.tokens, place.out / "run")
    words = ["train", str(place.recipe), "--out", str(run), "--evaluate.samples", "1"]
    said = interrupted(Stepper, "__call__", 2, *words)
    assert command_in(said) == words
    return Told(said, "resume with", [words])


def transfer_is_interrupted(place: Place) -> Told:
    words = ["transfer", place.transfer, "--out", place.out / "run", "--fractions", "0.5, 1"]
    said = interrupted(Stepper, "__call__", 2, *words)
    is_complete = (place.out / "run" / "fractions.json").is_file
    return Told(said, "resume with", [command_in(said), is_complete])


def a_process_ends_before_the_first_step(place: Place) -> Told:
    run = shutil.copytree(place.tokens, place.out / "run")
    words = ["train", place.recipe, "--out", run, "--train.processes", "auto", "--train.device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "torch", SimpleNamespace(get_num_threads=lambda: 2))
        said = interrupted(Stepper, "__call__", 2, *words)
    return Told(said, "stopped before the first step; run the same command again to start", [words])


def another_process_is_lost(place: Place) -> Told:
    """One of two launched processes, seen from the other one. It is launched in name only."""
    run = shutil.copytree(place.tokens, place.out / "run")
    words = ["train", place.recipe, "--out", run]

    def lost(*_: Any) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    def ended(text: str, code: int = 1) -> None:
        print(text, file=sys.stderr)
        raise SystemExit(code)

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), pytest.raises(SystemExit):
        patch.setattr("maskweave.cli.main.ranks", SimpleNamespace(world=lambda: 2, rank=lambda: 0))
        patch.setattr(launch, "launched", lambda: None)
        patch.setattr(launch, "_launch", lambda: SimpleNamespace(has_failed=lambda seconds: False))
        patch.setattr(launch, "_ignore_sigterm", lambda: None)
        patch.setattr(launch, "fail", ended)
        patch.setattr(Stepper, "__call__", lost)
        main([*map(str, words)])
    advice = "another process of this job ended or lost its connection ([gloo/transport/tcp/pair.cc:534] Connection closed by peer); run the same command again to resume"
    return Told(said.getvalue(), advice, [words])


def a_tokenizer_s_process_is_killed(place: Place) -> Told:
    """While two tokenizers train side by side."""
    words = ["tokenizer", place.recipe, "--out", place.out / "run", "--tokenizers.jobs", "2"]
    words += ["--modalities", '["rgb", "semseg", "depth"]']
    start, log = processes.start, place.out / "run" / "tokenizers" / "semseg" / "log.txt"

    def started(function: Any, *arguments: Any) -> Any:
        child = start(function, *arguments)
        while arguments[3] == "semseg" and child.is_alive():
            if log.exists():
                child.kill()
            time.sleep(0.01)
        return child

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "start", started)
        code, said = tried(*words)
    assert code == 1
    return Told(said, "use fewer processes or smaller batches; run the same command again", [words])


def an_index_is_unfinished(place: Place) -> Told:
    words = ["retrieve", "index", place.bundle, "scenes", "--samples", "4", "--shard-size", "2", "--out", place.out]
    assert tried(*words)[0] == 0
    (shard, *_) = place.out.glob("shard-*.json")
    shard.unlink()
    evaluate = ["retrieve", "evaluate", place.out, "--query", "rgb"]
    return Told(tried(*evaluate)[1], "run the same 'maskweave retrieve index' again", [words, evaluate])


def tokens_are_missing(place: Place) -> Told:
    run = shutil.copytree(place.tokens, place.out / "run")
    for name in ("shard-00001.json", "starts.npy"):
        (run / "tokens" / "train" / "samples" / name).unlink()
    words = [place.recipe, "--out", run]
    advice = "write the others with 'maskweave tokenize'"
    return Told(tried("train", *words)[1], advice, [["tokenize", *words], ["train", *words]])


def aligned(place: Place) -> list[object]:
    """The command that imports a folder of files for each modality."""
    assert tried("data", "scenes", place.out / "files", "--count", "6")[0] == 0
    return ["data", "import", place.out / "files", place.out / "data", "--catalog", "scenes"]


def files_are_not_imported(place: Place) -> Told:
    words = aligned(place)
    index = ["retrieve", "index", place.bundle, place.out / "files", "--out", place.out / "index"]
    advice = "convert it to tar shards with 'maskweave data import'"
    return Told(tried(*index)[1], advice, [words, [*index[:3], place.out / "data", *index[4:]]])


def an_import_is_unfinished(place: Place) -> Told:
    words = aligned(place)
    interrupted(AlignedFiles, "read", 4, *words, "--shard-size", "2")
    stats = ["data", "stats", place.out / "data", "--catalog", "scenes"]
    return Told(tried(*stats)[1], "run the same import again", [words, stats])


def a_catalog_is_kept(place: Place) -> Told:
    said = tried(*projects(place)[1])[1]
    return Told(said, "to keep it, continue with", [command_in(said)])


def a_catalog_is_made_again(place: Place) -> Told:
    project, words = projects(place)
    return Told(tried(*words)[1], "to make it again, remove it", [(project / "catalog.yaml").unlink, words])


def projects(place: Place) -> tuple[Path, list[object]]:
    """A project whose catalog was changed by hand, and its `init`."""
    files, project = place.out / "files", place.out / "project"
    assert tried("data", "scenes", files, "--count", "12")[0] == 0
    words = ["init", files, "--out", project, "--no-import"]
    assert tried(*words)[0] == 0
    catalog = project / "catalog.yaml"
    catalog.write_text(catalog.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    return project, words


def a_published_m3ae_starts_a_run(place: Place) -> Told:
    config = M3AEConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    save_m3ae(M3AE(tiny().subset(["photo"]), config), tiny().subset(["photo"]), place.out)
    model, catalog = load_m3ae(place.out)
    with pytest.raises(MaskweaveError) as told:
        warm_start(model, catalog, place.out)
    message = str(told.value)
    (program,) = re.findall("in Python: (.*)", message)
    return Told(
        message,
        "save it as a bundle first",
        [lambda: exec(program), lambda: warm_start(model, catalog, Path("BUNDLE")) == []],
    )


@pytest.mark.parametrize(
    "make",
    [
        train_is_interrupted, transfer_is_interrupted, a_process_ends_before_the_first_step, another_process_is_lost,
        pytest.param(a_tokenizer_s_process_is_killed, marks=pytest.mark.slow), an_index_is_unfinished, tokens_are_missing,
        files_are_not_imported, an_import_is_unfinished, a_catalog_is_kept, a_catalog_is_made_again, a_published_m3ae_starts_a_run,
    ],
)  # fmt: skip
def test_what_a_message_advises_helps(make: Callable[[Place], Told], place: Place) -> None:
    told = make(place)
    assert told.advice in told.message
    for step in told.then:
        if callable(step):
            assert step() is not False
        else:
            code, said = tried(*step)
            assert code == 0, said


PROSE = ("checkpoint", "runs", "reads", "does", "writes")
"""Words after the name of the package that are no commands."""
OTHERS = ("--version", "--upgrade", "--shm-size", *RENAMED)
"""Options of other programs, of no command, and old ones."""


def texts(path: Path) -> Iterator[tuple[str, bool, str]]:
    """All strings of a file, with `{}` for what is put into them; whether that is quoted, in a call of `shown_command`; and where they are."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source if re.search("maskweave [a-z]|--[a-z]|shown_command", source) else "")
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
        constants = lambda parts: [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts]  # noqa: E731
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "shown_command":
            yield " ".join(["maskweave", *constants(node.args)]), True, where
        elif isinstance(node, ast.JoinedStr):
            yield "".join(constants(node.values)), False, where
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value, False, where


@cache
def options(name: str) -> set[str]:
    parser = ArgumentParser(exit_on_error=False)
    COMMANDS[name].add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_every_command_and_option_in_a_text_exists() -> None:
    """In messages, help and docstrings; and what is put into a command is quoted."""
    every, found = {option for name in COMMANDS for option in options(name)}, 0
    for text, is_quoted, where in (one for path in sorted(PACKAGE.rglob("*.py")) for one in texts(path)):
        assert {*re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)} <= {*every, *OTHERS}, where
        for command in re.findall(r"maskweave ([a-z][a-z0-9]*(?: [^`';,(]*)?)", text):
            words = command.split()
            name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), "")
            if name or words[0] not in PROSE:
                found += 1
                assert name, f"{where}: no command: {command}"
                assert {word for word in words if word.startswith("--")} <= {*options(name), "--help"}, (
                    f"{where}: {command}"
                )
                assert is_quoted or "{}" not in words, f"{where}: {command}: use errors.shown_command"
    assert found > 50 and shown_command("run", "it's") == """maskweave run 'it'"'"'s'"""
