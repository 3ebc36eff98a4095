"""How large files may be: limits of a recipe, of an import, and of the environment."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.reading import read
from maskweave.data.shards import Shards
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json
from maskweave.limits import (
    TEXT_SETTING,
    VALUE_SETTING,
    ImportLimits,
    ReadingLimits,
    RecipeLimits,
    limited_to,
    limits_in_force,
    setting_in_force,
)
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.resuming import is_free
from maskweave.training.sources import open_source
from maskweave.transfer.data import Examples, open_examples
from maskweave.transfer.recipe import TransferData

TOO_LARGE = "decoding 400 × 400 pixels takes 1,920,000 bytes; expected at most 1,048,576; if you trust the file, raise "
"""3 channels, and 4 copies while a picture is decoded."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture of 0.2 MB while it is decoded, and one of 1.9 MB."""
    (tmp_path / "in" / "rgb").mkdir(parents=True)
    for name, size in (("small", 100), ("large", 400)):
        Image.new("RGB", (size, size), (10, 20, 30)).save(tmp_path / "in" / "rgb" / f"{name}.png")
    return tmp_path / "in"


def recipe_of(folder: Path, pictures: Path, more: str = "") -> Recipe:
    (folder / "recipe.yaml").write_text(
        f"catalog: photos\nmodalities: [rgb, tok_rgb]\ndata: {{source: {pictures / 'rgb'}, validation: 1, split: {{by: order}}}}\n{more}",
        encoding="utf-8",
    )
    return load_recipe(folder / "recipe.yaml")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recipe_limits_its_values_in_any_process(
    pictures: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors(more: str) -> dict[str, str]:
        found = recipe_of(tmp_path, pictures, more)
        sources = [open_source(found, found.load_catalog(), part) for part in ("train", "validation")]
        reads = [one for source in sources for one in read(source, range(len(source)), workers)]
        return {one.key: one.error for one in reads}

    assert errors("") == {"small.png": "", "large.png": ""}
    assert errors("limits: {value_mb: 2}") == {"small.png": "", "large.png": ""}
    refused = errors("limits: {value_mb: 1}")
    assert not refused["small.png"] and refused["large.png"].endswith(TOO_LARGE + "limits.value_mb")
    monkeypatch.setenv(VALUE_SETTING, "1")
    assert errors("")["large.png"].endswith(TOO_LARGE + "the environment variable MASKWEAVE_MAX_VALUE_MB")
    assert errors("limits: {value_mb: 2}") == {"small.png": "", "large.png": ""}, (
        "the recipe's limit replaces the variable's"
    )
    assert limits_in_force() == ReadingLimits(), "nothing is left behind"


def test_examples_keep_the_limits_they_were_opened_with(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (400, 400)).save(tmp_path / name / f"{i}.png")

    def examples() -> Examples:
        data = TransferData(source=str(tmp_path), validation=1)
        return open_examples(data, load_catalog("photos"), ["rgb"], "", "").train

    with limited_to(ReadingLimits(value_mb=1)):
        limited = examples()
    with pytest.raises(BadSample, match="expected at most 1,048,576"):
        limited[0]
    assert examples()[0]["rgb"].shape[-1] == 3


def test_a_recipe_limits_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEXT_SETTING, "5")  # the recipe's limit replaces it
    path = tmp_path / "x.json"
    path.write_text('"' + "x" * 2**21 + '"', encoding="utf-8")
    message = "2 MB, expected at most 1 MB; if you trust it, set limits.text_mb to 3"
    with limited_to(RecipeLimits(text_mb=1)), pytest.raises(MaskweaveError, match=message):
        read_json(path)
    with limited_to(ReadingLimits(text_mb=3)):
        assert len(read_json(path)) == 2**21


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_import_has_a_limit_and_a_higher_one_reads_again(
    pictures: Path, tmp_path: Path, jobs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "import", str(pictures), str(tmp_path / "out"), "--limit=1", f"--jobs={jobs}"]
    assert main([*words, "--max-value-mb=1"]) == 0
    assert "1 samples" in capsys.readouterr().out
    assert "expected at most 1,048,576; if you trust the file, raise --max-value-mb" in (
        tmp_path / "out" / "skipped.jsonl"
    ).read_text(encoding="utf-8")
    assert main([*words, "--max-value-mb=1"]) == 0 and "1 kept" in capsys.readouterr().out
    assert main([*words, "--max-value-mb=2"]) == 0 and "2 samples" in capsys.readouterr().out
    shards = Shards(tmp_path / "out", load_catalog("photos"))
    assert [shards[i]["rgb"].shape for i in range(2)] == [(64, 64, 3)] * 2


@pytest.mark.parametrize("value", [0, -1, True, 2**21, "x", 1.5])
def test_limits_are_megabytes(value: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("value_mb", "text_mb"):
        with pytest.raises(MaskweaveError, match=f"{key}.*(expects a whole number|expected a whole number)"):
            recipe_of(tmp_path, pictures, f"limits: {{{key}: {str(value).lower()}}}")
    assert main(["data", "import", str(pictures), str(tmp_path / "o"), f"--max-value-mb={value}"]) == 1
    assert "max" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, -1, True, 2**21, "x", 1.5, float("nan"), [1]])
def test_limits_of_python_code_are_megabytes(value: Any) -> None:
    for key in ("value_mb", "text_mb"):
        with pytest.raises(MaskweaveError, match=f"{key} is .*; expected a whole number of megabytes, 1 to 1,048,576"):
            ReadingLimits(**{key: value})


@pytest.mark.parametrize(
    ("limits", "key", "variable", "named"),
    [
        (RecipeLimits(value_mb=1), "value_mb", "2", "limits.value_mb"),
        (ImportLimits(value_mb=1), "value_mb", "2", "--max-value-mb"),
        (ImportLimits(), "value_mb", "2", "the environment variable MASKWEAVE_MAX_VALUE_MB"),
        (ImportLimits(), "value_mb", "", "--max-value-mb or the environment variable MASKWEAVE_MAX_VALUE_MB"),
        (ImportLimits(value_mb=1), "text_mb", "", "the environment variable MASKWEAVE_MAX_TEXT_MB"),
        (ReadingLimits(), "text_mb", "", "the environment variable MASKWEAVE_MAX_TEXT_MB"),
        (ReadingLimits(text_mb=1), "text_mb", "2", "text_mb of ReadingLimits"),
    ],
)
def test_messages_name_the_setting_in_force(
    limits: ReadingLimits, key: str, variable: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv({"value_mb": VALUE_SETTING, "text_mb": TEXT_SETTING}[key], variable)
    with limited_to(limits):
        assert setting_in_force(key) == named


def test_limits_may_change_when_a_run_resumes() -> None:
    assert is_free("limits.value_mb") and is_free("limits.text_mb") and is_free("limits")
