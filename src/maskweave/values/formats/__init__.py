"""Formats of files that hold arrays: one module each, imported when a file with its ending is read.

| ending | module | extra |
| --- | --- | --- |
| npy, npz | `numpy_arrays` | |
| csv, txt | `tables` | |
| tif, tiff | `tiff` | `[geo]` |
| fits, fit | `fits` | `[astro]` |
| h5, hdf5, nc | `hdf5` | `[hdf]` |
| zarr.zip | `zarr_zip` | `[hdf]` |
| mp4, mov, avi, gif | `video` | `[av]` |
| frames.zip | `frames` | |

Other packages add their own by an entry point whose name is the ending and which names a `Reader`:

    [project.entry-points."maskweave.formats"]
    "nii.gz" = "my_package.nifti:read"
"""

import functools
import importlib
import importlib.metadata

from maskweave.errors import MaskweaveError
from maskweave.values.formats.base import Reader, Selection, Stored

GROUP = "maskweave.formats"
"""Entry-point group of formats in other packages."""
_HERE = "maskweave.values.formats"
BUILT_IN = {
    "npy": f"{_HERE}.numpy_arrays:read_npy",
    "npz": f"{_HERE}.numpy_arrays:read_npz",
    "h5": f"{_HERE}.hdf5:read",
    "hdf5": f"{_HERE}.hdf5:read",
    "nc": f"{_HERE}.hdf5:read",
    "zarr.zip": f"{_HERE}.zarr_zip:read",
    "fits": f"{_HERE}.fits:read",
    "fit": f"{_HERE}.fits:read",
    "csv": f"{_HERE}.tables:read",
    "txt": f"{_HERE}.tables:read",
    "tif": f"{_HERE}.tiff:read",
    "tiff": f"{_HERE}.tiff:read",
    "mp4": f"{_HERE}.video:read",
    "mov": f"{_HERE}.video:read",
    "avi": f"{_HERE}.video:read",
    "gif": f"{_HERE}.video:read",
    "frames.zip": f"{_HERE}.frames:read",
}
"""Module and function that read files with each ending."""
ARRAYS = ("npy", "npz", "h5", "hdf5", "nc", "zarr.zip", "fits", "fit")
"""Endings of files that hold arrays of any number of axes."""
TABLES = ("csv", "txt")
"""Rows of numbers. For planes only csv, because notes about pictures are often texts."""
PLANES = ("tif", "tiff")
FRAMES = "frames.zip"
"""Pictures that are the frames of a video, packed into one file."""
SOUNDS = ("wav", "flac", "mp3", "ogg")
"""Sound files, which `sound` reads for `audio` alone (`[av]`)."""
VIDEOS = ("mp4", "mov", "avi", "gif", FRAMES)
UNNAMED = ("npy", *PLANES, *VIDEOS)
"""Endings of files that hold one array without a name."""


@functools.cache
def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """Returns the entry points of formats in other packages, by ending.

    Raises:
        MaskweaveError: two packages have a format of one ending, or one that maskweave reads itself.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name != point.name.lower().strip("."):
            raise MaskweaveError(
                f"format {point.name!r} ({point.value}): expected an ending in lower case without a dot in front; fix or uninstall its package"
            )
        if point.name in BUILT_IN or found.get(point.name, point) != point:
            raise MaskweaveError(
                f"format {point.name!r} ({point.value}): files with this ending have another reader; uninstall one of them"
            )
        found[point.name] = point
    return found


@functools.cache
def array_endings(axes: int, channels: int = 1) -> tuple[str, ...]:
    """Returns the endings of files that can hold an array of numbers.

    Args:
        axes: number of axes without the channels: 0 for a vector.
    """
    tables = TABLES if axes < 2 else TABLES[:1] if (axes, channels) == (2, 1) else ()
    return (*ARRAYS, *tables, *(PLANES if axes == 2 else ()), *installed())


def split_ending(name: str) -> tuple[str, str]:
    """Splits a file name into the name without its ending, and the ending in lower case without a dot.

    Known endings of two parts, such as `zarr.zip`, are one ending.
    """
    lower, long = name.lower(), _long_endings()
    if lower.endswith(long):  # at once, as most names have none
        for ending in long:
            if lower.endswith(ending) and not lower.endswith(f"/{ending}"):
                return name[: -len(ending)], ending[1:]
    stem, _, ending = name.rpartition(".")
    return (stem, ending.lower()) if stem and not stem.endswith("/") and "/" not in ending else (name, "")


@functools.cache
def _long_endings() -> tuple[str, ...]:
    return tuple(f".{ending}" for ending in (*BUILT_IN, *installed()) if "." in ending)


@functools.cache
def reader(ending: str) -> Reader:
    """Returns the function that reads files with an ending, after importing its module.

    Raises:
        MaskweaveError: no format has this ending, or the package of a format cannot be imported.
    """
    if ending in BUILT_IN:
        module, _, function = BUILT_IN[ending].partition(":")
        return getattr(importlib.import_module(module), function)
    if ending not in installed():
        raise MaskweaveError(
            f"no format reads files that end in {ending!r}; known: {', '.join((*BUILT_IN, *installed()))}"
        )
    point = installed()[ending]
    try:
        return point.load()
    except Exception as error:  # importing another package can raise anything
        raise MaskweaveError(
            f"format {ending!r} ({point.value}): cannot be imported ({error}); fix or uninstall its package"
        ) from error


def read(content: bytes, ending: str, where: str, selection: Selection) -> Stored:
    """Returns the array in a file's bytes, as stored.

    Raises:
        BadSample: the file is damaged or too large, holds no numbers, or holds several arrays and the selection names none of them.
        MaskweaveError: the package that reads such files is not installed.
    """
    return reader(ending)(content, where, selection)
