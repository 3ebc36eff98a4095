"""Poses of people: the joints of each box of a person (ViTPose)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from maskweave.errors import MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.values.base import ValueType
from maskweave.values.poses import Poses


class PoseTeacher(TransformersTeacher):
    """`pose-estimation`: x and y of each joint, 0 to 1 from the top left, for the boxes of `derive.boxes`. The confidence of a person is the mean score of
    the joints.

    The joints go into the entry's part with a range and two numbers for each. Options: `person` ("person"), the class of the boxes of people.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("VitPoseForPoseEstimation",)
    values: ClassVar[tuple[type[ValueType], ...]] = (Poses,)

    def prepare(self) -> None:
        self.person = self.option("person", "person")
        joints = self.model.config.num_labels
        value = self.entry.value
        assert isinstance(value, Poses)
        parts = [name for name, part in value.parts.items() if part.range is not None and part.count == 2 * joints]
        if len(parts) != 1 or not self.settings.boxes:
            raise MaskweaveError(
                f"{self.where}: needs derive.boxes, the modality of the people's boxes, and one part with a range and count {2 * joints} for its {joints} "
                f"joints; found boxes {self.settings.boxes!r} and the parts {', '.join(value.parts) or 'none'}"
            )
        self.part = parts[0]

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        return [
            self._label(picture, [item["box"] for item in sample[self.settings.boxes] if item["class"] == self.person])
            for picture, sample in zip(self.pictures(samples), samples, strict=True)
        ]

    def _label(self, picture: np.ndarray, boxes: Sequence[Any]) -> TeacherLabel:
        if not boxes:
            return TeacherLabel([], [])
        height, width = picture.shape[:2]
        size = np.array([width, height])
        corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2) * size
        coco = np.concatenate(
            [corners[:, 0], np.maximum(corners[:, 1] - corners[:, 0], 1)], axis=1
        )  # x, y, width, height
        inputs = self.processor(images=[picture], boxes=[coco], return_tensors="pt").to(self.device)
        experts = getattr(self.model.config.backbone_config, "num_experts", 1)
        which = {"dataset_index": torch.zeros(len(boxes), dtype=torch.long, device=self.device)} if experts > 1 else {}
        with self.compute():
            outputs = self.model(inputs["pixel_values"], **which)
        outputs.heatmaps = outputs.heatmaps.float()
        (people,) = self.processor.post_process_pose_estimation(outputs, boxes=[coco])
        value = [
            {"box": box, self.part: (person["keypoints"].numpy(force=True) / size).ravel().tolist()}
            for box, person in zip(boxes, people, strict=True)
        ]
        return TeacherLabel(value, [float(person["scores"].mean().clamp(0, 1)) for person in people])
