"""Generation of scenes by tiles, from inputs to blended values and files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskweave import limits
from maskweave.config import whole_number
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.generate.places import as_geotiff, find_places
from maskweave.generate.request import Options, Sample, twin
from maskweave.generate.tiles import Tiled, plane_output, predict_tiles, tile_seed
from maskweave.locks import lock
from maskweave.report.figures import with_legend

if TYPE_CHECKING:
    from maskweave.generate.bundle import Bundle

MOST_SHOWN = 1024
"""Points along the longer side of a figure of a scene."""


def tile_scene(
    bundle: "Bundle",
    scene: Sample,
    targets: Sequence[str],
    overlap: float,
    seed: int,
    batch_size: int,
    folder: Path | None,
    options: Options,
) -> Tiled:
    """`Bundle.tiles`."""
    if isinstance(targets, str) or not targets:
        raise MaskweaveError(f"targets: found {targets!r}, expected a list of names")
    if options.get("edit"):
        raise MaskweaveError("tiles cannot be edited; remove edit, or generate without tiles")
    seed = whole_number("seed", seed, most=limits.SEED)
    bundle.schedule(list(scene), targets, **options)  # checks the request
    outputs = {}
    for name in targets:
        modality = bundle.catalog[twin(bundle.catalog, name)]
        if modality.name not in bundle.tokenizers:
            raise MaskweaveError(
                f"target {name!r}: this bundle has no tokenizer for it, so there are no values to blend; use other targets"
            )
        outputs[name] = plane_output(modality.value, name)

    def predict(samples: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[dict[str, np.ndarray]]:
        seeds = [tile_seed(seed, number) for number in numbers]
        results = bundle.generate_batch(samples, targets, seeds=seeds, batch_size=batch_size, **options)
        return [
            {name: bundle.catalog[twin(bundle.catalog, name)].value.to_blend(result[name]) for name in targets}
            for result in results
        ]

    tiled = predict_tiles(
        bundle.catalog, scene, outputs, predict, overlap=overlap, batch_size=batch_size, folder=folder
    )
    tiled.places = find_places(scene, bundle.catalog, tiled=True)
    return tiled


def save_tiled(tiled: Tiled, folder: str | os.PathLike[str]) -> Path:
    """Writes a blended scene into a folder: NAME.EXT, GeoTIFF if an input of the same view was one, NAME.picture.png, reduced to 1,024 points, and NAME.known.png if a part is unknown."""
    folder = Path(folder)
    with lock(folder):
        for name, value in tiled.values.items():
            _save_one(tiled, name, value, folder)
    return folder


def _save_one(tiled: Tiled, name: str, value: np.ndarray, folder: Path) -> None:
    modality = tiled.catalog[name]
    located = as_geotiff(value, modality, tiled.places)
    content, ending = modality.value.to_file(value, name) if located is None else (located, "tif")
    with write_aside(folder / f"{name}.{ending}") as aside:
        aside.write_bytes(content)
    step = max(1, -(-max(value.shape[:2]) // MOST_SHOWN))
    small = np.asarray(value[::step, ::step])
    if not modality.value.is_photograph:
        figure = with_legend(modality, small, small.shape[:2])
        with write_aside(folder / f"{name}.picture.png") as aside:
            Image.fromarray(figure).save(aside, format="PNG")
    if not tiled.known[name].all():
        with write_aside(folder / f"{name}.known.png") as aside:
            Image.fromarray(tiled.known[name]).save(aside, format="PNG")
