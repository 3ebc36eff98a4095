"""Every value type draws, in colors that mean what they should."""

import itertools

import numpy as np
import pytest
from value_helpers import colors, legend

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.report.figures import draw, with_legend
from maskweave.values.drawing import class_color
from maskweave.values.lettering import font, text_panel, wrap


def catalog_of(**values):
    entries = {}
    for i, (name, value) in enumerate(values.items()):
        shape = {"kind": "sequence", "vocabulary": "text", "max_tokens": 99}
        if "size" in value and value["type"] not in ("instances", "queries"):
            shape = {"kind": "grid", "grid": [1] * len(value["size"])}
        elif value["type"] == "vector":
            shape = {"kind": "grid", "grid": [1]}
        entries[name] = {"id": i + 1, "value": value, **shape}
    return catalog_from({"vocabularies": {"text": {"size": 1000}}, "modalities": entries}, "test")


ENTRIES = catalog_of(
    image={"type": "image", "size": [8, 12], "channels": 3},
    gray={"type": "image", "size": [8, 8], "channels": 1},
    four={"type": "image", "size": [8, 8], "channels": 4},
    film={"type": "image", "size": [6, 8, 8], "channels": 3},
    map={"type": "map", "size": [8, 8], "range": [0, 10], "unit": "m"},
    many={"type": "map", "size": [8, 8], "channels": 5, "range": [-9, 9]},
    two={"type": "map", "size": [8, 8], "channels": 2, "range": [-9, 9]},
    line={"type": "map", "size": [32], "range": [0, 1], "unit": "$/m"},
    vector={"type": "vector", "channels": 7},
    direction={"type": "direction", "size": [8, 8], "channels": 3},
    classes={"type": "classes", "size": [8, 8], "classes": ["a", "b", "c"]},
    track={"type": "classes", "size": [16], "classes": ["a", "b", "c"]},
    binary={"type": "binary", "size": [8, 8]},
    text={"type": "text"},
    boxes={"type": "boxes", "classes": ["a", "b"]},
    solids={"type": "boxes3d", "classes": ["a", "b"]},
    palette={"type": "palette"},
    metadata={"type": "metadata", "keys": {"height_m": {"id": 0, "range": [0, 5], "unit": "m"}}},
    instances={"type": "instances", "size": [8, 8], "classes": ["a", "b"]},
    features={"type": "features", "size": [4, 4], "channels": 6},
    relief={"type": "map", "size": [8, 8], "trim_quantile": 0.1, "unit": "m"},
    poses={"type": "poses"},
    queries={"type": "queries", "size": [8, 8]},
)
RNG = np.random.default_rng(0)
MASK = np.zeros((8, 8), dtype=bool)
MASK[2:6, 2:6] = True
VALUES = {
    "image": RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8),
    "gray": RNG.integers(0, 256, (8, 8, 1), dtype=np.uint8),
    "four": RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8),
    "film": RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
    "map": RNG.random((8, 8)) * 10,
    "many": RNG.normal(size=(8, 8, 5)),
    "two": RNG.normal(size=(8, 8, 2)),
    "line": RNG.random(32),
    "vector": RNG.normal(size=7),
    "direction": np.broadcast_to([0.0, 0.0, 1.0], (8, 8, 3)),
    "classes": RNG.integers(0, 3, (8, 8)),
    "track": RNG.integers(0, 3, 16),
    "binary": MASK,
    "text": "two cubes & a <sphere>",
    "boxes": [{"class": "a", "box": [0.1, 0.2, 0.8, 0.9]}, {"class": "unheard of", "box": [0.9, 0.9, 0.2, 0.4]}],
    "solids": {
        "camera": {"focal": [1.0, 1.0], "center": [0.5, 0.5], "pitch": 0.0, "roll": 0.0},
        "boxes": [{"class": "a", "center": [0.0, 0.0, 4.0], "size": [2.0, 2.0, 2.0], "yaw": 0.0}],
    },
    "palette": [[255, 0, 0], [0, 0, 255]],
    "metadata": {"height_m": 1.5},
    "instances": [{"class": "b", "mask": MASK}],
    "features": RNG.normal(size=(4, 4, 6)),
    "relief": RNG.random((8, 8)) * 10,
    "poses": [{"box": [0.1, 0.2, 0.8, 0.9]}, {"box": [0.5, 0.5, 0.9, 1.0]}],
    "queries": [
        {"point": [0.5, 0.5], "instances": [{"box": [0.1, 0.2, 0.8, 0.9]}]},
        {"point": [0.1, 0.9], "instances": []},
    ],
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("size", [(40, 60), 2.0])
def test_every_type_draws(name: str, size):
    picture = draw(ENTRIES[name], VALUES[name], size)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    if isinstance(size, tuple):
        assert picture.shape[:2] == size
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > (0 if name == "direction" else 1)
    assert not np.array_equal(picture, draw(ENTRIES[name], None, picture.shape[:2]))


