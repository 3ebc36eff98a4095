"""Save tensors in safetensors files, and load them only if all names and shapes match."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from maskweave.errors import MaskweaveError, shown
from maskweave.files import parse_json, write_aside
from maskweave.nn.int8 import DequantizedTensors
from maskweave.nn.tensor_files import LARGEST_FILE, files_of, index_of, open_file, open_files, part_of, split_by_size


def save_tensors(tensors: Mapping[str, Tensor], path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; call it inside `write_aside`.

    Args:
        notes: texts by name, kept in the file's header.

    Raises:
        OSError: with the system's error number, a full disk for instance, which safetensors reports only in its message.
    """
    try:
        safetensors.torch.save_file(_without_overlaps(tensors), path, metadata=dict(notes) if notes else None)
    except SafetensorError as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, str(error)) from error
        raise


def _without_overlaps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors on the CPU; those that overlap in memory, which the format refuses, are copied."""
    separate: dict[str, Tensor] = {}
    taken: list[tuple[int, int]] = []
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        overlaps = any(start < other_end and other_start < end for other_start, other_end in taken)
        separate[name] = tensor.clone() if overlaps else tensor
        taken.append((start, end))
    return separate


def save_weights(tensors: Mapping[str, Tensor], path: Path, most: int = LARGEST_FILE) -> None:
    """Write a safetensors file; or, if the tensors have more than `most` bytes, several and their index. Call it inside `write_aside`.

    Raises:
        OSError: same as `save_tensors`.
    """
    groups = split_by_size(tensors, most)
    files = [part_of(path, number, len(groups)) for number in range(len(groups))]
    for file, group in zip(files, groups, strict=True):
        save_tensors(group, file)
    if len(groups) > 1:
        places = {name: file.name for file, group in zip(files, groups, strict=True) for name in group}
        size = sum(tensor.nbytes for tensor in tensors.values())
        index_of(path).write_text(
            json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1), encoding="utf-8"
        )


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file; or, if it was split, all of its files as one.

    Raises:
        MaskweaveError: a file is missing or truncated, or has another format.
    """
    files = files_of(path)
    with open_file(path) if files == [path] else open_files(files) as stored:
        yield stored


