"""Contact sheets as data: which values stand where. `maskweave.report.sheets` draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskweave.modality.catalogs import Catalog


@dataclass(frozen=True)
class Tile:
    """One figure of a sheet."""

    modality: str
    value: Any
    """None: `instead` is shown."""
    note: str = ""
    """Wrapped beneath the figure."""
    over: Any = None
    """Picture under boxes and instances."""
    reference: Any = None
    """Lends its principal components to a map of several channels."""
    instead: str = "missing"


@dataclass(frozen=True)
class TileRow:
    """One line of tiles; None leaves a place empty."""

    tiles: Sequence[Tile | None]
    label: str = ""
    """Stands to the left; right of the rule where the sheet has one."""
    starts: bool = False
    """Begins a new band, ruled off from the row above."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet that is not drawn yet."""

    name: str
    """Of its file, and the words that stand for it where it cannot be seen."""
    rows: Sequence[TileRow]
    catalog: Catalog
    title: str = ""
    headings: Sequence[str] = ()
    """Names of the columns."""
    tile: int = 112
    """Height of a figure in pixels."""