def test_scale_multiplies_the_values_own_size():
    assert draw(ENTRIES["image"], VALUES["image"], 3).shape == (24, 36, 3)
    assert draw(ENTRIES["film"], VALUES["film"], 1).shape == (16, 16, 3)  # four frames


def test_pictures_of_scenes_draw(scenes_catalog: Catalog):
    scenes = pytest.importorskip("maskweave.synthetic.scenes").Scenes(scenes_catalog, 1, seed=0)
    for name, value in scenes[0].items():
        assert draw(scenes_catalog[name], value, (64, 64), over=scenes[0]["rgb"]).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["text", "boxes", "palette", "metadata", "instances", "poses", "queries"])
def test_empty_values_draw(name: str):
    assert draw(ENTRIES[name], type(VALUES[name])()).shape == (144, 144, 3)


def test_image_is_shown_as_it_is():
    assert np.array_equal(draw(ENTRIES["image"], VALUES["image"], 1), VALUES["image"])
    assert np.array_equal(draw(ENTRIES["gray"], VALUES["gray"], 1)[..., 2], VALUES["gray"][..., 0])


def test_aspect_is_kept():
    picture = draw(ENTRIES["image"], np.zeros((8, 12, 3), np.uint8), (60, 60))
    assert (picture[30] == 0).all() and (picture[2] > 200).all()


def test_map_colors_are_fixed_by_the_range():
    flat = np.full((8, 8), 5.0)
    other = flat.copy()
    other[0, 0] = 9
    assert np.array_equal(colors(ENTRIES["map"], flat)[1, 1], colors(ENTRIES["map"], other)[1, 1])
    wide = colors(ENTRIES["map"], flat, span=(5, 6))[1, 1]
    assert np.array_equal(wide, colors(ENTRIES["map"], np.zeros((8, 8)))[1, 1])  # now the lowest color


def test_points_that_are_not_finite_are_gray():
    value = np.full((8, 8), 5.0)
    value[0, :2] = np.nan, np.inf
    assert (colors(ENTRIES["map"], value)[0, :2] == 128).all()
    many = VALUES["many"].copy()
    many[3, 3, 1] = np.nan
    assert (colors(ENTRIES["many"], many)[3, 3] == 128).all()


def test_reference_lends_its_components():
    shifted = VALUES["many"] + 0.3
    own, lent = colors(ENTRIES["many"], shifted), colors(ENTRIES["many"], shifted, reference=VALUES["many"])
    assert np.array_equal(own, colors(ENTRIES["many"], VALUES["many"]))  # its own mean is taken out
    assert not np.array_equal(own, lent)


def test_direction_colors():
    axes = np.eye(3)[None].repeat(8, 0)
    assert colors(ENTRIES["direction"], axes)[0].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]


