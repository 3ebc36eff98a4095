"""Scene i of seed s is the same tomorrow: its room, its objects and its values, in numbers, and textures and crops of pictures, as in `scenes.json`.

If they change on purpose, `python tests/synthetic/test_golden_scenes.py` writes them. Numbers of pictures have a tolerance: another processor may round
a pixel at an edge to the other side.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.modality.catalogs import catalog_from
from maskweave.synthetic import pictures
from maskweave.synthetic.scenes import DEFAULT_SIZE, METADATA, NAMES, Scenes

STORED = Path(__file__).with_name("scenes.json")
SIZES = {"64x64": DEFAULT_SIZE, "48x96": (48, 96), "57x33": (57, 33)}
COUNTS = {"64x64": 12, "48x96": 4, "57x33": 4}


def moments(array: np.ndarray) -> list[float]:
    """Means over a whole value and over its upper and left halves, of each channel: what moves or changes brightness changes them."""
    channels = np.asarray(array, np.float64).reshape(*array.shape[:2], -1)
    parts = (channels, channels[: len(channels) // 2], channels[:, : channels.shape[1] // 2])
    return [float(x) for part in parts for x in part.mean(axis=(0, 1))]


def catalog(size: tuple[int, int]) -> Any:
    def grid(name: str, number: int, **value: Any) -> dict[str, Any]:
        return {"id": number, "kind": "grid", "grid": [1, 1], "value": {"type": name, "size": list(size), **value}}

    entries = {
        "image": grid("image", 1, channels=3), "map": grid("map", 2, range=[0, 16], unit="m"), "direction": grid("direction", 3, channels=3),
        "classes": grid("classes", 4, classes=["floor", "wall", "cube", "sphere", "cylinder", "cone"]),
        "binary": {**grid("binary", 5), "derive": {"from": "image", "by": "canny"}},
    }  # fmt: skip
    sequences: dict[str, dict[str, Any]] = {
        "text": {}, "boxes": {"classes": [*NAMES]}, "boxes3d": {"classes": [*NAMES]}, "palette": {},
        "metadata": {"keys": {key: {"id": n, "range": [-180, 180]} for n, key in enumerate(METADATA)}},
    }  # fmt: skip
    for number, (name, value) in enumerate(sequences.items(), 6):
        entries[name] = {
            "id": number,
            "kind": "sequence",
            "max_tokens": 99,
            "vocabulary": "text",
            "value": {"type": name, **value},
        }
    return catalog_from({"vocabularies": {"text": {"size": 6000}}, "modalities": entries}, "here")


def facts(scenes: Scenes, index: int) -> dict[str, Any]:
    scene, sample = scenes.scene(index), scenes[index]
    return {
        "room": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(scene.room).items()},
        "objects": [
            [o.size, o.color, o.shape, o.distance, o.solid.x, o.solid.z, o.solid.radius, o.solid.yaw, o.solid.height, o.solid.half, *o.solid.color]
            for o in scene.objects
        ],
        "relations": scene.samples,
        "caption": sample["text"],
        "boxes": [[box["class"], *box["box"]] for box in sample["boxes"]],
        "space": [[b["class"], *map(float, [*b["center"], *b["size"], b["yaw"]])] for b in sample["boxes3d"]["boxes"]],
        "pictures": {name: moments(sample[name]) for name in ("image", "map", "direction", "binary")},
        "classes": np.bincount(sample["classes"].ravel(), minlength=6).tolist(),
        "metadata": {key: float(value) for key, value in sample["metadata"].items()},
        "palette": [[int(x) for x in color] for color in sample["palette"]],
    }  # fmt: skip


def of_scenes(name: str) -> list[dict[str, Any]]:
    scenes = Scenes(catalog(SIZES[name]), COUNTS[name], seed=3)
    return [facts(scenes, i) for i in range(len(scenes))]


def of_pictures() -> dict[str, Any]:
    """Textures, and crops of a picture whose colors tell the place."""
    y, x = np.mgrid[:40, :60]
    whole = Image.fromarray(np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8))
    pictures._read.cache_clear()
    made: dict[str, Any] = {
        "textures": [moments(pictures.texture((24, 36), np.random.default_rng(n))) for n in range(8)]
    }
    read, pictures._read = pictures._read, lambda path: whole  # type: ignore[assignment]
    try:
        sizes = ((16, 16), (10, 30), (64, 64))
        made["crops"] = [
            moments(pictures.crop(Path(), size, np.random.default_rng(n))) for size in sizes for n in range(4)
        ]
    finally:
        pictures._read = read
    return made


def assert_close(found: Any, stored: Any, where: str) -> None:
    """Plain numbers are equal but for rounding; those of pictures may differ by a pixel or two."""
    if isinstance(stored, dict):
        assert found.keys() == stored.keys(), where
        for key in stored:
            assert_close(found[key], stored[key], f"{where}.{key}")
    elif isinstance(stored, list):
        assert len(found) == len(stored), where
        for i, one in enumerate(stored):
            assert_close(found[i], one, f"{where}.{i}")
    elif isinstance(stored, str):
        assert found == stored, where
    else:
        loose = next((t for key, t in TOLERANCES.items() if f".{key}." in f"{where}."), 1e-6)
        assert found == pytest.approx(stored, rel=1e-6, abs=loose), f"{where}; on purpose: python {__file__}"


TOLERANCES = {"image": 0.2, "binary": 0.004, "map": 0.02, "direction": 0.003, "classes": 2, "metadata": 0.1, "palette": 2, "textures": 0.2, "crops": 0.3}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_scenes_are_those_that_are_stored(name: str) -> None:
    assert_close(of_scenes(name), json.loads(STORED.read_text(encoding="utf-8"))[name], name)


def test_pictures_are_those_that_are_stored() -> None:
    assert_close(of_pictures(), json.loads(STORED.read_text(encoding="utf-8"))["pictures"], "pictures")


if __name__ == "__main__":
    parts = [f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, of_scenes(name))) + "\n]" for name in SIZES]
    STORED.write_text(
        "{\n" + ",\n".join([*parts, f'"pictures": {json.dumps(of_pictures())}']) + "\n}\n", encoding="utf-8"
    )
