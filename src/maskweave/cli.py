"""The `maskweave` command. Parsing and printing alone: every command calls one or two functions of the library."""

import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Waiting threads sleep: two that spin on a busy machine are far slower than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Torch warns about what is meant: not every batch has every modality.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from maskweave.errors import MaskweaveError
from maskweave.train.interruption import Interrupted
from maskweave.train.recipe import Recipe, load_recipe

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # a recipe's keys are told as the code tells them

COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[[Namespace], None], str]] = {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that the user can mend (printed in one message), 2 for an unknown command, 130 after Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), "")
    if not name:
        return _overview(words)
    add_arguments, run, summary = COMMANDS[name]
    parser = ArgumentParser(prog=f"maskweave {name}", description=summary, exit_on_error=False)
    add_arguments(parser)
    try:
        # Of a recipe's keys only those typed: they override its file, their defaults do not.
        run(parser.parse_args(words[len(name.split()) :], defaults=add_arguments not in OF_RECIPES))
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


def _misused(fault: str, parser: ArgumentParser) -> str:
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
        return f"--{wrong[1]}: {text[:1].lower()}{text[1:]}"
    return " ".join(fault.split())


def _overview(words: Sequence[str]) -> int:
    from maskweave import __version__

    if words == ["--version"]:
        print(__version__)
        return 0
    lines = [f"  {name:<18}{summary.splitlines()[0]}" for name, (_, _, summary) in COMMANDS.items()]
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


