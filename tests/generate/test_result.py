"""One contact sheet for any result, and for several."""

import numpy as np

from maskweave.catalogues import Catalogue
from maskweave.generate.known import Tokens
from maskweave.generate.result import Generated, sheet_of
from maskweave.report import sheets


def drawn(monkeypatch, catalogue: Catalogue, results: list[Generated]) -> list[list[tuple[str, str] | None]]:
    """The name of each tile, and the words in its value's place."""
    rows = []
    monkeypatch.setattr(sheets, "contact_sheet", lambda r, *_, **__: rows.extend(r))
    sheet_of(results)
    return [[t and (t.modality, t.instead if t.value is None else "") for t in row.tiles] for row in rows]


def test_results_of_different_requests_share_a_sheet(monkeypatch, scenes_catalogue: Catalogue) -> None:
    picture, depth = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)
    results = [
        Generated(scenes_catalogue, {"rgb": picture}, {"depth": depth}, {"depth": np.zeros((8, 8), int)}),
        Generated(scenes_catalogue, {"caption": "1 object."}, {"depth": depth, "boxes": []}),
    ]
    assert drawn(monkeypatch, scenes_catalogue, results) == [
        [("rgb", ""), None, ("depth", ""), ("boxes", "missing")],
        [None, ("caption", ""), ("depth", ""), ("boxes", "")],
    ]
    monkeypatch.undo()
    assert sheet_of(results, "two").height > 2 * 144


def test_tokens_without_a_value_are_counted(monkeypatch, scenes_catalogue: Catalogue) -> None:
    ids = np.zeros((8, 8), int)
    unfinished = np.where(np.arange(64).reshape(8, 8) < 10, 3, -1)
    result = Generated(scenes_catalogue, {"depth": Tokens(ids)}, tokens={"normal": unfinished})
    assert drawn(monkeypatch, scenes_catalogue, [result]) == [[("depth", "64 tokens"), ("normal", "10 tokens")]]
    monkeypatch.undo()
    assert result.sheet().width > 2 * 144


def test_an_edited_grid_is_shown_once(monkeypatch, scenes_catalogue: Catalogue) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    result = Generated(scenes_catalogue, {"rgb": picture, "tok_rgb": picture}, {"tok_rgb": picture})
    assert drawn(monkeypatch, scenes_catalogue, [result]) == [[("rgb", ""), ("tok_rgb", "")]]
