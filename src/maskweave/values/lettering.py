"""Text in figures: a panel of wrapped text, a plain tile with a short message, and the font of both."""

import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = (250, 250, 248), (32, 34, 38), (128, 130, 134)
MAX_CHARACTERS = 2000
"""Longer text is cut before layout; no tile can show it."""


def message(words: str, size: tuple[int, int]) -> np.ndarray:
    """Draws a plain tile with a short message, uint8 (*size, 3)."""
    height, width = size
    tile = Image.new("RGB", (width, height), (238, 238, 236))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((0, 0, width - 1, height - 1), outline=(214, 214, 212))
    pen.text((width / 2, height / 2), words, font=font(12), fill=FAINT, anchor="mm")
    return np.asarray(tile)


def text_panel(text: str, size: tuple[int, int]) -> np.ndarray:
    """Draws wrapped text, uint8 (*size, 3), in the largest font size that fits; text that does not fit is cut with an ellipsis."""
    height, width = size
    text = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"
    margin = 6
    for points in (13, 12, 11, 10, 9):
        face, step = font(points), points + 4
        lines = wrap(text, face, width - 2 * margin)
        if len(lines) * step <= height - 2 * margin:
            break
    most = max(1, (height - 2 * margin) // step)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rstrip("… ") + "…"]
    tile = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(tile)
    for i, line in enumerate(lines):
        pen.text((margin, margin + i * step), line, font=face, fill=INK)
    return np.asarray(tile)


def wrap(text: str, face: Any, width: float) -> list[str]:
    """Splits `text` into lines no wider than `width` pixels; a wider word is cut."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if face.getlength(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            while face.getlength(word) > width and len(word) > 1:
                cut = next(i for i in range(1, len(word)) if face.getlength(word[: i + 1]) > width)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines


@functools.lru_cache(maxsize=32)
def font(points: int, bold: bool = False) -> Any:
    """Returns the font of figures: DejaVu Sans, which matplotlib ships and which covers many scripts."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", points)
