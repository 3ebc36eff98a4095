"""Tensors in one or several safetensors files.

Large models are saved as several files with a `….safetensors.index.json`, in the layout of the Hugging Face Hub. A checkpoint of a model that is divided
among processes has one file for each share: its header says under `rows`, in JSON, `{name: [first row, rows of the whole tensor]}`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.files import parse_json, read_json_object

ROWS = "rows"
LARGEST_FILE = 5 * 10**9
"""Bytes of tensors in a file; larger models are saved in several."""


def index_of(path: Path) -> Path:
    """Path of the index of the files that a safetensors file was split into."""
    return path.with_name(f"{path.name}.index.json")


def part_of(path: Path, number: int, count: int) -> Path:
    """Path of one of `count` files that take the place of `path`; `path` itself if there is only one."""
    return path if count == 1 else path.with_name(f"{path.stem}-{number + 1:05d}-of-{count:05d}{path.suffix}")


def split_by_size(tensors: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """Divides tensors, in their order, into groups of at most `most` bytes, or of a single larger tensor."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > most:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    return groups


@contextlib.contextmanager
def open_file(path: Path, mapped: bool = False) -> Iterator[Any]:
    """Open a safetensors file. Its tensors are read into memory of their own, one by one, so that they outlive the file.

    Args:
        mapped: its tensors are memory-mapped instead: reading one ends the process if the file was truncated meanwhile.

    Raises:
        MaskweaveError: the file is missing or truncated, or has another format.
    """
    try:
        with safe_open(path, framework="pt", backend="mmap" if mapped else "pread") as stored:
            yield stored
    except FileNotFoundError as error:
        raise MaskweaveError(f"{path}: no such file") from error
    except (OSError, SafetensorError) as error:
        raise MaskweaveError(
            f"{path}: cannot be read as safetensors, probably truncated ({error}); copy or make it again"
        ) from error


def files_of(path: Path) -> list[Path]:
    """Returns a safetensors file, or the files that its index lists if the file itself is not there.

    Raises:
        MaskweaveError: the index is damaged, or names a file in another folder.
    """
    index = index_of(path)
    if path.exists() or not index.exists():
        return [path]
    found = read_json_object(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise MaskweaveError(
            f"{index}: 'weight_map' is {shown(found)}, expected file names by tensor; copy the folder again"
        )
    names = dict.fromkeys(found.values())
    if others := [name for name in names if Path(name).name != name]:
        raise MaskweaveError(
            f"{index}: names {shown(others[0])}, expected a file in the same folder; copy the folder again"
        )
    return [path.with_name(name) for name in names]


@contextlib.contextmanager
def open_files(paths: Sequence[Path]) -> Iterator["JoinedTensors"]:
    """Open several safetensors files as one.

    Raises:
        MaskweaveError: same as `open_file`; or the rows of a tensor are not complete.
    """
    with contextlib.ExitStack() as stack:
        yield JoinedTensors({path: stack.enter_context(open_file(path)) for path in paths})


class JoinedTensors:
    """The tensors of several open files, with the methods of a single one.

    Raises:
        MaskweaveError: a tensor is in several files, or some of its rows in none.
    """

    def __init__(self, files: Mapping[Path, Any]):
        self._pieces: dict[str, list[tuple[int, int, Any]]] = {}  # first row, rows, file
        self._shapes: dict[str, list[int]] = {}
        for path, file in files.items():
            rows = _rows(path, file)
            for name in file.keys():  # noqa: SIM118 - not a mapping
                shape = list(file.get_slice(name).get_shape())
                length = shape[0] if shape else 1
                start, total = rows.get(name, (0, length))
                whole = [total, *shape[1:]] if shape else []
                if self._shapes.setdefault(name, whole) != whole:
                    raise MaskweaveError(
                        f"{path}: {shown(name)} has another shape than in the files beside it; copy them again"
                    )
                self._pieces.setdefault(name, []).append((start, length, file))
        for name, pieces in self._pieces.items():
            pieces.sort(key=lambda piece: piece[:2])
            end = 0
            for start, length, _ in pieces:
                end = end + length if start == end or not length else -1
            if end != (self._shapes[name] or [1])[0]:
                raise MaskweaveError(
                    f"{', '.join(map(str, files))}: the rows of {shown(name)} are not complete; copy the files again"
                )

    def keys(self) -> list[str]:
        return list(self._pieces)

    def metadata(self) -> dict[str, str]:
        return {}

    def get_tensor(self, name: str) -> Tensor:
        found = [file.get_tensor(name) for *_, file in self._pieces[name]]
        return found[0] if len(found) == 1 else torch.cat(found)

    def get_slice(self, name: str) -> "JoinedSlice":
        return JoinedSlice(self, name)

    def shape(self, name: str) -> list[int]:
        return self._shapes[name]

    def copy_rows(self, name: str, start: int, target: Tensor) -> None:
        """Copies the rows from `start` on into `target`; reads no others."""
        if not self._shapes[name]:
            target.copy_(self.get_tensor(name))
            return
        for first, length, file in self._pieces[name]:
            low, high = max(first, start), min(first + length, start + len(target))
            if low < high:
                target[low - start : high - start].copy_(file.get_slice(name)[low - first : high - first])


class JoinedSlice:
    """The shape of a tensor of `JoinedTensors`."""

    def __init__(self, tensors: JoinedTensors, name: str):
        self._tensors, self._name = tensors, name

    def get_shape(self) -> list[int]:
        return self._tensors.shape(self._name)


def _rows(path: Path, file: Any) -> dict[str, tuple[int, int]]:
    """Reads the header's `rows`; none if it has none."""
    try:
        found = parse_json((file.metadata() or {}).get(ROWS, "{}"))
        return {str(name): (int(start), int(total)) for name, (start, total) in found.items()}
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise MaskweaveError(
            f"{path}: the header's 'rows' cannot be read ({error!r:.200}); copy or make it again"
        ) from error