def test_class_colors_are_stable_and_distinct():
    value = VALUES["classes"].copy()
    value[0, 0] = 255  # no class
    picture = colors(ENTRIES["classes"], value)
    assert tuple(picture[0, 0]) == (128, 128, 128)
    assert tuple(picture[2, 2]) == class_color(value[2, 2])
    few = np.array([class_color(i) for i in range(24)])
    assert min(np.abs(a - b).sum() for a, b in itertools.combinations(few.astype(int), 2)) > 30
    assert len({class_color(i) for i in range(150)}) == 150


def test_boxes_in_space_are_seen_through_their_camera():
    value = VALUES["solids"]
    bare = draw(ENTRIES["solids"], {**value, "boxes": []}, (101, 101), over=np.full((8, 8, 3), 255, np.uint8))
    picture = draw(ENTRIES["solids"], value, (101, 101), over=np.full((8, 8, 3), 255, np.uint8))
    color = np.asarray(class_color(0))
    drawn = (picture == color).all(axis=-1)
    # faces of 2 × 2 m at 3 and 5 m: half widths of 1/3 and 1/5 of the picture, of 100 steps from 0 to 1
    for half in (1 / 3, 1 / 5):
        at = [round(100 * (0.5 - half)), round(100 * (0.5 + half))]
        assert drawn[at[1], at[0] + 3 : at[1] - 3].all() and drawn[at[0] + 20 : at[1] - 3, at[0]].all()
    assert not drawn[45:55, 45:55].any() and not (bare == color).all(axis=-1).any()
    predicted = {"boxes": [{**value["boxes"][0], "score": 0.7}]}
    again = draw(ENTRIES["solids"], predicted, (101, 101), over=np.full((8, 8, 3), 255, np.uint8), reference=value)
    assert np.array_equal(again, picture), "predictions of a head are seen through the true camera"
    unseen = draw(ENTRIES["solids"], predicted, (101, 101))
    assert not (unseen == color).all(axis=-1).any(), "without a camera, nothing is guessed"


def test_boxes_lie_where_they_say():
    over = np.full((50, 50, 3), 200, np.uint8)
    bare = draw(ENTRIES["boxes"], [], (100, 100), over)
    picture = draw(ENTRIES["boxes"], [{"class": "a", "box": [0.2, 0.4, 0.6, 0.8]}], (100, 100), over)
    assert tuple(picture[60, 20]) == class_color(0) and tuple(picture[79, 40]) == class_color(0)
    assert np.array_equal(picture[90], bare[90])


def test_instances_color_their_mask_alone():
    picture = draw(ENTRIES["instances"], VALUES["instances"], (80, 80))
    blue, orange = picture[45, 45].astype(int), picture[5, 75].astype(int)
    assert blue[2] > blue[0] + 50 and np.ptp(orange) == 0


def test_wrong_shape_is_refused():
    with pytest.raises(MaskweaveError, match=r"classes: cannot draw an array of shape \(8, 8, 3\)"):
        draw(ENTRIES["classes"], np.zeros((8, 8, 3), int))


def test_text_wraps_and_is_cut():
    face = font(12)
    lines = wrap("some words and averyveryverylongwordthatfitsnowhere\nnext", face, 80)
    assert all(face.getlength(line) <= 80 for line in lines)
    assert "".join(lines).replace(" ", "") == "somewordsandaveryveryverylongwordthatfitsnowherenext"
    assert text_panel("word " * 100_000, (100, 100)).shape == (100, 100, 3)
    assert (text_panel("short", (100, 100))[50:] == text_panel("", (100, 100))[50:]).all()


def test_legends():
    assert legend(ENTRIES["text"]) is None and legend(ENTRIES["image"]) is None
    for name in ("map", "many", "direction", "classes"):
        picture = legend(ENTRIES[name])
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
    named = legend(ENTRIES["classes"], [np.ones((8, 8), int)])
    found = {tuple(color) for color in named.reshape(-1, 3)}
    assert class_color(1) in found and class_color(0) not in found


