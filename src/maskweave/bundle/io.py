"""A bundle on disk: a folder with a model, its tokenizers and its modality entries. A finished run is also a bundle.

BUNDLE/provenance.json          origin, license    maskweave.provenance
BUNDLE/modalities.yaml          entries            maskweave.modality.catalogs
BUNDLE/model/                   weights, config    maskweave.families.weights
BUNDLE/tokenizers/NAME/         one per grid and vocabulary   maskweave.tokenizers.folder
BUNDLE/calibration.yaml         temperatures of the predicted distributions by modality, if they are calibrated
"""

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from maskweave.config import build
from maskweave.data.bundle_place import CALIBRATION
from maskweave.data.publishing import publish
from maskweave.data.remote import check_writable, is_remote
from maskweave.errors import MaskweaveError, shown
from maskweave.families.base import Family, ModelSettings
from maskweave.families.weights import load_model, read_config, save_model
from maskweave.files import read_yaml, write_aside, write_yaml
from maskweave.modality.catalogs import Catalog, load_saved_catalog, save_catalog
from maskweave.provenance import Provenance, read_provenance, write_provenance
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.folder import load_tokenizers, save_tokenizers

NOTHING_KNOWN = Provenance()


class BundleParts(NamedTuple):
    """The content of a bundle."""

    catalog: Catalog
    model: nn.Module
    """In evaluation mode."""
    tokenizers: dict[str, Tokenizer]
    """By modality; some grids may have none."""
    calibration: dict[str, float]
    """Temperature of the predicted distributions by modality; none: they are as the model predicts them."""
    provenance: Provenance


@dataclass(frozen=True)
class _Calibration:
    temperatures: dict[str, float]


def save_bundle(
    catalog: Catalog,
    model: nn.Module,
    tokenizers: Mapping[str, Tokenizer],
    place: str | os.PathLike[str],
    calibration: Mapping[str, float] | None = None,
    provenance: Provenance = NOTHING_KNOWN,
) -> Path | str:
    """Writes a new bundle into a folder or to a URL. Returns the place.

    Raises:
        MaskweaveError: the folder exists and is not empty, the URL holds other files or cannot be written, or a text tokenizer is missing, without which the
            bundle could not be loaded.
    """
    if isinstance(place, str) and is_remote(place):
        check_writable(place)
        with tempfile.TemporaryDirectory() as temporary:
            save_bundle(catalog, model, tokenizers, Path(temporary) / "bundle", calibration, provenance)
            publish(Path(temporary) / "bundle", place)
        return place
    folder = Path(place)
    written = {catalog[name].vocabulary for name in tokenizers if name in catalog}
    if missing := {
        m.vocabulary: m.name for m in catalog.values() if m.kind == "sequence" and m.vocabulary not in written
    }:
        raise MaskweaveError(
            f"{folder}: a bundle needs the text tokenizer of every vocabulary, but that of {', '.join(missing)} is missing; "
            f"add it to tokenizers as {', '.join(f'{name!r}: SequenceTokenizer(...)' for name in missing.values())}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MaskweaveError(f"{folder}: exists already; choose another folder for the bundle, or remove this one")
    with write_aside(folder) as aside:
        aside.mkdir()
        save_catalog(catalog, aside)
        save_model(model, catalog, aside)
        save_tokenizers(tokenizers, aside / "tokenizers")
        if calibration:
            write_calibration(calibration, aside)
        if provenance != NOTHING_KNOWN:
            write_provenance(provenance, aside)
    return folder


def load_bundle(folder: Path) -> BundleParts:
    """Loads a bundle.

    Raises:
        MaskweaveError: the folder does not exist, the run is not finished, files are damaged, or parts do not belong together.
    """
    if (folder / "model" / "config.json").is_file():
        # First, for a clear message: entries of an older format would fail because of renamed keys.
        read_config(folder / "model" / "config.json")
    catalog = load_saved_catalog(folder)
    return BundleParts(
        catalog,
        load_model(folder, catalog),
        load_tokenizers(folder / "tokenizers", catalog),
        _calibration(folder, catalog),
        read_provenance(folder),
    )


def write_calibration(calibration: Mapping[str, float], folder: Path) -> None:
    write_yaml(folder / CALIBRATION, {"temperatures": dict(calibration)})


def _calibration(folder: Path, catalog: Catalog) -> dict[str, float]:
    path = folder / CALIBRATION
    if not path.is_file():
        return {}
    found = build(_Calibration, read_yaml(path), str(path)).temperatures
    for name, temperature in found.items():
        if name not in catalog or not 0 < temperature < math.inf:
            raise MaskweaveError(
                f"{path}: the temperature of {shown(name)} is {shown(temperature)}; expected a number above 0 for a modality of the bundle; remove it"
            )
    return found


def trained_settings(family: Family[Any, Any], folder: Path) -> ModelSettings | None:
    """Returns the settings that a run was trained with; None if its recipe does not say."""
    path = folder / "recipe.yaml"
    settings = read_yaml(path).get("model") if path.is_file() else None
    if not isinstance(settings, Mapping):
        return None
    try:
        model = build(ModelSettings, settings, str(path), "model")
    except MaskweaveError:  # a recipe of another version; the model can still be used
        return None
    return model if model.family == family.name else None
