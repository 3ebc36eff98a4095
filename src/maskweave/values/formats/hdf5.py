"""HDF5 and NetCDF4, which is HDF5, with h5py (extra `[hdf]`).

External links, external storage and virtual datasets, which name other files, are never followed.
"""

from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, check_array, choose, faults, native, needs
from maskweave.values.formats.conventions import decoded
from maskweave.values.formats.packed import DEFLATED, check_chunk

MAX_OBJECTS = 10_000
ATTRIBUTES = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned")
MAX_ATTRIBUTE = 256
"""Most bytes of an attribute that is read."""
CLASSIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
"""First bytes of classic NetCDF, which is not HDF5."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns one dataset. `array` is its path, or the last part of the path.

    NetCDF's `_FillValue`, `missing_value`, `scale_factor`, `add_offset` and `_Unsigned` are applied. Coordinates (dimension scales) and single
    numbers don't count as arrays if `array` is not set.

    Raises:
        BadSample: the file is damaged or too large, holds no numbers, names other files, or holds several arrays and `array` names none of them.
    """
    with needs("h5py", "hdf", where):
        import h5py
    if content.startswith(CLASSIC):
        raise BadSample(f"{where}: found classic NetCDF; expected NetCDF4; convert it: nccopy -k nc4 FILE NEW")
    with faults("HDF5 file", where), h5py.File.in_memory(content) as file:
        dataset = _chosen(file, h5py, selection, where)
        named = f"{where} ({dataset.name})"
        if dataset.external or dataset.is_virtual:
            raise BadSample(f"{named}: its numbers are in other files, which are not read; expected them in this file")
        check_array(dataset.shape or (), dataset.dtype, named)
        if dataset.chunks:
            check_array(dataset.chunks, dataset.dtype, f"{named}: a chunk")
            if len(content) * DEFLATED > files.max_value_bytes():
                _check_chunks(dataset, h5py, named)
        attributes = {name: attribute(dataset, name) for name in ATTRIBUTES}
        return decoded(native(dataset[()]), attributes, named)


def _check_chunks(dataset: Any, h5py: Any, where: str) -> None:
    """Check what the chunks unpack to."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise BadSample(f"{where}: is compressed twice; expected once; write it again")
    if h5py.h5z.FILTER_DEFLATE in filters:
        for i in range(dataset.id.get_num_chunks()):
            chunk = dataset.id.get_chunk_info(i)
            if chunk.size * DEFLATED > files.max_value_bytes():
                check_chunk(dataset.id.read_direct_chunk(chunk.chunk_offset)[1], "zlib", where)


def unit(content: bytes, where: str, array: str = "") -> str:
    """Returns a dataset's attribute `units`; empty if it has none.

    Raises:
        BadSample: as `read`.
    """
    with needs("h5py", "hdf", where):
        import h5py
    with faults("HDF5 file", where), h5py.File.in_memory(content) as file:
        stated = attribute(_chosen(file, h5py, Selection(array), where), "units")
    return stated.strip() if isinstance(stated, str) else ""


def _chosen(file: Any, h5py: Any, selection: Selection, where: str) -> Any:
    """The dataset that is read."""
    datasets = {
        name: dataset for name, dataset in all_datasets(file, h5py, where).items() if dataset.dtype.kind in "biuf"
    }
    likely = [name for name, dataset in datasets.items() if dataset.shape and not is_scale(dataset)]
    return datasets[choose(list(datasets), selection.array, where, selection.likely(likely))]


def all_datasets(file: Any, h5py: Any, where: str) -> dict[str, Any]:
    """Returns the datasets by path. Only hard links are visited, so each is in this file."""
    found: dict[str, Any] = {}
    seen = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found[name] = item
        return True if seen > MAX_OBJECTS else None

    if file.visititems(visit):
        raise BadSample(f"{where}: more than {MAX_OBJECTS:,} groups and datasets; expected fewer")
    return found


def is_scale(dataset: Any) -> bool:
    """Whether a dataset is a coordinate. h5py's own `is_scale` crashes on damaged files."""
    return attribute(dataset, "CLASS") == "DIMENSION_SCALE"


def attribute(dataset: Any, name: str) -> Any:
    """Returns an attribute if it is a short text or a few numbers, otherwise None."""
    if name not in dataset.attrs:
        return None
    stored = dataset.attrs.get_id(name)
    size = int(np.prod(stored.shape, dtype=object)) if stored.shape else 1
    is_text = stored.dtype.kind == "S" or (stored.dtype.metadata or {}).get("vlen") in (str, bytes)
    if size * stored.dtype.itemsize > MAX_ATTRIBUTE or not (is_text or stored.dtype.kind in "biuf"):
        return None
    value = dataset.attrs[name]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
