"""Pinhole cameras of values in space: intrinsics relative to the picture, and the camera's tilt.

A camera is `{"focal": [fx, fy], "center": [cx, cy], "pitch": radians, "roll": radians}`: focal lengths in picture widths and heights, the principal point from 0
to 1 from the top left, so that resizing a picture changes nothing. Points are given in the level frame of the camera: its origin is the camera, y points
down along gravity, z forward along the horizon, x right. The camera looks down from z by `pitch`, and is then turned clockwise about its axis by `roll`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskweave.values.base import refuse
from maskweave.values.geometry import Geometry
from maskweave.values.items import check_numbers

Camera = Mapping[str, Any]
NEAR = 0.05
"""Parts of objects nearer to the camera's plane than this are not drawn, in meters."""
LARGEST_FOCAL = 100.0
LAYOUT = '{"focal": [fx, fy] in picture widths and heights, "center": [cx, cy] from 0 to 1, "pitch": radians, "roll": radians}'
LIMITS = {
    "focal": (2, (1e-3, LARGEST_FOCAL)),
    "center": (2, (-LARGEST_FOCAL, LARGEST_FOCAL)),
    "pitch": (1, (-math.pi / 2, math.pi / 2)),
    "roll": (1, (-math.pi, math.pi)),
}
"""Numbers of each part of a camera, and their range."""


def check_camera(camera: Any, where: str) -> dict[str, Any]:
    """Returns a camera of plain numbers.

    Raises:
        BadSample: a part is missing, or out of its range.
    """
    if not isinstance(camera, Mapping) or any(name not in camera for name in LIMITS):
        raise refuse(where, f"the camera {camera!r:.80}", LAYOUT)
    checked = {}
    for name, (count, limits) in LIMITS.items():
        given = camera[name] if count > 1 else [camera[name]]
        numbers = check_numbers(given, count, None, f"a camera with {name} {camera[name]!r:.80}", LAYOUT, where)
        if not all(limits[0] - 1e-6 <= x <= limits[1] + 1e-6 for x in numbers):
            raise refuse(
                where, f"a camera with {name} {camera[name]!r:.80}", f"{name} from {limits[0]:.4g} to {limits[1]:.4g}"
            )
        checked[name] = numbers if count > 1 else numbers[0]
    return checked


def move_camera(camera: Camera, geometry: Geometry) -> dict[str, Any]:
    """Returns the camera of a picture after crop and flip. A flip mirrors the scene, so that points have −x then."""
    x0, y0, x1, y1 = geometry.crop
    (fx, fy), (cx, cy) = camera["focal"], camera["center"]
    cx, cy = (cx - x0) / (x1 - x0), (cy - y0) / (y1 - y0)
    return {
        "focal": [fx / (x1 - x0), fy / (y1 - y0)],
        "center": [1 - cx if geometry.flip else cx, cy],
        "pitch": camera["pitch"],
        "roll": -camera["roll"] if geometry.flip else camera["roll"],
    }


def rotation(camera: Camera) -> np.ndarray:
    """Returns the matrix (3, 3) from the level frame to the frame of the camera, whose z is its axis and whose y points down the picture."""
    cos, sin = math.cos(camera["pitch"]), math.sin(camera["pitch"])
    tilt = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    cos, sin = math.cos(camera["roll"]), math.sin(camera["roll"])
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ tilt


def project(points_N3: np.ndarray, camera: Camera) -> np.ndarray:
    """Returns where points of the level frame appear in the picture, (N, 2), 0 to 1 from the top left; those behind the camera as if just in front of it."""
    points = points_N3 @ rotation(camera).T
    points[:, 2] = np.maximum(points[:, 2], NEAR)
    return _on_picture(points, camera)


def direction(x: float, y: float, camera: Camera) -> np.ndarray:
    """Returns the direction (3,) in the level frame of what appears at a point of the picture."""
    (fx, fy), (cx, cy) = camera["focal"], camera["center"]
    return np.array([(x - cx) / fx, (y - cy) / fy, 1.0]) @ rotation(camera)


def unproject(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Returns the points (P, 3) in the level frame of a map of z-depths (H, W) in meters; points that are not above 0 are left out."""
    rows, columns = np.nonzero(np.nan_to_num(depth) > 0)
    z = depth[rows, columns].astype(np.float64)
    (fx, fy), (cx, cy) = camera["focal"], camera["center"]
    x = ((columns + 0.5) / depth.shape[1] - cx) / fx * z
    y = ((rows + 0.5) / depth.shape[0] - cy) / fy * z
    return np.stack([x, y, z], axis=1) @ rotation(camera)


def segments(ends_N23: np.ndarray, camera: Camera) -> np.ndarray:
    """Returns the parts (n, 2, 2) of line segments (N, 2, 3) that are in front of the camera, where they appear in the picture and beyond it."""
    points = ends_N23 @ rotation(camera).T
    first, last = points[:, 0], points[:, 1]
    seen = np.maximum(first[:, 2], last[:, 2]) > NEAR
    first, last = first[seen], last[seen]
    share = (NEAR - first[:, 2:]) / np.where(first[:, 2:] == last[:, 2:], 1, last[:, 2:] - first[:, 2:])
    cut = first + share * (last - first)
    clipped = np.stack(
        [np.where(first[:, 2:] < NEAR, cut, first), np.where(last[:, 2:] < NEAR, cut, last)], axis=1
    ).reshape(-1, 3)
    return _on_picture(clipped, camera).reshape(-1, 2, 2)


def rectangle(segments_N22: np.ndarray) -> list[float] | None:
    """Returns the part in the picture, [xmin, ymin, xmax, ymax], of the rectangle around segments; None if it is outside."""
    if not len(segments_N22):
        return None
    x0, y0 = np.clip(segments_N22.min(axis=(0, 1)), 0, 1).tolist()
    x1, y1 = np.clip(segments_N22.max(axis=(0, 1)), 0, 1).tolist()
    return [x0, y0, x1, y1] if x0 < x1 and y0 < y1 else None


def within_picture(segments_N22: np.ndarray) -> np.ndarray:
    """Returns the parts (n, 2, 2) of segments that lie in the picture (Liang and Barsky, 1984)."""
    start, step = segments_N22[:, 0], segments_N22[:, 1] - segments_N22[:, 0]
    flat = step == 0
    bounds = (np.array([[[0.0]], [[1.0]]]) - start) / np.where(flat, 1, step)  # (2, N, 2): where 0 and 1 are reached
    low = np.where(flat, np.where((start >= 0) & (start <= 1), 0, np.inf), bounds.min(axis=0)).max(axis=1).clip(min=0)
    high = np.where(flat, 1, bounds.max(axis=0)).min(axis=1).clip(max=1)
    seen = low < high
    start, step, low, high = start[seen], step[seen], low[seen, None], high[seen, None]
    return np.stack([start + low * step, start + high * step], axis=1)


def _on_picture(points_N3: np.ndarray, camera: Camera) -> np.ndarray:
    return points_N3[:, :2] / points_N3[:, 2:] * camera["focal"] + np.asarray(camera["center"])