def command(
    name: str, add_arguments: Callable[[ArgumentParser], None]
) -> Callable[[Callable[[Namespace], None]], Callable[[Namespace], None]]:
    """Register a function as a command; its docstring is the help."""

    def register(run: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
        COMMANDS[name] = (add_arguments, run, run.__doc__ or "")
        return run

    return register


def _recipe_arguments(parser: ArgumentParser, kind: type = Recipe) -> None:
    parser.usage = f"{parser.prog} RECIPE [--out FOLDER] [--KEY VALUE ...]"
    parser.add_argument(
        "recipe", metavar="RECIPE", type=str, help="YAML file; any of its keys can be replaced on the command line"
    )
    parser.add_argument("--out", metavar="FOLDER", type=str, help="run folder (default: runs/NAME of the recipe)")
    parser.add_class_arguments(kind, None)


def _tokenizer_arguments(parser: ArgumentParser) -> None:
    _recipe_arguments(parser)
    parser.add_argument(
        "--only", metavar="NAMES", type=str, help="modalities or vocabularies, with commas (default: all)"
    )


def _transfer_arguments(parser: ArgumentParser) -> None:
    from maskweave.transfer.recipe import TransferRecipe

    _recipe_arguments(parser, TransferRecipe)


OF_RECIPES = (_recipe_arguments, _tokenizer_arguments, _transfer_arguments)
"""What adds a recipe's keys to a command's arguments."""


def _recipe(given: Namespace, read: Callable[..., Any] = load_recipe, name: str = "run") -> tuple[Any, Path, str]:
    """The recipe with what was typed, the run folder, and the command that goes on with it."""
    path = Path(given.recipe)
    overrides = {
        key: _plain(value) for key, value in given.items(branches=False) if key not in ("recipe", "out", "only")
    }
    folder = Path(given.get("out") or Path("runs") / path.stem)
    typed = [
        word
        for key, value in overrides.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    return (
        read(path, overrides),
        folder,
        shlex.join(["maskweave", name, str(path), "--out", str(folder), *typed]),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.as_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _print_report(folder: Path) -> None:
    from maskweave.evaluate.report import make_report

    print(f"report: {make_report(folder)}")


@command("run", _recipe_arguments)
def _run(given: Namespace) -> None:
    """Do all that a recipe says: tokenizers, tokens, training, evaluation, report. Goes on where it stopped."""
    from maskweave.evaluate.report import is_reported
    from maskweave.evaluate.run import describe, evaluate
    from maskweave.generate.bundle import load
    from maskweave.train.pipeline import run_recipe

    recipe, folder, again = _recipe(given)
    run_recipe(recipe, folder, again)
    if is_reported(folder):
        print(f"{folder}: finished, nothing is left to do; report: {folder / 'report.html'}")
        return
    if recipe.evaluate.requests:
        print(describe(evaluate(load(folder), folder)))
    _print_report(folder)


@command("tokenizer", _tokenizer_arguments)
def _tokenizer(given: Namespace) -> None:
    """Train the tokenizers of a recipe."""
    from maskweave.train.pipeline import claim
    from maskweave.train.tokenizers import train_tokenizers

    recipe, folder, _ = _recipe(given)
    only = given.get("only")
    train_tokenizers(recipe, claim(recipe, folder), folder, only=only.split(",") if only else None)
    print(f"tokenizers: {folder / 'tokenizers'}")


@command("tokenize", _recipe_arguments)
def _tokenize(given: Namespace) -> None:
    """Run every tokenizer of a run once over its data and write token shards. Goes on where it stopped."""
    from maskweave.train.pipeline import claim, make_tokens

    recipe, folder, _ = _recipe(given)
    make_tokens(recipe, claim(recipe, folder), folder)
    print(f"tokens: {folder / 'tokens'}")


@command("train", _recipe_arguments)
def _train(given: Namespace) -> None:
    """Train the model of a recipe on its token shards. Goes on where it stopped."""
    from maskweave.train.pipeline import claim, train_model

    recipe, folder, again = _recipe(given)
    train_model(recipe, claim(recipe, folder), folder, again)
    print(f"model: {folder / 'model'}")


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")
    parser.add_argument("--scenes-seed", metavar="SEED", type=int, help="evaluate on the scenes of this seed")
    parser.add_argument(
        "--samples", metavar="N", type=int, help="how many held-out samples (default: as the recipe says)"
    )
    parser.add_argument("--suite", metavar="NAME", type=str, help="score the features by this table of probes instead")


@command("evaluate", _evaluate_arguments)
def _evaluate(given: Namespace) -> None:
    """Evaluate a run on held-out samples: a table, and RUN/evaluation.json; or RUN/suite-NAME.json."""
    from maskweave.evaluate.run import describe, evaluate
    from maskweave.generate.bundle import load

    if given.get("suite"):
        from maskweave.transfer.commands import evaluate_suite

        print(evaluate_suite(given.run, given.suite))
        return
    folder = Path(given.run)
    samples = given.get("samples")
    if samples is not None and samples < 1:
        raise MaskweaveError(f"--samples must be 1 or more, found {samples}")
    print(describe(evaluate(load(folder), folder, scenes_seed=given.get("scenes_seed"), samples=samples or 0)))
    print(f"written to {folder / 'evaluation.json'}")


@command("transfer", _transfer_arguments)
def _transfer(given: Namespace) -> None:
    """Fine-tune the encoder of a trained model on a task, as a recipe says, and score it. Goes on where it stopped."""
    from maskweave.transfer.commands import transfer
    from maskweave.transfer.recipe import load_transfer

    print(transfer(*_recipe(given, load_transfer, "transfer")))


def _probe_arguments(parser: ArgumentParser) -> None:
    from maskweave.transfer.commands import add_probe_arguments

    add_probe_arguments(parser)


@command("probe", _probe_arguments)
def _probe(given: Namespace) -> None:
    """Tell labels from a model's features, by a linear probe and by nearest neighbours."""
    from maskweave.transfer.commands import run_probe

    print(run_probe(given.as_dict()))


@command("report", lambda parser: parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run"))
def _report(given: Namespace) -> None:
    """Write RUN/report.html: curves, codebook use, the evaluation and contact sheets."""
    _print_report(Path(given.run))


def _generate_arguments(parser: ArgumentParser) -> None:
    from maskweave.generate.command import add_arguments

    add_arguments(parser)


@command("generate", _generate_arguments)
def _generate(given: Namespace) -> None:
    """Predict any modalities from any others, and write their values, pictures and the schedule."""
    from maskweave.generate.command import run_command

    print(run_command(given.as_dict()))


@command(
    "modalities",
    lambda parser: parser.add_argument(
        "catalogue", metavar="CATALOGUE", type=str, help="name of a shipped catalogue, or a YAML file"
    ),
)
def _modalities(given: Namespace) -> None:
    """Print a catalogue as tables: its modalities, and the keys of metadata."""
    from maskweave.catalogues import load_catalogue
    from maskweave.report.tables import key_table, modality_table

    catalogue = load_catalogue(given.catalogue)
    print("\n\n".join(filter(None, (modality_table(catalogue), key_table(catalogue)))))


@command("recipe check", _recipe_arguments)
def _recipe_check(given: Namespace) -> None:
    """Check a recipe and everything it names, its data set too, without running it."""
    from maskweave.train.sources import open_source

    recipe, _, _ = _recipe(given)
    catalogue = recipe.load_catalogue()
    open_source(recipe, catalogue, "train")
    print(
        f"{given.recipe}: sound; {len(catalogue)} modalities ({', '.join(catalogue)}), {recipe.train.steps} steps of {recipe.train.samples_per_step} samples"
    )


def _catalogue_argument(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--catalogue",
        metavar="CATALOGUE",
        type=str,
        default=default,
        help="name of a shipped catalogue, or a YAML file",
    )


def _limit_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit", metavar="SHARE", type=float, default=0.01, help="largest share of unusable samples, 0 to 1"
    )


def _import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=str, help="folder with ROOT/MODALITY/.../NAME.EXT")
    parser.add_argument("out", metavar="OUT", type=str, help="folder for tar shards")
    _catalogue_argument(parser, "photos")
    parser.add_argument("--shard-size", metavar="N", type=int, default=1000, help="samples of a shard")
    _limit_argument(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="files decoded at the same time")


@command("data import", _import_arguments)
def _data_import(given: Namespace) -> None:
    """Import aligned folders (the same NAME across modalities) as tar shards. Goes on where it stopped."""
    from maskweave.catalogues import load_catalogue
    from maskweave.data.folders import import_folders

    report = import_folders(
        given.root,
        given.out,
        load_catalogue(given.catalogue),
        shard_size=given.shard_size,
        limit=given.limit,
        jobs=given.jobs,
    )
    print(report)


def _label_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=str, help="imported data set")
    _catalogue_argument(parser, "photos")
    _limit_argument(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="pictures measured at the same time")


@command("data label", _label_arguments)
def _data_label(given: Namespace) -> None:
    """Add to an imported data set what can be computed from its pictures: edges, palette, metadata."""
    from maskweave.catalogues import load_catalogue
    from maskweave.data.label import label

    print(label(given.root, load_catalogue(given.catalogue), limit=given.limit, jobs=given.jobs))


def _scenes_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=str, help="folder for OUT/MODALITY/NAME.EXT, as 'maskweave data import' reads it"
    )
    parser.add_argument("--count", metavar="N", type=int, default=100, help="how many scenes")
    parser.add_argument("--seed", metavar="SEED", type=int, default=0, help="another seed gives other scenes")
    _catalogue_argument(parser, "scenes")


