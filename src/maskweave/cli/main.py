"""The `maskweave` command: the list of commands, dispatch, and how errors are printed.

Each group of commands has a file in this folder: `maskweave data import` is `data_import_arguments(parser)` and `data_import(given)` in
`data.py`. The file is imported only when one of its commands is called, so the list of commands prints quickly.
"""

import contextlib
import difflib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

# Idle threads sleep: on a busy machine, two threads that spin are far slower than one thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Hides torch's warning that some parameters got no gradient: not every batch has every modality.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from maskweave import ranks
from maskweave.config import renamed_key
from maskweave.errors import MaskweaveError
from maskweave.files import is_full_disk
from maskweave.interruption import Interrupted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

GROUPS = {
    "train": {
        "run": "Run a recipe from start to end: tokenizers, tokens, training, evaluation, report. Resumes where it stopped.",
        "tokenizer": "Train the tokenizers of a recipe.",
        "tokenize": "Tokenize the data of a recipe and write token shards. Resumes where it stopped.",
        "train": "Train the model of a recipe on its token shards. Resumes where it stopped.",
        "recipe check": "Check a recipe without running it, including the files and data sets that it names.",
    },
    "evaluate": {
        "evaluate": "Evaluate a run on held-out samples. Prints a table and writes RUN/evaluation.json, or RUN/suite-NAME.json.",
        "calibrate": "Choose temperatures of a run's predicted distributions on its held-out samples. Writes RUN/calibration.yaml.",
        "report": "Write RUN/report.html: training curves, codebook usage, evaluation and contact sheets.",
    },
    "transfer": {
        "transfer": "Fine-tune the encoder of a trained model on the task of a recipe and evaluate it. Resumes where it stopped.",
        "probe": "Predict labels from a model's features with a linear probe and with nearest neighbors.",
    },
    "generate": {
        "generate": "Predict any modalities from any others. Writes values, pictures and the schedule.",
    },
    "studio": {
        "studio": "Open a page in the browser: generate, edit, search and score with a bundle, browse a data set, follow a run.",
    },
    "retrieve": {
        "retrieve index": "Index a data set by a model's features of its samples. Resumes where it stopped.",
        "retrieve query": "Find the indexed samples that are most similar to the inputs.",
        "retrieve evaluate": "Query with every indexed sample and report recall (how often it finds itself), compared with chance.",
        "data features": "Compute a network's features of a recipe's samples and store them as a modality. Resumes where it stopped.",
    },
    "init": {
        "init": "Look at a folder of files, write a catalog and a recipe for it, and import it. Then 'maskweave run' trains a model.",
    },
    "data": {
        "data import": "Import aligned folders, tables, LeRobot or COCO folders, or tars as tar shards. Resumes where it stopped.",
        "data stats": "Print facts about a data set: what is missing, unusable, unknown or changed, sizes, and histograms.",
        "label": "Compute modalities of an imported data set: by teachers (networks), and by rules (edges, palette, metadata). Resumes where it stopped.",
        "data label": "The same as 'maskweave label'.",
        "upload": "Copy a finished data set, tokens, a bundle or a run to a URL such as s3://bucket/name. Resumes where it stopped.",
        "data scenes": "Generate procedural scenes and write them as aligned folders of files.",
        "data emoji": "Write color emoji from a local font, with their Unicode names, as aligned folders of files.",
        "values": "Print the value types and their fields as Markdown.",
        "modalities": "Print a catalog as tables: its modalities and its metadata keys.",
    },
    "interop": {
        "import 4m": "Convert a published 4M model, its tokenizers and its text tokenizer into a bundle.",
    },
    "bundle": {
        "card": "Print the model card of a run or bundle: use, modalities, scores, license and provenance.",
        "compress": "Write a copy of a bundle with smaller weights, bf16 or int8. It loads as any bundle does.",
        "export": "Export the encoder, tokenizers and one-step predictors of a bundle to ONNX or torch.export, and try the files.",
    },
    "doctor": {
        "doctor": "Print versions, devices, kernels, extras, caches and disk space, and what to do about what is wrong.",
    },
}
"""One-line summary of each command, grouped by the file that implements it."""
OF_RECIPES = ("run", "tokenizer", "tokenize", "train", "recipe check", "transfer")
"""Commands whose options are recipe keys. Only options that are typed are passed on: defaults must not override the recipe file."""

TOGETHER = (
    "run",
    "tokenizer",
    "tokenize",
    "train",
    "transfer",
    "retrieve index",
    "data features",
    "data import",
    "label",
    "data label",
    "evaluate",
    "report",
    "probe",
)
"""Commands that processes launched together share; the first process does the others alone."""

RENAMED = {
    "--catalogue": "--catalog",  # codespell:ignore
    "--apart": "--no-chain",
    "--grow": "--guide-with-finished",
    "--through": "--feature-modality",
}
"""Old names of options. Renamed recipe keys are listed in the recipe dataclasses."""


