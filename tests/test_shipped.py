"""Recipes and bundles that ship: where they are, and which places are taken for their names."""

from pathlib import Path

import pytest

from maskweave import shipped
from maskweave.errors import MaskweaveError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a package, two recipes and a bundle; the tests run in an empty folder."""
    made = tmp_path / "checkout" / "src" / "maskweave"
    for path in ("recipes/small.yaml", "recipes/demo.yaml", "recipes/notes.md", "pyproject.toml"):
        (tmp_path / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / path).touch()
    (made / "bundles" / "some").mkdir(parents=True)
    (made / "bundles" / "some" / "modalities.yaml").touch()
    (made / "bundles" / "empty").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(shipped, "PACKAGE", made)
    monkeypatch.setattr(shipped, "CHECKOUT", tmp_path / "checkout")
    return made


def test_recipes_are_at_the_top_of_a_checkout_and_inside_an_installed_package(package: Path) -> None:
    checkout = package.parent.parent
    assert shipped.recipes_folder() == checkout / "recipes"
    (checkout / "pyproject.toml").unlink()
    assert shipped.recipes_folder() == package / "recipes", "a folder around the package is none of ours"
    (package / "recipes").mkdir()
    assert shipped.recipes_folder() == package / "recipes"
    (checkout / "pyproject.toml").touch()
    assert shipped.recipes_folder() == package / "recipes"


def test_recipes_are_listed_in_order(package: Path) -> None:
    assert shipped.shipped_recipes() == ["demo", "small"]


def test_a_bare_name_is_a_shipped_recipe_unless_a_file_has_it(package: Path) -> None:
    recipes = package.parent.parent / "recipes"
    assert shipped.recipe_path("demo") == shipped.recipe_path(Path("demo")) == recipes / "demo.yaml"
    for place in ("demo.yaml", "x/demo", "./demo/", "/demo", "", "a\0b", "d" * 100):
        if place != "./demo/":  # `Path` takes away what is around the name
            assert shipped.recipe_path(place) == Path(place)
    Path("demo").touch()
    assert shipped.recipe_path("demo") == Path("demo")


@pytest.mark.parametrize(("name", "hint"), [("dema", "; did you mean 'demo'"), ("q", ""), ("q" * 99, "")])
def test_unknown_names_list_the_known_ones(name: str, hint: str, package: Path) -> None:
    with pytest.raises(MaskweaveError) as caught:
        shipped.recipe_path(name)
    assert str(caught.value).startswith(f"no recipe {name[:70]!r}"[:-1])
    assert ("did you mean" in str(caught.value)) == bool(hint) and hint in str(caught.value)
    assert str(caught.value).endswith("or the name of a shipped recipe: demo, small")


def test_bundles(package: Path) -> None:
    assert shipped.shipped_bundle("some") == shipped.shipped_bundle(Path("some")) == package / "bundles" / "some"
    for place in ("empty", "other", "some/", "./some", "../bundles/some", "some.x", "", "so\0me"):
        assert shipped.shipped_bundle(place) is None


def test_tokenizers_are_no_bundles(package: Path) -> None:
    folder = package / "bundles" / "patches"
    folder.mkdir()
    assert shipped.shipped_tokenizer("patches") is None
    (folder / "config.json").touch()
    assert shipped.shipped_tokenizer("patches") == folder and shipped.shipped_bundle("patches") is None
    for place in ("some", "./patches", "patches/", ""):
        assert shipped.shipped_tokenizer(place) is None


def test_names_of_bundles_have_less_than_100_characters(package: Path) -> None:
    for length, found in ((99, True), (100, False)):
        folder = package / "bundles" / ("n" * length)
        folder.mkdir()
        (folder / "modalities.yaml").touch()
        assert (shipped.shipped_bundle(folder.name) == folder) == found
