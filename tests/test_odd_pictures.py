"""Pictures and captions as the web has them end as docs/odd-pictures.md says."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.data.folders import ImportReport, import_folders
from maskweave.data.shards import Shards
from maskweave.modality.catalogs import Catalog, catalog_from

PAGE = Path(__file__).parents[1] / "docs" / "odd-pictures.md"
ROWS = re.findall(r"^\| `(.+)` \| .+? \| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
UNICODE = "Ein schöner 🐼 — 熊猫 \u200d и кошка"


def colors() -> Image.Image:
    ramp = np.linspace(0, 255, 64)[None].repeat(64, 0)
    return Image.fromarray(np.stack([ramp, ramp.T, np.full_like(ramp, 128)], -1).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)  # type: ignore[arg-type]
    return content.getvalue()


def transparent() -> Image.Image:
    array = np.zeros((64, 64, 4), np.uint8)
    array[20:44, 20:44, 3] = 255
    return Image.fromarray(array)


def pictures() -> dict[str, bytes]:
    rgb, exif = colors(), Image.Exif()
    exif[0x112] = 6
    deep = np.linspace(0, 65535, 64)[None].repeat(64, 0)
    large = encoded(rgb.resize((256, 256)), "JPEG")
    png = encoded(rgb, "PNG")
    odd = {
        "a_rgb.png": png,
        "b_16bit.png": encoded(Image.fromarray(deep.astype(np.uint16)), "PNG"),
        "c_16bit_low.png": encoded(Image.fromarray((deep / 16).astype(np.uint16)), "PNG"),
        "d_palette.png": encoded(rgb.quantize(16), "PNG"),
        "e_cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "f_rgba.png": encoded(transparent(), "PNG"),
        "g_exif.jpg": encoded(rgb, "JPEG", exif=exif),
        "h_webp.webp": encoded(rgb, "WEBP"),
        "i_trunc.jpg": large[: len(large) // 2],
        "j_gray.jpg": encoded(rgb.convert("L"), "JPEG"),
        "k_JPEG.JPEG": encoded(rgb, "JPEG"),
        "l_jpeg.jpeg": encoded(rgb, "JPEG"),
        "m_gif.gif": encoded(rgb, "GIF"),
        "n_bmp.bmp": encoded(rgb, "BMP"),
        "o_tif.tif": encoded(rgb, "TIFF"),
        "p_tiny.png": encoded(rgb.resize((1, 1)), "PNG"),
        "q_wide.png": encoded(rgb.resize((640, 64)), "PNG"),
        "s_zero.png": b"",
    }
    return odd | {name: png for name, _, _ in ROWS if name not in odd and "`" not in name}


CAPTIONS = {
    "t_emptycap": b"",
    "u_unicap": UNICODE.encode(),
    "v_latin1": "déjà".encode("latin-1"),
    "w_longcap": b"word " * 500,
    "x_wscap": b"  \n ",
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImportReport, Shards]:
    root = tmp_path_factory.mktemp("odd")
    entries = catalog()
    for folder in ("rgb", "caption"):
        (root / "in" / folder).mkdir(parents=True)
    for name, content in pictures().items():
        (root / "in" / "rgb" / name).write_bytes(content)
        key = name.rpartition(".")[0]
        if key != "y_nocap":
            (root / "in" / "caption" / f"{key}.txt").write_bytes(CAPTIONS.get(key, b"a thing"))
    for name in (".DS_Store", "Thumbs.db", "readme.md"):
        (root / "in" / "rgb" / name).write_bytes(b"x")
    return import_folders(root / "in", root / "out", entries, limit=1), Shards(root / "out", entries)


def catalog() -> Catalog:
    content = {
        "vocabularies": {"text": {"size": 2000}},
        "modalities": {
            "rgb": {"id": 1, "kind": "grid", "grid": [8, 8], "value": {"type": "image", "size": [64, 64], "channels": 3}},
            "caption": {"id": 2, "kind": "sequence", "vocabulary": "text", "max_tokens": 64, "value": {"type": "text"}},
        },
    }  # fmt: skip
    return catalog_from(content, "own.yaml")


@pytest.mark.parametrize(("name", "picture", "caption"), ROWS)
def test_each_ends_as_the_page_says(
    name: str, picture: str, caption: str, imported: tuple[ImportReport, Shards]
) -> None:
    report, shards = imported
    if "`" in name:
        assert "Thumbs.db: a file with this ending" in str(report) and "readme.md: a file with this ending" in str(
            report
        )
        assert ".DS_Store" not in str(report), "hidden files are no data"
        return
    key = name.rpartition(".")[0]
    keys = {shards.key(i): i for i in range(len(shards))}
    sample = shards[keys[key]]
    faults = {fault.modality: fault.reason for fault in report.faults.dropped if fault.key == key}
    told = {modality: {text for (m, text) in report.remarks if m == modality} for modality in ("rgb", "caption")}
    for modality, outcome in (("rgb", picture), ("caption", caption)):
        if outcome.startswith("dropped: "):
            assert outcome.removeprefix("dropped: ") in faults[modality] and modality not in sample
        elif outcome in ("missing", "none"):
            assert modality not in sample and modality not in faults
        else:
            assert modality in sample and modality not in faults
            assert outcome == "read" or any(outcome in text for text in told[modality]) or outcome in str(report)


def test_counts(imported: tuple[ImportReport, Shards]) -> None:
    report, _ = imported
    expected = {
        "values that say nothing count as missing": 2,
        "transparent pictures, composited on the background [255, 255, 255]": 1,
        "values of other sizes than 64×64, cropped to the center and resized": 2,
    }
    assert {text: count for (_, text), count in report.remarks.items()} == expected
    assert len(report.faults.dropped) == 5 and not report.faults.skipped
    assert "4.3% of 23 texts are longer than max_tokens 64 and are cut" in str(report)


def test_what_is_read_is_what_a_viewer_shows(imported: tuple[ImportReport, Shards]) -> None:
    _, shards = imported
    keys = {shards.key(i): i for i in range(len(shards))}
    square = shards[keys["f_rgba"]]["rgb"]
    assert (square[:20] == 255).all() and (square[21:43, 21:43] == 0).all(), "a black square on white, not on black"
    plain = np.asarray(colors())
    turned = shards[keys["g_exif"]]["rgb"]
    assert np.abs(turned.astype(int) - np.rot90(plain, -1)).mean() < 5
    assert shards[keys["u_unicap"]]["caption"] == UNICODE
    value = catalog()["rgb"].value
    exif = Image.open(io.BytesIO(pictures()["g_exif.jpg"]))
    np.testing.assert_array_equal(value.from_python(exif, "x"), turned, "the same from a PIL image and a file")
    np.testing.assert_array_equal(value.from_python(transparent(), "x"), square)