def test_data_span():
    values = [np.full((8, 8), 2.0), None, np.full((8, 8), 4.0)]
    assert ENTRIES["map"].value.span(values) == (2.0, 4.0)
    assert ENTRIES["vector"].value.span([np.array([1.0, 7.0])]) == (1.0, 7.0)
    assert ENTRIES["map"].value.span([np.full((8, 8), np.nan)]) is None
    assert ENTRIES["many"].value.span([VALUES["many"]]) is None
    assert ENTRIES["classes"].value.span([VALUES["classes"]]) is None


def test_standardized_maps_look_alike_at_any_scale():
    entry, value = ENTRIES["relief"], np.asarray(VALUES["relief"])
    assert np.abs(colors(entry, value).astype(int) - colors(entry, value * 50 + 7)).max() <= 2
    assert entry.value.span([value]) is None and legend(entry) is not None


def test_people_and_points_are_told_apart_by_color():
    blank = np.full((64, 64, 3), 200, np.uint8)
    people = draw(ENTRIES["poses"], VALUES["poses"], (64, 64), over=blank).reshape(-1, 3)
    found = draw(ENTRIES["queries"], VALUES["queries"], (64, 64), over=blank)
    for n in (0, 1):
        assert (people == class_color(n)).all(1).any() and (found == class_color(n)).all(-1).any()
    assert (found[57, 6] == class_color(1)).all()  # at 0.1, 0.9, although nothing was found there


def test_bones_join_the_joints_of_people():
    joints = {"count": 6, "range": [0, 1], "bones": [[0, 1], [1, 2]]}
    (entry,) = catalog_from(
        {
            "modalities": {
                "people": {
                    "id": 1, "kind": "sequence", "max_tokens": 40, "vocabulary": "text",
                    "value": {"type": "poses", "parts": {"joints": joints}},
                }
            },
            "vocabularies": {"text": {"size": 3000}},
        },
        "test",
    ).values()  # fmt: skip
    box = {"box": [0.1, 0.1, 0.9, 0.9]}
    picture = draw(entry, [box | {"joints": [0.2, 0.5, 0.5, 0.5, 0.5, 0.8]}], (101, 101))
    on = (picture == class_color(0)).all(-1)
    assert on[50, 25:45].all() and on[55:75, 50].all()  # from joint 0 to 1, and on to 2
    without = (draw(entry, [box], (101, 101)) == class_color(0)).all(-1)
    assert not without[50, 25:45].any()


def test_vectors_of_a_sequence_are_rows_of_color():
    entry = catalog_from(
        {
            "modalities": {
                "x": {"id": 1, "kind": "vectors", "max_tokens": 9, "value": {"type": "vectors", "channels": 4}}
            }
        },
        "test",
    )["x"]
    picture = draw(entry, np.repeat([[0.0], [1.0]], 4, axis=1), (64, 64))
    assert len(np.unique(picture[:20].reshape(-1, 3), axis=0)) == 1 and (picture[0] != picture[-1]).any()


@pytest.mark.parametrize("name", ["map", "classes", "direction", "image", "text"])
def test_a_legend_is_below_the_figure(name):
    modality, value, size = ENTRIES[name], VALUES[name], (40, 150)
    page, figure, beneath = (
        with_legend(modality, value, size),
        draw(modality, value, size),
        modality.value.legend(None, [value], 150),
    )
    assert np.array_equal(page[:40], figure) and (beneath is None) == (name in ("image", "text"))
    if beneath is not None:
        assert (page[40:46] == 255).all() and np.array_equal(page[46:, : beneath.shape[1]], beneath)
        assert page.shape == (46 + len(beneath), 150, 3) and (page[46:, beneath.shape[1] :] == 255).all()
    assert with_legend(modality, None, size).shape == (40, 150, 3)
