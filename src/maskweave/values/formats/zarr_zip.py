"""Zarr groups and arrays in a zip file (NAME.zarr.zip), with zarr (extra `[hdf]`).

Zarr's second version may name filters that unpickle, so only known compressors and filters are accepted.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import BadSample
from maskweave.files import parse_json
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, check_array, choose, faults, native, needs
from maskweave.values.formats.conventions import decoded
from maskweave.values.formats.packed import UNPACKED, check_chunk

CODECS = frozenset({
    "bytes", "transpose", "sharding_indexed", "crc32c", "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma",
    "shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype", "adler32", "crc32", "fletcher32",
})  # fmt: skip
"""Compressors and filters that only turn bytes into numbers."""
MAX_MEMBERS = 100_000
METADATA = ("zarr.json", ".zarray")
"""Files that describe an array, of the third and second version."""


class _Described(NamedTuple):
    """An array's description."""

    path: str
    """Its folder in the zip file."""
    meta: dict[str, Any]
    attributes: dict[str, Any]
    dimensions: list[str]


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns one array. `array` is its path, or the last part of the path.

    The attributes `_FillValue`, `missing_value`, `scale_factor` and `add_offset` are applied. Coordinates (arrays of one axis named like it) and single
    numbers don't count as arrays if `array` is not set.

    Raises:
        BadSample: the file is damaged or too large, holds no numbers, uses an unknown codec, or holds several arrays and `array` names none of them.
    """
    with needs("zarr", "hdf", where):
        import zarr
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore
    with faults("zipped Zarr", where), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        if len(members) > MAX_MEMBERS:
            raise BadSample(f"{where}: {len(members):,} files in the zip file; expected at most {MAX_MEMBERS:,}")
        arrays = {described.path.strip("/"): described for described in _arrays(archive, members, where)}
        likely = [name for name, a in arrays.items() if a.meta["shape"] and not _is_coordinate(name, a)]
        array = arrays[choose(list(arrays), selection.array, where, selection.likely(likely))]
        named = f"{where} ({array.path or '/'})"
        _check(array, named)
        folder = f"{array.path}/" if array.path else ""
        own = {name: info for name, info in members.items() if name.startswith(folder)}
        size = sum(info.file_size for info in own.values())
        if size > files.max_value_bytes():
            raise BadSample(f"{named}: takes {size:,} bytes; expected at most {files.max_value_bytes():,}")
        chunks = {name[len(folder) :]: archive.read(info) for name, info in own.items()}
        _check_chunks(array, chunks, named)
        buffer = default_buffer_prototype().buffer
        store = MemoryStore({name: buffer.from_bytes(chunk) for name, chunk in chunks.items()})
        return decoded(native(np.asarray(zarr.open_array(store=store, mode="r")[...])), array.attributes, named)


def _arrays(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], where: str) -> Iterator[_Described]:
    """The arrays of numbers in the file."""
    for name in members:
        folder, _, last = name.rpartition("/")
        if last not in METADATA:
            continue
        meta = _json(archive, members[name], where)
        if meta.get("node_type", "array") != "array":
            continue
        if last == ".zarray":
            attributes = f"{folder}/.zattrs".lstrip("/")
            stated = _json(archive, members[attributes], where) if attributes in members else {}
            dimensions = stated.get("_ARRAY_DIMENSIONS", [])
        else:
            stated, dimensions = meta.get("attributes", {}), meta.get("dimension_names") or []
        if _dtype(meta) is not None:
            yield _Described(folder, meta, stated, dimensions)


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> dict[str, Any]:
    if info.file_size > files.MAX_JSON_BYTES:
        raise BadSample(
            f"{where}: {info.filename} has {info.file_size:,} bytes; expected at most {files.MAX_JSON_BYTES:,}"
        )
    found = parse_json(archive.read(info))
    if not isinstance(found, dict):
        raise BadSample(f"{where}: {info.filename} holds no keys and values; replace the file")
    return found


def _dtype(meta: dict[str, Any]) -> np.dtype | None:
    """Returns the type of an array of numbers, None for texts, objects and others."""
    try:
        dtype = np.dtype(meta["dtype"] if "dtype" in meta else meta["data_type"])
    except (TypeError, KeyError):
        return None
    return dtype if dtype.kind in "biuf" else None


def _is_coordinate(name: str, array: _Described) -> bool:
    return array.dimensions == [name.rpartition("/")[2]]


def _check(array: _Described, where: str) -> None:
    """Check the size of the array and of its chunks, and the names of all its codecs."""
    meta, dtype = array.meta, _dtype(array.meta)
    assert dtype is not None
    check_array(meta["shape"], dtype, where)
    chunks = meta["chunks"] if "chunks" in meta else meta["chunk_grid"]["configuration"]["chunk_shape"]
    check_array(chunks, dtype, f"{where}: a chunk")
    for name in _codecs([meta.get("compressor"), meta.get("filters"), meta.get("codecs")]):
        if name.removeprefix("numcodecs.") not in CODECS:
            raise BadSample(f"{where}: found the codec {name[:40]!r}; expected one of {', '.join(sorted(CODECS))}")


def _check_chunks(array: _Described, chunks: dict[str, bytes], where: str) -> None:
    """Check what the chunks unpack to."""
    meta = array.meta
    names = [
        name.removeprefix("numcodecs.")
        for name in _codecs([meta.get("filters"), meta.get("compressor"), meta.get("codecs")])
    ]
    packing = [name for name in names if name in UNPACKED]
    if len(packing) > 1 or names.count("sharding_indexed") > 1:
        raise BadSample(
            f"{where}: found the codecs {', '.join(names)}; expected one compressor, in one level of shards"
        )
    for name, chunk in chunks.items() if packing else ():
        if name.rpartition("/")[2] not in (*METADATA, ".zattrs"):
            for part in _shard(chunk, meta) if "sharding_indexed" in names else [chunk]:
                check_chunk(part, packing[0], where)


def _shard(content: bytes, meta: dict[str, Any]) -> Iterator[bytes]:
    """The chunks in a shard, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html."""
    (facts,) = [codec["configuration"] for codec in meta["codecs"] if codec["name"] == "sharding_indexed"]
    outer, index = meta["chunk_grid"]["configuration"]["chunk_shape"], [c["name"] for c in facts["index_codecs"]]
    if index not in (["bytes"], ["bytes", "crc32c"]):
        raise ValueError(f"the index has the codecs {index}")
    size = 16 * math.prod(o // i for o, i in zip(outer, facts["chunk_shape"], strict=True))
    start = 0 if facts.get("index_location", "end") == "start" else len(content) - size - 4 * (len(index) - 1)
    for offset, count in np.frombuffer(content, "<u8", size // 8, start).reshape(-1, 2).tolist():
        if offset < len(content):  # otherwise the chunk is empty
            yield content[offset : offset + count]


def _codecs(described: Any) -> Iterator[str]:
    """Names of all compressors and filters, those inside of others, too."""
    if isinstance(described, list):
        for item in described:
            yield from _codecs(item)
    elif isinstance(described, dict):
        if "id" in described or "name" in described:
            yield str(described.get("id", described.get("name")))
        for key, item in described.items():
            if isinstance(item, (dict, list)) and key in (
                "configuration",
                "codecs",
                "index_codecs",
                "compressor",
                "filters",
            ):
                yield from _codecs(item)
