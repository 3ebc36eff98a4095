"""Contact sheets: rows of tiles under column headings, with each legend shown once.

`sheet_for` lays out the result of a request: the inputs, a vertical rule, and for each target the prediction, above the truth if it is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.families.sheets import Tile, TileRow
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.report.figures import common_span, draw
from maskweave.values.lettering import FAINT, INK, font, message, wrap

MARGIN, GAP, BAND, RULE = 20, 8, 20, (222, 222, 220)


def contact_sheet(
    rows: Sequence[TileRow],
    catalog: Catalog,
    title: str = "",
    headings: Sequence[str] = (),
    divider: int = 0,
    tile: int = 144,
) -> Image.Image:
    """Lays out rows of tiles on a white page; maps of one modality share a color range.

    Args:
        headings: column headings.
        divider: column before which a vertical rule is drawn; 0 for none.
        tile: height of a figure in pixels, and width of a square one.

    Raises:
        MaskweaveError: a tile has an unknown modality, or a value of the wrong shape.
    """
    tiles = [t for row in rows for t in row.tiles if t is not None]
    modalities = {t.modality: catalog[t.modality] for t in tiles}
    spans = {name: _span(m, [t for t in tiles if t.modality == name]) for name, m in modalities.items()}
    num_columns = max([len(headings), *(len(row.tiles) for row in rows)], default=0)
    widths = [
        max([tile // 2, *(_width(modalities[t.modality], tile) for row in rows for t in row.tiles[c : c + 1] if t)])
        for c in range(num_columns)
    ]
    small = font(11)
    label_width = max([0, *(round(small.getlength(row.label)) + 12 for row in rows)])
    lefts, x = [], MARGIN + (0 if divider else label_width)
    for c, width in enumerate(widths):
        x += 2 * BAND + label_width if c and c == divider else 0
        lefts.append(x)
        x += width + GAP
    notes = [[wrap(t.note, small, widths[c]) if t and t.note else [] for c, t in enumerate(row.tiles)] for row in rows]
    top = MARGIN + (34 if title else 0) + (22 if headings else 0)
    tops, y = [], top
    for r, row in enumerate(rows):
        y += BAND if row.starts and r else 0
        tops.append(y)
        y += tile + GAP + 15 * max([0, *map(len, notes[r])])
    legends = _legends(modalities, tiles, spans)
    sheet_width = max(x - GAP + MARGIN, 360, round(font(18, bold=True).getlength(title)) + 2 * MARGIN)
    positions, bottom = _flow(legends, sheet_width - 2 * MARGIN, y + BAND if legends else y)

    sheet = Image.new("RGB", (sheet_width, bottom + MARGIN - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), title, font=font(18, bold=True), fill=INK)
    for name, left, width in zip(headings, lefts, widths, strict=False):
        for size in (12, 11, 10, 9, 8):  # shrink long headings to fit
            heading = font(size, bold=True)
            if heading.getlength(name) <= width:
                break
        pen.text((left, top - 20), name, font=heading, fill=INK)
    if divider and rows:
        line = lefts[divider] - BAND - label_width
        pen.line((line, top - 20, line, y - GAP), fill=RULE, width=1)
    for r, row in enumerate(rows):
        if row.starts and r:
            pen.line((MARGIN, tops[r] - BAND // 2 - 4, x - GAP, tops[r] - BAND // 2 - 4), fill=RULE, width=1)
        left = lefts[divider] - label_width if divider else MARGIN
        pen.text((left, tops[r] + tile / 2), row.label, font=small, fill=FAINT, anchor="lm")
        for c, t in enumerate(row.tiles):
            if t is None:
                continue
            figure_size = (tile, widths[c])
            if t.value is None:
                figure = message(t.instead, figure_size)
            else:
                figure = draw(modalities[t.modality], t.value, figure_size, t.over, spans[t.modality], t.reference)
            sheet.paste(Image.fromarray(figure), (lefts[c], tops[r]))
            for i, line_of_note in enumerate(notes[r][c]):
                pen.text((lefts[c], tops[r] + tile + 3 + 15 * i), line_of_note, font=small, fill=INK)
    for (left, legend_top), (name, picture) in zip(positions, legends, strict=True):
        pen.text((left, legend_top), name, font=font(11, bold=True), fill=INK)
        sheet.paste(Image.fromarray(picture), (left, legend_top + 18))
    return sheet


def sheet_for(
    request_title: str, samples: Sequence[Mapping[str, Mapping[str, Any]]], catalog: Catalog, tile: int = 144
) -> Image.Image:
    """Makes a sheet of one request's results for several samples: inputs | for each target the prediction, above the truth if any sample has one.

    Args:
        samples: each `{"inputs": {name: value}, "predictions": {name: value}, "truth": {name: value}, "instead": {name: text}}`. The tile of
            a missing input is empty; a target without value shows its `instead` text, or "missing". Boxes and instances are drawn over a
            picture of the same sample: an input, or else the predicted or true picture.

    Raises:
        MaskweaveError: an unknown modality, or a value of the wrong shape.
    """
    inputs = _names(samples, "inputs", catalog)
    targets = _names(samples, "predictions", catalog)
    parts = (
        {"predicted": "predictions", "truth": "truth"} if any("truth" in s for s in samples) else {"": "predictions"}
    )
    deep = len(parts)  # rows per sample; inputs are stacked to use them all
    stacked = [inputs[i : i + deep] for i in range(0, len(inputs), deep)]
    rows = []
    for sample in samples:
        given, truth, instead = sample.get("inputs", {}), sample.get("truth", {}), sample.get("instead", {})
        words = {name: instead.get(name, "missing") for name in (*inputs, *targets)}
        ours = picture_among(catalog, given)
        for r, (label, part) in enumerate(parts.items()):
            found = sample.get(part, {})
            over = picture_among(catalog, given, found)
            shown = [group[r] if r < len(group) and group[r] in given else None for group in stacked]
            left = [Tile(name, given[name], "", ours, None, words[name]) if name else None for name in shown]
            right = [Tile(name, found.get(name), "", over, truth.get(name), words[name]) for name in targets]
            rows.append(TileRow([*left, *right], label, starts=deep > 1 and r == 0))
    headings = [" / ".join(group) for group in stacked] + targets
    return contact_sheet(rows, catalog, request_title, headings, divider=len(stacked) if targets else 0, tile=tile)


def _names(samples: Sequence[Mapping[str, Mapping[str, Any]]], part: str, catalog: Catalog) -> list[str]:
    """Returns the checked names that any sample has, in order of first appearance."""
    names = dict.fromkeys(name for sample in samples for name in sample.get(part, {}))
    return [catalog[name].name for name in names]


def picture_among(catalog: Catalog, *parts: Mapping[str, Any]) -> Any:
    """Returns the first color picture (an image over two axes) in these values, or None."""
    for part in parts:
        for name, value in part.items():
            if catalog[name].value.is_picture and value is not None:
                return value
    return None


def _width(modality: Modality, tile: int) -> int:
    """Width of a modality's column."""
    return round(tile * modality.value.aspect)


