"""Ray casting of simple solids on a floor in front of a wall: exact, in NumPy, one ray per pixel.

Frames are right-handed, in meters: x right, y up, z towards the viewer. The world's origin is the point on the floor below the
camera, which only rotates about x (it looks along -z, tilted down). Rays have a camera z of -1, so the parameter t of a hit *is* its z-depth.
Solids are convex, so surfaces that face away from the light are dark without a test, and shadow rays only test the other solids.

Legend: H height, W width, N = H·W pixels, S solids.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOOR, WALL = 0, 1
"""Surface ids; solid k of a scene has id k + 2."""
MAX_DEPTH = 16.0
"""Largest depth of a point in a scene, in meters."""
PROPORTIONS = {"cube": (0.72, 1.44), "sphere": (1.0, 2.0), "cylinder": (0.85, 1.8), "cone": (1.05, 2.2)}
"""Half width and height of each shape, for a nominal radius of 1."""
CLASSES = ("floor", "wall", *PROPORTIONS)
AMBIENT, SKY, DIFFUSE = 0.54, 0.12, 0.56
FADE_START, FADE = 1.20, 0.035
"""Brightness is FADE_START - FADE · depth: a depth cue that flat colors lack."""


@dataclass(frozen=True)
class Solid:
    """An upright solid on the floor."""

    shape: str
    radius: float
    """Nominal radius in meters; see `PROPORTIONS`."""
    x: float
    z: float
    color: tuple[float, float, float]
    """Red, green, blue, 0 to 1."""
    yaw: float = 0.0
    """Rotation about the vertical axis, in radians; only for cubes."""

    @property
    def half(self) -> float:
        return PROPORTIONS[self.shape][0] * self.radius

    @property
    def height(self) -> float:
        return PROPORTIONS[self.shape][1] * self.radius

    @property
    def footprint(self) -> float:
        """Radius of the smallest upright cylinder around it."""
        return self.half * (math.sqrt(2.0) if self.shape == "cube" else 1.0)


@dataclass(frozen=True)
class Room:
    """Camera, floor, wall and light."""

    camera_height: float
    pitch: float
    """Downward tilt of the camera, in radians."""
    wall_distance: float
    """Distance from the point below the camera to the wall, in meters; see `within_depth`."""
    wall_yaw: float
    floor_color: tuple[float, float, float]
    wall_color: tuple[float, float, float]
    light_azimuth: float
    """Degrees, -180 to 180: 0: light from behind the viewer, 90: from the right."""
    light_elevation: float
    """Degrees above the floor."""

    @property
    def wall_normal(self) -> np.ndarray:
        return np.array([math.sin(self.wall_yaw), 0.0, math.cos(self.wall_yaw)], np.float32)

    @property
    def to_light(self) -> np.ndarray:
        """Unit vector towards the light."""
        a, e = math.radians(self.light_azimuth), math.radians(self.light_elevation)
        return np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)], np.float32)

    @property
    def camera_from_world(self) -> np.ndarray:
        """Rows: the camera's right, up and backward axes."""
        s, c = math.sin(self.pitch), math.cos(self.pitch)
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)


def focal_length(size: tuple[int, int]) -> float:
    """Returns the focal length in pixels: a field of view of 47° for the shorter side, and at most 100° for the longer side."""
    return max(1.15 * min(size), 0.42 * max(size))


@dataclass
class Hits:
    """The first surface that each ray hits."""

    depth: np.ndarray
    """float32 (H, W), meters along the camera's axis."""
    surface: np.ndarray
    """uint8 (H, W): 0 floor, 1 wall, k + 2 solid k."""
    dx: np.ndarray
    """World direction of the rays: (1, W), the same in each row."""
    dy: np.ndarray
    """(H, 1), the same in each column; so is dz."""
    dz: np.ndarray


@dataclass(frozen=True)
class Rendering:
    """The exact pictures of a scene."""

    rgb: np.ndarray
    """uint8 (H, W, 3)."""
    depth: np.ndarray
    """float32 (H, W), meters along the camera's axis, 0 to MAX_DEPTH."""
    normals: np.ndarray
    """float32 (H, W, 3), unit, in the camera frame."""
    classes: np.ndarray
    """uint8 (H, W), indices into `CLASSES`."""
    instances: np.ndarray
    """uint8 (H, W): 0 none, 1 + k solid k."""


def within_depth(room: Room, size: tuple[int, int]) -> Room:
    """Returns the room, with its wall moved closer if a point of the picture would be deeper than MAX_DEPTH."""
    floor, wall = _nearness(room, *_rays(room, size, focal_length(size)))
    limit = MAX_DEPTH - 0.01
    above = wall[floor[:, 0] * limit < 1]  # rows in which the floor would be too deep
    reach = float(above.min(initial=np.inf)) * limit
    return room if reach >= 1 else dataclasses.replace(room, wall_distance=room.wall_distance * reach)