@command("data scenes", _scenes_arguments)
def _data_scenes(given: Namespace) -> None:
    """Write procedural scenes as aligned folders of files."""
    from maskweave.catalogues import load_catalogue
    from maskweave.data.export import export
    from maskweave.data.scenes import Scenes

    catalogue = load_catalogue(given.catalogue)
    print(f"written to {export(Scenes(catalogue, given.count, given.seed), catalogue, given.out)}")


def _emoji_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=str, help="folder for OUT/MODALITY/NAME.EXT, as 'maskweave data import' reads it"
    )
    parser.add_argument(
        "--font", metavar="FILE", type=str, help="a colour emoji font (default: that of fonts-noto-color-emoji)"
    )
    _catalogue_argument(parser, "photos")


@command("data emoji", _emoji_arguments)
def _data_emoji(given: Namespace) -> None:
    """Write colour emoji and their Unicode names as aligned folders of files, from a font on this machine."""
    from maskweave.catalogues import load_catalogue
    from maskweave.data.emoji import FONT, Emoji
    from maskweave.data.export import export

    catalogue = load_catalogue(given.catalogue)
    emoji = Emoji(catalogue, given.font or FONT)
    print(f"{len(emoji)} emoji written to {export(emoji, catalogue, given.out)}")


def _import_4m_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        f"{parser.prog} MODEL --out FOLDER [--tokenizer NAME=FOLDER ...] [--text FILE] [--catalogue CATALOGUE]"
    )
    parser.add_argument(
        "model", metavar="MODEL", type=str, help="folder of a published model, or its id on the Hugging Face Hub"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME=FOLDER",
        type=str,
        action="append",
        help="a grid modality and its published tokenizer; repeat for several, the others are used as tokens alone",
    )
    parser.add_argument("--text", metavar="FILE", type=str, help="the published WordPiece file")
    parser.add_argument("--out", metavar="FOLDER", type=str, help="where the bundle goes")
    _catalogue_argument(parser, "4m")


@command("import 4m", _import_4m_arguments)
def _import_4m(given: Namespace) -> None:
    """Make a bundle of a published 4M model, its tokenizers and the text tokenizer."""
    from maskweave.config import pairs
    from maskweave.interop.fourm import load_bundle

    if not given.get("out"):
        raise MaskweaveError("--out is missing; see maskweave import 4m --help")
    tokenizers = pairs("tokenizer", given.tokenizer, "FOLDER", empty=False)
    bundle = load_bundle(given.model, tokenizers, given.text, given.catalogue)
    print(
        f"{bundle.save(given.out)}: {len(bundle.catalogue)} modalities, tokenizers of {', '.join(bundle.tokenizers) or 'none'}"
    )


def _of_retrieval(name: str) -> tuple[Callable[[ArgumentParser], None], Callable[[Namespace], None]]:
    """Arguments and body of one of retrieval's commands, imported when it is called."""

    def part(ending: str) -> Callable[[Any], None]:
        from maskweave.retrieve import command as commands

        return getattr(commands, f"{name}{ending}")

    return lambda parser: part("_arguments")(parser), lambda given: part("")(given)


for _name, _part, _summary in (
    ("retrieve index", "index", "Index a data set by what a model makes of its samples. Goes on where it stopped."),
    ("retrieve query", "query", "Find the indexed samples that are most like the inputs."),
    ("retrieve evaluate", "evaluate", "Query with every indexed sample: how often it finds itself, beside chance."),
    ("data features", "features", "Write a network's features of a recipe's samples as values of a modality."),
):
    COMMANDS[_name] = (*_of_retrieval(_part), _summary)


if __name__ == "__main__":
    sys.exit(main())