def _span(modality: Modality, tiles: Sequence[Tile]) -> tuple[float, float] | None:
    """Common value range of all tiles of a modality."""
    truths = list({id(t.reference): t.reference for t in tiles if t.reference is not None}.values())
    return common_span(modality, [t.value for t in tiles], truths)


def _legends(
    modalities: Mapping[str, Modality], tiles: Sequence[Tile], spans: Mapping[str, tuple[float, float] | None]
) -> list[tuple[str, np.ndarray]]:
    legends: dict[str, tuple[str, np.ndarray]] = {}
    for name, m in modalities.items():
        values = [t.value for t in tiles if t.modality == name and t.value is not None]
        picture = m.value.legend(spans[name], values, 420) if values else None
        if picture is not None:
            legends[m.reads] = (name, picture)  # an input and a target of one source share a legend
    return list(legends.values())


def _flow(legends: Sequence[tuple[str, np.ndarray]], width: int, y: int) -> tuple[list[tuple[int, int]], int]:
    """Returns left and top of each legend, placed side by side in as many lines as needed, and the bottom of the last line."""
    positions, x, tallest = [], 0, 0
    for name, picture in legends:
        wide = max(picture.shape[1], round(font(11, bold=True).getlength(name)))
        if x and x + wide > width:
            x, y, tallest = 0, y + tallest + GAP, 0
        positions.append((MARGIN + x, y))
        x, tallest = x + wide + 2 * BAND, max(tallest, picture.shape[0] + 18)
    return positions, y + tallest
