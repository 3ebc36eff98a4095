"""Emoji out of a font. A stand-in of a few outlines and one of color bitmaps take the place of the real one, which is tried where it is installed."""

import io
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools import subset
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.ttLib import TTFont
from PIL import Image, features

from maskweave.cli.main import main
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.synthetic import emoji as emoji_module
from maskweave.synthetic.emoji import FONT, Emoji, _order, name_of
from maskweave.values import image

JOINED = (0x2600, 0x200D, 0x2602)
"""The stand-in joins these to one picture, a snowman."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog("photos")


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sun, umbrella, snowman, a letter, a space and a joiner of DejaVu Sans, with one ligature."""
    stand_in = TTFont(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
    cutter = subset.Subsetter(subset.Options(layout_features=[], glyph_names=True))
    cutter.populate(unicodes=[0x20, 0x41, 0x2600, 0x2602, 0x2603, 0x200D])
    cutter.subset(stand_in)
    glyphs = stand_in.getBestCmap()
    first, joiner, last, made = (glyphs[code] for code in (*JOINED, 0x2603))
    addOpenTypeFeaturesFromString(stand_in, f"feature ccmp {{ sub {first} {joiner} {last} by {made}; }} ccmp;")
    path = tmp_path_factory.mktemp("font") / "stand-in.ttf"
    stand_in.save(path)
    return path


def test_characters_and_sequences_have_pictures_and_names(font: Path, catalog: Catalog) -> None:
    emoji = Emoji(catalog, font)
    assert [emoji.key(i)[:2] for i in range(len(emoji))] == [f"{i}/" for i in range(len(emoji))]
    found = {emoji.key(i)[2:]: emoji[i] for i in range(len(emoji))}
    assert {key: sample["caption"] for key, sample in found.items() if "-" not in key} == {
        "2600": "black sun with rays",
        "2602": "umbrella",
        "2603": "snowman",
    }
    for sample in found.values():
        picture = sample["rgb"]
        assert picture.dtype == np.uint8 and picture.shape[0] == picture.shape[1] > 50 and picture.shape[2] == 3
        assert (picture[0, 0] == 255).all() or (picture == 255).any()
        assert picture.min() < 50
    if features.check("raqm"):
        joined = found["2600-200d-2602"]
        assert joined["caption"] == "black sun with rays, umbrella"
        assert (joined["rgb"] == found["2603"]["rgb"]).all(), "drawn as one picture"


def test_the_layout_is_what_import_reads(font: Path, catalog: Catalog, tmp_path: Path, capsys) -> None:
    assert main(["data", "emoji", str(tmp_path / "emoji"), "--font", str(font)]) == 0
    assert "emoji written to" in capsys.readouterr().out
    import_folders(tmp_path / "emoji", tmp_path / "shards", catalog)
    shards = Shards(tmp_path / "shards", catalog)
    assert len(shards) == len(Emoji(catalog, font))
    assert shards[0]["rgb"].shape == (64, 64, 3) and shards[0]["caption"] == "black sun with rays"


def color_font(path: Path) -> None:
    """A font as the real one is: two pictures of 136×128 pixels as PNG (CBDT), for size 109 alone."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.ttLib import newTable
    from fontTools.ttLib.tables import E_B_L_C_ as located
    from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
    from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17

    colors = {"red": (220, 20, 20), "blue": (20, 20, 220)}
    builder = FontBuilder(2048, isTTF=True)
    builder.setupGlyphOrder([".notdef", *colors])
    builder.setupCharacterMap({0x1F534: "red", 0x1F535: "blue"})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *colors), (2550, 0)))
    builder.setupHorizontalHeader(ascent=1900, descent=-500)
    builder.setupNameTable({"familyName": "Stand-in", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    bitmaps = {}
    for name, color in colors.items():
        content = io.BytesIO()
        Image.new("RGBA", (136, 128), (*color, 255)).save(content, "png")
        bitmap = cbdt_bitmap_format_17(b"", builder.font)
        bitmap.metrics = SmallGlyphMetrics()
        bitmap.metrics.__dict__.update(height=128, width=136, BearingX=0, BearingY=101, Advance=136)
        bitmap.imageData = content.getvalue()
        bitmaps[name] = bitmap
    data, places = newTable("CBDT"), newTable("CBLC")
    data.version = places.version = 3.0
    data.strikeData = [bitmaps]
    strike = located.Strike()
    line = {"ascender": 101, "descender": -27, "widthMax": 136, "caretSlopeNumerator": 0, "caretSlopeDenominator": 0}
    line |= {
        "caretOffset": 0,
        "minOriginSB": 0,
        "minAdvanceSB": 0,
        "maxBeforeBL": 0,
        "minAfterBL": 0,
        "pad1": 0,
        "pad2": 0,
    }
    table = strike.bitmapSizeTable
    table.hori, table.vert = located.SbitLineMetrics(), located.SbitLineMetrics()
    for metrics in (table.hori, table.vert):
        metrics.__dict__.update(line)
    table.__dict__.update(colorRef=0, startGlyphIndex=1, endGlyphIndex=2, ppemX=109, ppemY=109, bitDepth=32, flags=1)
    index = located.eblc_index_sub_table_1(b"", builder.font)
    index.indexFormat, index.imageFormat, index.names = 1, 17, list(colors)
    strike.indexSubTables = [index]
    places.strikes = [strike]
    builder.font["CBDT"], builder.font["CBLC"] = data, places
    builder.save(path)


def test_color_bitmaps(tmp_path: Path, catalog: Catalog) -> None:
    color_font(tmp_path / "color.ttf")
    emoji = Emoji(catalog, tmp_path / "color.ttf")
    assert [emoji[i]["caption"] for i in range(len(emoji))] == ["large red circle", "large blue circle"]
    picture = emoji[0]["rgb"]
    assert picture.shape == (136, 136, 3)
    assert (picture[68, 68] == (220, 20, 20)).all() and (picture[0, 68] == 255).all()
    assert (picture == (220, 20, 20)).all(axis=-1).sum() == 136 * 128


def test_names_of_sequences() -> None:
    assert name_of([0x1F600]) == "grinning face"
    assert name_of([0x1F469, 0x1F3FD, 0x200D, 0x1F4BB]) == "woman, emoji modifier fitzpatrick type-4, personal computer"
    assert name_of([0x1F1E9, 0x1F1EA]) == "regional indicator symbol letter d e"
    assert name_of([0x2764, 0xFE0F]) == "heavy black heart"
    assert name_of([0x1F600, 0xFE4E5]) == "", "private code points have no name"


def test_what_is_missing_is_told(tmp_path: Path, catalog: Catalog, font: Path, capsys) -> None:
    assert main(["data", "emoji", str(tmp_path / "out"), "--font", str(tmp_path / "gone.ttf")]) == 1
    said = capsys.readouterr().err
    assert "gone.ttf: no such font" in said and "apt install fonts-noto-color-emoji" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(MaskweaveError, match="broken.ttf: cannot be used as a font"):
        Emoji(catalog, tmp_path / "broken.ttf")
    with pytest.raises(MaskweaveError, match="no modality of value type 'text'"):
        Emoji(catalog.subset(["rgb"]), font)


@pytest.mark.skipif(not Path(FONT).exists(), reason="fonts-noto-color-emoji is not installed")
def test_the_real_font(catalog: Catalog) -> None:
    emoji = Emoji(catalog)
    assert len(emoji) > 3000
    names = {emoji.key(i)[2:]: i for i in range(len(emoji))}
    face = emoji[names["1f600"]]
    assert face["caption"] == "grinning face" and face["rgb"].shape == (136, 136, 3)
    middle = face["rgb"][40:96, 40:96].reshape(-1, 3).mean(axis=0)
    assert middle[0] > middle[2] + 40, "yellow"
    assert "1f469-200d-1f52c" in names and "1f52c-200d-1f469" not in names, "once, as it is written"


def test_backward_sequences_are_left_out() -> None:
    people = {0x1F469, 0x1F468}
    for written, backward in (
        ((0x1F469, 0x200D, 0x1F52C), (0x1F52C, 0x200D, 0x1F469)),
        ((0x1F468, 0x1F3FB, 0x200D, 0x2764, 0x200D, 0x1F469), (0x1F469, 0x200D, 0x2764, 0x200D, 0x1F3FB, 0x1F468)),
        ((0x1F3F3, 0x200D, 0x1F308), (0x1F308, 0x200D, 0x1F3F3)),
    ):
        assert max([backward, written], key=lambda s: _order(s, people)) == written


class Font:
    """What is asked of a font of fontTools, with given characters and ligatures of glyph names."""

    def __init__(self, characters: dict[int, str], ligatures: dict[str, list[tuple[list[str], str]]]):
        rules = {
            first: [SimpleNamespace(Component=rest, LigGlyph=glyph) for rest, glyph in found]
            for first, found in ligatures.items()
        }
        plain, extended = SimpleNamespace(ligatures=rules), SimpleNamespace(ExtSubTable=SimpleNamespace(ligatures={}))
        lookups = [SimpleNamespace(SubTable=[SimpleNamespace(), plain]), SimpleNamespace(SubTable=[extended])]
        self.tables = {"GSUB": SimpleNamespace(table=SimpleNamespace(LookupList=SimpleNamespace(Lookup=lookups)))}
        self.characters = characters

    def __enter__(self) -> "Font":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def getBestCmap(self) -> dict[int, str]:
        return self.characters

    def __contains__(self, name: str) -> bool:
        return name in self.tables

    def __getitem__(self, name: str) -> Any:
        return self.tables[name]


def listed_of(monkeypatch: pytest.MonkeyPatch, font: Font) -> list[tuple[int, ...]]:
    monkeypatch.setitem(sys.modules, "fontTools", types.ModuleType("fontTools"))
    library: Any = types.ModuleType("fontTools.ttLib")
    library.TTFont = lambda path, lazy: font
    monkeypatch.setitem(sys.modules, "fontTools.ttLib", library)
    return [*emoji_module.listed(Path("font"))]


def test_which_characters_are_emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs, punctuation and letters beyond ASCII with a name; no digits, spaces, marks and controls, and none that nobody named."""
    codes = [0x31, 0x2B, 0x7F, 0xA9, 0x203C, 0x2139, 0x2003, 0x0301, 0x0664, 0x200D, 0xFE0F, 0x1F600, 0xE000, 0x1FFFE]
    font = Font({code: f"g{code:x}" for code in codes}, {})
    assert [code for (code,) in listed_of(monkeypatch, font)] == [0xA9, 0x203C, 0x2139, 0x1F600]
    font.tables = {}
    assert len(listed_of(monkeypatch, font)) == 4
    font.tables = {"GSUB": SimpleNamespace(table=SimpleNamespace(LookupList=None))}
    assert len(listed_of(monkeypatch, font)) == 4


def test_which_sequences_are_emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    woman, tone, joiner, laptop = 0x1F469, 0x1F3FD, 0x200D, 0x1F4BB
    characters = {woman: "woman", tone: "tone", joiner: "joiner", laptop: "laptop", 0xE000: "private"}
    ligatures = {
        "woman": [
            (["tone"], "woman.tone"),
            (["joiner", "laptop"], "coder"),
            (["private"], "nobody"),
            (["unknown"], "lost"),
        ],
        "laptop": [(["joiner", "woman"], "coder")],
        "woman.tone": [(["joiner", "laptop"], "coder.tone")],
    }
    assert listed_of(monkeypatch, Font(characters, ligatures)) == [
        (woman,), (tone,), (laptop,), (woman, tone), (woman, joiner, laptop), (woman, tone, joiner, laptop),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["nothing", "blank"])
def test_fonts_without_pictures(what: str, monkeypatch: pytest.MonkeyPatch, catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "font.ttf").touch()
    box = (0, 0, 0, 0)
    drawn = SimpleNamespace(getbbox=lambda text: box, getmask2=None)
    monkeypatch.setattr(emoji_module.ImageFont, "truetype", lambda *_, **__: drawn)
    monkeypatch.setattr(emoji_module, "listed", lambda path: iter([] if what == "nothing" else [(0x1F600,)]))
    monkeypatch.setattr(Emoji, "_draw", lambda self, sequence: np.full((4, 4, 3), 255, np.uint8))
    with pytest.raises(MaskweaveError, match="font.ttf: has no emoji with a name"):
        Emoji(catalog, tmp_path / "font.ttf")


@pytest.mark.parametrize("joins", [True, False])
def test_sequences_need_a_layout_that_joins(
    joins: bool, monkeypatch: pytest.MonkeyPatch, catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "font.ttf").touch()
    made = []
    monkeypatch.setattr(emoji_module.features, "check", lambda name: joins and name == "raqm")
    monkeypatch.setattr(
        emoji_module.ImageFont, "truetype", lambda path, size, layout_engine: made.append((size, layout_engine))
    )
    monkeypatch.setattr(emoji_module, "listed", lambda path: iter([(0x1F601,), (0x1F469, 0x1F3FD), (0x1F600,)]))
    monkeypatch.setattr(Emoji, "_draw", lambda self, sequence: np.zeros((4, 4, 3), np.uint8))
    emoji = Emoji(catalog, tmp_path / "font.ttf")
    assert emoji.sequences == [(0x1F469, 0x1F3FD)] * joins + [(0x1F600,), (0x1F601,)]
    layout = emoji_module.ImageFont.Layout
    assert made == [(109, layout.RAQM if joins else layout.BASIC)]
    assert emoji.key(0) == ("0/1f469-1f3fd" if joins else "0/1f600") and len(emoji) == 2 + joins
    emoji.sequences = [(0xA9,)] * 21
    assert [emoji.key(i) for i in (0, 9, 10, 20)] == ["0/00a9", "9/00a9", "0/00a9", "0/00a9"]


@pytest.mark.parametrize("box", [(0, 0, 7, 4), (2, -3, 5, 9), (-3, 1, 8, 2)])
def test_pictures_are_square_and_in_the_middle(
    box: tuple[int, int, int, int], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    emoji = Emoji.__new__(Emoji)
    emoji.font = SimpleNamespace(getbbox=lambda text: box)  # type: ignore[assignment]

    def text(corner: tuple[int, int], text: str, **options: Any) -> None:
        places.append(corner)
        assert text == "ab" and options == {"fill": "black", "font": emoji.font, "embedded_color": True}

    places: list[tuple[int, int]] = []
    monkeypatch.setattr(emoji_module.ImageDraw, "Draw", lambda image: SimpleNamespace(text=text))
    picture = emoji._draw([97, 98])
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height)
    assert picture.shape == (side, side, 3) and (picture == 255).all()
    left, top = places[0][0] + box[0], places[0][1] + box[1]
    assert (left, top) == ((side - width) // 2, (side - height) // 2)


def test_entries_for_emoji(catalog: Catalog) -> None:
    assert emoji_module._entry(catalog, image.Image, 3).name == "rgb"
    with pytest.raises(MaskweaveError, match="no modality of value type 'image' with 4 channels"):
        emoji_module._entry(catalog, image.Image, 4)
