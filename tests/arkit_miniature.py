"""A scan in the layout of ARKitScenes, made of scenes seen by a tilted camera that moves through a world."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from maskweave.synthetic.scenes import Scenes


def write_scan(folder: Path, scenes: Scenes, numbers: list[int], heading: float) -> None:
    """Writes each scene as its own place of the world, ten meters from the others, seen in one frame."""
    scan, frames, items, lines = folder.name, folder / f"{folder.name}_frames", [], []
    for sub in ("lowres_wide", "lowres_depth", "lowres_wide_intrinsics"):
        (frames / sub).mkdir(parents=True)
    for k, number in enumerate(numbers):
        sample = scenes[number]
        value, time = sample["boxes3d"], 100 + k / 10
        camera = value["camera"]
        # axes of the level frame (right, down, ahead) in the world, whose z points up
        ahead = np.array([math.cos(heading + k), math.sin(heading + k), 0])
        level = np.stack([[ahead[1], -ahead[0], 0], [0, 0, -1], ahead])
        position = np.array([100.0 * k, 5, 1.5])
        tilt = Rotation.from_euler("x", camera["pitch"]).as_matrix()
        pose = tilt @ level
        lines.append([time + 0.0004, *Rotation.from_matrix(pose).as_rotvec(), *(-pose @ position)])
        for box in value["boxes"]:
            turn = np.array(
                [
                    [math.cos(box["yaw"]), 0, math.sin(box["yaw"])],
                    [0, 1, 0],
                    [-math.sin(box["yaw"]), 0, math.cos(box["yaw"])],
                ]
            )
            order = [[0, 2, 1], [1, 0, 2], [2, 0, 1]][len(items) % 3]  # axes come in any order
            box_in_world = {
                "centroid": (position + np.array(box["center"]) @ level).tolist(),
                "normalizedAxes": (turn @ level)[order].ravel().tolist(),
                "axesLengths": [box["size"][n] for n in order],
            }
            items.append({"uid": str(len(items)), "label": box["class"], "segments": {"obbAligned": box_in_world}})
        stem = f"{scan}_{time:.3f}"
        Image.fromarray(sample["rgb"]).save(frames / "lowres_wide" / f"{stem}.png")
        Image.fromarray((sample["depth"] * 1000).round().astype(np.uint16)).save(
            frames / "lowres_depth" / f"{stem}.png"
        )
        pinhole = [64, 64, *(64 * f for f in camera["focal"]), *(64 * c - 0.5 for c in camera["center"])]
        name = f"{scan}_{time + (0.001 if k % 2 else 0):.3f}.pincam"
        (frames / "lowres_wide_intrinsics" / name).write_text(" ".join(map(str, pinhole)) + "\n", encoding="utf-8")
    (frames / "lowres_wide.traj").write_text(
        "\n".join(" ".join(map(str, line)) for line in reversed(lines)) + "\n", encoding="utf-8"
    )
    (folder / f"{scan}_3dod_annotation.json").write_text(
        json.dumps({"skipped": False, "data": items}), encoding="utf-8"
    )
