"""Upright boxes that are turned about the vertical axis: corners, exact overlaps, and points inside.

Boxes are rows (N, 7): center x, y, z, then width, height and depth, then yaw. Axes: x right, y down, z forward, y along gravity; lengths in meters, yaw in
radians. The width of a box lies along (cos yaw, sin yaw) in the ground plane (x, z), its depth along (−sin yaw, cos yaw), its height along y. A box has no
front, so that yaw + π is the same box, and so is yaw + π/2 with width and depth exchanged.
"""

import math

import numpy as np

SIDES = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float64) / 2
"""Corners of a footprint, counterclockwise in (x, z), in widths and depths."""
EDGES = np.array([(k, (k + 1) % 4) for k in range(4)])
EDGES = np.concatenate([EDGES, EDGES + 4, np.stack([np.arange(4), np.arange(4) + 4], axis=1)])
"""Corners at the ends of each of the twelve edges."""


def same_yaw(yaw: float) -> float:
    """Returns the yaw from −π/2 up to π/2 of the same box."""
    return (yaw + math.pi / 2) % math.pi - math.pi / 2


def footprints(boxes_N7: np.ndarray) -> np.ndarray:
    """Returns the corners (N, 4, 2) of boxes in the ground plane (x, z), counterclockwise."""
    across, along = np.moveaxis(SIDES * boxes_N7[:, None, [3, 5]], -1, 0)
    cos, sin = np.cos(boxes_N7[:, 6:]), np.sin(boxes_N7[:, 6:])
    return np.stack([cos * across - sin * along, sin * across + cos * along], axis=-1) + boxes_N7[:, None, [0, 2]]


def corners(boxes_N7: np.ndarray) -> np.ndarray:
    """Returns the corners (N, 8, 3) of boxes: the four of the top, then those below them."""
    ground = footprints(boxes_N7)
    planes = [
        np.stack([ground[..., 0], np.broadcast_to(y, ground.shape[:2]), ground[..., 1]], axis=-1)
        for y in (boxes_N7[:, 1:2] - boxes_N7[:, 4:5] / 2, boxes_N7[:, 1:2] + boxes_N7[:, 4:5] / 2)
    ]
    return np.concatenate(planes, axis=1)


def overlaps(a_N7: np.ndarray, b_M7: np.ndarray) -> np.ndarray:
    """Returns the intersection over union (N, M) of each pair of boxes."""
    first, second = np.repeat(a_N7, len(b_M7), axis=0), np.tile(b_M7, (len(a_N7), 1))
    return paired_overlaps(first, second).reshape(len(a_N7), len(b_M7))


def paired_overlaps(a_N7: np.ndarray, b_N7: np.ndarray) -> np.ndarray:
    """Returns the intersection over union (N,) of boxes with those of the same row: exact up to rounding, 0 where both are empty."""
    a, b = np.asarray(a_N7, np.float64), np.asarray(b_N7, np.float64)
    low = np.maximum(a[:, 1] - a[:, 4] / 2, b[:, 1] - b[:, 4] / 2)
    high = np.minimum(a[:, 1] + a[:, 4] / 2, b[:, 1] + b[:, 4] / 2)
    height = np.maximum(high - low, 0)
    reach = (np.hypot(a[:, 3], a[:, 5]) + np.hypot(b[:, 3], b[:, 5])) / 2
    near = (height > 0) & (np.hypot(a[:, 0] - b[:, 0], a[:, 2] - b[:, 2]) < reach)
    common = np.zeros(len(a))
    common[near] = common_area(footprints(a[near]), footprints(b[near])) * height[near]
    union = a[:, 3:6].prod(axis=1) + b[:, 3:6].prod(axis=1) - common
    return np.where(union > 0, np.clip(common / np.where(union > 0, union, 1), 0, 1), 0.0)


def common_area(a_NV2: np.ndarray, b_NV2: np.ndarray) -> np.ndarray:
    """Returns the area (N,) of the intersection of convex polygons with those of the same row.

    The first polygon is clipped at each side of the second (Sutherland and Hodgman, 1974), for all rows at once.

    Args:
        a_NV2, b_NV2: corners, counterclockwise.
    """
    ring = a_NV2 - b_NV2[:, :1]  # near the origin, where rounding is smallest
    sides = b_NV2 - b_NV2[:, :1]
    for start, end in zip(np.moveaxis(sides, 1, 0), np.moveaxis(np.roll(sides, -1, axis=1), 1, 0), strict=True):
        along = (end - start)[:, None]
        offset = ring - start[:, None]
        inside = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]  # above 0 left of the side
        ring = _clipped(ring, inside)
    x, y = ring[..., 0], ring[..., 1]
    return np.maximum((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1) / 2, 0)


def _clipped(ring_NV2: np.ndarray, inside_NV: np.ndarray) -> np.ndarray:
    """Returns the part of polygons where `inside` is 0 or more. Rows with fewer points repeat their last one, which adds no area."""
    after, inside_after = np.roll(ring_NV2, -1, axis=1), np.roll(inside_NV, -1, axis=1)
    keep, crosses = inside_NV >= 0, (inside_NV >= 0) != (inside_after >= 0)
    share = inside_NV / np.where(crosses, inside_NV - inside_after, 1)
    cut = ring_NV2 + share[..., None] * (after - ring_NV2)
    rows, most = len(ring_NV2), 2 * ring_NV2.shape[1]
    points = np.stack([ring_NV2, cut], axis=2).reshape(rows, most, 2)
    kept = np.stack([keep, crosses], axis=2).reshape(rows, most)
    count = kept.sum(axis=1)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : max(1, int(count.max(initial=0)))]
    order = np.where(
        np.arange(order.shape[1]) < count[:, None],
        order,
        np.take_along_axis(order, np.maximum(count - 1, 0)[:, None], axis=1),
    )
    return np.take_along_axis(points, order[..., None], axis=1)


def contain(boxes_N7: np.ndarray, points_P3: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Returns which points lie in which boxes, bool (N, P).

    Args:
        margin: by how much each box is enlarged on each side, in meters.
    """
    offset = points_P3 - boxes_N7[:, None, :3]
    cos, sin = np.cos(boxes_N7[:, 6:]), np.sin(boxes_N7[:, 6:])
    across, along = cos * offset[..., 0] + sin * offset[..., 2], cos * offset[..., 2] - sin * offset[..., 0]
    inside = np.abs(np.stack([across, offset[..., 1], along], axis=-1)) <= boxes_N7[:, None, 3:6] / 2 + margin
    return np.asarray(inside.all(axis=-1))
