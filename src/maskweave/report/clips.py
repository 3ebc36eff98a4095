"""Sounds and moving pictures of a report: a table of players for each contact sheet."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskweave.modality.catalogs import Catalog
from maskweave.values.playable import Playable

MAX_BYTES = 12 * 2**20
"""Most bytes of all clips of a report; the rest is left out."""
PARTS = {"inputs": "input", "predictions": "predicted", "truth": "truth"}


@dataclass(frozen=True)
class ClipRow:
    """The clips of one sample, each with its label."""

    clips: Sequence[tuple[str, Playable]]


@dataclass(frozen=True)
class ClipTable:
    """The clips of a contact sheet."""

    title: str
    rows: Sequence[ClipRow]


def clips_of(title: str, samples: Sequence[Mapping[str, Mapping[str, Any]]], catalog: Catalog) -> ClipTable | None:
    """Returns what can be played of the samples of a sheet, in the form that `sheet_for` takes; None if nothing can be."""
    rows = []
    for sample in samples:
        clips = []
        for part, label in PARTS.items():
            for name, value in sample.get(part, {}).items():
                clip = None if value is None else catalog[name].value.playable(value)
                if clip is not None:
                    clips.append((f"{name}, {label}", clip))
        rows.append(ClipRow(clips))
    return ClipTable(title, rows) if any(row.clips for row in rows) else None


def packed(table: ClipTable | None) -> Any:
    """Returns a table in the types of JSON."""
    if table is None:
        return None
    rows = [[[label, c.mime, base64.b64encode(c.content).decode()] for label, c in row.clips] for row in table.rows]
    return [table.title, rows]


def unpacked(content: Any) -> ClipTable:
    """Returns the table that `packed` made this of."""
    title, rows = content
    return ClipTable(
        title, [ClipRow([(label, Playable(m, base64.b64decode(c))) for label, m, c in row]) for row in rows]
    )


def clip_tables(tables: Sequence[ClipTable], most: int = MAX_BYTES) -> str:
    """Returns the tables as HTML, with at most `most` bytes of clips."""
    parts, left_out = [], 0
    for table in tables:
        lines = []
        for row in table.rows:
            cells = []
            for label, clip in row.clips:
                fits = len(clip.content) <= most
                most -= len(clip.content) * fits
                left_out += not fits
                cells.append(f"<td>{html.escape(label)}{player(label, clip) if fits else ''}</td>")
            if cells:
                lines.append(f"<tr>{''.join(cells)}</tr>")
        body = "".join(lines)
        parts.append(f'<h3>{html.escape(table.title)}</h3><div class="card"><table><tbody>{body}</tbody></table></div>')
    if left_out:
        parts.append(f'<p class="missing">{left_out} clips are left out: the report would be too large.</p>')
    return "\n".join(parts)


def player(label: str, clip: Playable) -> str:
    """Returns the HTML element that plays a clip."""
    source = f"data:{clip.mime};base64,{base64.b64encode(clip.content).decode()}"
    if clip.mime.startswith("audio/"):
        return f'<audio controls preload="none" src="{source}"></audio>'
    return f'<img alt="{html.escape(label)}" src="{source}">'
