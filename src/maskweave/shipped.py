"""Recipes, bundles and tokenizers that ship inside the package, found by their names."""

import difflib
import os
from pathlib import Path

from maskweave.errors import MaskweaveError, shown

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent.parent
"""The repository, if the package is used from a checkout. There, the recipes stand at the top; a wheel has them in the package."""


def recipes_folder() -> Path:
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() or not (CHECKOUT / "pyproject.toml").is_file() else CHECKOUT / "recipes"


def shipped_recipes() -> list[str]:
    """Returns the names of the shipped recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_path(place: str | os.PathLike[str]) -> Path:
    """Returns the file of a recipe, given its path or the name of a shipped recipe. A file of that name comes first.

    Raises:
        MaskweaveError: a bare name, without folder and ending, is neither a file nor a shipped recipe.
    """
    path, name = Path(place), os.fspath(place)
    if not _is_bare(name) or path.is_file():
        return path
    known = shipped_recipes()
    if name in known:
        return recipes_folder() / f"{name}.yaml"
    near = difflib.get_close_matches(name, known)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise MaskweaveError(
        f"no recipe {shown(name)}{hint}; give the path of a .yaml file, or the name of a shipped recipe: {', '.join(known)}"
    )


def shipped_bundle(place: str | os.PathLike[str]) -> Path | None:
    """Returns the folder of a shipped bundle, or None if `place` is not the name of one."""
    return _shipped(place, "modalities.yaml")


def shipped_tokenizer(place: str | os.PathLike[str]) -> Path | None:
    """Returns the folder of a tokenizer that ships without a model, or None if `place` is not the name of one."""
    return _shipped(place, "config.json")


def check_no_tokenizer(place: str | os.PathLike[str]) -> None:
    """Raises MaskweaveError if a place of a bundle is the name of a shipped tokenizer, and no folder."""
    if shipped_tokenizer(place) is not None and not Path(place).is_dir():
        raise MaskweaveError(
            f"{place}: is a tokenizer without a model; use it in an entry of a catalog: tokenizer: {{pretrained: {place}}}"
        )


def _shipped(place: str | os.PathLike[str], file: str) -> Path | None:
    folder = PACKAGE / "bundles" / os.fspath(place)
    return folder if _is_bare(os.fspath(place)) and (folder / file).is_file() else None


def _is_bare(name: str) -> bool:
    return bool(name) and name == Path(name).name and not Path(name).suffix and "\0" not in name and len(name) < 100
