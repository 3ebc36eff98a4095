"""The generated reference pages have every recipe key, entry key, value type, command, option and API object."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import reference

import maskweave
from maskweave.cli.main import COMMANDS
from maskweave.config import plain
from maskweave.families.base import families
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import Recipe
from maskweave.transfer.recipe import TransferRecipe
from maskweave.transfer.suite import load_suite
from maskweave.values import value_types
from maskweave.values.docs import page as values_page

PAGES = reference.pages()


def dotted(content: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of plain content, in mappings of settings."""
    if isinstance(content, dict):
        for name, item in content.items():
            yield f"{prefix}{name}"
            yield from dotted(item, f"{prefix}{name}.")


def keys(text: str) -> set[str]:
    """The keys of a page's tables, those of groups that refer to others included."""
    found = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    for title, same in re.findall(r"^## (\S+)\n\n.+\n\nThe same keys as \[(\S+)\]", text, re.MULTILINE):
        found |= {f"{title}{key.removeprefix(same)}" for key in found if key.startswith(f"{same}.")}
    return found


@pytest.mark.parametrize(("page", "cls"), [("recipe", Recipe), ("transfer", TransferRecipe)])
def test_every_key_of_a_recipe_is_there(page: str, cls: type) -> None:
    wanted = {key for key in dotted(plain(cls())) if not key.startswith("model.")}
    assert len(wanted) > 60
    assert wanted - keys(PAGES[f"reference/{page}.md"]) == set()


def test_every_key_of_every_family_is_there() -> None:
    found = keys(PAGES["reference/recipe.md"])
    for family in families():
        assert {f"model.{key}" for key in dotted(plain(family.Settings()))} - found == set()
    assert {"data.mix.NAME.weight", "model.masking.mixtures[…].inputs", "evaluate.requests[…].via"} <= found
    assert {"train.early_stopping.patience", "tokenizers.train.early_stopping.patience"} <= found


def test_every_key_of_recipes_is_explained() -> None:
    for page in ("recipe", "transfer"):
        rows = re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", PAGES[f"reference/{page}.md"], re.MULTILINE)
        assert len(rows) > 60
        assert [key for key, note in rows if not note.strip()] == []


def test_every_key_of_entries_is_there() -> None:
    found = keys(PAGES["reference/entries.md"])
    for name in ("scenes", "4m"):
        catalog = load_catalog(name)
        for entry in catalog.values():
            content = {key: item for key, item in plain(entry).items() if key not in ("name", "value")}
            assert set(dotted(content)) - found == set()
        for vocabulary in catalog.vocabularies.values():
            keys_of_one = {f"vocabularies.NAME.{field.name}" for field in dataclasses.fields(vocabulary)}
            assert keys_of_one - found == {"vocabularies.NAME.name"}, "the key that holds it is its name"


def test_every_value_type_is_there() -> None:
    headings = re.findall(r"^## (\w+)$", values_page(), re.MULTILINE)
    assert headings == [*value_types()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from maskweave.cli.main import OF_RECIPES, main

    page = PAGES["reference/commands.md"]
    section = page.split(f"## maskweave {name}\n")[1].split("\n## ")[0]
    assert COMMANDS[name].summary in section
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)\b(?!\.)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    if name in OF_RECIPES:
        assert "`--KEY VALUE`" in section
        recipe = importlib.import_module(f"maskweave.cli.{COMMANDS[name].group}").RECIPE
        options -= {f"--{field.name}" for field in dataclasses.fields(recipe)}
    assert options == set(re.findall(r"`(--[\w-]+)", section)) - {"--KEY"}


def test_the_api_page_names_what_there_is() -> None:
    names = re.findall(r"^::: (\S+)$", PAGES["reference/api.md"], re.MULTILINE)
    assert {f"maskweave.{name}" for name in maskweave.__all__} <= set(names)
    assert "maskweave.modality.decoding.Ramp" in names, "a value of keys of `Decoding`"
    for name in names:
        module, _, item = name.rpartition(".")
        found = getattr(importlib.import_module(module), item)
        assert found.__doc__, f"{name} has no docstring"


def test_tables_are_whole() -> None:
    for name, text in PAGES.items():
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert rows or name == "reference/api.md"
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 5), row


def test_published_figures_stand_beside_our_own() -> None:
    """The figures of Table 1 of 4M-21, and a cell that stays empty until something is measured."""
    page = PAGES["reference/suites.md"]
    section = page.partition("## diode-depth\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (4M-21 \w+) \| (.*) \| (.*) \|$", section, re.MULTILINE)
    assert [row[:2] for row in rows] == [("4M-21 B", "0.71"), ("4M-21 L", "0.69"), ("4M-21 XL", "0.68")]
    measured = {model for one in load_suite("diode-depth").published for model in one.here}
    assert {model for model, _, here in rows if here != "–"} == measured
