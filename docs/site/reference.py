"""Reference pages, generated from the code: keys of recipes and entries from their dataclasses, commands from their parsers, the API from its docstrings."""

import argparse
import dataclasses
import importlib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from links import slug

import maskweave
from maskweave.cli.main import COMMANDS, OF_RECIPES, Command
from maskweave.families.base import ModelSettings
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.training.recipe import Recipe
from maskweave.transfer.recipe import TransferRecipe
from maskweave.transfer.suite import FOLDER, load_suite
from maskweave.values.base import ValueType
from maskweave.values.docs import fields_of

API: dict[str, dict[str, tuple[str, ...]]] = {
    "Using a model": {
        "maskweave": tuple(maskweave.__all__),
        "maskweave.generate.result": ("Generated", "sheet_of"),
        "maskweave.generate.features": ("FeatureExtractor", "EncodedBatch"),
        "maskweave.generate.tiles": ("Tiled",),
        "maskweave.generate.scoring": ("Score",),
    },
    "Generation step by step": {
        "maskweave.generate.schedule": ("Schedule", "Step", "load_schedule"),
        "maskweave.modality.decoding": ("Decoding", "Ramp"),
        "maskweave.generate.session": ("Session",),
    },
    "Published weights": {
        "maskweave.interop.fourm": ("load_bundle", "load_model", "load_tokenizer", "load_backbone", "export_model"),
        "maskweave.interop.m3ae": ("load_m3ae", "save_m3ae"),
    },
    "Training and data": {
        "maskweave.training.pipeline": ("run_recipe",),
        "maskweave.data.opening": ("open_data",),
        "maskweave.data.source": ("Source",),
        "maskweave.modality.catalogs": ("Catalog",),
        "maskweave.transfer.build": ("Transferred", "load_transferred"),
    },
    "Writing your own": {
        "maskweave.values.base": ("ValueType",),
        "maskweave.families.base": ("Family",),
    },
}
"""Objects of the API page, by section and module."""


RECIPE_TEXT = """\
All keys of a recipe, generated from the code. Every key can be overridden on the command line: `--train.steps 200`. A recipe may also `include` another one
([how](../data.md#recipes-and-runs)). Guides: [training](../training.md), [data](../data.md), [several machines](../cluster.md)."""
TRANSFER_TEXT = """\
All keys of the recipe of `maskweave transfer`, generated from the code. Guide: [transfer](../transfer.md)."""
SUITES_TEXT = """\
The tables of papers that `maskweave evaluate BUNDLE --suite NAME --data PATH` computes, generated from the suites' files. A dash under `here` means not measured: no published
weights or no data were at hand. Guide: [evaluation](../evaluation.md#tables-of-the-papers)."""
ENTRY_TEXT = """\
All keys of a catalog's entry, `modalities: {NAME: {…}}`, and of its `vocabularies`, generated from the code. The keys of `value` depend on its type:
[value types](../values.md). Guide: [modalities](../modalities.md)."""


NAMED = (Modality, Vocabulary)
"""Dataclasses whose field `name` is the key that holds them."""


class Section(NamedTuple):
    """The keys of one dataclass."""

    key: str
    """Dotted key of the group; empty for the top level."""
    title: str
    cls: type


def keys_page(title: str, text: str, cls: type, others: Mapping[str, type] | None = None) -> str:
    """Returns a page with all keys of a dataclass, of those nested in it, and of other dataclasses by their key."""
    sections = [
        *sections_of(cls),
        *(section for key, other in (others or {}).items() for section in sections_of(other, key)),
    ]
    first: dict[type, Section] = {}  # of sections with the same keys, the one that is nested least has the table
    for section in sorted(sections, key=lambda section: section.key.count(".")):
        first.setdefault(section.cls, section)
    titles = {section.key: section.title for section in reversed(sections)}
    lines = [f"# {title}", "", text, ""]
    for section in sections:
        lines += [f"## {section.title}", "", _first_paragraph(section.cls), ""] if section.title else []
        if (same := first[section.cls]) is section:
            lines += ["| key | type | default | |", "| --- | --- | --- | --- |", *_rows(section, titles), ""]
        else:
            lines += [f"The same keys as [{same.title}](#{_anchor(same.title)}).", ""]
    return "\n".join(lines)


def sections_of(cls: type, key: str = "", other: bool = False) -> Iterator[Section]:
    """Yields a dataclass and all that are nested in it, depth first.

    Args:
        other: the key may also hold another dataclass, which has the section of this name.
    """
    variants: list[type] = cls.variants() if cls is ModelSettings else []  # type: ignore[attr-defined]
    for variant in variants or [cls]:
        suffix = f" ({variant.family})" if variants else f" ({dataclasses.fields(cls)[0].name})" if other else ""  # type: ignore[attr-defined]
        yield Section(key, f"{key}{suffix}", variant)
        for name, hint in _fields(variant):
            parts = set()
            for part, nested in _nested(hint):
                yield from sections_of(nested, f"{key}.{name}{part}" if key else f"{name}{part}", part in parts)
                parts.add(part)


def _fields(cls: type) -> Iterator[tuple[str, Any]]:
    """Yields key and type of a dataclass's fields."""
    keys = {field: key for key, field in getattr(cls, "aliases", {}).items()}
    for field in dataclasses.fields(cls):
        yield keys.get(field.name, field.name), typing.get_type_hints(cls)[field.name]


