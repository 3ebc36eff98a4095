"""Surface normals of a depth map.

Each point of the map is placed in space with a pinhole camera, x = (u − cx) z / f, y = −(v − cy) z / f. The normal is the cross product of the
differences of neighboring points along u and v, towards the viewer. Only metric depth gives true normals, and only as far as the field of
view is right: neither is known of most photographs, so these are approximate.
"""

from collections.abc import Sequence

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.modality.derivation import NormalsDerivation
from maskweave.modality.entry import Modality
from maskweave.values.direction import Direction
from maskweave.values.map import Map

LEAST_LENGTH = 1e-12


class NormalsOfDepth(TaskTeacher):
    """Normals of the depth maps of another entry, in the camera frame of `direction` values.

    Raises:
        MaskweaveError: the entry has another type, or the other is no map of depth.
    """

    def __init__(self, settings: NormalsDerivation, entry: Modality, source: Modality):
        value = source.value
        if not isinstance(entry.value, Direction) or not (
            isinstance(value, Map) and value.channels == 1 and len(value.size) == 2 and value.trim_quantile is None
        ):
            raise MaskweaveError(
                f"{entry.name!r}: derive.by: normals gives values of type direction, from a map of one channel in metric units (without "
                f"trim_quantile); found type {entry.value.type!r} from {source.name!r}"
            )
        self.settings, self.source, self.entry, self.notes = settings, source, entry, []
        self.provenance = {"field_of_view": settings.field_of_view}

    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel | BadSample]:
        return [self._label(np.asarray(sample[self.source.name], np.float64)) for sample in samples]

    def _label(self, depth: np.ndarray) -> TeacherLabel | BadSample:
        depth = depth.reshape(depth.shape[:2])
        unknown = ~(depth > 0)
        if min(depth.shape) < 2 or unknown.all():
            return BadSample(
                f"{self.source.name}: a depth map of {depth.shape} points without any above 0; expected 2×2 or more"
            )
        normals = normals_of(np.where(unknown, np.nan, depth), self.settings.field_of_view)
        if np.isnan(normals).any() and not self.entry.value.has_unknown:
            return BadSample(
                f"{self.source.name}: {np.isnan(normals).any(-1).mean():.1%} of the points have no normal, as their depth is unknown or 0; set "
                "value.missing: nan of the normals"
            )
        return TeacherLabel(normals)


def normals_of(depth: np.ndarray, field_of_view: float) -> np.ndarray:
    """Returns unit normals (H, W, 3), x right, y up, z towards the viewer, NaN where the depth of the point or of a neighbor is unknown.

    Args:
        depth: (H, W), distance along the optical axis, in any unit; NaN is unknown.
        field_of_view: degrees along the longer side.
    """
    height, width = depth.shape
    focal = max(height, width) / 2 / np.tan(np.radians(field_of_view) / 2)
    u, v = np.arange(width) + 0.5 - width / 2, np.arange(height)[:, None] + 0.5 - height / 2
    points = np.stack([u * depth / focal, -v * depth / focal, -depth], axis=-1)
    along_v, along_u = np.gradient(points, axis=(0, 1))
    normal = np.cross(along_v, along_u)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = np.where(length > LEAST_LENGTH, normal / np.maximum(length, LEAST_LENGTH), np.nan)
    away = (normal * points).sum(-1, keepdims=True) > 0  # a visible surface faces the viewer
    normal = np.where(np.isnan(depth)[..., None], np.nan, normal)
    return np.where(away, -normal, normal).astype(np.float32)
