"""YAML blocks of the pages are recipes, transfers, catalogs, entries or parts of them that the library accepts. `test_rules.py` runs the other blocks."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskweave.config import build
from maskweave.errors import MaskweaveError
from maskweave.modality.decoding import Decoding
from maskweave.modality.derivation import Derivation
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.modality.vocabulary import Vocabulary
from maskweave.training.recipe import Recipe
from maskweave.transfer.recipe import TransferRecipe
from maskweave.values import value_type

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[tuple[str, str]]:
    """YAML blocks, with where they stand. A … stands for keys that are left out."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            code = re.sub(r"^ *…\n", "", match[1], flags=re.MULTILINE).replace("{…, ", "{").replace(" …", " {}")
            yield f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", code


BLOCKS = dict(blocks())


def check(content: dict[str, Any], where: str) -> str:
    """What a block holds.

    Raises:
        MaskweaveError: it holds nothing that the library accepts.
    """
    if not isinstance(content.get("modalities", []), dict):
        for kind, cls in (("recipe", Recipe), ("transfer", TransferRecipe)):
            if set(content) <= {field.name for field in dataclasses.fields(cls)} | {"include"}:
                build(cls, {key: item for key, item in content.items() if key != "include"}, where)
                return kind
    if set(content) <= {field.name for field in dataclasses.fields(Decoding)}:
        build(Decoding, content, where)
        return "decoding"
    if [*content] == ["derive"]:
        build(Derivation, content["derive"], where)
        return "derivation"
    if set(content) <= {"modalities", "vocabularies", "include", "only"}:
        for name, facts in content.get("vocabularies", {}).items():
            build(Vocabulary, {"name": name, **facts}, where)
        check_entries(content.get("modalities", {}), where)
        return "catalog"
    check_entries({"part": content} if "value" in content else content, where)
    return "entries"


def check_entries(entries: dict[str, Any], where: str) -> None:
    known = {field.name for field in dataclasses.fields(Modality)}
    for name, entry in entries.items():
        if unknown := set(entry) - known:
            raise MaskweaveError(f"{where}: {name} has unknown keys {unknown}")
        if value := dict(entry.get("value", {})):
            build(value_type(value["type"]), value, where)
        for key, cls in (("tokenizer", TokenizerSpec), ("decoding", Decoding)):
            build(cls, entry.get(key, {}), where)


def test_wrong_blocks_are_found() -> None:
    for wrong in (
        {"train": {"stepps": 3}},
        {"x": {"kind": "grid", "value": {"type": "mab"}}},
        {"x": {"kind": "grid", "grids": [3]}},
        {"modalities": {"x": {"value": {"type": "map", "rage": [0, 1]}}}},
        {"vocabularies": {"text": {"sizes": 3}}},
        {"start": "run", "tuning": {"parameters": "most"}},
    ):
        with pytest.raises(MaskweaveError):
            check(wrong, "here")


@pytest.mark.parametrize("where", BLOCKS)
def test_yaml_blocks_are_accepted(where: str) -> None:
    content = yaml.safe_load(BLOCKS[where])
    assert check(content, where) in ("recipe", "transfer", "decoding", "derivation", "catalog", "entries")
