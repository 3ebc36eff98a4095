"""A figure by itself says what its colors mean."""

import numpy as np
import pytest
from value_helpers import legend

from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.report.figures import GAP, draw, with_legend
from maskweave.values.drawing import class_color

SIZE = (120, 160)


def test_a_map_stands_above_its_color_bar(scenes_catalog: Catalog):
    depth = np.linspace(0, 16, 64 * 64).reshape(64, 64)
    page, figure = with_legend(scenes_catalog["depth"], depth, SIZE), draw(scenes_catalog["depth"], depth, SIZE)
    bar = legend(scenes_catalog["depth"], width=160)
    assert np.array_equal(page[:120], figure) and np.array_equal(page[120 + GAP :], bar) and bar.shape[1] == 160
    columns = bar[5].astype(int)
    assert len(np.unique(columns, axis=0)) > 100 and (columns[0] == figure[:, 20:140].reshape(-1, 3)).all(1).any()


def test_only_the_classes_that_occur_are_named(scenes_catalog: Catalog):
    semseg = np.repeat([[1, 3]], 64, axis=0).repeat(32, axis=1)
    beneath = with_legend(scenes_catalog["semseg"], semseg, SIZE)[120:].reshape(-1, 3)
    found = {tuple(color) for color in beneath}
    assert {class_color(1), class_color(3)} <= found and not {class_color(0), class_color(2)} & found


@pytest.mark.parametrize("name", ["rgb", "caption", "boxes", "palette", "edges"])
def test_what_speaks_for_itself_has_no_legend(scenes_catalog: Catalog, scene, name: str):
    page = with_legend(scenes_catalog[name], scene[name], SIZE, scene["rgb"])
    assert np.array_equal(page, draw(scenes_catalog[name], scene[name], SIZE, scene["rgb"]))


@pytest.mark.parametrize("name", ["depth", "semseg"])
def test_a_missing_value_has_no_legend(scenes_catalog: Catalog, name: str):
    assert with_legend(scenes_catalog[name], None, SIZE).shape == (*SIZE, 3)


def test_rows_of_vectors_have_a_bar_of_their_span():
    entry = {"id": 1, "kind": "vectors", "max_tokens": 9, "value": {"type": "vectors", "channels": 4}}
    x = catalog_from({"modalities": {"x": entry}}, "test")["x"]
    page = with_legend(x, np.array([[0.0] * 4, [2.0] * 4]), SIZE)
    assert len(page) > 120 + GAP and np.array_equal(page[5, 5], page[120 + GAP + 5, 0])


@pytest.fixture(scope="module")
def scene(scenes_catalog: Catalog) -> dict:
    from maskweave.synthetic.scenes import Scenes

    return dict(Scenes(scenes_catalog, 1, seed=4)[0])
