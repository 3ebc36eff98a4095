"""The parts of a bundle on disk: `modalities.yaml`, `model/` and `tokenizers/NAME/`, written aside and checked when read.

A bundle is a folder with a model, its tokenizers and its modality entries; a finished run is one.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_yaml, write_aside, write_json, write_yaml
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.nn.weights import load_passthrough, save_passthrough, save_tensors, take_tensors
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

FORMAT = 1


def save_catalog(catalog: Catalog, folder: Path) -> None:
    write_yaml(folder / "modalities.yaml", catalog.to_plain())


def load_saved_catalog(folder: Path) -> Catalog:
    """Read a bundle's modality entries.

    Raises:
        MaskweaveError: no such folder, or it holds no run or bundle.
    """
    path = folder / "modalities.yaml"
    if not path.is_file():
        fault = "has no modalities.yaml, so it is not a run or bundle" if folder.is_dir() else "no such folder"
        raise MaskweaveError(f"{folder}: {fault}; give the folder that 'maskweave run' made")
    return catalog_from(read_yaml(path), str(path))


def save_model(model: FourM | M3AE, catalog: Catalog, folder: Path) -> None:
    """Write `folder/model`."""
    with write_aside(folder / "model") as aside:
        aside.mkdir()
        objective = "fourm" if isinstance(model, FourM) else "m3ae"
        config = {
            "format": FORMAT,
            "objective": objective,
            "model": plain(model.config),
            "entries": _entries(catalog),
        }
        write_json(aside / "config.json", config)
        save_tensors(model.state_dict(), aside / "model.safetensors")
        if isinstance(model, FourM):
            save_passthrough(model.passthrough, aside)


def load_model(folder: Path, catalog: Catalog) -> FourM | M3AE:
    """Read `folder/model` for the catalog's modalities, in evaluation mode. The weights are mapped, not copied.

    Raises:
        MaskweaveError: the run is not finished, a file is damaged, or the weights are of another catalog.
    """
    path = folder / "model" / "config.json"
    if not path.is_file():
        command = shlex.join(["maskweave", "run", str(folder / "recipe.yaml"), "--out", str(folder)])
        raise MaskweaveError(f"{folder}: has no trained model yet; finish it with: {command}")
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise MaskweaveError(f"{path}: is not of format {FORMAT}; open it with the version of maskweave that wrote it")
    if config.get("objective") == "transfer":
        raise MaskweaveError(
            f"{path}: holds the model of a transfer, which tells one thing alone; open it with maskweave.transfer.build.load_transferred"
        )
    trained, now = config.get("entries"), _entries(catalog)
    if trained != now:
        differing = (
            [name for name in {**now, **trained} if now.get(name) != trained.get(name)]
            if isinstance(trained, dict)
            else ["all"]
        )
        raise MaskweaveError(
            f"{path.parent}: was trained with other entries than modalities.yaml has now ({', '.join(differing)} differ); put the old file back"
        )
    weights = folder / "model" / "model.safetensors"
    if config.get("objective") == "m3ae":
        masked = M3AE.without_weights(catalog, build(M3AEConfig, config.get("model"), str(path), "model"))
        take_tensors(masked, weights)
        return masked.eval()
    model = FourM.without_weights(catalog, build(FourMConfig, config.get("model"), str(path), "model"))
    take_tensors(model, weights)
    model.tie()
    model.passthrough = load_passthrough(folder / "model")
    return model.eval()


def _entries(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """What the weights rest on, of every entry: two that change places would go unnoticed by their shapes."""
    facts = ("id", "kind", "tokens", "positions", "vocabulary", "input_only")
    return {name: {fact: getattr(m, fact) for fact in facts} for name, m in catalog.items()}


def load_tokenizers(folder: Path, catalog: Catalog) -> dict[str, Tokenizer]:
    """The tokenizers under `folder` for the sequences and grids of the catalog. A bundle may lack those of some grids.

    Raises:
        MaskweaveError: a text tokenizer is missing, or one is damaged or of another entry.
    """
    texts: Mapping[str, TextTokenizer] = {
        name: TextTokenizer.load(folder / name)
        for name in {m.vocabulary for m in catalog.values() if m.kind == "sequence"}
    }
    for name, text in texts.items():
        text.require(catalog.vocabularies[name], str(folder / name))
    tokenizers: dict[str, Tokenizer] = {}
    for name, modality in catalog.items():
        if modality.kind == "sequence":
            tokenizers[name] = SequenceTokenizer(modality, texts[modality.vocabulary])
        elif modality.kind == "grid" and (folder / name).exists():
            tokenizers[name] = GridTokenizer.load(folder / name, modality)
    return tokenizers


def save_bundle(
    catalog: Catalog, model: FourM | M3AE, tokenizers: Mapping[str, Tokenizer], folder: str | os.PathLike[str]
) -> Path:
    """Write a new bundle.

    Raises:
        MaskweaveError: the folder is there and not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MaskweaveError(f"{folder}: is there already; choose another folder for the bundle, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(folder) as aside:
        aside.mkdir()
        save_catalog(catalog, aside)
        save_model(model, catalog, aside)
        for name, tokenizer in tokenizers.items():
            if isinstance(tokenizer, SequenceTokenizer):
                vocabulary = aside / "tokenizers" / tokenizer.text.vocabulary.name
                if not vocabulary.exists():
                    tokenizer.text.save(vocabulary)
            elif isinstance(tokenizer, GridTokenizer):
                tokenizer.save(aside / "tokenizers" / name)
    return folder
