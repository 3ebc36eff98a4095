"""A run folder and its recipe."""

import contextlib
from pathlib import Path
from typing import Any

from maskweave.config import plain
from maskweave.data.named import is_endless
from maskweave.data.permutation import LISTED
from maskweave.data.split import Split
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_yaml, remove, sweep, write_yaml
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import training_facts
from maskweave.ranks import WHOLE, JobPart, is_main_process
from maskweave.training.checkpoint_files import latest
from maskweave.training.resuming import changes, is_free
from maskweave.training.split_record import claim_splits

MADE = ("tokenizers", "tokens", "checkpoints", "model")
"""Folders of the files that a run computes from its recipe and entries."""
CACHE = "cache"
"""Folder of the values that tokenizers are trained on."""
TRAINED = {"train.": ".", "tokenizers.train.": "tokenizers/*"}
"""Prefixes of the keys of a training, and the folders of its checkpoints."""
ADDED_MASKING: dict[str, Any] = {"allocation": "dirichlet", "target_beta": [0.1, 1.0]}
"""Keys of `model.masking` that recipes of earlier versions lack, and what they mean there."""
ADDED: dict[str, Any] = {
    "color": 0.0,
    "noise": {},
    "shift": {},
    "fields": {},
    "outside_paths": False,
    "window": 0,
    "pictures": "",
    "tokens": "",
    "shuffle_window": 0,
}
"""Keys of `data` that recipes of earlier versions do not have, with the values that mean the same."""

MOST_LISTED = 20
"""Differences that a message lists."""


def writing(folder: Path, part: JobPart = WHOLE) -> contextlib.AbstractContextManager[None]:
    """Context in which no other command writes to a run folder, but for other parts of the same job. Of several processes that work together, the first one
    holds the lock."""
    return lock(folder, part) if is_main_process() else contextlib.nullcontext()


def claim_folder(folder: Path, recipe: dict[str, Any], catalog: Catalog) -> None:
    """Writes a recipe, as plain values, and its modality entries into the folder of a new run or of the same run.

    Allowed changes are written and reported (`training.resuming`). Any change is allowed while the folder has no results yet.

    Raises:
        MaskweaveError: the folder contains a run of another recipe; the message lists the keys or entries that differ.
    """
    sweep(folder)
    path, entries = folder / "recipe.yaml", folder / "modalities.yaml"
    found = read_run_recipe(path, recipe) if path.exists() else None
    changed = [] if found is None else list(changes(found, recipe))
    refused = [change.key for change in changed if not is_free(change.key)]
    before = catalog_from(read_yaml(entries), str(entries), saved=True) if entries.exists() else catalog
    others, was, now = _other_entries(before, catalog), before.to_plain(), catalog.to_plain()
    if (refused or others) and _is_begun(folder):
        what = (
            f"a run of another recipe ({_listed(refused)} differ)"
            if refused
            else f"a run, and its modality entries differ from those of {catalog.where} ({_listed(others)})"
        )
        shuffled = any(change.key == "data.shuffle_window" and change.was == 0 for change in changed)
        restored = "set data.shuffle_window to 0 to resume it, " * shuffled
        raise MaskweaveError(f"{folder}: contains {what}; {restored}choose another folder with --out, or remove it")
    claim_splits(folder, recipe, _is_begun(folder))
    if refused or others:
        remove(folder / CACHE)
        _report(
            f"{folder}: {_listed([*refused, *others])} differ from before; replaced, because nothing was computed with them yet"
        )
    reported_by_fit = tuple(prefix for prefix, folders in TRAINED.items() if _is_resumed(folder, folders))
    reported = [str(change) for change in changed if is_free(change.key) and not change.key.startswith(reported_by_fit)]
    reported += [] if others else [str(change) for change in changes(was["modalities"], now["modalities"])]
    if reported and _is_begun(folder):
        _report(f"{folder}: {'; '.join(reported)} from now on")
    write_yaml(entries, now)
    if found != recipe:
        write_yaml(path, recipe)


def read_run_recipe(path: Path, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """Reads the recipe of a run folder. One that does not say how its data is split is from a version that held out the last samples.

    Args:
        wanted: the recipe that the folder is claimed for. Where the split means nothing, the recipe in the folder gets that of this one.
    """
    content = read_yaml(path)
    data = content.get("data")
    if isinstance(data, dict) and "split" not in data:
        sets = data.get("mix") or {"": data}
        free = wanted is not None and all(s.get("held_out") or is_endless(s.get("source", "")) for s in sets.values())
        data["split"] = wanted["data"]["split"] if free and wanted is not None else plain(Split(by="order"))
        for one in (data.get("mix") or {}).values():
            one["split"] = None
    if isinstance(data, dict) and wanted is not None:
        if wanted["data"].get("shuffle_window", 0) is None and not _is_large(path.parent):
            data.setdefault("shuffle_window", None)  # the same
        mixed = wanted["data"].get("mix") or {}
        for one, now in [(data, wanted["data"]), *((s, mixed.get(n, {})) for n, s in (data.get("mix") or {}).items())]:
            for key in ADDED.keys() & now.keys():
                one.setdefault(key, ADDED[key])
    masking = content["model"].get("masking") if isinstance(content.get("model"), dict) else None
    if isinstance(masking, dict) and wanted is not None:
        for key in ADDED_MASKING.keys() & wanted["model"].get("masking", {}).keys():
            masking.setdefault(key, ADDED_MASKING[key])
    return content


def _is_large(folder: Path) -> bool:
    """Whether a run has tokens of a data set that is shuffled in windows if its recipe does not say otherwise."""
    train = folder / "tokens" / "train"
    return any(
        read_json(path, limit=None).get("samples", 0) > LISTED
        for path in [*train.glob("index.json"), *train.glob("*/index.json")]
    )


def _other_entries(before: Catalog, catalog: Catalog) -> list[str]:
    """Returns the names of modalities and vocabularies in whose `training_facts` two catalogs differ."""

    def facts(entries: Catalog) -> dict[str, dict[str, Any]]:
        return {
            "vocabularies": dict(entries.vocabularies),
            "modalities": {name: training_facts(m) for name, m in entries.items()},
        }

    found, wanted = facts(before), facts(catalog)
    order = ["the order of modalities"] if list(before) != list(catalog) else []
    differing = [
        name
        for group in wanted
        for name in {**found[group], **wanted[group]}
        if found[group].get(name) != wanted[group].get(name)
    ]
    return differing or order


def _is_resumed(folder: Path, folders: str) -> bool:
    """Whether a training resumes from a checkpoint. It then reports changes itself, with the step of the change."""
    parts = [folder] if folders == "." else [p for p in folder.glob(folders) if not (p / "config.json").exists()]
    return any(latest(part) is not None for part in parts)


def _listed(names: list[str]) -> str:
    rest = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {rest:,} more" if rest > 0 else "")


def _is_begun(folder: Path) -> bool:
    """Whether a run folder has any results."""
    return any(path.is_file() for name in MADE for path in (folder / name).rglob("*"))


def _report(text: str) -> None:
    if is_main_process():
        print(text)
