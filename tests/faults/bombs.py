"""Small files of many formats that unpack to much: by the shape in their headers, or only when a chunk inside is unpacked."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 7168
"""196 MB as float32."""
ZEROS = bytes(160 * 2**20)
SMALL = 64
"""The shape that a file claims whose chunk unpacks to 160 MB."""


def write(folder: Path) -> dict[str, Path]:
    """Writes all of them; returns them by name. Names that start with `chunk` unpack to more than they claim."""
    hdf5(folder)
    fits(folder)
    geotiff(folder / "shape.tif")
    flac(folder / "long.flac")
    video(folder / "long.mp4")
    packed = gzip.compress(ZEROS, 1)
    zarr(folder / "shape.zarr.zip", SIDE, {"name": "gzip"}, None)
    zarr(folder / "chunk gzip.zarr.zip", SMALL, {"name": "gzip", "configuration": {"level": 5}}, packed)
    codecs = {"name": "sharding_indexed", "configuration": {"chunk_shape": [SMALL, SMALL], "codecs": [LITTLE, {"name": "gzip", "configuration": {"level": 5}}], "index_codecs": [LITTLE], "index_location": "end"}}  # fmt: skip
    zarr(folder / "chunk in shard.zarr.zip", SMALL, codecs, packed + struct.pack("<QQ", 0, len(packed)), [])
    for name, codec, chunk in compressed():
        zarr(folder / f"chunk {name}.zarr.zip", SMALL, codec, chunk)
    return {path.name: path for path in sorted(folder.iterdir())}


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def zarr(path: Path, side: int, codec: dict[str, Any], chunk: bytes | None, first: Any = (LITTLE,)) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [side, side]}}
    meta = {"zarr_format": 3, "node_type": "array", "shape": [side, side], "data_type": "float32", "chunk_grid": grid, "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": [*first, codec], "attributes": {}}  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/zarr.json", json.dumps(meta))
        if chunk is not None:
            archive.writestr("a/c/0/0", chunk)


def compressed() -> list[tuple[str, dict[str, Any], bytes]]:
    import numcodecs

    blosc = {"typesize": 4, "cname": "zstd", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}
    return [
        ("zstd", {"name": "zstd", "configuration": {"level": 1, "checksum": False}}, bytes(numcodecs.Zstd(1).encode(ZEROS))),
        ("blosc", {"name": "blosc", "configuration": blosc}, bytes(numcodecs.Blosc("zstd", 5, 0).encode(ZEROS))),
    ]  # fmt: skip


def hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "shape.h5", "w") as file:
        file.create_dataset("a", (SIDE, SIDE), "f4", chunks=(512, 512), compression="gzip")
    with h5py.File(folder / "chunk.h5", "w") as file:
        data = file.create_dataset("a", (SMALL, SMALL), "f4", chunks=(SMALL, SMALL), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(ZEROS, 1))


def fits(folder: Path) -> None:
    from astropy.io import fits

    def image(side: int, compression: str) -> Any:
        return fits.CompImageHDU(np.zeros((side, side), np.int16), name="A", compression_type=compression)

    fits.HDUList([fits.PrimaryHDU(), image(SIDE, "RICE_1")]).writeto(folder / "shape.fits")
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), image(SMALL, "GZIP_1")]).writeto(content)
    content.seek(0)
    with fits.open(content, disable_image_compression=True) as hdus:
        tiles = np.empty(1, object)
        tiles[0] = np.frombuffer(gzip.compress(ZEROS, 1), np.uint8)
        column = fits.Column("COMPRESSED_DATA", format=f"1PB({len(tiles[0])})", array=tiles)
        table = fits.BinTableHDU.from_columns([column])
        table.header.update({key: value for key, value in hdus[1].header.items() if key.startswith("Z")})
        table.header["ZTILE1"], table.header["ZTILE2"] = SMALL, SMALL
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(folder / "chunk.fits")


def geotiff(path: Path) -> None:
    import rasterio

    options = {"driver": "GTiff", "compress": "deflate", "tiled": True, "SPARSE_OK": True}
    rasterio.open(path, "w", height=SIDE, width=SIDE, count=1, dtype="float32", **options).close()


def flac(path: Path) -> None:
    """Half an hour of silence."""
    import soundfile

    soundfile.write(path, np.zeros(30 * 60 * 16000), 16000)


def video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 2048
        frame = av.VideoFrame.from_ndarray(np.zeros((2048, 2048, 3), np.uint8), format="rgb24")
        for _ in range(8):
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