def trace(room: Room, solids: Sequence[Solid], size: tuple[int, int]) -> Hits:
    """Find the first surface along each pixel's ray.

    Args:
        room: camera, floor and wall.
        solids: in front of the camera and the wall, without intersections.
        size: (height, width) in pixels.
    """
    focal = focal_length(size)
    dx, dy, dz = _rays(room, size, focal)
    nearness_floor, nearness_wall = _nearness(room, dx, dy, dz)
    depth = 1.0 / np.maximum(nearness_floor, nearness_wall)
    surface = (nearness_wall >= nearness_floor).astype(np.uint8)

    with np.errstate(divide="ignore", invalid="ignore"):
        for k, solid in enumerate(solids):
            rows, columns = _screen_box(room, solid, size, focal)
            o = (-solid.x, room.camera_height, -solid.z)
            t = _first_hit(solid, *o, dx[:, columns], dy[rows], dz[rows])
            before = depth[rows, columns]
            nearer = t < before
            np.copyto(before, t, where=nearer)
            surface[rows, columns][nearer] = k + 2
    return Hits(depth, surface, dx, dy, dz)


def shade(room: Room, solids: Sequence[Solid], hits: Hits) -> Rendering:
    """Render traced rays: Lambertian shading, an ambient term that is stronger from above, and hard shadows."""
    size = hits.depth.shape
    surface_N = hits.surface.ravel()
    to_light = room.to_light
    points = np.empty((3, *size), np.float32)  # world coordinates of the hits
    np.multiply(hits.depth, hits.dx, out=points[0])
    np.multiply(hits.depth, hits.dy, out=points[1])
    points[1] += room.camera_height
    np.multiply(hits.depth, hits.dz, out=points[2])
    points = points.reshape(3, -1)

    flat = np.zeros((3, 2 + len(solids)), np.float32)
    flat[1, FLOOR], flat[:, WALL] = 1.0, room.wall_normal
    normals = flat[:, surface_N]  # (3, N)
    for k, solid in enumerate(solids):
        at = np.flatnonzero(surface_N == k + 2)
        normals[:, at] = _normals(solid, points[:, at])

    lambert = np.maximum(to_light @ normals, 0.0)
    _cast_shadows(solids, points, surface_N, to_light, lambert)
    light = AMBIENT + SKY * normals[1] + DIFFUSE * lambert
    light *= FADE_START - FADE * hits.depth.ravel()
    albedo = np.array([room.floor_color, room.wall_color, *(s.color for s in solids)], np.float32) * 255.0
    rgb = albedo[surface_N] * light[:, None]
    np.minimum(rgb, 255.0, out=rgb)
    class_of = np.array([FLOOR, WALL, *(CLASSES.index(s.shape) for s in solids)], np.uint8)
    camera_normals = normals.T @ room.camera_from_world.T
    return Rendering(
        rgb=(rgb + 0.5).astype(np.uint8).reshape(*size, 3),
        depth=hits.depth,
        normals=camera_normals.reshape(*size, 3),
        classes=class_of[hits.surface],
        instances=np.maximum(hits.surface, 1) - 1,
    )


