import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from value_helpers import value_of

from maskweave.data import transforms
from maskweave.data.transforms import fit, random_geometry
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.synthetic.scenes import Scenes
from maskweave.values.geometry import Geometry, box_around
from maskweave.values.groups import Part
from maskweave.values.poses import Poses
from maskweave.values.queries import Queries

FLIP = Geometry(flip=True)
FULL = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def scenes(scenes_catalog):
    return Scenes(scenes_catalog, 1000, seed=11)


def apply(sample, catalog, geometry):
    """The same geometry for every view."""
    return transforms.apply(sample, catalog, {m.view: geometry for m in catalog.values()})


def catalog_of(size=(16, 16), **types):
    """One grid entry for each name, of the given value type."""
    return Catalog(
        [
            Modality(
                name,
                k + 1,
                "grid",
                value_of(
                    kind,
                    size=size,
                    channels=3 if kind in ("image", "direction") else 1,
                    range=(0, 100),
                    classes=("a", "b", "c"),
                    fit=("crop" if len(size) == 2 else "resize",),
                ),
                grid=size,
            )
            for k, (name, kind) in enumerate(types.items())
        ]
    )


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == pytest.approx(b, abs=1e-12) if isinstance(a, float) else a == b


crops = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(4, 64), st.integers(4, 64)).map(
    lambda c: (c[0] / 64, c[1] / 64, min(c[0] + c[2], 64) / 64, min(c[1] + c[3], 64) / 64)
)
aligned = settings(max_examples=40)


@aligned
@given(index=st.integers(0, 999))
def test_flip_twice_is_identity(scenes, scenes_catalog, index):
    sample = scenes[index]
    once = apply(sample, scenes_catalog, FLIP)
    assert not same(once, sample)
    assert same(apply(once, scenes_catalog, FLIP), sample)


def test_identity_changes_nothing_and_shares_nothing(scenes, scenes_catalog):
    sample = scenes[0]
    out = apply(sample, scenes_catalog, Geometry())
    assert same(out, sample)
    assert not np.shares_memory(out["rgb"], sample["rgb"])


@aligned
@given(index=st.integers(0, 999), crop=crops, flip=st.booleans())
def test_boxes_follow_masks(scenes, scenes_catalog, index, crop, flip):
    """Crops on whole points: to a point of the source, a clipped box holds its mask, and is its extent where the crop cuts nothing off."""
    sample = scenes[index]
    out = apply(sample, scenes_catalog, Geometry(crop, flip, visible=0.0))
    boxes = {b["class"]: b["box"] for b in out["boxes"]}
    before = {b["class"]: b["box"] for b in sample["boxes"]}
    x, y = 1.01 / 64 / (crop[2] - crop[0]), 1.01 / 64 / (crop[3] - crop[1])
    for instance in out["instances"]:
        box, seen, old = boxes[instance["class"]], box_around(instance["mask"]), before[instance["class"]]
        assert box[0] - x <= seen[0] and box[1] - y <= seen[1] and seen[2] <= box[2] + x and seen[3] <= box[3] + y
        if crop[0] <= old[0] and crop[1] <= old[1] and old[2] <= crop[2] and old[3] <= crop[3]:
            assert np.abs(np.subtract(box, seen)).max() <= max(x, y)
        shape = instance["class"].split()[1]
        classes = scenes_catalog["semseg"].value.classes
        assert (out["semseg"][instance["mask"]] == classes.index(shape)).all()
    corners = [box["box"][0] ** 2 + box["box"][1] ** 2 for box in out["boxes"]]
    assert corners == sorted(corners)
    assert all(0 <= v <= 1 for box in boxes.values() for v in box)


