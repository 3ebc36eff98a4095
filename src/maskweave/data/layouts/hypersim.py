"""Hypersim (https://arxiv.org/abs/2011.02523): rendered indoor pictures with distance, normals and 40 classes of points.

ROOT/metadata_images_split_scene_v1.csv                      scene_name,camera_name,frame_id,included_in_public_release,…,split_partition_name
ROOT/ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg
ROOT/ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5    dataset `dataset`: distance to the camera's center, meters
                                                  frame.0000.normal_cam.hdf5      camera coordinates: x right, y up, z towards the viewer
                                                  frame.0000.semantic.hdf5        the 40 classes of NYU Depth v2 from 1 on, -1 unlabeled
"""

import csv
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskweave.data.layouts.base import (
    CLASSES,
    DIRECTION,
    DISTANCE,
    PICTURE,
    DataLayout,
    numbered_classes,
    photograph,
    unit_vectors,
)
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.base import ValueType
from maskweave.values.files import read_bytes
from maskweave.values.formats.base import Selection
from maskweave.values.formats.hdf5 import read as read_hdf5

SPLITS = "metadata_images_split_scene_v1.csv"
STORED = {DISTANCE: ("depth_meters", 2), DIRECTION: ("normal_cam", 3), CLASSES: ("semantic", 2)}


class Hypersim(DataLayout):
    fields: ClassVar[tuple[str, ...]] = (PICTURE, DISTANCE, DIRECTION, CLASSES)

    def __init__(self, root: Path, split: str):
        self.root = root
        if not (root / SPLITS).is_file():
            raise MaskweaveError(
                f"{root}: has no {SPLITS}; it is in Hypersim's repository, in evermotion_dataset/analysis"
            )
        try:
            with open(root / SPLITS, newline="", encoding="utf-8") as file:
                self.frames = [
                    (row["scene_name"], row["camera_name"], int(row["frame_id"]))
                    for row in csv.DictReader(file)
                    if row["split_partition_name"] == split and row["included_in_public_release"] == "True"
                ]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise MaskweaveError(f"{root / SPLITS}: is damaged ({error!r})") from error
        for place in {f"{scene}/{camera}" for scene, camera, _ in self.frames}:
            check_key(place, str(root / SPLITS))
        if not self.frames:
            raise MaskweaveError(
                f"{root / SPLITS}: has no pictures of the split {split!r}; expected train, val or test"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def key(self, i: int) -> str:
        scene, camera, frame = self.frames[i]
        return f"{scene}/{camera}/{frame:04d}"

    def read(self, i: int, field: str, value: ValueType) -> Any:
        scene, camera, frame = self.frames[i]
        images = self.root / scene / "images"
        if field == PICTURE:
            return photograph(images / f"scene_{camera}_final_preview" / f"frame.{frame:04d}.tonemap.jpg")
        name, axes = STORED[field]
        path = images / f"scene_{camera}_geometry_hdf5" / f"frame.{frame:04d}.{name}.hdf5"
        found = read_hdf5(read_bytes(path), str(path), Selection()).array
        if found.ndim != axes:
            raise BadSample(f"{path}: found shape {found.shape}; expected {axes} axes")
        if field == CLASSES:
            return numbered_classes(np.maximum(found, 0), value)
        return unit_vectors(found) if field == DIRECTION else found.astype(np.float32)
