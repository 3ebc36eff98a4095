"""Published checkpoints: a folder (or a repository on the Hugging Face Hub) with `config.json` and `model.safetensors`.

Tensors are read by name and shape. All missing, unknown or contradictory items are reported in one message.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_aside
from maskweave.hub import folder_of
from maskweave.nn.weights import listed, open_tensors, save_tensors
from maskweave.provenance import LICENSE_FILES

REQUIRED = object()
"""Marks a key that a configuration must have, in place of a default."""

FILES = ("config.json", "model.safetensors")
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
PRESCRIBED_TOLERANCE = 1e-4


def locate(folder_or_hub_id: str | os.PathLike[str]) -> Path:
    """Returns the folder, or a downloaded copy of the repository `owner/name` or `owner/name@REVISION`.

    Raises:
        MaskweaveError: no such folder or repository, or only a pickled checkpoint.
    """
    folder = Path(folder_or_hub_id)
    if folder.suffix in PICKLED and not folder.is_dir():
        raise _pickled(folder)
    folder = folder_of(folder_or_hub_id, (*FILES, *LICENSE_FILES), f"one with {' and '.join(FILES)}, or a Hub id")
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled and not all((folder / name).is_file() for name in FILES):
        raise _pickled(pickled[0])
    return folder


def _pickled(path: Path) -> MaskweaveError:
    return MaskweaveError(
        f"{path}: a pickled checkpoint can run any code when opened, so it is refused. Convert it once: open it with torch.load and "
        "weights_only=True, save its state dict as model.safetensors with safetensors.torch.save_file, and its configuration as config.json in the same folder"
    )


def defaults(cls: type) -> dict[str, Any]:
    """Returns the default of each field of a dataclass, for `read_config`."""
    return {f.name: REQUIRED if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(cls)}


class PublishedConfig(NamedTuple):
    """A published configuration."""

    written: dict[str, Any]
    """As written in the file."""
    complete: dict[str, Any]
    """With defaults for absent keys."""


def read_config(folder: Path, known: Mapping[str, Any], what: str) -> PublishedConfig:
    """Reads `config.json` and checks its keys.

    Args:
        known: default of each key, or `REQUIRED`.
        what: what the configuration describes, for messages.

    Raises:
        MaskweaveError: the file is missing or damaged, a required key is missing, or a key is unknown; lists all faults.
    """
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise MaskweaveError(f"{path}: expected a JSON object, found {type(config).__name__}; copy the file again")
    missing = [key for key, default in known.items() if default is REQUIRED and key not in config]
    unknown = [key for key in config if key not in known]
    if missing or unknown:
        faults = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise MaskweaveError(f"{path}: not the configuration of {what}; {'; '.join(faults)}. Known: {', '.join(known)}")
    return PublishedConfig(config, {key: config.get(key, default) for key, default in known.items()})


class Tensors:
    """The tensors of `model.safetensors`. `take` them one by one; `finish` reports what is missing or left over.

    Raises:
        MaskweaveError: the file is missing, truncated or of another format.
    """

    def __init__(self, folder: Path):
        self.path = folder / "model.safetensors"
        with open_tensors(self.path) as stored:
            self.left: dict[str, Tensor] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        self.names = set(self.left)
        self._missing: list[str] = []
        self._wrong: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def take(self, name: str, *shape: int) -> Tensor:
        """Returns the tensor `name`, which must have that shape; otherwise `finish` reports it."""
        tensor = self.left.pop(name, None)
        if tensor is None:
            self._missing.append(f"{name} {list(shape)}")
        elif self._fits(name, tensor, shape):
            return tensor
        return torch.empty(shape, device="meta")

    def prescribed(self, name: str, value: Tensor) -> Tensor:
        """Returns the tensor `name`, whose value the architecture fixes; if it differs, `finish` reports it."""
        stored = self.left.pop(name)
        comparable = self._fits(name, stored, value.shape) and not value.is_meta
        if comparable and not torch.allclose(stored, value, atol=PRESCRIBED_TOLERANCE):
            self._wrong.append(f"{name} with values that differ from those of the architecture")
        return stored

    def _fits(self, name: str, tensor: Tensor, shape: Sequence[int]) -> bool:
        found, expected = list(tensor.shape), list(shape)
        if found != expected:
            self._wrong.append(f"{name} {found} instead of {expected}")
        elif tensor.dtype != torch.float32:
            self._wrong.append(f"{name} in {str(tensor.dtype).removeprefix('torch.')} instead of float32")
        else:
            return True
        return False

    def finish(self) -> None:
        """Check that all tensors were taken.

        Raises:
            MaskweaveError: tensors are missing, of the wrong shape, or left over; lists them all.
        """
        faults = {"missing": self._missing, "wrong": self._wrong, "unknown": sorted(self.left)}
        if any(faults.values()):
            details = "; ".join(f"{fault}: {listed(names)}" for fault, names in faults.items() if names)
            raise MaskweaveError(
                f"{self.path}: does not hold the tensors that {self.path.parent / 'config.json'} describes. {details}"
            )


def write_published(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` as temporary files, and rename them once both are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(folder / "config.json") as config_path, write_aside(folder / "model.safetensors") as weights:
        save_tensors(tensors, weights)
        config_path.write_text(json.dumps(config, indent=1), encoding="utf-8")
