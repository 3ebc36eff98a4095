"""The page about value types is generated from their classes."""

from pathlib import Path

import pytest

from maskweave.cli.main import main
from maskweave.values import BUILT_IN, docs

PAGE = Path(__file__).parents[2] / "docs" / "values.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == docs.page() + "\n", "run: maskweave values > docs/values.md"


@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.type)
def test_every_type_and_field_is_documented(cls) -> None:
    assert cls.__doc__ and cls.python and cls.kinds
    undocumented = [name for name, _, _, note in docs.fields_of(cls) if not note and name not in ("channels", "unit")]
    assert not undocumented


def test_one_type_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["values", "metadata"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## metadata") and "| `keys` |" in said and "| `splits` |" in said
    assert main(["values", "mab"]) == 1
    assert "did you mean 'map'" in capsys.readouterr().err