@aligned
@given(index=st.integers(0, 999), seed=st.integers(0, 2**32 - 1))
def test_any_crop_keeps_types_shapes_and_unit_normals(scenes, scenes_catalog, index, seed):
    sample = scenes[index]
    geometry = random_geometry(np.random.default_rng(seed), area=(0.05, 1.0), aspect=(0.3, 3.0))
    out = apply(sample, scenes_catalog, geometry)
    for name, value in sample.items():
        assert type(out[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert out[name].dtype == value.dtype and out[name].shape == value.shape
    assert np.abs(np.linalg.norm(out["normal"], axis=-1) - 1).max() < 1e-5
    assert sample["depth"].min() - 1e-4 <= out["depth"].min() <= out["depth"].max() <= sample["depth"].max() + 1e-4
    assert set(np.unique(out["semseg"])) <= set(np.unique(sample["semseg"]))
    assert out["metadata"] == sample["metadata"] and out["palette"] == sample["palette"]
    mirrored = apply(sample, scenes_catalog, Geometry(geometry.crop, not geometry.flip))
    sign = np.array([-1, 1, 1], np.float32)
    assert np.array_equal(mirrored["rgb"], out["rgb"][:, ::-1]) and np.array_equal(
        mirrored["normal"], out["normal"][:, ::-1] * sign
    )


@aligned
@given(index=st.integers(0, 999))
def test_sides_in_captions_stay_true(scenes, scenes_catalog, index):
    out = apply(scenes[index], scenes_catalog, FLIP)
    middle = {b["class"]: (b["box"][0] + b["box"][2]) / 2 for b in out["boxes"]}
    for a, side, b in re.findall(r"the (\w+ \w+) is (left|right) of the (\w+ \w+)", out["caption"]):
        assert (middle[a] < middle[b]) == (side == "left")


def test_captions_do_mirror(scenes, scenes_catalog):
    texts = [scenes[i]["caption"] for i in range(20)]
    assert any("left" in t or "right" in t for t in texts)
    for text in texts:
        mirrored = apply({"caption": text}, scenes_catalog, FLIP)["caption"]
        assert mirrored.count("left") == text.count("right") and mirrored.count("right") == text.count("left")
        assert apply({"caption": text}, scenes_catalog, Geometry((0, 0, 0.5, 1)))["caption"] == text


def test_values_of_differing_resolution_stay_aligned(scenes, scenes_catalog):
    """The same scene at 64 and at 32 points, cropped alike, shows the same."""
    sample = scenes[4]
    small = {
        "depth": sample["depth"].reshape(32, 2, 32, 2).mean((1, 3)),
        "semseg": sample["semseg"][1::2, 1::2],
        "rgb": sample["rgb"],
    }
    geometry = Geometry((0.125, 0.25, 0.875, 0.75), flip=True)
    a, b = apply(sample, scenes_catalog, geometry), apply(small, scenes_catalog, geometry)
    assert np.array_equal(a["rgb"], b["rgb"])
    assert np.median(np.abs(a["depth"] - b["depth"])) < 0.03
    assert (a["semseg"] == b["semseg"]).mean() > 0.93


def test_a_picture_shrinks_to_its_means():
    catalog = catalog_of((2, 2), rgb="image", depth="map")
    depth = np.kron(np.array([[1.0, 5.0], [9.0, 30.0]]), np.ones((16, 16))).astype(np.float32)
    out = apply({"depth": depth, "rgb": np.repeat(depth[..., None], 3, 2).astype(np.uint8)}, catalog, Geometry())
    assert out["depth"].mean() == pytest.approx(depth.mean(), rel=0.02)
    assert np.abs(out["rgb"][..., 0] - out["depth"]).max() <= 1
    corner = apply({"depth": depth}, catalog, Geometry((0.5, 0.5, 1, 1)))["depth"]
    assert np.allclose(corner, 30)  # nothing from outside the crop


def test_fine_stripes_are_averaged_not_sampled():
    catalog = catalog_of((8, 8), rgb="image")
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(apply({"rgb": stripes}, catalog, Geometry())["rgb"].astype(int) - 100).max() < 12


@pytest.mark.parametrize("points", [16, 31, 64, 100])
@pytest.mark.parametrize("offset", [0, 3, 7])
def test_thin_edges_survive(points, offset):
    catalog = catalog_of((16, 16), edges="binary")
    edges = np.zeros((points, points), bool)
    edges[:, points // 3 + offset % (points // 3)] = True
    out = apply({"edges": edges}, catalog, Geometry())["edges"]
    assert out.dtype == bool and out.any(1).all() and 1 <= out.sum(1).max() <= 2
    assert not apply({"edges": np.zeros_like(edges)}, catalog, Geometry())["edges"].any()


def test_opposite_normals_do_not_cancel_to_nothing():
    catalog = catalog_of((4, 4), normal="direction")
    normals = np.zeros((8, 8, 3), np.float32)
    normals[:, ::2, 0], normals[:, 1::2, 0] = 1, -1
    out = apply({"normal": normals}, catalog, Geometry())["normal"]
    assert np.abs(np.linalg.norm(out, axis=-1) - 1).max() < 1e-6


def test_boxes_with_little_left_are_dropped(scenes_catalog):
    sample = {
        "boxes": [
            {"class": "red cube", "box": [0.4, 0.0, 0.6, 1.0]},
            {"class": "blue cone", "box": [0.0, 0.1, 0.3, 0.2]},
        ],
        "instances": [],
    }
    out = apply(sample, scenes_catalog, Geometry((0.5, 0.0, 1.0, 1.0)))
    assert out == {"boxes": [{"class": "red cube", "box": [0.0, 0.0, pytest.approx(0.2), 1.0]}], "instances": []}
    assert apply(sample, scenes_catalog, Geometry((0.5, 0.0, 1.0, 1.0), visible=0.6))["boxes"] == []
    flipped = apply(sample, scenes_catalog, Geometry((0.5, 0.0, 1.0, 1.0), flip=True))["boxes"]
    assert flipped[0]["box"] == pytest.approx([0.8, 0.0, 1.0, 1.0])


def test_fit_takes_the_center():
    catalog = catalog_of((16, 16), rgb="image", depth="map", semseg="classes")
    wide = np.zeros((40, 80), np.float32)
    wide[:, 20:60] = 7
    sample = {
        "rgb": np.repeat(wide[..., None], 3, 2).astype(np.uint8),
        "depth": wide[::2, ::2],
        "semseg": (wide > 0).astype(np.int64),
    }
    for out in (fit(sample, catalog), fit({k: v.swapaxes(0, 1) for k, v in sample.items()}, catalog)):
        assert (out["rgb"] == 7).all() and np.allclose(out["depth"], 7) and (out["semseg"] == 1).all()
        assert out["depth"].shape == (16, 16) and out["semseg"].dtype == np.int64


def test_fit_moves_boxes_and_masks_along(scenes_catalog):
    mask = np.zeros((64, 128), bool)
    mask[16:32, 48:80] = True
    sample = {
        "rgb": np.zeros((64, 128, 3), np.uint8),
        "boxes": [{"class": "red cube", "box": box_around(mask)}, {"class": "blue cone", "box": [0, 0, 0.2, 1]}],
        "instances": [
            {"class": "red cube", "mask": mask},
            {"class": "blue cone", "mask": np.eye(64, 128, -60, dtype=bool)},
        ],
        "caption": "the left one",
    }
    out = fit(sample, scenes_catalog)
    assert [b["class"] for b in out["boxes"]] == [n["class"] for n in out["instances"]] == ["red cube"]
    assert out["boxes"][0]["box"] == pytest.approx([0.25, 0.25, 0.75, 0.5]) == box_around(out["instances"][0]["mask"])
    assert out["caption"] == "the left one"


def test_fit_leaves_what_fits(scenes, scenes_catalog):
    assert same(fit(scenes[3], scenes_catalog), scenes[3])
    assert fit({"caption": "x", "boxes": []}, scenes_catalog) == {"caption": "x", "boxes": []}


def test_fit_takes_rounded_halves():
    catalog = catalog_of((16, 24), rgb="image", depth="map")
    fitted = fit({"rgb": np.zeros((427, 640, 3), np.uint8), "depth": np.zeros((107, 160), np.float32)}, catalog)
    assert fitted["rgb"].shape == (16, 24, 3) and fitted["depth"].shape == (16, 24)


def test_fit_refuses_views_that_differ(scenes_catalog):
    with pytest.raises(BadSample, match="aspect ratios must agree"):
        fit({"rgb": np.zeros((64, 128, 3), np.uint8), "depth": np.zeros((64, 64), np.float32)}, scenes_catalog)
    wide = dataclasses.replace(
        scenes_catalog["depth"], value=dataclasses.replace(scenes_catalog["depth"].value, size=(64, 128))
    )
    with pytest.raises(MaskweaveError, match="cannot have the same crop"):
        fit(
            {"rgb": np.zeros((64, 64, 3), np.uint8), "depth": np.zeros((64, 64), np.float32)},
            Catalog([scenes_catalog["rgb"], wide]),
        )


def two_cameras(wrist_size=(8, 16)):
    """Pictures and boxes of two cameras, each a view of its own."""

    def entry(name, value, view):
        kind = (
            {"kind": "grid", "grid": value.size}
            if value.size
            else {"kind": "sequence", "max_tokens": 20, "vocabulary": "t"}
        )
        return Modality(name, len(entries) + 1, value=value, view=view, **kind)

    entries = []
    for view, size in (("", (16, 16)), ("wrist", wrist_size)):
        for name, value in (
            ("rgb", value_of("image", size=size, channels=3)),
            ("depth", value_of("map", size=size, range=(0, 100), fit=("crop",))),
            ("boxes", value_of("boxes", classes=("a",))),
        ):
            entries.append(entry(f"{name}_{view}" if view else name, value, view))
    return Catalog(entries, [Vocabulary("t", 600, words=("a",))])


def test_views_are_cropped_independently():
    """One camera's picture is too wide, the other's too high; each is cropped alike with what else shows its frame."""
    wide, high = np.zeros((16, 32), np.float32), np.zeros((32, 32), np.float32)
    wide[:, 8:24], high[8:24] = 3, 7
    box = {"class": "a", "box": [0.25, 0.25, 0.5, 0.75]}
    sample = {
        "rgb": np.repeat(wide[..., None], 3, 2).astype(np.uint8),
        "depth": wide[::2, ::2],
        "boxes": [box],
        "rgb_wrist": np.repeat(high[..., None], 3, 2).astype(np.uint8),
        "depth_wrist": high[::2, ::2],
        "boxes_wrist": [box],
    }
    out = fit(sample, two_cameras())
    assert out["rgb"].shape == (16, 16, 3) and out["rgb_wrist"].shape == (8, 16, 3)
    assert (out["rgb"] == 3).all() and np.allclose(out["depth"], 3)
    assert (out["rgb_wrist"] == 7).all() and np.allclose(out["depth_wrist"], 7)
    assert out["boxes"] == [{"class": "a", "box": pytest.approx([0.0, 0.25, 0.5, 0.75])}]  # left and right are cut off
    assert out["boxes_wrist"] == [{"class": "a", "box": pytest.approx([0.25, 0.0, 0.5, 1.0])}]  # above and beneath
    alone = fit({name: value for name, value in sample.items() if "wrist" not in name}, two_cameras())
    assert same(alone, {name: out[name] for name in alone})


def test_within_a_view_frames_must_agree_and_between_views_they_need_not():
    sample = {"rgb": np.zeros((16, 32, 3), np.uint8), "depth_wrist": np.zeros((40, 10), np.float32)}
    assert fit(sample, two_cameras()).keys() == sample.keys()
    with pytest.raises(BadSample, match="'rgb_wrist' is 16×32 and 'depth_wrist' is 16×16: values of one view"):
        fit(
            {"rgb_wrist": np.zeros((16, 32, 3), np.uint8), "depth_wrist": np.zeros((16, 16), np.float32)}, two_cameras()
        )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rgb", np.zeros((2, 64, 64), np.uint8), r"shape \(2, 64, 64\); expected \(height, width, 3\)"),
        ("rgb", np.zeros((64, 64, 2), np.uint8), r"shape \(64, 64, 2\); expected \(height, width, 3\)"),
        ("depth", np.zeros((2, 64, 64), np.float32), r"shape \(2, 64, 64\); expected \(height, width\)"),
        ("depth", np.zeros((0, 64), np.float32), r"shape \(0, 64\); expected 1 to 64,000,000 points"),
        (
            "instances",
            [
                {"class": "red cube", "mask": np.ones((4, 4), bool)},
                {"class": "red cone", "mask": np.ones((5, 4), bool)},
            ],
            r"item 1 with a mask of \(5, 4\); expected \(4, 4\) like item 0",
        ),
    ],
)
def test_what_could_not_be_fitted_is_no_checked_value(scenes_catalog, name, value, said):
    with pytest.raises(BadSample, match=f"^{name}: found {said}"):
        scenes_catalog[name].value.check(value, name)


def test_unknown_modality(scenes_catalog):
    with pytest.raises(MaskweaveError, match="unknown modality"):
        fit({"smell": 1}, scenes_catalog)


@pytest.mark.parametrize("size", [(12,), (4, 6, 8)])
@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_spectra_and_volumes_are_resized_alone(size, factor):
    catalog = catalog_of(size, spectrum="map", label="classes", lines="binary", flow="direction", film="image")
    found = tuple(int(n * factor) for n in size)
    up = np.zeros((*found, 3), np.float32)
    up[..., 1] = 1
    sample = {
        "spectrum": np.full(found, 3, np.float32),
        "label": np.full(found, 2),
        "lines": np.ones(found, bool),
        "flow": up,
        "film": np.full((*found, 3), 9, np.uint8),
    }
    out = fit(sample, catalog)
    for name, value in sample.items():
        assert out[name].dtype == value.dtype and out[name].shape[: len(size)] == size
        assert (out[name] == value.reshape(-1, *value.shape[len(size) :])[0]).all()


def test_thin_lines_of_a_spectrum_survive():
    lines = np.zeros(60, bool)
    lines[17] = True
    out = fit({"lines": lines}, catalog_of((12,), lines="binary"))["lines"]
    assert out.sum() == 1 and out[3]


def test_planes_of_volumes_are_cropped_and_flipped_alike_and_spectra_neither():
    catalog = catalog_of((4, 6, 8), film="map", label="classes", flow="direction")
    rng = np.random.default_rng(0)
    film, label = rng.random((4, 6, 8), np.float32), rng.integers(0, 3, (4, 6, 8))
    flow = np.zeros((4, 6, 8, 3), np.float32)
    flow[..., 0] = 1
    sample = {"film": film, "label": label, "flow": flow}
    cropped = apply(sample, catalog, Geometry((0.5, 0, 1, 1)))
    planes = catalog_of((6, 8), film="map", label="classes", flow="direction")
    for i in range(4):
        plane = apply({name: value[i] for name, value in sample.items()}, planes, Geometry((0.5, 0, 1, 1)))
        assert same({name: value[i] for name, value in cropped.items()}, plane)
    assert not np.array_equal(cropped["film"], film)
    out = apply(sample, catalog, FLIP)
    assert np.array_equal(out["film"], film[:, :, ::-1]) and out["film"].dtype == film.dtype
    assert np.array_equal(out["label"], label[:, :, ::-1])
    assert np.array_equal(out["flow"], -flow), "vectors to the right point to the left"
    rising = np.arange(12, dtype=np.float32)
    assert np.array_equal(apply({"s": rising}, catalog_of((12,), s="map"), FLIP)["s"], rising)


@pytest.mark.parametrize("crop", [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0.9, 0, 0.1, 1)])
def test_impossible_crops(crop):
    with pytest.raises(MaskweaveError, match="crop"):
        Geometry(crop)


