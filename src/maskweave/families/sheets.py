"""Contact sheets as data: the layout of values in rows. `maskweave.report.sheets` draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskweave.modality.catalogs import Catalog


@dataclass(frozen=True)
class Tile:
    """One figure of a sheet."""

    modality: str
    value: Any
    """None: the text `instead` is shown."""
    note: str = ""
    """Text below the figure, wrapped."""
    over: Any = None
    """Image on which boxes and instances are drawn."""
    reference: Any = None
    """Value whose principal components are used to show a map with many channels."""
    instead: str = "missing"


@dataclass(frozen=True)
class TileRow:
    """One row of tiles; None leaves a cell empty."""

    tiles: Sequence[Tile | None]
    label: str = ""
    """Shown to the left of the tiles."""
    starts: bool = False
    """Starts a new group, separated from the row above by a line."""


@dataclass(frozen=True)
class Sheet:
    """A contact sheet, not drawn yet."""

    name: str
    """Name of the image file, and its alternative text."""
    rows: Sequence[TileRow]
    catalog: Catalog
    title: str = ""
    headings: Sequence[str] = ()
    """Names of the columns."""
    tile: int = 112
    """Height of a figure in pixels."""
