"""Tensors in safetensors files: written as they are, read only if they are exactly what is expected."""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskweave.errors import MaskweaveError


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; call it inside `write_aside`.

    Raises:
        OSError: as the system says it; safetensors tells of a full disk only in words.
    """
    try:
        safetensors.torch.save_file(_apart(tensors), path)
    except SafetensorError as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, str(error)) from error
        raise


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, with copies where tensors share memory, which the format refuses."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped.

    Raises:
        MaskweaveError: it is missing, truncated or no such file.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except FileNotFoundError as error:
        raise MaskweaveError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise MaskweaveError(
            f"{path}: cannot be read as safetensors, probably truncated ({error}); copy or make it again"
        ) from error


def load_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy a file's tensors into `tensors`, which must have the same names and shapes.

    Raises:
        MaskweaveError: listing names that are missing, unexpected or of another shape; nothing is copied then.
    """
    with open_tensors(path) as stored:
        names = set(stored.keys())
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in tensors if name in names}
        faults = {
            "missing there": [name for name in tensors if name not in names],
            "not in the model": sorted(names - set(tensors)),
            "of another shape": [
                f"{name} {shape}, here {tuple(tensors[name].shape)}"
                for name, shape in shapes.items()
                if shape != tuple(tensors[name].shape)
            ],
        }
        if any(faults.values()):
            listed = "; ".join(f"{fault}: {_listed(found)}" for fault, found in faults.items() if found)
            raise MaskweaveError(
                f"{path} is of another architecture. {listed}. Use the model that wrote it, or another folder"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(stored.get_tensor(name))


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
