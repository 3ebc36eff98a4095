"""ARKitScenes: a miniature in its layout, made of scenes seen by a tilted camera that moves through a world, comes back as the scenes' boxes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from arkit_miniature import write_scan
from scipy.spatial.transform import Rotation

from maskweave.data.arkit import ArkitScenes, _level_camera, rotation_matrix
from maskweave.data.import_source import import_source
from maskweave.data.opening import is_importable, open_data
from maskweave.data.parts import noting
from maskweave.data.split import Split, divide
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.synthetic.scenes import NAMES, Scenes
from maskweave.values.boxes3d import item_overlaps
from maskweave.values.camera import rotation

HEADINGS = {"scan1": 0.7, "scan2": -2.0}
FEATURE = {"rgb": "lowres_wide", "range_map": "lowres_depth", "solids": "3dod"}


def catalog(classes: list[str] | None = None) -> Catalog:
    names = [name.replace(" ", "_") for name in NAMES] if classes is None else classes
    ranges = [[-4, 4], [-1, 4], [2, 9]]
    entries = {
        "rgb": {"kind": "patches", "grid": [8, 8], "value": {"type": "image", "size": [64, 64], "channels": 3}},
        "range_map": {
            "kind": "patches",
            "grid": [8, 8],
            "value": {"type": "map", "size": [64, 64], "range": [0, 16], "unit": "m", "scale": 0.001, "missing": 0},
        },
        "solids": {
            "kind": "sequence",
            "vocabulary": "text",
            "max_tokens": 40,
            "value": {"type": "boxes3d", "classes": names, "range": ranges},
        },
    }
    modalities = {name: {"id": k + 1, **entry} for k, (name, entry) in enumerate(entries.items())}
    words = {"text": {"type": "wordpiece", "size": 700, "values": {"v0": 64}, "words": names}}
    return catalog_from({"vocabularies": words, "modalities": modalities}, "test")


def scene_catalog() -> Catalog:
    from maskweave.modality.catalogs import load_catalog

    return load_catalog("scenes-3d").subset(["rgb", "depth", "boxes3d"])


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(scene_catalog(), 6, seed=11)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, scenes: Scenes) -> Path:
    root = tmp_path_factory.mktemp("arkit")
    for (name, heading), numbers in zip(HEADINGS.items(), ([0, 1, 2], [3, 4, 5]), strict=True):
        write_scan(root / "Training" / name, scenes, numbers, heading)
    return root


def test_frames_come_back_as_the_scenes_they_were_made_of(place: Path, scenes: Scenes) -> None:
    source = open_data(place, catalog())
    assert isinstance(source, ArkitScenes) and source.names == ("rgb", "range_map", "solids") and len(source) == 6
    assert source.key(0) == "Training/scan1/scan1_100.000" and is_importable(str(place), catalog())
    for i in range(6):
        found, scene = source[i], scenes[i]
        assert np.array_equal(found["rgb"], scene["rgb"])
        assert np.abs(found["range_map"] - scene["depth"]).max() < 0.001
        solids, true = found["solids"], scene["boxes3d"]
        assert [item["class"].replace("_", " ") for item in solids["boxes"]] == [
            item["class"] for item in true["boxes"]
        ]
        assert np.allclose(np.diag(item_overlaps(solids["boxes"], true["boxes"])), 1, atol=1e-6)
        for part in ("focal", "center", "pitch", "roll"):
            assert np.allclose(solids["camera"][part], true["camera"][part], atol=1e-9), part


@pytest.mark.parametrize("below", ["Training", "Training/scan2"])
def test_folders_of_scans_and_scans_open_too(place: Path, below: str) -> None:
    source = open_data(place / below, catalog(), names=["solids"])
    assert len(source) == (6 if below == "Training" else 3) and source[0]["solids"]["boxes"]
    if below == "Training":
        parts = divide(source, Split(), 2, "here")
        held = {source.key(i).split("/")[0] for i in parts.held_out.tolist()}
        assert not held & {source.key(i).split("/")[0] for i in parts.train.tolist()}, "scans are not divided"


def test_what_a_frame_does_not_show_is_left_out(tmp_path: Path, scenes: Scenes) -> None:
    write_scan(tmp_path / "scan3", scenes, [0, 1], 0.1)
    path = tmp_path / "scan3" / "scan3_3dod_annotation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    hidden = json.loads(json.dumps(content["data"][0]))
    camera = np.array([0.0, 5, 1.5])
    center = np.array(hidden["segments"]["obbAligned"]["centroid"])
    hidden["segments"]["obbAligned"]["centroid"] = (
        camera + 1.7 * (center - camera)
    ).tolist()  # in the same direction, in the floor
    unknown = {**content["data"][0], "label": "pink elephant"}
    path.write_text(json.dumps({**content, "data": [*content["data"], hidden, unknown]}), encoding="utf-8")
    source = open_data(tmp_path, catalog(), names=["solids"])
    with noting("part") as notes:
        found = source[0]["solids"]["boxes"]
    assert len(found) == len(scenes[0]["boxes3d"]["boxes"])
    told = {text: count for (name, text), count in notes.remarks.items() if name == "solids"}
    assert told["boxes of labels that are not among the entry's classes are left out"] == 1
    (tmp_path / "scan3/scan3_frames/lowres_depth/scan3_100.000.png").unlink()
    far = Catalog([entry_with_range(catalog()["solids"])], catalog().vocabularies.values())
    assert len(ArkitScenes(tmp_path, far)[0]["solids"]["boxes"]) > len(found), "without depth, all in front are taken"


def entry_with_range(entry):
    import dataclasses

    return dataclasses.replace(entry, value=dataclasses.replace(entry.value, range=((-30, 30), (-30, 30), (0, 30))))


def test_frames_without_a_pose_have_no_boxes_and_damage_is_told(tmp_path: Path, scenes: Scenes) -> None:
    write_scan(tmp_path / "scan4", scenes, [0, 1], 0.1)
    frames = tmp_path / "scan4" / "scan4_frames"
    (frames / "lowres_wide_intrinsics" / "scan4_100.101.pincam").unlink()
    source = open_data(tmp_path, catalog())
    assert set(source[1]) == {"rgb", "range_map"} and "solids" in source[0]
    write_scan(tmp_path / "scan5", scenes, [0], 0.1)
    (tmp_path / "scan5" / "scan5_3dod_annotation.json").write_text('{"data": [{"label": "cube"}]}', encoding="utf-8")
    source = open_data(tmp_path, catalog())
    with pytest.raises(
        BadSample, match=r"scan5_3dod_annotation.json: KeyError: 'segments'; expected data, a list of boxes"
    ):
        source[2]
    write_scan(tmp_path / "scan6", scenes, [0], 0.1)
    (tmp_path / "scan6" / "scan6_frames" / "lowres_wide.traj").write_text("1 2 three\n", encoding="utf-8")
    with pytest.raises(BadSample, match="expected seven numbers on each line"):
        open_data(tmp_path, catalog())[3]


def test_boxes_that_are_not_upright_are_refused(tmp_path: Path, scenes: Scenes) -> None:
    write_scan(tmp_path / "scan7", scenes, [0], 0.1)
    path = tmp_path / "scan7" / "scan7_3dod_annotation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    axes = Rotation.from_euler("xyz", [0.5, 0.4, 0.3]).as_matrix()
    content["data"][0]["segments"]["obbAligned"]["normalizedAxes"] = axes.ravel().tolist()
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadSample, match="is not upright; expected obbAligned boxes"):
        open_data(tmp_path, catalog(), names=["solids"])[0]


def test_fields_are_checked(place: Path) -> None:
    source = open_data(place, catalog(), fields={"range_map": "lowres_depth"}, names=["range_map"])
    assert source.names == ("range_map",)
    with pytest.raises(
        MaskweaveError, match="data.fields.solids: there is no feature 'boxes'; found lowres_wide, lowres_depth, 3dod"
    ):
        open_data(place, catalog(), fields={"solids": "boxes"})
    (place / "nothing").mkdir(exist_ok=True)
    (place / "nothing" / "nothing_3dod_annotation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="no frames, SCAN/SCAN_frames/lowres_wide"):
        ArkitScenes(place / "nothing", catalog())


def test_any_camera_comes_back() -> None:
    from maskweave.data.arkit import _level_camera
    from maskweave.values.camera import rotation

    rng = np.random.default_rng(0)
    for vector in [
        *rng.normal(size=(20, 3)) * 2,
        np.array([math.pi / 2, 0, 0]),
        np.array([math.pi, 0, 0]),
        np.zeros(3),
    ]:
        matrix = rotation_matrix(vector)
        assert np.allclose(matrix, Rotation.from_rotvec(vector).as_matrix())
        camera, level = _level_camera(np.column_stack([matrix, np.zeros(3)]), [8, 6, 4, 5, 3.5, 2.5])
        assert np.allclose(rotation(camera) @ level, matrix, atol=1e-7)
        assert np.allclose(level[1], [0, 0, -1]) and np.allclose(level @ level.T, np.eye(3))
        assert camera["focal"] == [0.5, 5 / 6] and camera["center"] == [0.5, 0.5]


def test_frames_are_imported(place: Path, tmp_path: Path) -> None:
    import_source(place / "Training" / "scan1", tmp_path / "shards", catalog())
    shards = open_data(tmp_path / "shards", catalog())
    direct = open_data(place / "Training" / "scan1", catalog())
    assert len(shards) == 3
    for i in range(3):
        ours, theirs = shards[i], direct[i]
        assert ours.keys() == theirs.keys() and ours["solids"] == theirs["solids"]


def test_pitch_and_roll_of_any_camera() -> None:
    for turn in Rotation.random(50, random_state=0).as_matrix():
        camera, level = _level_camera(np.column_stack([turn, np.zeros(3)]), [64, 48, 50, 50, 31.5, 23.5])
        assert np.allclose(rotation(camera), turn @ level.T, atol=1e-9)