@given(seed=st.integers(0, 2**32 - 1), low=st.floats(0.01, 1), stretch=st.floats(1, 50))
def test_random_crops_keep_their_area(seed, low, stretch):
    g = random_geometry(np.random.default_rng(seed), area=(low, 1), aspect=(1 / stretch, stretch))
    x0, y0, x1, y1 = g.crop
    assert low - 1e-6 <= (x1 - x0) * (y1 - y0) <= 1
    assert 1 / stretch - 1e-6 <= (x1 - x0) / (y1 - y0) <= stretch + 1e-6


def test_random_geometry_is_seeded_and_flips_half():
    draws = [random_geometry(np.random.default_rng(s)) for s in range(200)]
    assert draws[3] == random_geometry(np.random.default_rng(3))
    assert 70 < sum(g.flip for g in draws) < 130
    assert random_geometry(np.random.default_rng(0), (1, 1), (1, 1), 0) == Geometry()
    with pytest.raises(MaskweaveError):
        random_geometry(np.random.default_rng(0), area=(0.9, 0.5))


def people_and_points():
    parts = {"pose": Part(2, codes=8)}
    return Catalog(
        [
            Modality("people", 1, "sequence", Poses(parts=parts), max_tokens=99, vocabulary="t"),
            Modality("found", 2, "sequence", Queries((8, 8), parts=parts), max_tokens=99, vocabulary="t"),
        ],
        [Vocabulary("t", 600)],
    )


