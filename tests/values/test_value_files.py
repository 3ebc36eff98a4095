"""Files to values and back, and every kind of file that must be refused."""

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.values.files import write_png
from maskweave.values.instances import run_lengths

ENTRIES: dict[str, dict[str, Any]] = {
    "picture": {"kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "gray": {"kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 1}},
    "far": {"kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 10], "unit": "m"}},
    "bands": {"kind": "grid", "grid": [2], "value": {"type": "map", "size": [8], "channels": 2, "range": [-1, 1]}},
    "facing": {"kind": "grid", "grid": [2, 2], "value": {"type": "direction", "size": [8, 8], "channels": 3}},
    "what": {"kind": "grid", "grid": [2, 2], "value": {"type": "classes", "size": [8, 8], "classes": ["a", "b", "c"]}},
    "lines": {"kind": "grid", "grid": [2, 2], "value": {"type": "binary", "size": [8, 8]}},
    "code": {"kind": "grid", "grid": [2], "value": {"type": "vector", "channels": 4}},
    "rows": {"kind": "vectors", "max_tokens": 3, "value": {"type": "vectors", "channels": 4}},
    "words": {"kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": {"type": "text"}},
    "things": {"kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": {"type": "boxes", "classes": ["a", "b"]}},
    "solids": {"kind": "sequence", "max_tokens": 40, "vocabulary": "text", "value": {"type": "boxes3d", "classes": ["a", "b"]}},
    "tones": {"kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": {"type": "palette"}},
    "facts": {"kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": {"type": "metadata", "keys": {"size": {"id": 0, "range": [0, 1]}}}},
    "people": {"kind": "sequence", "max_tokens": 40, "vocabulary": "text", "value": {"type": "poses", "parts": {"pose": {"count": 2, "codes": 8}, "size": {"count": 1, "range": [0, 9]}}}},
    "found": {"kind": "sequence", "max_tokens": 40, "vocabulary": "text", "value": {"type": "queries", "size": [8, 8], "parts": {"codes": {"count": 2, "codes": 8}}}},
    "outputs": {"kind": "grid", "grid": [2, 2], "value": {"type": "features", "size": [2, 2], "channels": 4}},
    "relief": {"kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "trim_quantile": 0.1}},
    "parts": {"kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": {"type": "instances", "size": [8, 8], "classes": ["a", "b"]}},
}  # fmt: skip


def build() -> Catalog:
    modalities = {name: {"id": i + 1, **entry} for i, (name, entry) in enumerate(ENTRIES.items())}
    return catalog_from({"vocabularies": {"text": {"size": 600}}, "modalities": modalities}, "test")


CATALOG = build()


def read(content: bytes, ending: str, name: str) -> Any:
    return CATALOG[name].value.read(content, ending, f"in/{name}/x.{ending}")


def png(array: np.ndarray | Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def jpeg(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


RNG = np.random.default_rng(0)
UNIT = RNG.normal(size=(5, 6, 3)).astype(np.float32)
UNIT /= np.linalg.norm(UNIT, axis=-1, keepdims=True)
PERSON = {"box": [0.0, 0.25, 0.5, 1.0], "pose": [0, 7], "size": [99.5]}
FOUND = {"point": [0.5, 1.0], "instances": [{"box": [0.0, 0.25, 0.5, 1.0], "codes": [1, 2]}]}
VALUES: dict[str, Any] = {
    "picture": RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8),
    "gray": RNG.integers(0, 256, (5, 6, 1), dtype=np.uint8),
    "far": RNG.uniform(0, 10, (5, 6)).astype(np.float32),
    "bands": RNG.uniform(-1, 1, (7, 2)).astype(np.float32),
    "facing": UNIT,
    "what": RNG.integers(0, 3, (5, 6), dtype=np.uint8),
    "lines": RNG.random((5, 6)) < 0.3,
    "code": RNG.normal(size=4).astype(np.float32),
    "rows": RNG.normal(size=(2, 4)).astype(np.float32),
    "words": "zwei Häuser,\neins rot",
    "things": [{"class": "b", "box": [0.0, 0.25, 0.5, 1.0]}],
    "solids": {
        "camera": {"focal": [1.1, 1.2], "center": [0.5, 0.4], "pitch": 0.3, "roll": -0.1},
        "boxes": [{"class": "b", "center": [-0.5, 1.0, 4.0], "size": [1.0, 2.0, 0.5], "yaw": -0.25}],
    },
    "tones": [[0, 128, 255], [1, 2, 3]],
    "facts": {"size": 0.5},
    "people": [PERSON, {"box": [0.0, 0.0, 1.0, 1.0]}],
    "found": [FOUND, {"point": [0.0, 0.25], "instances": []}],
    "outputs": (RNG.normal(size=(3, 5, 4)) * 1e6).astype(np.float32),
    "relief": (RNG.normal(size=(5, 6)) * 1e6).astype(np.float32),
    "parts": [{"class": "a", "mask": RNG.random((5, 6)) < 0.5}, {"class": "b", "mask": np.ones((5, 6), bool)}],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_type_of_value_comes_back(name: str) -> None:
    content, ending = CATALOG[name].value.to_file(VALUES[name], CATALOG[name].name)
    found = read(content, ending, name)
    if name == "facing":  # brought to length 1 again
        np.testing.assert_allclose(found, VALUES[name], atol=1e-6)
    else:
        np.testing.assert_equal(found, VALUES[name])


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_run_lengths_come_back(height: int, width: int, random: Any) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    runs = run_lengths(mask)
    assert sum(runs["counts"]) == height * width
    content = json.dumps([{"class": "a", "mask": runs}]).encode()
    np.testing.assert_equal(read(content, "json", "parts")[0]["mask"], mask)


def test_run_lengths_go_down_the_columns_and_begin_outside() -> None:
    assert run_lengths(np.array([[1, 0], [1, 1]], bool)) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_all_eight_bit_pictures_become_color(mode: str) -> None:
    picture = Image.fromarray(VALUES["picture"]).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    found = read(buffer.getvalue(), "jpg" if mode == "CMYK" else "png", "picture")
    assert found.shape == (5, 6, 3) and found.dtype == np.uint8 and found.flags.writeable
    if mode == "L":
        assert (found == np.asarray(picture)[..., None]).all()


def test_pictures_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    found = read(png(VALUES["picture"], exif=exif), "png", "picture")
    np.testing.assert_equal(found, np.rot90(VALUES["picture"], -1))


def test_class_ids_are_read_as_stored_not_as_shown() -> None:
    shown = Image.fromarray(VALUES["what"])
    shown.putpalette([9] * 768)
    np.testing.assert_equal(read(png(shown), "png", "what"), VALUES["what"])
    np.testing.assert_equal(read(png(VALUES["what"].astype(np.uint16)), "png", "what"), VALUES["what"])


def test_of_several_texts_the_first_counts() -> None:
    assert read(b'["one", "two"]', "json", "words") == "one"
    assert read(b'"one"', "json", "words") == "one"
    assert read(b"one\r\n", "txt", "words") == "one"


def test_arrays_in_any_order_of_axes_and_bytes() -> None:
    big = np.asfortranarray(VALUES["far"].astype(">f8"))
    np.testing.assert_allclose(read(npy(big), "npy", "far"), VALUES["far"])
    np.testing.assert_allclose(read(npz(a=big[..., None]), "npz", "far"), VALUES["far"])
    assert read(npy(np.zeros((0 + 2, 4))), "npy", "rows").dtype == np.float32


def header(width: int, height: int) -> bytes:
    """A PNG of which only the header is there."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + idat + struct.pack(">I", zlib.crc32(idat))


def pickled() -> bytes:
    return npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)


def lying_npy(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


JPEG = jpeg(VALUES["picture"])
WHOLE = png(RNG.integers(0, 256, (50, 50, 3), dtype=np.uint8))
NAN = np.where(np.arange(64).reshape(8, 8) == 5, np.nan, 1.0)
BAD: dict[str, tuple[str, str, bytes, str]] = {
    "empty": ("picture", "png", b"", "the file is empty"),
    "truncated png": ("picture", "png", WHOLE[:3000], "corrupt or truncated png"),
    "corrupt png": ("picture", "png", WHOLE[:100] + b"\0" * 200 + WHOLE[300:], "corrupt or truncated png"),
    "no picture": ("picture", "jpg", b"hello", "corrupt or truncated jpg"),
    "huge picture": ("picture", "png", header(100_000, 100_000), "picture is too large: .*10000000000 pixels.*expected at most 64,000,000 pixels"),
    "large picture": ("picture", "png", header(8_001, 8_001), "8001 × 8001 pixels; expected at most 64,000,000"),
    "16 bits": ("picture", "png", png(np.zeros((4, 4), np.uint16)), "8 bits a channel"),
    "float picture": ("picture", "npy", npy(np.zeros((4, 4, 3))), "scale it to 0 to 255"),
    "five channels": ("picture", "npy", npy(np.zeros((4, 4, 5), np.uint8)), r"shape \(4, 4, 5\); expected \(height, width, 3\)"),
    "colored classes": ("what", "png", WHOLE, "one channel of ids"),
    "lossy classes": ("what", "jpg", JPEG, "ends in 'jpg' cannot hold values of type 'classes'; expected png, npy, npz"),
    "lossy classes called png": ("what", "png", JPEG, "found a JPEG picture; expected a PNG, because JPEG blurs the ids of values of type 'classes'"),
    "lossy marks called png": ("lines", "png", JPEG, "found a JPEG picture; expected a PNG"),
    "a picture for numbers": ("bands", "png", WHOLE, "ends in 'png' cannot hold values of type 'map'; expected npy, npz"),
    "colored numbers": ("far", "png", WHOLE, "found a picture of mode RGB; expected one channel of 8 or 16 bits for a map"),
    "lossy numbers called png": ("far", "png", JPEG, "found a JPEG picture; expected a PNG, because JPEG blurs numbers"),
    "two arrays": ("far", "npz", npz(a=[1], b=[1]), "found 2 arrays: a, b; expected one"),
    "class out of range": ("what", "png", png(np.full((4, 4), 7, np.uint8)), r"class ids from 7 to 7, 100.00% of them outside; expected 0 to 2 \(3 classes\)"),
    "negative class": ("what", "npy", npy(np.full((4, 4), -1)), "class ids from -1"),
    "half classes": ("what", "npy", npy(np.full((4, 4), 0.5)), "whole numbers"),
    "NaN": ("far", "npy", npy(NAN), "1 of 64 values NaN or infinite"),
    "infinite": ("far", "npz", npz(a=np.full((8, 8), np.inf)), "64 of 64 values NaN or infinite"),
    "beyond float32": ("far", "npy", npy(np.full((8, 8), 1e300)), "NaN or infinite"),
    "millimeters": ("far", "npy", npy(np.full((8, 8), 4000.0)), r"values from 4000 to 4000, 100.00% of them outside; expected 0 to 10 m; check the unit"),
    "wrong axes": ("far", "npy", npy(np.zeros((8, 8, 2))), r"expected \(height, width\), 1 channel"),
    "no points": ("far", "npy", npy(np.zeros((0, 8))), "1 to 64,000,000 points"),
    "truncated npy": ("far", "npy", npy(np.zeros((8, 8)))[:300], "truncated"),
    "npy without header": ("far", "npy", b"\x93NUMPY\x01\x00\xff", "header is damaged"),
    "pickle": ("far", "npy", pickled(), "never unpickled"),
    "bomb": ("far", "npy", lying_npy("(1000000, 1000000)"), r"takes 4,000,000,000,000 bytes"),
    "negative shape": ("far", "npy", lying_npy("(-4, 4)"), "its header is damaged"),
    "no rows of too many columns": ("far", "npy", lying_npy("(0, 9223372036854775807)"), r"shape \(0, 9223372036854775807\) is impossible; replace the file"),
    "truth values as a shape": ("far", "npy", lying_npy("(True, True)"), r"header is damaged \(shape \(True, True\)\)"),
    "shape of a number": ("far", "npy", lying_npy("(1e3, 4)"), "header is damaged"),
    "lying shape": ("far", "npy", lying_npy("(1000, 1000)"), "truncated"),
    "truncated npz": ("far", "npz", npz(a=np.zeros((8, 8)))[:-30], "corrupt or truncated npz"),
    "no zip": ("far", "npz", b"hello", "corrupt or truncated npz"),
    "long directions": ("facing", "npy", npy(np.full((4, 4, 3), 2.0)), "unit vectors"),
    "gray lines": ("lines", "npy", npy(np.arange(16).reshape(4, 4)), "0 and 1"),
    "short vector": ("code", "npy", npy(np.zeros(3)), r"shape \(3,\); expected \(4,\)"),
    "wide vectors": ("rows", "npy", npy(np.zeros((2, 5))), r"shape \(2, 5\); expected \(vectors, 4\)"),
    "one vector alone": ("rows", "npy", npy(np.zeros(4)), r"shape \(4,\); expected \(vectors, 4\)"),
    "no vectors": ("rows", "npy", npy(np.zeros((0, 4))), "with one vector or more"),
    "long text": ("words", "txt", b"a" * 100_000, "a text of 100,000 characters; expected at most 10,000"),
    "no text": ("words", "txt", b"\xff\xfe\x00", "not UTF-8"),
    "control characters": ("words", "txt", b"a\x00b", "control characters"),
    "number for text": ("words", "json", b"3", "found 3; expected text"),
    "truncated json": ("things", "json", b'[{"class": "a", "box"', "corrupt or truncated JSON"),
    "deep json": ("things", "json", b"[" * 100_000, "corrupt or truncated JSON"),
    "deep but whole json": ("things", "json", b"[" * 900 + b"]" * 900, "found item 0: .*expected"),
    "deep mask": ("parts", "json", b'[{"class": "a", "mask": ' + b"[" * 900 + b"]" * 900 + b"}]", "item 0 has no valid mask"),
    "digits": ("facts", "json", b'{"size": 1' + b"0" * 100_000 + b"}", "corrupt or truncated JSON"),
    "pixels": ("things", "json", b'[{"class": "a", "box": [10, 20, 30, 40]}]', "if these are pixels, divide"),
    "turned box": ("things", "json", b'[{"class": "a", "box": [0.5, 0, 0.1, 1]}]', "xmin, ymin, xmax, ymax"),
    "NaN box": ("things", "json", b'[{"class": "a", "box": [NaN, 0, 1, 1]}]', "item 0 with box"),
    "unknown class": ("things", "json", b'[{"class": "z", "box": [0, 0, 1, 1]}]', "of class 'z'; expected one of the entry's 2: a, b"),
    "no list": ("things", "json", b"{}", "expected a list"),
    "bright color": ("tones", "json", b"[[0, 0, 256]]", "0 to 255"),
    "half a color": ("tones", "json", b"[[0, 0, 0.5]]", "whole numbers"),
    "no color": ("tones", "json", b"[]", "one or more colors"),
    "no key": ("facts", "json", b'{"length": 1}', "keys length; expected at least one of size"),
    "text for number": ("facts", "json", b'{"size": "big"}', "a finite number"),
    "vast number": ("facts", "json", b'{"size": 1' + b"0" * 400 + b"}", "a finite number"),
    "wrong runs": ("parts", "json", b'[{"class": "a", "mask": {"size": [2, 2], "counts": [5]}}]', "adding up to"),
    "vast mask": ("parts", "json", b'[{"class": "a", "mask": {"size": [9999999, 9999999], "counts": [99999980000001]}}]', r"has no valid mask.*\[run lengths\]}}, the run lengths adding up to"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_name(case: str) -> None:
    name, ending, content, message = BAD[case]
    with pytest.raises(BadSample, match=message) as caught:
        read(content, ending, name)
    assert f"in/{name}/x.{ending}" in str(caught.value)


def test_a_zip_bomb_takes_no_memory() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", lying_npy("(60000, 60000)") + b"\0" * 1_000_000)
    with pytest.raises(BadSample, match="expected at most"):
        read(buffer.getvalue(), "npz", "far")


def test_many_masks_take_no_more_than_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskweave.values.instances.MAX_MASK_POINTS", 1000)
    masks = json.dumps([{"class": "a", "mask": {"size": [20, 20], "counts": [400]}}] * 3).encode()
    with pytest.raises(BadSample, match="the first 3 masks have 1,200 points; expected at most 1,000"):
        read(masks, "json", "parts")


def test_rounding_at_the_ends_of_a_range_is_clipped() -> None:
    found = read(npy(np.array([[-0.009, 10.009]])), "npy", "far")  # a thousandth of 0 to 10
    assert found.min() == 0 and found.max() == 10
    with pytest.raises(BadSample, match="10.02"):
        read(npy(np.array([[-0.009, 10.02]])), "npy", "far")


def test_photographs_may_be_jpegs_of_any_name() -> None:
    assert read(JPEG, "png", "picture").shape == (5, 6, 3) == read(JPEG, "jpeg", "picture").shape


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "GIF", "TIFF"])
def test_pictures_of_other_formats(kind: str) -> None:
    buffer, picture = io.BytesIO(), Image.fromarray(np.full((5, 6, 3), (10, 200, 30), np.uint8))
    picture.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_equal(read(buffer.getvalue(), kind.lower(), "picture"), np.asarray(picture))
    with pytest.raises(BadSample, match=f"corrupt or truncated {kind.lower()} picture"):
        read(buffer.getvalue()[: len(buffer.getvalue()) // 2], kind.lower(), "picture")
    assert "gif" in CATALOG["picture"].value.endings and "gif" not in CATALOG["what"].value.endings


def test_of_an_animation_no_frame_is_chosen() -> None:
    frames, buffer = [Image.fromarray(np.full((5, 6), i, np.uint8)) for i in (0, 99, 200)], io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(BadSample, match="found 3 pictures in one file; expected one"):
        read(buffer.getvalue(), "gif", "picture")


def scaled(**settings: Any) -> Any:
    from maskweave.values.map import Map

    return Map(size=(2, 2), range=(0, 70), unit="m", **settings)


def test_millimeters_in_a_gray_png_become_meters() -> None:
    depth = scaled(file_scale=0.001)
    for stored in (np.array([[0, 1500], [4000, 65535]], np.uint16), np.array([[0, 1], [2, 255]], np.uint8)):
        np.testing.assert_allclose(depth.read(png(stored), "png", "x"), stored * 0.001, rtol=1e-6)
        np.testing.assert_allclose(depth.read(npy(stored.astype(np.float64)), "npy", "x"), stored * 0.001, rtol=1e-6)
    np.testing.assert_equal(scaled().read(png(np.array([[1, 2], [3, 4]], np.uint16)), "png", "x"), [[1, 2], [3, 4]])
    mode_1 = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_equal(scaled().read(png(mode_1), "png", "x"), [[1, 0]])
    with pytest.raises(BadSample, match="found a picture of mode P; expected one channel of 8 or 16 bits"):
        depth.read(png(Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")), "png", "x")


def test_scale_and_offset_in_an_entry() -> None:
    value = {"type": "map", "size": [2, 2], "range": [-1, 70], "scale": 0.5, "offset": -1}
    entry = {"id": 1, "kind": "grid", "grid": [1, 1], "value": value}
    loaded: Any = catalog_from({"modalities": {"far": entry}}, "test")["far"].value
    np.testing.assert_equal(loaded.read(png(np.array([[0, 1], [2, 3]], np.uint8)), "png", "x"), [[-1, -0.5], [0, 0.5]])
    from maskweave.config import plain

    assert plain(loaded)["scale"] == 0.5 and plain(loaded)["offset"] == -1
    with pytest.raises(MaskweaveError, match="value.scale must be finite and not 0"):
        catalog_from({"modalities": {"far": {**entry, "value": {**value, "scale": 0}}}}, "test")
    with pytest.raises(MaskweaveError, match=r"unknown key 'value.scal'; did you mean 'value.scale'"):
        catalog_from({"modalities": {"far": {**entry, "value": {**value, "scal": 1}}}}, "test")


def test_written_maps_hold_the_numbers_of_their_files() -> None:
    depth = scaled(file_scale=0.001, file_offset=-0.5)
    meters = np.array([[0.25, 1.5], [4, 65]], np.float32)
    content, ending = depth.to_file(meters, "x")
    np.testing.assert_allclose(np.load(io.BytesIO(content)), [[750, 2000], [4500, 65500]], rtol=1e-6)
    np.testing.assert_allclose(depth.read(content, ending, "x"), meters, rtol=1e-6)


def test_marks_of_255_and_keys_of_another_catalog_are_read() -> None:
    np.testing.assert_equal(read(png(VALUES["lines"].astype(np.uint8) * 255), "png", "lines"), VALUES["lines"])
    assert read(b'{"size": 0.5, "weight": "heavy"}', "json", "facts") == {"size": 0.5}


def test_what_is_no_array_is_refused_whether_it_is_written_or_read() -> None:
    for name in ("picture", "far", "what", "code", "rows"):
        for wrong in ([[1, 2], [3]], "photo.png", None, [object()]):
            with pytest.raises(BadSample, match=rf"^{name}: found .*; expected an array of numbers"):
                CATALOG[name].value.to_file(wrong, name)


def test_what_an_entry_does_not_name_is_left_out_and_rounding_is_clipped() -> None:
    value = [{**PERSON, "score": 0.9, "box": [-0.0005, 0, 1.0005, 1]}]
    assert read(json.dumps(value).encode(), "json", "people") == [{**PERSON, "box": [0.0, 0.0, 1.0, 1.0]}]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("people", PERSON, "a list, each"),
        ("people", [{"pose": [0, 7]}], '{"box": [xmin, ymin, xmax, ymax], "pose": 2 numbers, "size": 1 numbers}'),
        ("people", [{"box": [0, 0, 50, 90]}], "if these are pixels"),
        ("people", [{"box": [0.5, 0, 0.4, 1]}], "give the smaller coordinate first"),
        ("people", [{**PERSON, "pose": [0, 8]}], "item 0: pose = [0, 8]; expected 2 whole numbers from 0 to 7"),
        ("people", [{**PERSON, "pose": [0, 0.5]}], "whole numbers"),
        ("people", [{**PERSON, "size": ["1"]}], "item 0: size = ['1']; expected 1 numbers"),
        ("found", [{"point": [0, 0]}], '"instances": list of'),
        ("found", [{"point": [0, 2], "instances": []}], "item 0 with point [0, 2]"),
        ("found", [{**FOUND, "instances": [{"box": [0, 0, 1, 1]}]}], "item 0: instances: found item 0"),
        ("found", [{**FOUND, "instances": [{"box": [0, 0, 1, 1], "codes": [1]}]}], "codes = [1]"),
    ],
)
def test_people_and_points_that_do_not_fit_are_refused(name: str, value: Any, said: str) -> None:
    with pytest.raises(BadSample) as error:
        read(json.dumps(value).encode(), "json", name)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["outputs", "relief"])
def test_features_and_maps_of_any_scale_must_be_finite(name: str) -> None:
    with pytest.raises(BadSample, match="NaN or infinite"):
        CATALOG[name].value.to_file(VALUES[name] * np.inf, CATALOG[name].name)


@pytest.mark.parametrize(("most", "depth"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_class_ids_take_as_few_bits_as_hold_them(most: int, depth: type) -> None:
    ids = np.array([[0, 7], [most, 1]], np.int32)
    read = np.asarray(Image.open(io.BytesIO(write_png(ids))))
    assert np.array_equal(read, ids) and read.astype(depth).dtype == depth
    assert (read.dtype == np.uint8) == (depth is np.uint8)
