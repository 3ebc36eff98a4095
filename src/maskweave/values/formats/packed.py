"""How many bytes the compressed chunks inside of a file unpack to. A file's own header doesn't limit them: libraries unpack first, and compare then."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from maskweave.errors import BadSample
from maskweave.values import files

AT_ONCE = 2**20
DEFLATED = 1032
"""Largest ratio of deflate, which gzip and zlib use."""


def check_chunk(content: bytes, codec: str, where: str) -> None:
    """Check that a chunk does not unpack to more than a value may take. Other codecs keep the size.

    Raises:
        BadSample: it does, or is damaged.
    """
    most = files.max_value_bytes()
    if codec not in UNPACKED or (codec in ("gzip", "zlib") and len(content) * DEFLATED <= most):
        return
    found = 0
    for size in UNPACKED[codec](content):
        found += size
        if found > most:
            raise BadSample(
                f"{where}: a chunk of {len(content):,} bytes can unpack to {found:,} or more; {files.expected_at_most(most)}"
            )


def _streamed(opened: Callable[..., Any]) -> Callable[[bytes], Iterator[int]]:
    def sizes(content: bytes) -> Iterator[int]:
        with opened(io.BytesIO(content)) as stream:
            while part := stream.read(AT_ONCE):
                yield len(part)

    return sizes


def _zlib(content: bytes) -> Iterator[int]:
    stream = zlib.decompressobj()
    for start in range(0, len(content), 2**16):
        part = content[start : start + 2**16]
        while part:
            yield len(stream.decompress(part, AT_ONCE))
            part = stream.unconsumed_tail


def _zstd(content: bytes) -> Iterator[int]:
    """What the first frame's header says (RFC 8878, section 3.1.1.1); libraries allocate as much. Without it, the largest ratio: a block of 128 KB in 4 bytes."""
    described = content[4] if len(content) > 4 else 0
    width = (1 if described & 32 else 0, 2, 4, 8)[described >> 6]
    start = 5 + (described & 32 == 0) + (0, 1, 2, 4)[described & 3]
    yield (
        int.from_bytes(content[start : start + width], "little") + 256 * (width == 2) if width else len(content) * 2**15
    )


UNPACKED: dict[str, Callable[[bytes], Iterator[int]]] = {
    "gzip": _streamed(gzip.open),
    "zlib": _zlib,
    "bz2": _streamed(bz2.open),
    "lzma": _streamed(lzma.open),
    "zstd": _zstd,
    "blosc": lambda content: iter([int.from_bytes(content[4:8], "little")]),
    "lz4": lambda content: iter([int.from_bytes(content[:4], "little")]),
}
"""Numbers of unpacked bytes, one after another."""
