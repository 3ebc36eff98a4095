"""Contact sheets show what they were given, where it belongs."""

import numpy as np
import pytest

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.report.figures import draw
from maskweave.report.lettering import message
from maskweave.report.sheets import SheetRow, Tile, contact_sheet, sheet_for


def holds(sheet, figure: np.ndarray) -> int:
    """How often a figure stands in a sheet, by its first pixels and then all of them."""
    page = np.asarray(sheet)
    h, w = figure.shape[:2]
    rows, columns = np.nonzero((page[: -h + 1, : -w + 1] == figure[0, 0]).all(-1))
    return sum(np.array_equal(page[r : r + h, c : c + w], figure) for r, c in zip(rows, columns, strict=True))


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "rgb": rng.integers(0, 256, (64, 64, 3), dtype=np.uint8),
        "depth": rng.random((64, 64)) * 10 + 1,
        "semseg": rng.integers(0, 6, (64, 64)),
        "caption": "1 object: a small red cube.",
    }


def test_sheet_holds_inputs_predictions_and_truth(scenes_catalog: Catalog, values):
    predictions = {"semseg": (values["semseg"] + 1) % 6, "caption": None}
    truth = {name: values[name] for name in ("semseg", "caption")}
    sheet = sheet_for(
        "a → b", [{"inputs": {"rgb": values["rgb"]}, "predictions": predictions, "truth": truth}], scenes_catalog
    )
    for name, value in (("rgb", values["rgb"]), ("semseg", predictions["semseg"]), ("semseg", truth["semseg"])):
        assert holds(sheet, draw(scenes_catalog[name], value)) == 1
    assert holds(sheet, draw(scenes_catalog["caption"], None, (144, 216))) == 1
    assert holds(sheet, draw(scenes_catalog["caption"], values["caption"], (144, 216))) == 1


def test_prediction_stands_above_truth(scenes_catalog: Catalog, values):
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 77, np.uint8)
    page = np.asarray(
        sheet_for("", [{"inputs": {}, "predictions": {"rgb": black}, "truth": {"rgb": white}}], scenes_catalog)
    )
    ys = {shade: np.nonzero((page == shade).all(-1).sum(1) >= 144)[0].mean() for shade in (0, 77)}
    assert ys[0] < ys[77]


def test_maps_of_a_sheet_share_the_truths_colors(scenes_catalog: Catalog, values):
    truth, wild = values["depth"], values["depth"] * 1.4
    sheet = sheet_for("t", [{"inputs": {}, "predictions": {"depth": wild}, "truth": {"depth": truth}}], scenes_catalog)
    low, high = np.percentile(truth, (1, 99))
    for value in (truth, wild):
        assert holds(sheet, draw(scenes_catalog["depth"], value, span=(low, high))) == 1


def test_missing_truth_is_shown_as_missing(scenes_catalog: Catalog, values):
    sheet = sheet_for("t", [{"inputs": {}, "predictions": {"semseg": values["semseg"]}, "truth": {}}], scenes_catalog)
    assert holds(sheet, draw(scenes_catalog["semseg"], None)) == 1


def test_without_any_truth_there_is_one_row(scenes_catalog: Catalog, values):
    sample = {"inputs": {"rgb": values["rgb"]}, "predictions": {"semseg": values["semseg"]}}
    one, two = (sheet_for("t", [s], scenes_catalog) for s in (sample, {**sample, "truth": {}}))
    assert two.height - one.height > 144
    assert holds(one, draw(scenes_catalog["semseg"], None)) == 0
    assert holds(one, draw(scenes_catalog["semseg"], values["semseg"])) == 1


def test_inputs_that_a_sample_lacks_leave_their_place_empty(scenes_catalog: Catalog, values):
    samples = [{"inputs": {name: values[name]}, "predictions": {}} for name in ("rgb", "depth")]
    sheet = sheet_for("t", samples, scenes_catalog)
    assert holds(sheet, draw(scenes_catalog["rgb"], None)) == 0
    assert holds(sheet, draw(scenes_catalog["rgb"], values["rgb"])) == 1


def test_words_stand_where_there_is_no_value(scenes_catalog: Catalog, values):
    sample = {"inputs": {"rgb": values["rgb"]}, "predictions": {"semseg": None}, "instead": {"semseg": "64 tokens"}}
    sheet = sheet_for("t", [sample], scenes_catalog)
    assert holds(sheet, message("64 tokens", (144, 144))) == 1


def test_given_boxes_lie_over_the_given_picture(scenes_catalog: Catalog, values):
    boxes = [{"class": "red cube", "box": [0.1, 0.1, 0.6, 0.9]}]
    sample = {"inputs": {"boxes": boxes, "rgb": values["rgb"]}, "predictions": {"semseg": values["semseg"]}}
    sheet = sheet_for("t", [sample], scenes_catalog)
    assert holds(sheet, draw(scenes_catalog["boxes"], boxes, over=values["rgb"])) == 1


def test_notes_are_wrapped_beneath(scenes_catalog: Catalog, values):
    plain = contact_sheet([SheetRow([Tile("rgb", values["rgb"])])], scenes_catalog)
    noted = contact_sheet(
        [SheetRow([Tile("rgb", values["rgb"], note="a note that is much longer than one line")])], scenes_catalog
    )
    assert noted.height >= plain.height + 30 and noted.width == plain.width


def test_two_inputs_share_a_column(scenes_catalog: Catalog, values):
    sample = {"inputs": {"palette": [[9, 8, 7]], "boxes": []}, "predictions": {"rgb": values["rgb"]}, "truth": {}}
    one = {**sample, "inputs": {"palette": [[9, 8, 7]]}}
    assert sheet_for("t", [sample], scenes_catalog).width == sheet_for("t", [one], scenes_catalog).width


def test_empty_sheet_and_unknown_modality(scenes_catalog: Catalog):
    assert sheet_for("nothing", [], scenes_catalog).width > 0
    with pytest.raises(MaskweaveError, match="unknown modality 'smell'"):
        sheet_for("t", [{"inputs": {"smell": 1}, "predictions": {}}], scenes_catalog)
