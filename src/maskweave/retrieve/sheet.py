"""A contact sheet of a query: the inputs on the left, the results in order on the right."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from PIL import Image

from maskweave.data.source import Source
from maskweave.deadline import check_time
from maskweave.errors import BadSample
from maskweave.families.sheets import Tile, TileRow
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import Catalog
from maskweave.report.sheets import contact_sheet, picture_among
from maskweave.retrieve.index import Hit

COLUMNS = 5
"""Results in a row."""


def sheet_of(
    inputs: Mapping[str, Any], hits: Sequence[Hit], source: Source, catalog: Catalog, view: str
) -> Image.Image:
    """Returns one picture of a query and its results.

    Args:
        inputs: checked values.
        source: the indexed data; a result that is no longer readable is shown as missing.
        view: the modality that is shown of each result.
    """
    shown = {name: value for name, value in inputs.items() if not isinstance(value, Tokens)}
    query = [Tile(name, value, name, picture_among(catalog, shown)) for name, value in shown.items()]
    results = []
    for rank, hit in enumerate(hits, 1):
        check_time()
        try:
            sample = source[hit.number]
        except BadSample:
            sample = {}
        known = {name: value for name, value in sample.items() if name in catalog}
        note = f"{rank}.  {hit.score:.3f}  {hit.key}"
        results.append(Tile(view, sample.get(catalog[view].reads), note, picture_among(catalog, known)))
    lines = [results[at : at + COLUMNS] for at in range(0, len(results), COLUMNS)]
    rows = [TileRow([asked, *(line or [])]) for asked, line in zip_longest(query, lines)]
    return contact_sheet(rows, catalog, headings=("query", "found"), divider=1)
