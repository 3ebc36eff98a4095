"""Average precision of boxes in space, computed with scipy from their half-spaces alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection


def solid(box: Mapping[str, Any]) -> np.ndarray:
    """The half spaces (6, 4) of a box: normals, and distances from the origin below 0."""
    cos, sin = np.cos(box["yaw"]), np.sin(box["yaw"])
    axes = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    middle, half = axes @ box["center"], np.array(box["size"]) / 2
    return np.block([[axes, -(middle + half)[:, None]], [-axes, (middle - half)[:, None]]])


def shared_volume(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Volume of the intersection of two boxes, as the convex hull of the corners that the half spaces of both have."""
    spaces = np.concatenate([solid(a), solid(b)])
    room = np.column_stack([spaces[:, :3], np.ones(len(spaces))])  # the largest ball inside
    ball = linprog([0, 0, 0, -1], room, -spaces[:, 3], bounds=[(None, None)] * 3 + [(0, None)])
    return ConvexHull(HalfspaceIntersection(spaces, ball.x[:3]).intersections).volume if ball.x is not None and ball.x[3] > 1e-6 else 0.0  # fmt: skip


def overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    shared = shared_volume(a, b)
    return shared / (np.prod(a["size"]) + np.prod(b["size"]) - shared)


def average_precision(found: list[list[Any]], truth: list[list[Any]], name: str, threshold: float) -> float:
    """COCO's, of one class: in the order of the scores, each box takes the free true box that it overlaps most."""
    ordered = sorted(((k, box) for k, boxes in enumerate(found) for box in boxes if box["class"] == name), key=lambda kb: -kb[1]["score"])  # fmt: skip
    free = [[box for box in boxes if box["class"] == name] for boxes in truth]
    total, hits = sum(map(len, free)), []
    for k, box in ordered:
        best = max(free[k], key=lambda true: overlap(box, true), default=None)
        hits.append(best is not None and overlap(box, best) >= threshold)
        if hits[-1]:
            free[k] = [true for true in free[k] if true is not best]
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / total
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))
