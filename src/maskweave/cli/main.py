"""The `maskweave` command: which commands there are, the way to them, and what is said of errors.

Each group of commands has a file in this folder: `maskweave data import` is `data_import_arguments(parser)` and `data_import(given)` in
`data.py`. The file is imported when one of its commands is called, so the list of commands prints at once.
"""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

# Waiting threads sleep: two that spin on a busy machine are far slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Torch warns about what is meant: not every batch has every modality.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from maskweave.config import renamed_key
from maskweave.errors import MaskweaveError
from maskweave.interruption import Interrupted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

GROUPS = {
    "train": {
        "run": "Do all that a recipe says: tokenizers, tokens, training, evaluation, report. Goes on where it stopped.",
        "tokenizer": "Train the tokenizers of a recipe.",
        "tokenize": "Run every tokenizer of a run once over its data and write token shards. Goes on where it stopped.",
        "train": "Train the model of a recipe on its token shards. Goes on where it stopped.",
        "recipe check": "Check a recipe and everything it names, its data set too, without running it.",
    },
    "evaluate": {
        "evaluate": "Evaluate a run on held-out samples: a table, and RUN/evaluation.json; or RUN/suite-NAME.json.",
        "report": "Write RUN/report.html: curves, codebook use, the evaluation and contact sheets.",
    },
    "transfer": {
        "transfer": "Fine-tune the encoder of a trained model on a task, as a recipe says, and score it. Goes on where it stopped.",
        "probe": "Tell labels from a model's features, by a linear probe and by nearest neighbors.",
    },
    "generate": {
        "generate": "Predict any modalities from any others, and write their values, pictures and the schedule.",
    },
    "retrieve": {
        "retrieve index": "Index a data set by what a model makes of its samples. Goes on where it stopped.",
        "retrieve query": "Find the indexed samples that are most like the inputs.",
        "retrieve evaluate": "Query with every indexed sample: how often it finds itself, beside chance.",
        "data features": "Write a network's features of a recipe's samples as values of a modality. Goes on where it stopped.",
    },
    "data": {
        "data import": "Import aligned folders (the same NAME across modalities) as tar shards. Goes on where it stopped.",
        "data label": "Add to an imported data set what can be computed from its pictures: edges, palette, metadata.",
        "data scenes": "Write procedural scenes as aligned folders of files.",
        "data emoji": "Write color emoji and their Unicode names as aligned folders of files, from a font on this machine.",
        "values": "Print what the value types are and their fields, as Markdown.",
        "modalities": "Print a catalog as tables: its modalities, and the keys of metadata.",
    },
    "interop": {
        "import 4m": "Make a bundle of a published 4M model, its tokenizers and the text tokenizer.",
    },
}
"""One line about every command, by the file that holds it."""
OF_RECIPES = ("run", "tokenizer", "tokenize", "train", "recipe check", "transfer")
"""Commands that take a recipe's keys. Only those that are typed are handed on: their defaults must not override the recipe's file."""

RENAMED = {
    "--catalogue": "--catalog",
    "--apart": "--no-chain",
    "--grow": "--guide-with-finished",
    "--through": "--feature-modality",
}
"""Options that have another name now; keys of recipes that have say so themselves."""


class Command(NamedTuple):
    """A command, and the group whose file holds it."""

    name: str
    group: str
    summary: str

    def add_arguments(self, parser: "ArgumentParser") -> None:
        self._find("_arguments")(parser)

    def run(self, given: "Namespace") -> None:
        """Do it, and print what there is to tell."""
        self._find("")(given)

    def renamed(self, option: str) -> str | None:
        """The present name of an option or recipe key, or None where it was not renamed."""
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
        0, or 1 after an error that the user can mend (printed in one message), 2 for an unknown command, 130 after Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), "")
    if not name:
        return _overview(words)
    from jsonargparse import ArgumentError, ArgumentParser

    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"maskweave {name}", description=command.summary, exit_on_error=False)
    try:
        command.add_arguments(parser)
        words = words[len(name.split()) :]
        _check_renamed(command, parser, words)
        command.run(parser.parse_args(words, defaults=name not in OF_RECIPES))
    except MaskweaveError as error:
        print(f"maskweave {name}: {error}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except ArgumentError as error:
        print(f"maskweave {name}: {_misused(str(error), parser)}; see maskweave {name} --help", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"maskweave {name}: {place}{error.strerror or error}; check the path and its permissions", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(f"maskweave {name}: stopped; start the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _check_renamed(command: Command, parser: "ArgumentParser", words: Sequence[str]) -> None:
    """Raises:
    MaskweaveError: a word is an option that has another name now.
    """
    known = {option for action in parser._actions for option in action.option_strings}
    for word in words:
        option = word.partition("=")[0]
        new = command.renamed(option) if option.startswith("--") and option not in known else None
        if new is not None and (new in known or command.name in OF_RECIPES):
            raise MaskweaveError(f"the option {option!r} is now {new!r}; rename it")


def _misused(fault: str, parser: "ArgumentParser") -> str:
    """What jsonargparse says about the words typed, with the nearest option or the type expected."""
    if unknown := re.search(r"unrecognized arguments: (\S+)", fault, re.IGNORECASE):
        option = unknown[1].partition("=")[0]
        near = difflib.get_close_matches(option, [o for action in parser._actions for o in action.option_strings], n=1)
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
            "maskweave COMMAND --help tells more.",
        ]
    )
    print(
        known if asked else f"maskweave: unknown command {' '.join(words[:2])!r}\n\n{known}",
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
