"""Editing: regenerates a region of a given value and keeps all other tokens exactly.

For a grid, a region is one of
- a mask over the view, as an array of any size or the path of a file: True or non-zero is regenerated;
- a box [xmin, ymin, xmax, ymax], 0 to 1 from the top left;
- a number: this share of its tokens, chosen at random, which gives variations.

For a sequence, a region is a part of the text, a bool array over its tokens (True: regenerated), or a share.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.generate.token_state import TokenState, token_states
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.values.binary import Binary
from maskweave.values.files import read_value
from maskweave.values.image import Image

Region = Any
"""A mask, the path of a mask, a box, a share, or a part of a text."""


def regions_of(
    edit: Mapping[str, Region],
    sample: Mapping[str, Any],
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    seed: int,
) -> dict[str, np.ndarray]:
    """Returns the region to regenerate of each edited target of a sample: a bool mask over the view of a grid, or over the n tokens of a sequence.

    Args:
        edit: region by target.
        sample: checked values, including those of all edited targets.

    Raises:
        MaskweaveError: a region does not fit its target.
    """
    regions = {}
    for name, region in edit.items():
        modality = catalog[name]
        rng = np.random.default_rng([seed, modality.id])
        try:
            if modality.kind == "sequence":
                field = token_states(catalog, [{name: sample[name]}], tokenizers)[name]
                assert field.ids is not None
                ids = field.ids[field.mask]
                regions[name] = sequence_region(region, catalog, modality, tokenizers.get(name), ids, rng)
            else:
                regions[name] = grid_region(region, modality, rng)
        except (ValueError, TypeError) as error:
            if isinstance(error, MaskweaveError):
                raise
            raise MaskweaveError(  # rows of different lengths, or a box of texts, for instance
                f"edit of {modality.name!r}: found {shown(region)}; expected a mask, a box, a share or a part of a text"
            ) from error
    return regions


def keep_rest(
    catalog: Catalog, given: Mapping[str, TokenState], edits: Sequence[Mapping[str, np.ndarray]]
) -> tuple[dict[str, TokenState], dict[str, TokenState]]:
    """Separates the edited targets from the given modalities, and masks their regions.

    The region is also masked in values of the same source as an edited target (such as the patches of an edited image), because they would
    reveal it.

    Args:
        given: includes every edited target of the samples that edit it.
        edits: region to regenerate by target, for every sample; see `regions_of`.

    Returns:
        The given modalities without the edited targets, and the kept tokens of the edited targets.
    """
    rest = dict(given)
    started: dict[str, TokenState] = {}
    for target in dict.fromkeys(name for edit in edits for name in edit):
        modality, field = catalog[target], rest.pop(target)
        assert field.ids is not None
        started[target] = TokenState(np.zeros_like(field.mask), field.ids.copy())
        twins = [n for n, f in rest.items() if catalog[n].reads == modality.reads and catalog[n].grid]
        for n in twins:
            rest[n] = TokenState(rest[n].mask.copy(), rest[n].ids, rest[n].rows)
        for b, edit in enumerate(edits):
            if target not in edit:
                continue
            region = edit[target]
            if modality.kind == "sequence":
                started[target].mask[b, : len(region)] = ~region
                continue
            started[target].mask[b] = field.mask[b] & ~touched(region, modality.grid).flatten()
            for n in twins:
                rest[n].mask[b] &= ~touched(region, catalog[n].grid).flatten()
    return rest, started


def grid_region(region: Region, modality: Modality, rng: np.random.Generator) -> np.ndarray:
    """Converts a region to a bool mask over the view, of any resolution, with as many axes as the grid."""
    where = f"edit of {modality.name!r}"
    flat = len(modality.grid) == 2
    if isinstance(region, (str, os.PathLike)):
        path = Path(region)
        if not path.is_file():
            raise MaskweaveError(
                f"{where}: {path}: no such file; expected a mask file, white where the image is regenerated"
            )
        is_png = flat and path.suffix.lower() == ".png"  # in color or gray: all that is not black is regenerated
        size = modality.value.size or modality.grid
        region = read_value(path, Image(size=size) if is_png else Binary(size=size), f"{where}: {path}")
        region = region[..., 0] if is_png else region
    if isinstance(region, (int, float)) and not isinstance(region, bool):
        return _share(region, modality.tokens, where, rng).reshape(modality.grid)
    if flat and isinstance(region, (list, tuple)) and len(region) == 4 and np.ndim(region) == 1:
        return _box(region, modality, where)
    mask = np.asarray(region)
    if mask.dtype.kind not in "bui" or mask.ndim != len(modality.grid) or not mask.size:
        axes = "(height, width), a box [xmin, ymin, xmax, ymax]" if flat else f"{len(modality.grid)} axes"
        raise MaskweaveError(f"{where}: found {mask.dtype} of shape {mask.shape}; expected a mask of {axes} or a share")
    return _center(mask != 0, modality) if flat else mask != 0


def sequence_region(
    region: Region,
    catalog: Catalog,
    modality: Modality,
    tokenizer: Tokenizer | None,
    ids: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Converts a region to a bool mask (n,) over a sequence's tokens `ids` (n,)."""
    where = f"edit of {modality.name!r}"
    n = len(ids)
    if isinstance(region, str):
        if not isinstance(tokenizer, SequenceTokenizer) or not modality.value.is_text:
            raise MaskweaveError(
                f"{where}: found the words {shown(region)}, which can only edit a text; give a mask of its {n} tokens or a share"
            )
        mask = np.array(tokenizer.text.find(ids.tolist(), region), bool)
        if not mask.any():
            raise MaskweaveError(
                f"{where}: {region!r} is not a part of the given text; use words exactly as in the text"
            )
    elif isinstance(region, (int, float)) and not isinstance(region, bool):
        chunks = -(-n // modality.chunk)
        mask = np.repeat(_share(region, chunks, where, rng), modality.chunk)[:n]
    else:
        mask = np.asarray(region)
        if mask.dtype != bool or mask.shape != (n,):
            raise MaskweaveError(
                f"{where}: found {mask.dtype} of shape {mask.shape}; expected a bool for each of {n} tokens"
            )
    gaps = int((mask & ~np.concatenate([[False], mask[:-1]])).sum())
    most = catalog.vocabularies[modality.vocabulary].sentinels - 2
    if gaps > most:
        raise MaskweaveError(
            f"{where}: found {gaps} gaps; expected at most {most}, one for each free sentinel of its vocabulary; edit fewer separate parts"
        )
    return mask


def touched(region: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Returns which cells of a grid overlap a region over the same view, even partially. If the grid has other axes than the region, any of its tokens may tell of
    the whole value, so that all overlap."""
    if len(grid) != region.ndim:
        return np.full(grid, region.any())
    for axis, cells in enumerate(grid):
        points = region.shape[axis]
        bounds = [(c * points // cells, -(-(c + 1) * points // cells)) for c in range(cells)]
        region = np.stack([np.take(region, range(a, b), axis).any(axis) for a, b in bounds], axis)
    return region


def _share(share: float, count: int, where: str, rng: np.random.Generator) -> np.ndarray:
    if not 0 <= share <= 1:
        raise MaskweaveError(f"{where}: found {share}; expected a share from 0 to 1")
    mask = np.zeros(count, bool)
    mask[rng.permutation(count)[: round(share * count)]] = True
    return mask


def _box(box: Sequence[float], modality: Modality, where: str) -> np.ndarray:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise MaskweaveError(
            f"{where}: found the box {list(box)}; expected [xmin, ymin, xmax, ymax], 0 ≤ min < max ≤ 1"
        )
    height, width = modality.value.size or modality.grid
    region = np.zeros((height, width), bool)
    tiny = 1e-9  # floating point: a box edge such as 0.6 · 10 may be slightly more than 6
    rows = slice(int(y0 * height + tiny), int(np.ceil(y1 * height - tiny)))
    region[rows, int(x0 * width + tiny) : int(np.ceil(x1 * width - tiny))] = True
    return region


def _center(mask: np.ndarray, modality: Modality) -> np.ndarray:
    """Crops a mask over a complete image as the image is cropped to its entry's aspect ratio."""
    height, width = modality.value.size or modality.grid
    rows, columns = mask.shape
    high, wide = min(rows, round(columns * height / width)), min(columns, round(rows * width / height))
    top, left = (rows - high) // 2, (columns - wide) // 2
    return mask[top : top + max(high, 1), left : left + max(wide, 1)]
