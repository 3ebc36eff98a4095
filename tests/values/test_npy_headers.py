"""Headers of npy files written by hand: reading gives a value or BadSample, and an import goes on and counts."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import BadSample
from maskweave.modality.catalogs import load_catalog
from maskweave.values.formats.numpy_rows import NpyRows

DEPTH = load_catalog("scenes")["depth"]
SHAPES = [
    "()", "(0,)", "(4, 4)", "(4, 4, 1)", "(0, 4)", "(True, True)", "(True, 4)", "(-1,)", "(-4, -4)", "(0, -1)", f"(0, {2**63 - 1})", f"(0, {2**64})", f"({2**31}, 0)",
    f"({2**31},)", f"({2**32}, {2**32})", f"({2**62}, 4)", f"({2**63}, 2)", f"({2**64},)", "(4.0, 4)", "(1e400,)", "('4', 4)", "'44'", "4", "None", "[4, 4]", "((4,), 4)", "(4, None)", "(1j,)",
    "(" + "1, " * 40 + ")", "(" + "1, " * 200 + ")", "(4, 4", "({},)", "(10**400,)",
]  # fmt: skip
TYPES = ["<f4", ">f8", "<f2", "|u1", "|b1", "<i8", "<c8", "|O", "|S0", "<U4", "|V8", "<M8[s]", "<f16", "f", "x", "", "<f4,<f4", "(4,)<f4", "<f" + "9" * 30]  # fmt: skip


def npy(shape: str, dtype: str, fortran: str, numbers: bytes, version: int) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode("latin1")
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + numbers


FILES = st.builds(
    npy,
    st.sampled_from(SHAPES) | st.lists(st.integers(-(2**64), 2**64), max_size=4).map(lambda axes: str(tuple(axes))),
    st.sampled_from(TYPES),
    st.sampled_from(["False", "True", "0", "None", "'x'"]),
    st.binary(max_size=64) | st.just(bytes(64)) | st.just(bytes(4096)),
    st.sampled_from([1, 2, 3, 9]),
)


@settings(max_examples=300, deadline=None)
@given(content=FILES)
@example(content=npy(f"(0, {2**63 - 1})", "<f4", "False", b"", 1))
@example(content=npy("(True, True)", "<f4", "False", bytes(4), 1))
@example(content=npy("(4, 4)", "<f4", "False", bytes(64), 1))
def test_headers_written_by_hand(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    path = tmp_path_factory.getbasetemp() / "x.npy"
    path.write_bytes(content)
    for read in (
        lambda: DEPTH.value.read(content, "npy", "here"),
        lambda: DEPTH.value.read(packed.getvalue(), "npz", "here"),
        lambda: NpyRows(path)[:],
    ):
        try:
            found = read()
        except BadSample as error:
            assert 0 < len(str(error)) < 2000
        else:
            assert isinstance(found, np.ndarray)


def test_an_import_goes_on_after_damaged_headers(tmp_path: Path) -> None:
    (tmp_path / "in" / "depth").mkdir(parents=True)
    for i, shape in enumerate(SHAPES):
        (tmp_path / "in" / "depth" / f"{i:02d}.npy").write_bytes(npy(shape, "<f4", "False", bytes(64), 1))
    catalog = load_catalog("scenes").subset(["depth"])
    report = import_folders(tmp_path / "in", tmp_path / "out", catalog, limit=1.0, bad="sample", jobs=1)
    good = [i for i, shape in enumerate(SHAPES) if shape in ("(4, 4)", "(4, 4, 1)")]
    found = Shards(tmp_path / "out", catalog)
    assert [found.key(i) for i in range(len(found))] == [f"{i:02d}" for i in good]
    assert report.samples == len(good) and len(report.faults.skipped) == len(SHAPES) - len(good)
