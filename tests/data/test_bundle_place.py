"""Where recipes and `load` find bundles."""

from pathlib import Path

import pytest
from remote_storage import http_folder

from maskweave.modality.catalogs import load_saved_catalog
from maskweave.shipped import shipped_bundle
from maskweave.training.recipe import load_recipe


def test_recipes_start_from_a_bundle_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))
    folder = shipped_bundle("scenes")
    assert folder is not None
    with http_folder(folder.parent) as url:
        recipe = load_recipe("scenes", {"start": f"{url}/scenes"})
        assert recipe.start == f"{url}/scenes"
        assert load_saved_catalog(recipe.start_folder).keys() == load_saved_catalog(folder).keys()
