"""A run does not resume with another file of held-out samples, and runs from before new keys resume."""

from pathlib import Path
from typing import Any

import pytest

from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_yaml, write_yaml
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import Recipe
from maskweave.training.run_folder import claim_folder

CATALOG = load_catalog("scenes").subset(["rgb"])


def recipe(**data: Any) -> dict[str, Any]:
    content = plain(Recipe())
    content["data"] |= {"source": "data", **data}
    return content


def test_a_changed_file_is_refused_once_there_are_results(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("name,part\na,train\nb,validation\n", encoding="utf-8")
    wanted = recipe(split={"file": str(split)})
    run = tmp_path / "run"
    claim_folder(run, wanted, CATALOG)
    first = read_json(run / "splits.json")
    split.write_text("name,part\na,validation\nb,train\n", encoding="utf-8")
    claim_folder(run, wanted, CATALOG)
    assert read_json(run / "splits.json") != first, "nothing was computed yet"
    (run / "tokens").mkdir()
    (run / "tokens/shard").write_text("", encoding="utf-8")
    claim_folder(run, wanted, CATALOG)
    split.write_text("name,part\na,train\nb,validation\n", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"split.csv changed since this run began"):
        claim_folder(run, wanted, CATALOG)


def test_files_of_a_mix(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("name,part\n", encoding="utf-8")
    mix = {name: {"source": name, "split": {"file": str(tmp_path / f"{name}.csv")}} for name in ("one", "two")}
    claim_folder(tmp_path / "run", recipe(source="", mix=mix), CATALOG)
    assert len(read_json(tmp_path / "run/splits.json")) == 2
    claim_folder(tmp_path / "other", recipe(), CATALOG)
    assert not (tmp_path / "other/splits.json").exists()


def test_runs_of_earlier_versions_resume(tmp_path: Path) -> None:
    mix = {"one": {"source": "data", "outside_paths": False, "window": 0, "pictures": "", "split": None}}
    wanted = recipe(source="", mix=mix)
    claim_folder(tmp_path, wanted, CATALOG)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/shard").write_text("", encoding="utf-8")
    older = read_yaml(tmp_path / "recipe.yaml")
    for one in (older["data"], older["data"]["mix"]["one"]):
        for key in ("outside_paths", "window", "pictures"):
            del one[key]
    write_yaml(tmp_path / "recipe.yaml", older)
    claim_folder(tmp_path, wanted, CATALOG)
    assert read_yaml(tmp_path / "recipe.yaml") == older, "the keys mean the same"