def load_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy a file's tensors into `tensors`, which must have the same names and shapes.

    Raises:
        MaskweaveError: tensors are missing, unexpected or of another shape; lists their names. Nothing is copied then.
    """
    with open_tensors(path) as stored, torch.no_grad():
        check_same({name: tensor.shape for name, tensor in tensors.items()}, stored, path)
        for name, tensor in tensors.items():
            tensor.copy_(stored.get_tensor(name))


def take_tensors(module: nn.Module, path: Path) -> None:
    """Read the tensors of a file and use them as a module's parameters and buffers. They are copied only if the file has another precision than the
    module, such as bfloat16, or 8-bit integers with scales (`nn.int8`).

    Raises:
        MaskweaveError: same as `load_tensors`; or a tensor has numbers of another kind, or NaN, infinite or absurdly large ones.
    """
    expected = module.state_dict()
    with open_tensors(path) as opened:
        stored = DequantizedTensors(opened)
        check_same({name: tensor.shape for name, tensor in expected.items()}, stored, path)
        tensors = {name: _usable(stored.get_tensor(name), expected[name].dtype, f"{path}: {name}") for name in expected}
        module.load_state_dict(tensors, assign=True)


LARGEST = 1e12
"""Weights and buffers beyond it are damage: they would overflow in the first products."""


def _usable(tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    """Returns a stored tensor in the type that the module computes in: as it is, or a converted copy, of bfloat16 for instance.

    Raises:
        MaskweaveError: it has numbers of another kind, or numbers that are not finite or absurdly large.
    """
    if (
        tensor.is_floating_point() != dtype.is_floating_point
        or tensor.is_complex()
        or tensor.dtype == torch.bool != dtype
    ):
        raise MaskweaveError(f"{where}: has type {tensor.dtype}, expected {dtype}; use the file as it was saved")
    tensor = tensor.to(dtype)
    if tensor.is_floating_point() and tensor.numel():
        low, high = torch.aminmax(tensor)  # NaN if there is one
        if not (low >= -LARGEST and high <= LARGEST):
            raise MaskweaveError(
                f"{where}: has values from {float(low):g} to {float(high):g}; expected finite weights, at most {LARGEST:g}; "
                "restore the file, or train again with a lower learning rate if the training diverged"
            )
    return tensor


def check_same(shapes: Mapping[str, Sequence[int]], stored: Any, path: Path) -> None:
    """Check that an open file has tensors of these names and shapes, and no others.

    Raises:
        MaskweaveError: it has not; lists the names.
    """
    names = set(stored.keys())
    found = {name: tuple(stored.get_slice(name).get_shape()) for name in shapes if name in names}
    faults = {
        "missing in the file": [name for name in shapes if name not in names],
        "not in the model": sorted(names - set(shapes)),
        "of another shape": [
            f"{name} {shape}, expected {tuple(shapes[name])}"
            for name, shape in found.items()
            if shape != tuple(shapes[name])
        ],
    }
    if any(faults.values()):
        details = "; ".join(f"{fault}: {listed(these)}" for fault, these in faults.items() if these)
        raise MaskweaveError(
            f"{path} does not match the model's architecture. {details}. Use the model that wrote it, or another folder"
        )


def listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class PassthroughTensors(NamedTuple):
    """Content of a published checkpoint that maskweave does not use, kept so that exporting gives an equal checkpoint."""

    config: dict[str, Any]
    """Its `config.json`."""
    tensors: dict[str, Tensor]
    names: tuple[str, ...]
    """Names of all tensors in its `model.safetensors`."""

    def published(self, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns all tensors of the checkpoint.

        Args:
            model: tensors of the model, by their names in the checkpoint.

        Raises:
            MaskweaveError: a tensor is neither in the model nor among the passthrough tensors.
        """
        known = {**model, **self.tensors}
        if missing := [shown(name) for name in self.names if name not in known]:
            raise MaskweaveError(
                f"{PASSTHROUGH} lists tensors that neither it nor the model has: {listed(missing)}; "
                "import the published model again, or remove this file to export without it"
            )
        return {name: known[name] for name in self.names}


PASSTHROUGH = "passthrough.safetensors"


def save_passthrough(passthrough: PassthroughTensors | None, folder: Path) -> None:
    """Save passthrough tensors, if any, next to the weights of a model or tokenizer."""
    if passthrough is not None:
        with write_aside(folder / PASSTHROUGH) as path:
            save_tensors(passthrough.tensors, path, {"config": json.dumps([passthrough.config, passthrough.names])})


def load_passthrough(folder: Path) -> PassthroughTensors | None:
    """Loads what `save_passthrough` wrote; None if there is no file.

    Raises:
        MaskweaveError: the file is damaged, or was not written by `save_passthrough`.
    """
    path = folder / PASSTHROUGH
    if not path.is_file():
        return None
    with open_tensors(path) as stored:
        try:
            config, names = parse_json((stored.metadata() or {})["config"])
            if (
                not isinstance(config, dict)
                or not isinstance(names, list)
                or not all(isinstance(n, str) for n in names)
            ):
                raise TypeError("expected a configuration and names")
            if other := sorted({*stored.keys()} - {*names}):
                raise TypeError(f"the names lack {listed([shown(name) for name in other])}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MaskweaveError(
                f"{path}: the header has no valid 'config', so the file cannot be read ({error!r:.200}); "
                "copy or import the model again, or remove this file if the model will not be exported in its published form"
            ) from error
        return PassthroughTensors(config, {name: stored.get_tensor(name) for name in stored.keys()}, tuple(names))  # noqa: SIM118


def fingerprint(tensors: Mapping[str, Tensor], *more: str) -> str:
    """Returns a hash of the tensors' names and values, and of further words."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    for word in more:
        digest.update(word.encode())
    return digest.hexdigest()[:16]
