"""What all formats share: the entry's selection, the array as stored, and the checks before memory is allocated."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskweave.errors import BadSample, MaskweaveError, reason
from maskweave.values import files

MAX_LISTED, MAX_NAME = 12, 60
"""Most names in a message, and the most characters of each."""


@dataclass(frozen=True)
class Selection:
    """What an entry reads from a file."""

    array: str = ""
    """Name of the array; empty: the file must have only one."""
    bands: tuple[int | str, ...] = ()
    """Bands of a TIFF, by number from 1 or by description; none: all."""
    axes: int = 2
    """Axes of the value without its channels; 0 for a vector."""
    channels: int = 1
    coordinates: str = ""
    """Name of the array with the coordinates along the axis, which is not taken as the values; empty: the file has none."""
    columns: tuple[str, ...] = ()
    """Columns of a table to read if it has all of them and `array` names none: the names of the channels."""
    use_scale_tags: bool = False
    """Apply the scale and offset tags of a GeoTIFF."""

    def likely(self, names: Sequence[str]) -> list[str]:
        """Returns the arrays that can hold the values if the entry names none: all but the coordinates."""
        other = self.coordinates.lower()
        return [n for n in names if not other or other not in (n.lower(), n.rpartition("/")[2].lower())]


@dataclass(frozen=True)
class Stored:
    """An array of numbers as a file holds it, in the machine's byte order."""

    array: np.ndarray
    known: np.ndarray | None = None
    """False at points that the file marks as missing (nodata, fill value, mask); None: the file marks none."""

    def numbers(self) -> np.ndarray:
        """Returns the array, with NaN at missing points."""
        if self.known is None or self.known.all():
            return self.array
        return np.where(self.known, as_floats(self.array), np.nan).astype(as_floats(self.array[:0]).dtype)

    def ids(self) -> np.ndarray:
        """Returns the array, with -1 at missing points if it holds whole numbers."""
        if self.known is None or self.known.all():
            return self.array
        if self.array.dtype.kind == "f":
            return self.numbers()
        signed = np.int64 if self.array.dtype.itemsize > 4 else np.result_type(self.array.dtype, np.int8)
        return np.where(self.known, self.array.astype(signed), -1).astype(signed)


Reader = Callable[[bytes, str, Selection], Stored]
"""Reads a file's bytes: `read(content, where, selection)`. `where` is the file's name in errors; faults of the file are raised as BadSample."""


def as_floats(array: np.ndarray) -> np.ndarray:
    """Returns the array as float32 if that holds every number of its type, otherwise as float64."""
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def native(array: np.ndarray) -> np.ndarray:
    """Returns a contiguous array in the machine's byte order that can be written to."""
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W", "O"])


@contextlib.contextmanager
def needs(package: str, extra: str, where: str) -> Iterator[None]:
    """Context for the import of an optional package.

    Raises:
        MaskweaveError: the package cannot be imported. It is no fault of the file, so the job stops.
    """
    try:
        yield
    except ImportError as error:
        raise MaskweaveError(
            f"{where}: reading this file needs {package}, which cannot be imported ({error}); install it with: pip install 'maskweave[{extra}]'"
        ) from error


@contextlib.contextmanager
def faults(kind: str, where: str) -> Iterator[None]:
    """Context that raises the errors of a library on a broken file as BadSample.

    Args:
        kind: the kind of file, `FITS file` for instance.
    """
    try:
        yield
    except (MaskweaveError, MemoryError):
        raise
    except Exception as error:  # libraries raise many types of errors on broken files
        raise BadSample(f"{where}: corrupt or truncated {kind} ({reason(error)}); replace the file") from error


def check_array(shape: Sequence[int], dtype: np.dtype, where: str) -> int:
    """Check the shape and type of an array before it is read; returns its size in bytes.

    Raises:
        BadSample: it holds something else than plain numbers, or is too large.
    """
    if dtype.kind not in "biuf":
        raise BadSample(f"{where}: found an array of {dtype}; expected plain numbers (objects are never unpickled)")
    axes, most = tuple(map(int, shape)), files.max_value_bytes()
    size = math.prod(axes) * dtype.itemsize
    if min(axes, default=0) < 0 or (not size and max(axes) > most):
        raise BadSample(f"{where}: an array of shape {axes} is impossible; replace the file")
    if size > most:
        raise BadSample(f"{where}: shape {axes} of {dtype} takes {size:,} bytes; {files.expected_at_most(most)}")
    return size


def choose(names: Sequence[str], wanted: str, where: str, likely: Sequence[str] | None = None) -> str:
    """Returns the name of the array to read.

    Args:
        names: all arrays in the file, paths with `/`.
        wanted: the entry's `array`: a name, or the last part of one, in any case if that is unique; empty: the only one.
        likely: those that count if none is named, without the coordinates of others for instance.

    Raises:
        BadSample: no array has this name, or none is named and the file has several.
    """
    if wanted:
        for same in (
            lambda name: name == wanted.strip("/"),
            lambda name: name.rpartition("/")[2] == wanted,
            lambda name: wanted.strip("/").lower() in (name.lower(), name.rpartition("/")[2].lower()),
        ):
            found = [name for name in names if same(name)]
            if len(found) == 1:
                return found[0]
            if found:
                raise BadSample(
                    f"{where}: found {len(found)} arrays for value.array {wanted!r}: {listed(found)}; expected the full name of one"
                )
        raise BadSample(
            f"{where}: found {f'the arrays {listed(names)}' if names else 'no arrays of numbers'}; expected {wanted!r}, the entry's value.array"
        )
    usable = list(names if likely is None else likely) or list(names)
    if not usable:
        raise BadSample(f"{where}: found no array of numbers in the file; expected one")
    if len(usable) > 1:
        raise BadSample(
            f"{where}: found {len(usable)} arrays: {listed(usable)}; expected one; name the one to read in the entry: value: {{array: {usable[0]}}}"
        )
    return usable[0]


def listed(names: Sequence[object]) -> str:
    """Returns names for a message, not too many and not too long."""
    return ", ".join(str(name)[:MAX_NAME] for name in names[:MAX_LISTED]) + f" … ({len(names)} in all)" * (
        len(names) > MAX_LISTED
    )
