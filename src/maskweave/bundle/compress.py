"""Smaller copies of bundles, which load as any bundle does.

bf16: half the size. Weights are rounded to 8 bits of precision, by at most 0.4% each.
int8: about a quarter. Matrices of at least `LEAST` numbers become 8-bit integers with one scale for each row (`nn.int8`), the other weights bf16.

Codebooks of tokenizers stay as they are, so that tokens keep their meaning, and so do small tensors, whole numbers and external tokenizers.
"""

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maskweave.arguments import check_arguments
from maskweave.bundle.io import load_bundle
from maskweave.data.bundle_place import CALIBRATION
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.nn.int8 import quantize_rows
from maskweave.nn.tensor_files import files_of, index_of
from maskweave.nn.weights import PASSTHROUGH, open_tensors, save_weights
from maskweave.provenance import FILE as PROVENANCE
from maskweave.tokenizers.external.grid import COPY
from maskweave.tokenizers.grid import GridTokenizer

LEAST = 4096
"""Numbers of the smallest matrix that is stored in 8 bits."""
SMALL = 256
"""Numbers of the largest tensor that stays as it is: biases and gains are few, and matter."""
WEIGHTS = "model.safetensors"
TOKENIZER = "config.json"
"""File in the folder of a tokenizer; the folder of a bundle does not have it."""
LOG = "log.txt"
"""Log of the training of a tokenizer."""
CODEBOOK = "quantizer."
TOP = ("modalities.yaml", "recipe.yaml", CALIBRATION, PROVENANCE)


class Compressed(NamedTuple):
    folder: Path
    bytes_before: int
    bytes_after: int


@check_arguments
def compress(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], weights: Literal["bf16", "int8"] = "int8"
) -> Compressed:
    """Writes a smaller copy of a bundle, of a finished run without its tokens, checkpoints and scores, or of the folder of one tokenizer network.

    Parts of a published checkpoint that are kept only to export an equal one are left out.

    Raises:
        MaskweaveError: no bundle or tokenizer, one in int8 already, or `out` exists.
    """
    source, target = Path(folder), Path(out)
    alone = (source / TOKENIZER).is_file()
    check = GridTokenizer.load if alone else load_bundle
    check(source)  # raises: missing, unfinished or damaged
    if target.exists():
        raise MaskweaveError(f"{target}: exists already; choose another folder, or remove this one")
    before = 0
    with write_aside(target) as aside:
        aside.mkdir()
        for name in TOP:
            if (source / name).is_file():
                shutil.copyfile(source / name, aside / name)
        inside = (
            [source / TOKENIZER] if alone else [*(source / "model").rglob("*"), *(source / "tokenizers").rglob("*")]
        )
        for path in sorted(inside):
            if path.is_file() and _is_needed(path, source):
                copy = aside / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        for inner in [source] if alone else [source / "model", *sorted((source / "tokenizers").iterdir())]:
            path = inner / WEIGHTS
            if files_of(path) != [path] or path.is_file():
                before += sum(file.stat().st_size for file in files_of(path))
                _compress_file(path, aside / path.relative_to(source), weights)
        check(aside)  # raises: what was written does not load
    return Compressed(target, before, sum(path.stat().st_size for path in target.rglob("*.safetensors")))


def _is_needed(path: Path, source: Path) -> bool:
    """Whether a file of the bundle in the folder `source` is copied as it is."""
    if path.name in (LOG, PASSTHROUGH) or path.name.startswith(".") or "checkpoints" in path.relative_to(source).parts:
        return False
    if path.parent.name == COPY and path.parent.parent.parent == source / "tokenizers":
        return True
    return path.suffix in (".json", ".txt") and not path.name.endswith(index_of(Path(WEIGHTS)).name)


def _compress_file(path: Path, to: Path, weights: str) -> None:
    stored: dict[str, Tensor] = {}
    with open_tensors(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            tensor = tensors.get_tensor(name)
            if tensor.dtype == torch.int8:
                raise MaskweaveError(
                    f"{path}: is in int8 already; compress the bundle or tokenizer that it was made from"
                )
            stored |= _compressed(name, tensor, weights)
    save_weights(stored, to)


def _compressed(name: str, tensor: Tensor, weights: str) -> dict[str, Tensor]:
    if not tensor.is_floating_point() or tensor.numel() <= SMALL or CODEBOOK in name:
        return {name: tensor}
    if weights == "int8" and tensor.ndim > 1 and tensor.numel() >= LEAST:
        return quantize_rows(name, tensor)
    return {name: tensor.to(torch.bfloat16)}