def _nested(hint: Any) -> Iterator[tuple[str, type]]:
    """Yields the dataclasses in a type, with what their key has after that of the field: `.NAME` in mappings, `[…]` in lists."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not issubclass(hint, ValueType):  # they have their own page
            yield "", hint
        return
    part = {dict: ".NAME", list: "[…]", tuple: "[…]"}.get(typing.get_origin(hint) or type(None), "")
    for argument in typing.get_args(hint):
        yield from ((f"{part}{more}", nested) for more, nested in _nested(argument))


def _rows(section: Section, titles: dict[str, str]) -> Iterator[str]:
    """Yields the rows of a table; keys of groups link to the sections with these titles."""
    hints = dict(_fields(section.cls))
    for name, kind, default, note in fields_of(section.cls):
        if name == "name" and section.cls in NAMED:
            continue
        key = f"{section.key}.{name}" if section.key else name
        for part, nested in _nested(hints[name]):
            kind = kind.replace("the fields below", f"[these keys](#{_anchor(titles[key + part])})")
            note, default = note or _first_paragraph(nested), ""
        kind = kind.replace("the fields below", "[a value type](../values.md)")
        yield f"| `{key}` | {_escaped(kind)} | {_escaped(default)} | {_escaped(note)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _first_paragraph(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _anchor(title: str) -> str:
    return slug(title)


def commands_page() -> str:
    """Returns all commands with their options."""
    lines = [
        "# Commands",
        "",
        "All commands and options, generated from the code. `maskweave COMMAND --help` prints the same. Long jobs stop with Ctrl-C; run the same command again to resume.",
        "",
        "| command | |",
        "| --- | --- |",
        *(
            f"| [`{name}`](#maskweave-{name.replace(' ', '-')}) | {command.summary} |"
            for name, command in COMMANDS.items()
        ),
        "",
    ]
    for command in COMMANDS.values():
        lines += [f"## maskweave {command.name}", "", command.summary, "", *_options(command), ""]
    return "\n".join(lines)


def _options(command: Command) -> Iterator[str]:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"maskweave {command.name}", exit_on_error=False)
    command.add_arguments(parser)
    recipe = importlib.import_module(f"maskweave.cli.{command.group}").RECIPE if command.name in OF_RECIPES else None
    keys = {field.name for field in dataclasses.fields(recipe)} if recipe else set()
    yield "| argument | |"
    yield "| --- | --- |"
    for action in parser._actions:
        option = action.option_strings[0] if action.option_strings else ""
        if (
            action.help != argparse.SUPPRESS
            and "help" not in action.dest
            and option.lstrip("-").split(".")[0] not in keys
        ):
            yield f"| {_usage(action, option)} | {_help(action)} |"
    if recipe:
        page = "transfer" if recipe is TransferRecipe else "recipe"
        yield f"| `--KEY VALUE` | any [key of the recipe]({page}.md), dotted |"


def _usage(action: argparse.Action, option: str) -> str:
    name = str(action.metavar or action.dest.upper()).replace("|", " or ")
    if not option:
        return f"`{name}`"
    return f"`{option}`" if action.nargs == 0 else f"`{option} {name}{' …' if action.nargs in ('+', '*') else ''}`"


def _help(action: argparse.Action) -> str:
    default = action.default
    shown = "" if default in (None, False, "==SUPPRESS==", []) else f" (default: {default})"
    text = " ".join((action.help or "").split())
    return _escaped(text + (shown if "default" not in text else ""))


def api_page() -> str:
    """Returns the page that mkdocstrings fills with docstrings."""
    lines = ["# API", "", "The parts that are meant to be used from Python, generated from their docstrings.", ""]
    for title, modules in API.items():
        lines += [f"## {title}", ""]
        lines += [f"::: {module}.{name}\n" for module, names in modules.items() for name in names]
    return "\n".join(lines)


def suites_page() -> str:
    """Returns the page of published figures beside those measured here, from the files of the suites."""
    lines = ["# Published figures", "", SUITES_TEXT, ""]
    for path in sorted(FOLDER.glob("*.yaml")):
        suite = load_suite(path.stem)
        if not suite.published:
            continue
        lines += [f"## {path.stem}", "", suite.protocol.strip(), ""]
        for one in suite.published:
            lines += [f"{one.paper}: {one.score}.", "", "| model | published | here |", "| --- | --- | --- |"]
            for model in dict.fromkeys([*one.figures, *one.here]):
                figures = [f"{found[model]:g}" if model in found else "–" for found in (one.figures, one.here)]
                lines.append(f"| {model} | {figures[0]} | {figures[1]} |")
            lines.append("")
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "reference/api.md": api_page,
    "reference/recipe.md": lambda: keys_page("Recipe keys", RECIPE_TEXT, Recipe),
    "reference/transfer.md": lambda: keys_page("Transfer keys", TRANSFER_TEXT, TransferRecipe),
    "reference/entries.md": lambda: keys_page("Entry keys", ENTRY_TEXT, Modality, {"vocabularies.NAME": Vocabulary}),
    "reference/commands.md": commands_page,
    "reference/suites.md": suites_page,
}
"""What makes each reference page, by its path in docs/."""


def pages() -> dict[str, str]:
    """Returns the Markdown of every reference page, by its path in docs/."""
    return {name: make() for name, make in PAGES.items()}