def _rays(room: Room, size: tuple[int, int], focal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World directions through the pixel centers, with a camera z of -1: dx (1, W), dy and dz (H, 1)."""
    height, width = size
    u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
    v = (height / 2 - 0.5 - np.arange(height, dtype=np.float32)) / focal
    sin, cos = math.sin(room.pitch), math.cos(room.pitch)
    return u[None, :], (v * cos - sin)[:, None], (-v * sin - cos)[:, None]


def _nearness(room: Room, dx: np.ndarray, dy: np.ndarray, dz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/t of the floor (H, 1) and of the wall (H, W). The larger is nearer; 1/t needs no special case at the horizon."""
    normal = room.wall_normal
    return -dy / room.camera_height, -(normal[0] * dx + normal[2] * dz) / room.wall_distance


def _screen_box(room: Room, solid: Solid, size: tuple[int, int], focal: float) -> tuple[slice, slice]:
    """Rows and columns that contain the solid: the box around its projected corners."""
    height, width = size
    sin, cos = math.sin(room.pitch), math.cos(room.pitch)
    r = solid.footprint * math.cos(math.pi / 4 - solid.yaw % (math.pi / 2)) if solid.shape == "cube" else solid.half
    xs, ys = [], []
    for y in (-room.camera_height, solid.height - room.camera_height):
        for z in (solid.z - r, solid.z + r):
            depth = -sin * y - cos * z
            ys.append((cos * y - sin * z) / depth)
            xs += [(solid.x - r) / depth, (solid.x + r) / depth]
    top, bottom = height / 2 - max(ys) * focal, height / 2 - min(ys) * focal
    left, right = width / 2 + min(xs) * focal, width / 2 + max(xs) * focal
    rows = slice(min(max(int(top), 0), height), min(max(int(bottom) + 1, 0), height))
    columns = slice(min(max(int(left), 0), width), min(max(int(right) + 1, 0), width))
    return rows, columns


def _first_hit(solid: Solid, ox, oy, oz, dx, dy, dz) -> np.ndarray:
    """t of the first hit of rays o + t·d, inf without a hit; o is relative to the center of the solid's base.

    Rays start outside and never enter through the base.
    """
    half, height = solid.half, solid.height
    match solid.shape:
        case "sphere":
            oy = oy - half
            a = dx * dx + (dy * dy + dz * dz)
            b = ox * dx + (oy * dy + oz * dz)
            discriminant = b * b - a * (ox * ox + oy * oy + oz * oz - half * half)
            return np.where(discriminant > 0, (-b - np.sqrt(np.abs(discriminant))) / a, np.inf)
        case "cube":
            cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
            ox, oz = cos * ox - sin * oz, sin * ox + cos * oz
            dx, dz = cos * dx - sin * dz, sin * dx + cos * dz
            sides = [_slab(ox, dx, -half, half), _slab(oz, dz, -half, half), _slab(oy, dy, 0.0, height)]
            near = np.maximum(np.maximum(sides[0][0], sides[1][0]), sides[2][0])
            far = np.minimum(np.minimum(sides[0][1], sides[1][1]), sides[2][1])
            return np.where(near < far, near, np.inf)
        case "cylinder":
            a = dx * dx + dz * dz
            b = ox * dx + oz * dz
            discriminant = b * b - a * (ox * ox + oz * oz - half * half)
            root = np.sqrt(np.abs(discriminant))
            low, high = _slab(oy, dy, 0.0, height)
            near, far = np.maximum((-b - root) / a, low), np.minimum((root - b) / a, high)
            return np.where((discriminant > 0) & (near < far), near, np.inf)
        case _:  # cone: x² + z² = (slope · distance below the apex)²
            below, slope2 = height - oy, (half / height) ** 2
            a = dx * dx + (dz * dz - slope2 * dy * dy)
            b = ox * dx + (oz * dz + slope2 * below * dy)
            discriminant = b * b - a * (ox * ox + oz * oz - slope2 * below * below)
            root = np.sqrt(np.abs(discriminant))
            one, other = (-b - root) / a, (root - b) / a
            # the quadratic is an infinite double cone: keep only hits between base and apex
            for t in (one, other):
                y = oy + t * dy
                t[(y < 0) | (y > height) | (discriminant <= 0)] = np.inf
            return np.minimum(one, other)


def _slab(o, d, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """t at which a ray enters and leaves the slab low ≤ coordinate ≤ high."""
    one, other = (low - o) / d, (high - o) / d
    return np.minimum(one, other), np.maximum(one, other)


def _normals(solid: Solid, points: np.ndarray) -> np.ndarray:
    """World normals (3, n) at surface points (3, n)."""
    half, height = solid.half, solid.height
    x, y, z = points[0] - solid.x, points[1], points[2] - solid.z
    normals = np.zeros_like(points)
    match solid.shape:
        case "sphere":
            normals[0], normals[1], normals[2] = x, y - half, z
            normals /= np.sqrt((normals * normals).sum(0))
        case "cube":
            cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
            local = np.stack([cos * x - sin * z, y - height / 2, sin * x + cos * z])
            axis = np.abs(local).argmax(0)  # the axis of the largest local coordinate gives the face
            sign = np.sign(np.take_along_axis(local, axis[None], 0)[0])
            normals[0] = sign * np.array([cos, 0, sin], np.float32)[axis]
            normals[1] = sign * (axis == 1)
            normals[2] = sign * np.array([-sin, 0, cos], np.float32)[axis]
        case "cylinder":
            radial = np.sqrt(x * x + z * z)
            top = radial / half < 2 * y / height - 1
            normals[0], normals[1], normals[2] = np.where(top, 0, x / radial), top, np.where(top, 0, z / radial)
        case _:
            slope = half / height
            radial = np.maximum(np.sqrt(x * x + z * z), 1e-9)
            normals[0], normals[1], normals[2] = x / radial, slope, z / radial
            normals /= np.sqrt((normals * normals).sum(0))
    return normals


def _cast_shadows(
    solids: Sequence[Solid], points: np.ndarray, surface_N: np.ndarray, to_light: np.ndarray, lambert: np.ndarray
) -> None:
    """Set `lambert` to 0 where another solid blocks the light."""
    centers = np.array([[s.x, s.height / 2, s.z] for s in solids], np.float32)  # (S, 3) of bounding spheres
    radii = np.array([math.hypot(s.footprint, s.height / 2) * 1.01 for s in solids], np.float32)[:, None]
    squared = (
        (points * points).sum(0) - 2 * (centers @ points) + (centers * centers).sum(1)[:, None]
    )  # (S, N) to each center
    along = (centers @ to_light)[:, None] - to_light @ points
    near_ray = (squared - along * along < radii * radii) & (along > -radii) & (lambert > 0)
    lx, ly, lz = (to_light[c : c + 1] for c in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, solid in enumerate(solids):
            at = np.flatnonzero(near_ray[k] & (surface_N != k + 2))
            if at.size:
                p = points[:, at]
                t = _first_hit(solid, p[0] - solid.x, p[1], p[2] - solid.z, lx, ly, lz)
                lambert[at[(t > 0) & (t < np.inf)]] = 0.0
