"""One contact sheet for any result, and for several."""

import numpy as np

from maskweave.generate.result import Generated, sheet_of
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import Catalog
from maskweave.report import sheets


def drawn(monkeypatch, catalog: Catalog, results: list[Generated]) -> list[list[tuple[str, str] | None]]:
    """The name of each tile, and the words in its value's place."""
    rows = []
    monkeypatch.setattr(sheets, "contact_sheet", lambda r, *_, **__: rows.extend(r))
    sheet_of(results)
    return [[t and (t.modality, t.instead if t.value is None else "") for t in row.tiles] for row in rows]


def test_results_of_different_requests_share_a_sheet(monkeypatch, scenes_catalog: Catalog) -> None:
    picture, depth = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)
    results = [
        Generated(scenes_catalog, {"rgb": picture}, {"depth": depth}, {"depth": np.zeros((8, 8), int)}),
        Generated(scenes_catalog, {"caption": "1 object."}, {"depth": depth, "boxes": []}),
    ]
    assert drawn(monkeypatch, scenes_catalog, results) == [
        [("rgb", ""), None, ("depth", ""), ("boxes", "missing")],
        [None, ("caption", ""), ("depth", ""), ("boxes", "")],
    ]
    monkeypatch.undo()
    assert sheet_of(results, "two").height > 2 * 144


def test_tokens_without_a_value_are_counted(monkeypatch, scenes_catalog: Catalog) -> None:
    ids = np.zeros((8, 8), int)
    unfinished = np.where(np.arange(64).reshape(8, 8) < 10, 3, -1)
    result = Generated(scenes_catalog, {"depth": Tokens(ids)}, tokens={"normal": unfinished})
    assert drawn(monkeypatch, scenes_catalog, [result]) == [[("depth", "64 tokens"), ("normal", "10 tokens")]]
    monkeypatch.undo()
    assert result.sheet().width > 2 * 144


def test_an_edited_grid_is_shown_once(monkeypatch, scenes_catalog: Catalog) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    result = Generated(scenes_catalog, {"rgb": picture, "tok_rgb": picture}, {"tok_rgb": picture})
    assert drawn(monkeypatch, scenes_catalog, [result]) == [[("rgb", ""), ("tok_rgb", "")]]


def test_a_prompt_shows_sizes_not_arrays(scenes_catalog: Catalog) -> None:
    picture, depth = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32)
    values = {"depth": depth, "caption": "1 object. " * 50, "boxes": [{}] * 3, "metadata": {"object_count": 1}}
    tokens = {"depth": np.zeros((8, 8), int), "normal": np.zeros((8, 8), int)}
    result = Generated(scenes_catalog, {"rgb": picture}, values, tokens, problems={"boxes": ["no class", "no number"]})
    expected = (
        "Generated(inputs: rgb, depth: float32 (64, 64), caption: '1 object. …, boxes: 3 items, metadata: 1 items, "
        "normal: 64 tokens, problems of boxes: 2)"
    )
    start, cut, end = expected.partition("…")
    assert repr(result).startswith(start) and repr(result).endswith(cut + end)
    assert "\n" not in repr(result) and len(repr(result)) < 300
    assert repr(Generated(scenes_catalog, {})) == "Generated(inputs: none)"