class Command(NamedTuple):
    """A command and its group, the file that implements it."""

    name: str
    group: str
    summary: str

    def add_arguments(self, parser: "ArgumentParser") -> None:
        self._find("_arguments")(parser)

    def run(self, given: "Namespace") -> None:
        """Run the command and print its result."""
        self._find("")(given)

    def renamed(self, option: str) -> str | None:
        """Returns the new name of an option or recipe key, or None if it was not renamed."""
        if self.name not in OF_RECIPES:
            return RENAMED.get(option)
        new = renamed_key(self._module.RECIPE, option.removeprefix("--"))
        return f"--{new}" if new else None

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"maskweave.cli.{self.group}")

    def _find(self, ending: str) -> Any:
        return getattr(self._module, self.name.replace(" ", "_") + ending)


COMMANDS = {
    name: Command(name, group, summary) for group, commands in GROUPS.items() for name, summary in commands.items()
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that the user can fix (printed as one message), 2 for an unknown command, 130 after Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), "")
    if not name:
        return _overview(words)
    with _launched_as_one(name) as runs:
        code, error = _run(COMMANDS[name], words[len(name.split()) :]) if runs else (0, "")
        if code and ranks.world() > 1:
            from maskweave.training.launch import fail, where

            fail(error.replace(":", f"{where()}:", 1), code)
    if error:
        print(error, file=sys.stderr)
    return code


def _run(command: Command, words: list[str]) -> tuple[int, str]:
    """Runs a command. Returns its exit code, and the message of an error that the user can fix."""
    from jsonargparse import ArgumentError, ArgumentParser

    prefix = f"maskweave {command.name}: "
    parser = ArgumentParser(prog=prefix.rstrip(": "), description=command.summary, exit_on_error=False)
    try:
        command.add_arguments(parser)
        _check_renamed(command, parser, words)
        command.run(parser.parse_args(words, defaults=command.name not in OF_RECIPES))
    except MaskweaveError as error:
        return (130 if isinstance(error, Interrupted) else 1), f"{prefix}{error}"
    except ArgumentError as error:
        return 1, f"{prefix}{_misused(str(error), parser)}; see maskweave {command.name} --help"
    except OSError as error:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        advice = (
            "free some space and run the same command again"
            if is_full_disk(error)
            else "check the path and its permissions"
        )
        return 1, f"{prefix}{place}{error.strerror or error}; {advice}"
    except KeyboardInterrupt:
        return 130, f"{prefix}interrupted; run the same command again to resume"
    return 0, ""


@contextlib.contextmanager
def _launched_as_one(name: str) -> Iterator[bool]:
    """Context in which processes that torchrun started act as one command: only the first one prints, and all end together.

    Yields whether this process has to run the command.
    """
    if ranks.world() == 1:
        yield True
        return
    from maskweave.training.launch import fail_unexpectedly, launched, leave

    with contextlib.ExitStack() as quiet:
        if ranks.rank():
            quiet.enter_context(
                contextlib.redirect_stdout(quiet.enter_context(open(os.devnull, "w", encoding="utf-8")))
            )
            warnings.simplefilter("ignore")
        try:
            launched()
            yield ranks.rank() == 0 or name in TOGETHER
            leave()
        except SystemExit as end:
            if not end.code:  # of --help, for which the processes that have nothing to do wait
                leave()
            raise
        except Exception:
            fail_unexpectedly(f"maskweave {name}: ")


def _check_renamed(command: Command, parser: "ArgumentParser", words: Sequence[str]) -> None:
    """Raises:
    MaskweaveError: an option was renamed.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    for word in words:
        option = word.partition("=")[0]
        new = command.renamed(option) if option.startswith("--") and option not in known else None
        if new is not None and (new in known or command.name in OF_RECIPES):
            raise MaskweaveError(f"the option {option!r} is now {new!r}; rename it")


def _misused(fault: str, parser: "ArgumentParser") -> str:
    """Rewords an error of jsonargparse: names the closest option or the expected type."""
    if unknown := re.search(r"unrecognized arguments: (\S+)", fault, re.IGNORECASE):
        option = unknown[1].partition("=")[0]
        near = difflib.get_close_matches(option, [o for action in parser._actions for o in action.option_strings])
        return f"unknown argument {option!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if wrong := re.search(r"[Pp]arser key \"(\S+)\":\s*(.*)", fault, re.DOTALL):
        kinds = {
            "a <class 'int'>": "a whole number",
            "a <class 'float'>": "a number",
            "a <class 'bool'>": "true or false",
            "a <class 'str'>": "text",
            "a <class 'list'>": "a list",
        }
        text = re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", " ".join(wrong[2].split()))
        for kind, said in kinds.items():
            text = text.replace(kind, said)
        text = re.sub(r".*import path (string|format): ", "expected keys and values as JSON, found ", text)
        return f"--{wrong[1]}: {text[:1].lower()}{text[1:]}"
    return " ".join(fault.split())


def _overview(words: Sequence[str]) -> int:
    from maskweave import __version__

    if words == ["--version"]:
        print(__version__)
        return 0
    lines = [f"  {name:<18}{command.summary}" for name, command in COMMANDS.items()]
    group = [line for line in lines if words and line.startswith(f"  {words[0]} ")]  # "data --help"
    asked = not words or words[0] in ("-h", "--help") or (bool(group) and words[1:] in (["-h"], ["--help"]))
    known = "\n".join(
        [
            "maskweave: one model over all your modalities",
            "",
            *(group or lines),
            "",
            "Run 'maskweave COMMAND --help' for the options of a command.",
        ]
    )
    print(
        known if asked else f"maskweave: unknown command {' '.join(words[:2])!r}\n\n{known}",
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2
