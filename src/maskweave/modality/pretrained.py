"""Tokenizer networks that are taken from a bundle instead of trained: `tokenizer: {pretrained: scenes#tok_rgb}`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json_object
from maskweave.hub import folder_of
from maskweave.provenance import FILE, LICENSE_FILES
from maskweave.shipped import shipped_bundle, shipped_tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXPECTED = "a bundle or tokenizer that ships, the folder or Hub id of a bundle or run, with #NAME of the modality, or the folder of a tokenizer"


def find_pretrained(place: str) -> Path:
    """Returns the folder of a tokenizer network.

    Args:
        place: name of a shipped bundle, folder or Hub id of a bundle or run, each with `#NAME` if it has several tokenizer networks; or the
            name of a shipped tokenizer, or the folder of one.

    Raises:
        MaskweaveError: there is none; the message lists the tokenizers that there are.
    """
    bundle, _, name = place.partition("#")
    if not bundle:
        raise MaskweaveError(f"{shown(place)}; expected {EXPECTED}")
    root = None if Path(bundle).is_dir() else shipped_bundle(bundle) or shipped_tokenizer(bundle)
    if root is None:
        root = folder_of(bundle, ("tokenizers/*", "modalities.yaml", FILE, *LICENSE_FILES), EXPECTED)
    if not name and (root / WEIGHTS).is_file():
        return root
    found = sorted(path.parent.name for path in (root / "tokenizers").glob(f"*/{WEIGHTS}"))
    if not name and len(found) == 1:
        return root / "tokenizers" / found[0]
    if name not in found:
        named = f"no tokenizer network {shown(name)}" if name else f"{len(found)} tokenizer networks"
        choice = f"; name one of {', '.join(f'{bundle}#{one}' for one in found)}" if found else f"; expected {EXPECTED}"
        raise MaskweaveError(f"{bundle} has {named}{choice}")
    return root / "tokenizers" / name


def check_complete(entry: Any, where: str) -> None:
    """Refuses an entry of a bundle that leaves the settings of its pretrained network to another place, which would be read, or downloaded, to load the bundle.

    Args:
        entry: content of the entry.

    Raises:
        MaskweaveError: it has `pretrained` without the network's settings.
    """
    tokenizer = entry.get("tokenizer") if isinstance(entry, Mapping) else None
    if isinstance(tokenizer, Mapping) and tokenizer.get("pretrained") and "quantizer" not in tokenizer:
        raise MaskweaveError(
            f"{where}: tokenizer.pretrained is {shown(tokenizer['pretrained'])} without the settings of its network, which entries of a run or bundle contain; "
            "get the complete folder again"
        )


def pretrained_settings(place: Any, others: list[str]) -> dict[str, Any]:
    """Returns the settings of a tokenizer network that is taken from elsewhere, as content of `tokenizer`.

    Args:
        others: further keys that were given, which would contradict these settings.

    Raises:
        MaskweaveError: as `find_pretrained`; or other keys are given.
    """
    if others:
        raise MaskweaveError(f"tokenizer.pretrained brings all settings of the network; remove {', '.join(others)}")
    if not isinstance(place, str):
        raise MaskweaveError(f"tokenizer.pretrained is {shown(place)}; expected {EXPECTED}")
    path = find_pretrained(place) / CONFIG
    modality = read_json_object(path).get("modality")
    modality = modality if isinstance(modality, dict) else {}
    settings = modality.get("tokenizer")
    if not isinstance(settings, dict) or "quantizer" not in settings:
        raise MaskweaveError(f"{path}: is not the configuration of a tokenizer network; expected {EXPECTED}")
    grid = modality.get("grid")
    if not (isinstance(grid, list) and all(isinstance(points, int) for points in grid)):
        raise MaskweaveError(
            f"{path}: modality.grid is {shown(grid)}; expected a list of whole numbers; get the tokenizer again"
        )
    trained = settings.get("trained_grid") or (grid if len(grid) == 2 else None)
    return {**settings, "trained_grid": trained, "pretrained": place}
