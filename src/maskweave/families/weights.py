"""A trained model on disk: `model/config.json`, `model/model.safetensors`, and other files that its family writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError, shown, shown_command
from maskweave.families.base import family_named, family_of
from maskweave.files import read_json, read_json_object, read_yaml, write_aside, write_json
from maskweave.modality.catalogs import Catalog

FORMAT = 2
"""Format 1, from before model families, had other names for tensors and keys."""


def save_model(model: nn.Module, catalog: Catalog, folder: Path, checkpoint: str = "") -> None:
    """Writes `folder/model`.

    Args:
        checkpoint: digest of the weights of the checkpoint that the model is from, for `made_from`.
    """
    family = family_of(model)
    with write_aside(folder / "model") as aside:
        config = {
            "format": FORMAT,
            "family": family.name,
            "model": plain(model.config),
            "entries": _entries(catalog),
        }
        if checkpoint:
            config["checkpoint"] = checkpoint
        write_json(aside / "config.json", config)
        family.write_weights(model, aside)


def made_from(folder: Path) -> str:
    """Returns the digest of the checkpoint that the model of a run folder is from; empty if there is no model, or if it is not known."""
    try:
        return str(read_json_object(folder / "model" / "config.json").get("checkpoint", ""))
    except MaskweaveError:
        return ""


def unfinished(folder: Path) -> MaskweaveError:
    """Returns the error for a folder without a trained model; it names the command that finishes the run or transfer."""
    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        return MaskweaveError(f"{folder}: has no trained model and no recipe.yaml; copy the complete folder again")
    name = "transfer" if is_transfer(read_yaml(recipe)) else "run"
    command = shown_command(name, recipe, "--out", folder)
    return MaskweaveError(f"{folder}: no trained model yet; finish the {name} with: {command}")


def is_transfer(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe, as plain values, is that of a transfer."""
    return "inputs" in recipe


def load_model(folder: Path, catalog: Catalog) -> nn.Module:
    """Loads `folder/model` for the catalog's modalities, in evaluation mode.

    Raises:
        MaskweaveError: the run is not finished, a file is damaged, or the weights belong to another catalog.
    """
    path = folder / "model" / "config.json"
    if not path.is_file():
        raise unfinished(folder)
    config = read_config(path)
    if "transfer" in config:
        raise MaskweaveError(
            f"{path}: this is the model of a transfer, which predicts only its target; load it with maskweave.transfer.build.load_transferred"
        )
    trained, now = config.get("entries"), _entries(catalog)
    if trained != now:
        differing = (
            [name for name in {**now, **trained} if now.get(name) != trained.get(name)]
            if isinstance(trained, dict)
            else ["all"]
        )
        raise MaskweaveError(
            f"{path.parent}: modalities.yaml has changed since the model was trained (different entries: {', '.join(name[:100] for name in differing[:20])}); restore the old file"
        )
    try:
        family = family_named(config.get("family"))
    except MaskweaveError as error:
        raise MaskweaveError(f"{path}: {error}") from error
    model = family.read_weights(catalog, build(family.Config, config.get("model"), str(path), "model"), path.parent)
    return model.eval()


def read_config(path: Path) -> dict[str, Any]:
    """Reads a model's `config.json`.

    Raises:
        MaskweaveError: the file does not have this version's format.
    """
    config = read_json(path)
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        older = isinstance(found, int) and found < FORMAT
        problem = f"has format {shown(found)}, from an older maskweave" if older else "has an unknown format"
        raise MaskweaveError(
            f"{path}: {problem}; this version reads format {FORMAT}. {'Train the model again, or use' if older else 'Use'} the version that wrote it"
        )
    return dict(config)


def _entries(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """The facts of every entry that the weights depend on. Shapes alone would not reveal two swapped entries."""
    facts = ("id", "kind", "tokens", "positions", "vocabulary", "input_only")
    return {name: {fact: getattr(m, fact) for fact in facts} for name, m in catalog.items()}
