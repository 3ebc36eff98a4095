"""Color emoji with their Unicode names: thousands of real picture-text pairs, drawn from a font installed on the user's machine.

Single characters and sequences (skin tones, professions, families, flags) are listed from the font. The name of a sequence is made from
the names of its characters.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values import image
from maskweave.values.base import ValueType
from maskweave.values.text import Text

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
"""Font of the Debian and Ubuntu package fonts-noto-color-emoji."""
BITMAP_SIZE = 109
"""The font's only bitmap size; its bitmaps have 136×128 pixels."""
JOINER = 0x200D
UNNAMED = {JOINER, 0xFE0F, 0xE007F}
"""Joiner, variation selector and closing tag: they join a sequence and add nothing to its name."""
TONES = range(0x1F3FB, 0x1F400)
"""Skin tone modifiers, which follow the character that they modify."""
LETTERS = " letter "
"""Flags are spelled with letters: the names of their characters differ only after this word."""


class Emoji:
    """A source of samples with the emoji of a font, in order of their code points: a picture on white and a name in lower case.

    Args:
        catalog: must have a color picture and a text; their names are used in the samples.

    Raises:
        MaskweaveError: the font does not exist, cannot be read or draws nothing, or the catalog lacks a picture or a text.
    """

    def __init__(self, catalog: Catalog, font: str | os.PathLike[str] = FONT):
        path = Path(font)
        if not path.is_file():
            raise MaskweaveError(
                f"{path}: no such font; install it (Debian, Ubuntu: apt install fonts-noto-color-emoji), or choose another with --font"
            )
        self.picture = _entry(catalog, image.Image, 3)
        self.text = _entry(catalog, Text, 1)
        joins = features.check("raqm")  # without raqm, Pillow draws sequences character by character
        layout = ImageFont.Layout.RAQM if joins else ImageFont.Layout.BASIC
        try:
            self.font = ImageFont.truetype(path, BITMAP_SIZE, layout_engine=layout)
            sequences = sorted(listed(path))
        except Exception as error:  # fontTools raises many types of errors
            raise MaskweaveError(f"{path}: cannot be used as a font ({error}); expected NotoColorEmoji.ttf") from error
        self.sequences = [s for s in sequences if len(s) == 1 or joins]
        if not self.sequences or (self._draw(self.sequences[0]) == 255).all():
            raise MaskweaveError(
                f"{path}: has no emoji with a name; expected a font with bitmaps or outlines, such as Debian's NotoColorEmoji.ttf"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return self.picture.name, self.text.name

    def __len__(self) -> int:
        return len(self.sequences)

    def key(self, i: int) -> str:
        """Returns the code points, in one of ten folders in turn. Thus the last samples, which recipes hold out, are of all kinds."""
        return f"{i % 10}/" + "-".join(f"{code:04x}" for code in self.sequences[i])

    def __getitem__(self, i: int) -> dict[str, Any]:
        sequence = self.sequences[i]
        return {self.picture.name: self._draw(sequence), self.text.name: name_of(sequence)}

    def _draw(self, sequence: Sequence[int]) -> np.ndarray:
        """Returns the picture, uint8 (side, side, 3), centered on white."""
        text = "".join(map(chr, sequence))
        left, top, right, bottom = (round(x) for x in self.font.getbbox(text))
        side = max(right - left, bottom - top, 1)
        image = Image.new("RGBA", (side, side), "white")
        corner = ((side - right + left) // 2 - left, (side - bottom + top) // 2 - top)
        ImageDraw.Draw(image).text(corner, text, fill="black", font=self.font, embedded_color=True)
        return np.asarray(image.convert("RGB"))


def name_of(sequence: Sequence[int]) -> str:
    """Returns the Unicode name of a character, or the comma-separated names of a sequence, in lower case; "" if one has no name.

    Example of a flag: "regional indicator symbol letter d e".
    """
    names: list[str] = []
    for code in sequence:
        name = "" if code in UNNAMED else unicodedata.name(chr(code), "").lower()
        if not name and code not in UNNAMED:
            return ""
        stem, letter, last = name.rpartition(LETTERS)
        if letter and names and names[-1].startswith(stem + letter):
            names[-1] += f" {last}"
        elif name:
            names.append(name)
    return ", ".join(names)


def listed(path: Path) -> Iterator[tuple[int, ...]]:
    """Yields characters and ligatures of a font that have a name and are not plain text; one of ligatures with the same picture."""
    from fontTools.ttLib import TTFont

    with TTFont(path, lazy=True) as font:
        spelled: dict[str, tuple[int, ...]] = {}
        for code, glyph in font.getBestCmap().items():
            spelled[glyph] = (code,)
            is_sign = code > 0x7F and unicodedata.category(chr(code))[0] in "SPL"  # no spaces, marks and controls
            if is_sign and name_of((code,)):
                yield (code,)
        joined: dict[str, list[tuple[int, ...]]] = {}
        for first, ligature in _ligatures(font):
            parts = [spelled.get(glyph) for glyph in (first, *ligature.Component)]
            if None not in parts:
                sequence = tuple(code for part in parts if part for code in part)
                spelled.setdefault(ligature.LigGlyph, sequence)
                if name_of(sequence):
                    joined.setdefault(ligature.LigGlyph, []).append(sequence)
        people = {s[0] for sequences in joined.values() for s in sequences if len(s) == 2 and s[1] in TONES}
        for sequences in joined.values():
            yield max(sequences, key=lambda sequence: _order(sequence, people))


def _order(sequence: tuple[int, ...], people: set[int]) -> tuple[bool, bool, int]:
    """Sort key, highest for the order in which a sequence is written. Fonts also list it reversed, for right-to-left text."""
    misplaced = any(a == JOINER and b in TONES for a, b in pairwise(sequence))
    return not misplaced, sequence[0] in people, sequence[0]


def _ligatures(font: Any) -> Iterator[tuple[str, Any]]:
    """Yields the first glyph and the rest of every ligature."""
    lookups = font["GSUB"].table.LookupList.Lookup if "GSUB" in font and font["GSUB"].table.LookupList else []
    for subtable in (subtable for lookup in lookups for subtable in lookup.SubTable):
        subtable = getattr(subtable, "ExtSubTable", subtable)
        for first, ligatures in getattr(subtable, "ligatures", {}).items():
            yield from ((first, ligature) for ligature in ligatures)


def _entry(catalog: Catalog, kind: type[ValueType], channels: int) -> Modality:
    for m in catalog.values():
        if isinstance(m.value, kind) and m.value.channels == channels and not m.source:
            return m
    raise MaskweaveError(
        f"{catalog.where}: has no modality of value type {kind.type!r} with {channels} channels, which emoji need; add one"
    )
