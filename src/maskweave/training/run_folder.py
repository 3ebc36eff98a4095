"""A run folder and the recipe that it belongs to."""

from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, remove, sweep, write_yaml
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.training.distributed import is_main_process
from maskweave.training.resuming import changes, is_free

MADE = ("tokenizers", "tokens", "checkpoints", "model")
"""Folders of what a run makes by its recipe and entries."""
CACHE = "cache"
"""Folder of values that tokenizers are trained on."""
TOLD_BY_FIT = ("train.", "tokenizers.train.")
"""Beginnings of keys whose changes the training loop tells, with the step from which they hold."""


def claim_folder(folder: Path, recipe: dict[str, Any], catalog: Catalog) -> None:
    """Write a recipe, as plain values, and its modality entries into a run folder that is new or of the same run.

    What may change is replaced and told (`training.resuming`). A folder in which nothing was made yet takes any recipe and entries.

    Raises:
        MaskweaveError: the folder holds another recipe's run; names the keys or entries that differ.
    """
    sweep(folder)
    path, entries = folder / "recipe.yaml", folder / "modalities.yaml"
    found = read_yaml(path) if path.exists() else None
    changed = [] if found is None else list(changes(found, recipe))
    refused = [change.key for change in changed if not is_free(change.key)]
    others = _other_entries(entries, catalog)
    if (refused or others) and _is_begun(folder):
        what = (
            f"a run of another recipe ({', '.join(refused)} differ)"
            if refused
            else f"a run, and its modality entries differ from those of {catalog.where} ({', '.join(others)})"
        )
        raise MaskweaveError(f"{folder}: holds {what}; choose another folder with --out, or remove it")
    if refused or others:
        remove(folder / CACHE)
        _tell(
            f"{folder}: {', '.join([*refused, *others])} differ from before; replaced, for nothing was made with them yet"
        )
    told = [str(change) for change in changed if is_free(change.key) and not change.key.startswith(TOLD_BY_FIT)]
    if told and _is_begun(folder):
        _tell(f"{folder}: {'; '.join(told)} from here on")
    write_yaml(entries, catalog.to_plain())
    if found != recipe:  # the file's time tells whether the report is still of this recipe
        write_yaml(path, recipe)


def _other_entries(path: Path, catalog: Catalog) -> list[str]:
    """Names of the modalities and vocabularies in a file that are not those of the catalog, or not like them."""
    if not path.exists():
        return []
    found, wanted = catalog_from(read_yaml(path), str(path)).to_plain(), catalog.to_plain()
    order = ["the order of modalities"] if list(found["modalities"]) != list(wanted["modalities"]) else []
    differing = [
        name
        for group in wanted
        for name in {**found[group], **wanted[group]}
        if found[group].get(name) != wanted[group].get(name)
    ]
    return differing or order


def _is_begun(folder: Path) -> bool:
    """Whether anything was made in a run folder by its recipe."""
    return any(path.is_file() for name in MADE for path in (folder / name).rglob("*"))


def _tell(text: str) -> None:
    if is_main_process():
        print(text)
