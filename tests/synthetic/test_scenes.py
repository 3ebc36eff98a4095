import dataclasses
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from value_helpers import value_of

from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.synthetic import grammar, raycast
from maskweave.synthetic.scenes import DEFAULT_SIZE, NAMES, VISIBLE, Scenes
from maskweave.values import camera as cameras
from maskweave.values import measures
from maskweave.values.boxes3d import as_rows, outline
from maskweave.values.geometry import box_around
from maskweave.values.oriented import contain
from maskweave.values.text import mirror

COUNT = 40


def resized(catalog, size):
    """The catalog with all dense values of another size (one token a point, which no tokenizer is asked to live with)."""
    entries = []
    for m in catalog.values():
        if m.value.size:
            m = dataclasses.replace(m, value=dataclasses.replace(m.value, size=size), grid=size if m.grid else ())
        entries.append(m)
    return Catalog(entries, catalog.vocabularies.values())


def with_value(catalog, name, **changes):
    m = catalog[name]
    return Catalog(
        [dataclasses.replace(m, value=dataclasses.replace(m.value, **changes))], catalog.vocabularies.values()
    )


@pytest.fixture(scope="module")
def scenes(scenes_catalog):
    return Scenes(scenes_catalog, COUNT, seed=3)


def same(a, b):
    """Equal to the last bit, arrays included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def test_random_access_is_deterministic(scenes, scenes_catalog):
    again = Scenes(scenes_catalog, 10**6, seed=3)
    for i in (7, 0, 39, 7):
        assert same(scenes[i], again[i])
    assert not same(scenes[0], scenes[1])
    assert not same(scenes[0], Scenes(scenes_catalog, COUNT, seed=4)[0])
    assert same(pickle.loads(pickle.dumps(scenes))[5], scenes[5])
    assert same(scenes[np.int64(5)], scenes[5])


def test_a_subset_of_modalities_gives_the_same_values(scenes, scenes_catalog):
    few = Scenes(scenes_catalog.subset(["caption", "edges"]), COUNT, seed=3)
    assert few.names == ("edges", "caption")
    assert few[4]["caption"] == scenes[4]["caption"]
    assert np.array_equal(few[4]["edges"], scenes[4]["edges"])
    assert Scenes(scenes_catalog.subset(["caption"]), 1).size == DEFAULT_SIZE


def test_it_is_a_source(scenes):
    assert isinstance(scenes, Source)
    assert len(scenes) == COUNT and len(list(scenes)) == COUNT
    assert scenes.key(12) == "3-0000012"
    for bad in (-1, COUNT):
        with pytest.raises(IndexError):
            scenes[bad]
    assert "tok_rgb" not in scenes.names and set(scenes[0]) == set(scenes.names)


def test_types_and_ranges(scenes, scenes_catalog):
    for sample in scenes:
        assert sample["rgb"].dtype == np.uint8 and sample["rgb"].shape == (64, 64, 3)
        assert sample["depth"].dtype == np.float32 and sample["depth"].shape == (64, 64)
        assert sample["depth"].min() > 0 and sample["depth"].max() <= 16
        assert sample["normal"].dtype == np.float32
        assert np.abs(np.linalg.norm(sample["normal"], axis=-1) - 1).max() < 1e-5
        assert sample["semseg"].max() < 6 and sample["edges"].dtype == bool
        assert 1 <= len(sample["palette"]) <= 7
        for key, spec in scenes_catalog["metadata"].value.keys.items():
            assert spec.range[0] <= sample["metadata"][key] <= spec.range[1]


def test_smaller_pictures_are_means_of_the_largest() -> None:
    entries = load_catalog("scenes-128").subset(["rgb", "rgb_128", "boxes"])
    sample = Scenes(entries, 2, seed=1)[1]
    assert sample["rgb"].shape == (64, 64, 3) and sample["rgb_128"].shape == (128, 128, 3)
    large = sample["rgb_128"].astype(float)
    means = (large[::2, ::2] + large[1::2, ::2] + large[::2, 1::2] + large[1::2, 1::2]) / 4
    assert np.abs(sample["rgb"] - means).max() <= 0.5
    with pytest.raises(MaskweaveError, match="found depth .64, 64., rgb_128 .128, 128.|a scene has one size"):
        Scenes(load_catalog("scenes-128").subset(["depth", "rgb_128"]), 1)


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (48, 96), (128, 40), (16, 64), (64, 16), (33, 57)])
def test_any_size(scenes_catalog, size):
    scenes = Scenes(resized(scenes_catalog, size), 30, seed=1)
    for i in range(30):
        scene = scenes.scene(i)
        assert scene.view.rgb.shape == (*size, 3)
        assert np.isfinite(scene.view.depth).all() and 0 < scene.view.depth.min() <= scene.view.depth.max() <= 16
        assert len(scene.objects) >= 1
        if len(scene.objects) > 1:
            assert min(mask.sum() for mask in scene.masks) >= max(4, VISIBLE * (min(size) / 64) ** 2)
        solids = [t.solid for t in scene.objects]
        for k, a in enumerate(solids):
            assert np.dot(scene.room.wall_normal, [a.x, 0, a.z]) + scene.room.wall_distance > a.footprint
            assert all(np.hypot(a.x - b.x, a.z - b.z) > a.footprint + b.footprint for b in solids[k + 1 :])
        boxes = scenes[i]["boxes"]
        assert all(0 <= box["box"][0] < box["box"][2] <= 1 and 0 <= box["box"][1] < box["box"][3] <= 1 for box in boxes)


def test_the_statistics_of_many_scenes(scenes_catalog):
    scenes = Scenes(scenes_catalog, 400, seed=9)
    counts, names, widths = Counter(), Counter(), []
    for i in range(400):
        scene = scenes.scene(i)
        counts[len(scene.objects)] += 1
        names.update(t.name for t in scene.objects)
        assert len({t.name for t in scene.objects}) == len(scene.objects)
        widths += [64 * (box[2] - box[0]) for box in scene.boxes]
    assert min(counts[n] for n in (1, 2, 3, 4)) > 30
    assert set(names) == set(NAMES)
    assert 14 < np.median(widths) < 24 and np.percentile(widths, 5) > 10


def backprojected(depth, size):
    """Points in the camera frame, (H, W, 3), from the depth alone."""
    focal, (height, width) = raycast.focal_length(size), size
    u = (np.arange(width) + 0.5 - width / 2) / focal
    v = (height / 2 - 0.5 - np.arange(height)) / focal
    return depth[..., None].astype(np.float64) * np.stack(np.broadcast_arrays(u[None], v[:, None], -1.0), -1)


def test_normals_are_those_of_the_depth(scenes_catalog):
    size = (128, 128)
    scenes = Scenes(resized(scenes_catalog.subset(["depth", "normal", "semseg"]), size), 12, seed=2)
    seen = set()
    for i in range(12):
        view = scenes.scene(i).view
        p = backprojected(view.depth, size)
        n = np.cross(p[1:-1, 2:] - p[1:-1, :-2], p[:-2, 1:-1] - p[2:, 1:-1])
        n /= np.linalg.norm(n, axis=-1, keepdims=True)
        # smooth: one surface, and normals that hardly turn over the neighborhood
        true, inner = view.normals, (slice(1, -1), slice(1, -1))
        ids = view.instances.astype(int) * 10 + view.classes
        smooth = np.ones(n.shape[:2], bool)
        for rows, columns in (
            (slice(0, -2), slice(1, -1)),
            (slice(2, None), slice(1, -1)),
            (slice(1, -1), slice(0, -2)),
            (slice(1, -1), slice(2, None)),
        ):
            smooth &= (ids[rows, columns] == ids[inner]) & ((true[rows, columns] * true[inner]).sum(-1) > 0.97)
        smooth &= -(true * p / np.linalg.norm(p, axis=-1, keepdims=True)).sum(-1)[inner] > 0.4
        angles = np.degrees(np.arccos(np.clip((n * true[inner]).sum(-1), -1, 1)))
        assert angles[smooth].max() < 4 and angles[smooth].mean() < 0.3
        seen |= set(np.unique(view.classes[inner][smooth]))
    assert seen == set(range(6))


def test_every_point_lies_on_its_surface(scenes):
    """Back-projected into the world, each hit satisfies the equation of its plane or solid, and nothing lies before it."""
    for i in range(20):
        scene = scenes.scene(i)
        room = scene.room
        p = backprojected(scene.view.depth, scenes.size) @ room.camera_from_world.astype(np.float64)
        p[..., 1] += room.camera_height
        classes, instances = scene.view.classes, scene.view.instances
        assert np.abs(p[classes == raycast.FLOOR][:, 1]).max(initial=0) < 1e-4
        assert np.abs(p[classes == raycast.WALL] @ room.wall_normal + room.wall_distance).max(initial=0) < 1e-4
        assert p[..., 1].min() > -1e-4 and (p @ room.wall_normal + room.wall_distance).min() > -1e-4
        for k, thing in enumerate(scene.objects):
            s = thing.solid
            q = p[instances == k + 1] - [s.x, 0, s.z]
            radial = np.hypot(q[:, 0], q[:, 2])
            match thing.shape:
                case "sphere":
                    error = np.hypot(radial, q[:, 1] - s.half) - s.half
                case "cylinder":
                    error = np.maximum(radial - s.half, q[:, 1] - s.height)
                case "cone":
                    error = radial - s.half * (1 - q[:, 1] / s.height)
                case _:
                    along = q[:, 0] * np.cos(s.yaw) - q[:, 2] * np.sin(s.yaw)
                    across = q[:, 0] * np.sin(s.yaw) + q[:, 2] * np.cos(s.yaw)
                    error = np.maximum.reduce([np.abs(along) - s.half, np.abs(across) - s.half, q[:, 1] - s.height])
            assert np.abs(error).max() < 5e-3, thing.shape
            assert (classes[instances == k + 1] == raycast.CLASSES.index(thing.shape)).all()


def test_shadows_agree_with_marching_towards_the_light(scenes):
    """A point is dark exactly where small steps towards the light enter a solid (by its height and radius, not by the ray caster)."""

    def inside(solid, q, slack):
        x, y, z = q[..., 0] - solid.x, q[..., 1], q[..., 2] - solid.z
        half, height = solid.half + slack, solid.height + slack
        match solid.shape:
            case "sphere":
                return x**2 + (y - solid.half) ** 2 + z**2 < half**2
            case "cylinder":
                return (np.hypot(x, z) < half) & (y < height)
            case "cone":
                return np.hypot(x, z) < solid.half * (1 - y / solid.height) + slack
            case _:
                along, across = (
                    x * np.cos(solid.yaw) - z * np.sin(solid.yaw),
                    x * np.sin(solid.yaw) + z * np.cos(solid.yaw),
                )
                return (np.abs(along) < half) & (np.abs(across) < half) & (y < height)

    shaded = 0
    for i in range(12):
        scene = scenes.scene(i)
        room = scene.room
        p = backprojected(scene.view.depth, scenes.size) @ room.camera_from_world.astype(np.float64)
        p[..., 1] += room.camera_height
        floor = scene.view.classes == raycast.FLOOR
        steps = np.arange(0.01, 4.5, 0.01)[:, None, None] * room.to_light.astype(np.float64)
        q = p[floor][None] + steps
        dark = np.zeros(floor.sum(), bool)
        maybe = dark.copy()
        for thing in scene.objects:
            dark |= inside(thing.solid, q, -0.03).any(0)
            maybe |= inside(thing.solid, q, 0.03).any(0)
        light = (
            scene.view.rgb[floor].astype(float)
            / (np.array(room.floor_color) * 255)
            / (raycast.FADE_START - raycast.FADE * scene.view.depth[floor])[:, None]
        )
        unclipped = scene.view.rgb[floor].max(-1) < 255
        expected = raycast.AMBIENT + raycast.SKY + raycast.DIFFUSE * room.to_light[1] * np.where(dark, 0, 1)
        certain = (dark == maybe) & unclipped
        assert np.abs(light.mean(-1) - expected)[certain].max(initial=0) < 0.02
        shaded += int((dark & certain).sum())
    assert shaded > 300


def test_light_and_camera_in_the_metadata(scenes):
    scene = scenes.scene(0)
    facts = scenes[0]["metadata"]
    assert facts["light_direction"] == scene.room.light_azimuth and facts["camera_height"] == scene.room.camera_height
    right = dataclasses.replace(scene.room, light_azimuth=90.0).to_light
    front = dataclasses.replace(scene.room, light_azimuth=0.0).to_light
    assert right[0] > 0.1 and abs(right[2]) < 1e-6 and front[2] > 0.1


def test_masks_boxes_and_classes_agree(scenes, scenes_catalog):
    classes = scenes_catalog["semseg"].value.classes
    for sample in scenes:
        boxes, instances = sample["boxes"], sample["instances"]
        assert [b["class"] for b in boxes] == [n["class"] for n in instances]
        assert len(boxes) == sample["metadata"]["object_count"]
        covered = np.zeros((64, 64), int)
        for box, instance in zip(boxes, instances, strict=True):
            assert box["box"] == box_around(instance["mask"])
            shape = instance["class"].split()[1]
            assert (sample["semseg"][instance["mask"]] == classes.index(shape)).all()
            covered += instance["mask"]
        assert covered.max() == 1 and np.array_equal(covered > 0, sample["semseg"] >= 2)
        corners = [b["box"][0] ** 2 + b["box"][1] ** 2 for b in boxes]
        assert corners == sorted(corners)
        assert np.array_equal(sample["edges"], measures.canny(sample["rgb"]))


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_boxes_in_space_hold_the_depth_of_their_objects(size):
    catalog = resized(load_catalog("scenes-3d").subset(["depth", "instances", "boxes3d"]), size)
    value = dataclasses.replace(catalog["boxes3d"].value, range=((-9, 9), (-2, 5), (0, 12)))
    catalog = Catalog(
        [*(catalog[n] for n in ("depth", "instances")), dataclasses.replace(catalog["boxes3d"], value=value)],
        catalog.vocabularies.values(),
    )
    tight = Counter()
    for sample in Scenes(catalog, 20, seed=3):
        solids = sample["boxes3d"]
        assert value.check(solids, "scene") == solids
        distances = [np.linalg.norm(item["center"]) for item in solids["boxes"]]
        assert distances == sorted(distances)
        masks = {item["class"]: item["mask"] for item in sample["instances"]}
        assert sorted(item["class"] for item in solids["boxes"]) == sorted(masks)
        for item in solids["boxes"]:
            mask = masks[item["class"]]
            points = cameras.unproject(np.where(mask, sample["depth"], 0), solids["camera"])
            assert len(points) == mask.sum() and contain(as_rows([item]), points, margin=1e-3).all()
            smaller = {**item, "size": [0.8 * length for length in item["size"]]}
            tight["all"] += 1
            tight["left"] += not contain(as_rows([smaller]), points).all()
            seen, covered = cameras.rectangle(outline(item, solids["camera"])), box_around(mask)
            outward = np.array(covered) - seen  # by less than the half of a pixel
            assert (outward[:2] >= -0.5 / 48).all() and (outward[2:] <= 0.5 / 48).all()
    assert tight["left"] == tight["all"] > 20, "no box is a fifth too large"


def test_boxes_in_space_fit_the_catalog_and_are_opt_in(scenes_catalog):
    entry = load_catalog("scenes-3d")["boxes3d"]
    catalog = Catalog([entry], scenes_catalog.vocabularies.values())
    wide = dataclasses.replace(entry, value=dataclasses.replace(entry.value, range=((-99, 99), (-99, 99), (0, 99))))
    for ours, every in zip(
        Scenes(catalog, 200, 1), Scenes(Catalog([wide], catalog.vocabularies.values()), 200, 1), strict=True
    ):
        assert ours == every, "no object is outside the range"
        assert max(max(item["size"]) for item in ours["boxes3d"]["boxes"]) <= entry.value.largest
    assert not any(m.value.type == "boxes3d" for m in scenes_catalog.values())
    missing = dataclasses.replace(entry, value=dataclasses.replace(entry.value, classes=("red cube",)))
    with pytest.raises(MaskweaveError, match="value.classes lacks gray cube"):
        Scenes(Catalog([missing], catalog.vocabularies.values()), 1)


def test_captions_are_true(scenes_catalog):
    scenes = Scenes(scenes_catalog.subset(["caption"]), 200, seed=5)
    relations = Counter()
    for i in range(200):
        scene, text = scenes.scene(i), scenes[i]["caption"]
        by_name = {t.name: (t, (box[0] + box[2]) / 2) for t, box in zip(scene.objects, scene.boxes, strict=True)}
        assert grammar.objects_in(text) == Counter(by_name.keys())
        first, *claims = text.rstrip(".").split(". ")
        assert first.startswith(f"{len(by_name)} object" + ("s:" if len(by_name) > 1 else ":"))
        listed = re.findall(r"a (small|large) (\w+ \w+)", first)
        assert [by_name[name][0].size for _, name in listed] == [size for size, _ in listed]
        middles = [by_name[name][1] for _, name in listed]
        assert middles == sorted(middles) and len(listed) == len(by_name)
        assert len(claims) <= 2 and (len(by_name) > 1 or not claims)
        for claim in claims:
            a, relation, b = re.fullmatch(
                r"the (\w+ \w+) is (left of|right of|in front of|behind) the (\w+ \w+)", claim
            ).groups()
            (thing_a, x_a), (thing_b, x_b) = by_name[a], by_name[b]
            relations[relation] += 1
            margin = {
                "left of": x_b - x_a,
                "right of": x_a - x_b,
                "in front of": thing_b.distance - thing_a.distance,
                "behind": thing_a.distance - thing_b.distance,
            }
            assert margin[relation] > 0.09
    assert len(relations) == 4 and min(relations.values()) > 10


@pytest.mark.parametrize(("number", "relations"), [(0.0, 1), (0.49, 1), (0.5, 2), (0.99, 2)])
def test_a_caption_has_one_or_two_relations(number, relations):
    seen = [grammar.Seen("small", "red", "cube", 0.1, 3.0), grammar.Seen("large", "blue", "cone", 0.9, 9.0)]
    seen.append(grammar.Seen("small", "green", "ball", 0.5, 6.0))
    claims = grammar.caption(seen, [number] + [0.0] * 9).rstrip(".").split(". ")[1:]
    assert len(claims) == relations
    alone = grammar.caption(seen[:1], [number] + [0.0] * 9)
    assert alone == "1 object: a small red cube."
    pair = grammar.caption(seen[:2], [number] + [0.0] * 9).rstrip(".").split(". ")[1:]
    assert pair == ["the blue cone is right of the red cube"]  # the only pair is described once


@given(st.text(max_size=300))
def test_reading_broken_captions(text):
    assert sum(grammar.objects_in(text).values()) >= 0
    assert mirror(mirror(text)) == text


@given(st.lists(st.sampled_from([*grammar.COLORS, *grammar.SHAPES, "a", "the", ",", ".", "and", "of"]), max_size=30))
def test_reading_shuffled_words(words):
    found = grammar.objects_in(" ".join(words))
    assert set(found) <= set(NAMES)


def test_reading_captions():
    assert grammar.objects_in("2 objects: a small Red cube and a large red  cube. the blue cone is left of") == {
        "red cube": 2
    }
    assert grammar.objects_in("a red cube the blue cone") == {"red cube": 1}
    assert grammar.objects_in("redcube cube red [UNK]") == {}


def test_mirror():
    assert (
        mirror("the Left one, LEFT of the right-hand door; bright leftovers, rightmost.")
        == "the Right one, RIGHT of the left-hand door; bright leftovers, leftmost."
    )


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("semseg", {"classes": ("floor", "wall", "cube")}, "lacks sphere"),
        ("boxes", {"classes": ("red cube",)}, "value.classes lacks"),
        ("depth", {"range": (0, 5)}, "range that covers"),
        ("depth", {"unit": "km"}, "in m"),
        ("rgb", {"channels": 4}, "3 channels"),
        ("rgb", {"size": (8, 8)}, "16 to 4096"),
        ("rgb", {"size": (16, 128)}, "at most 4 times"),
    ],
)
def test_what_scenes_cannot_give(scenes_catalog, name, change, words):
    with pytest.raises(MaskweaveError, match=words) as caught:
        Scenes(with_value(scenes_catalog, name, **change), 1)
    assert repr(name) in str(caught.value)


def test_unknown_metadata_vectors_and_sizes(scenes_catalog):
    key = scenes_catalog["metadata"].value.keys["brightness"]
    with pytest.raises(MaskweaveError, match="no metadata key 'smell'"):
        Scenes(with_value(scenes_catalog, "metadata", keys={"smell": key}), 1)
    extra = with_value(scenes_catalog, "metadata", keys={"saturation": key, "entropy": dataclasses.replace(key, id=14)})
    assert set(Scenes(extra, 1)[0]["metadata"]) == {"saturation", "entropy"}
    vector = dataclasses.replace(
        scenes_catalog["rgb"],
        kind="vectors",
        grid=(),
        max_tokens=4,
        value=value_of("vectors", channels=3),
    )
    with pytest.raises(MaskweaveError, match="'vectors'"):
        Scenes(Catalog([vector]), 1)
    small = with_value(scenes_catalog, "rgb", size=(48, 48))["rgb"]
    with pytest.raises(MaskweaveError, match="one size"):
        Scenes(Catalog([small, scenes_catalog["depth"]]), 1)
    for count, seed in ((0, 0), (-3, 0), (1, -1)):
        with pytest.raises(MaskweaveError):
            Scenes(scenes_catalog, count, seed)


def test_class_ids_follow_the_entry(scenes, scenes_catalog):
    order = ("sky", "cone", "cylinder", "sphere", "cube", "wall", "floor")
    other = Scenes(with_value(scenes_catalog, "semseg", classes=order), COUNT, seed=3)[2]["semseg"]
    assert np.array_equal(np.array(order)[other], np.array(raycast.CLASSES)[scenes[2]["semseg"]])


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 10**6))
def test_any_seed(scenes_catalog, seed, i):
    scene = Scenes(scenes_catalog.subset(["depth"]), 10**6 + 1, seed).scene(i)
    assert 1 <= len(scene.objects) <= 4 and all(mask.sum() >= VISIBLE for mask in scene.masks)
    assert scene.view.depth.max() <= 16


def test_objects_that_are_hardly_seen_are_left_out(scenes, monkeypatch):
    usual = [scenes.scene(i) for i in range(COUNT)]
    monkeypatch.setattr("maskweave.synthetic.scenes.VISIBLE", 300)
    dropped = 0
    for i, before in enumerate(usual):
        after = scenes.scene(i)
        dropped += len(before.objects) - len(after.objects)
        assert {t.name for t in after.objects} <= {t.name for t in before.objects}
        assert len(after.objects) == 1 or min(mask.sum() for mask in after.masks) >= 300
    assert dropped > 10


@pytest.mark.parametrize("size", [(64, 64), (16, 64), (64, 16)])
def test_a_far_wall_is_brought_within_the_depth(scenes, size):
    far = dataclasses.replace(scenes.scene(0).room, wall_distance=60.0, wall_yaw=0.24)
    assert raycast.trace(far, [], size).depth.max() > raycast.MAX_DEPTH
    near = raycast.within_depth(far, size)
    assert raycast.trace(near, [], size).depth.max() == pytest.approx(raycast.MAX_DEPTH, abs=0.02)
    assert raycast.within_depth(near, size).wall_distance == pytest.approx(near.wall_distance, rel=1e-3)


def test_a_binary_map_is_edges_only_where_the_entry_says_so(scenes_catalog):
    clouds = dataclasses.replace(scenes_catalog["edges"], name="cloud_mask", derive=None)
    with pytest.raises(MaskweaveError, match="'cloud_mask': the only binary maps of scenes are the edges.*by: canny"):
        Scenes(Catalog([clouds]), 1)
    outlines = dataclasses.replace(clouds, name="outlines", derive=scenes_catalog["edges"].derive)
    found = Scenes(Catalog([outlines]), 1)[0]["outlines"]
    assert np.array_equal(found, Scenes(scenes_catalog.subset(["edges"]), 1)[0]["edges"])