def test_people_and_points_move_with_the_crop():
    entries, crop = people_and_points(), Geometry((0.5, 0.0, 1.0, 0.5))
    people = [{"box": [0.5, 0.0, 0.75, 0.5], "pose": [1, 2]}, {"box": [0.0, 0.0, 0.45, 1.0], "pose": [1, 2]}]
    whole, cut = ({"box": box, "pose": [1, 2]} for box in ([0.75, 0.25, 1.0, 0.5], [0.25, 0.0, 1.0, 0.5]))
    found = [
        {"point": [0.75, 0.25], "instances": [whole, cut]},
        {"point": [1.0, 0.5], "instances": []},
        {"point": [0.25, 0.25], "instances": []},  # outside
        {"point": [0.75, 0.25], "instances": [cut]},  # the codes are of a mask over the whole box
    ]
    out = apply({"people": people, "found": found}, entries, crop)
    assert out["people"] == [{"box": [0.0, 0.0, 0.5, 1.0], "pose": [1, 2]}]
    assert out["found"] == [
        {"point": [0.5, 0.5], "instances": [{"box": [0.5, 0.5, 1.0, 1.0], "pose": [1, 2]}]},
        {"point": [1.0, 1.0], "instances": []},
    ]


def test_a_flip_leaves_out_codes_that_cannot_be_mirrored():
    entries = people_and_points()
    box = {"box": [0.0, 0.25, 0.25, 0.5]}
    bare = {"people": [box], "found": [{"point": [0.25, 0.5], "instances": [box]}]}
    mirrored = {"box": [0.75, 0.25, 1.0, 0.5]}
    assert apply(bare, entries, FLIP) == {
        "people": [mirrored],
        "found": [{"point": [0.75, 0.5], "instances": [mirrored]}],
    }
    coded = {**box, "pose": [1, 2]}
    assert apply({"people": [box, coded], "found": [{"point": [0, 0], "instances": [coded]}]}, entries, FLIP) == {}
    assert apply({"people": [], "found": []}, entries, FLIP) == {"people": [], "found": []}


def test_every_view_has_its_own_crop_and_flip():
    catalog = catalog_of((4, 4), front="map", depth="map", wrist="map")
    catalog = Catalog([dataclasses.replace(m, view="arm" if m.name == "wrist" else "") for m in catalog.values()])
    plane = np.arange(16, dtype=np.float32).reshape(4, 4)
    sample = dict.fromkeys(("front", "depth", "wrist"), plane)
    out = transforms.apply(sample, catalog, {"": FLIP, "arm": Geometry((0, 0, 0.5, 0.5))})
    assert np.array_equal(out["front"], plane[:, ::-1]) and np.array_equal(out["depth"], out["front"])
    assert out["wrist"].max() <= plane[:2, :2].max() and out["wrist"][0, 0] == plane[0, 0]
