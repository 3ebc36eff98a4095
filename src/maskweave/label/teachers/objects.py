"""Teachers of objects: detections as boxes, and instances with masks."""

from typing import Any, ClassVar

import numpy as np

from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.classes import ClassTable
from maskweave.label.teachers.transformers import PictureTeacher
from maskweave.values.base import ValueType
from maskweave.values.boxes import Boxes
from maskweave.values.geometry import corner_first
from maskweave.values.instances import Instances

MOST_INSTANCES = 256
"""Instances of a picture, the surest ones."""


class DetectionTeacher(PictureTeacher):
    """`object-detection`: boxes, each with its score as confidence. Options: `threshold` (0.5), the lowest score."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForObjectDetection",)
    values: ClassVar[tuple[type[ValueType], ...]] = (Boxes,)

    def prepare(self) -> None:
        self.table = ClassTable(self.model.config.id2label, self.settings, self.entry, self.where)
        self.notes += self.table.notes
        self.threshold = self.option("threshold", 0.5)

    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        (result,) = self.processor.post_process_object_detection(
            outputs, threshold=self.threshold, target_sizes=[(1, 1)]
        )
        items = [
            {"class": name, "box": box, "score": score}
            for score, id, box in zip(
                result["scores"].tolist(), result["labels"].tolist(), result["boxes"].clamp(0, 1).tolist(), strict=True
            )
            if (name := self.table.name(id)) is not None
        ]
        items = corner_first(items, lambda item: item["box"])
        return TeacherLabel(
            [{"class": item["class"], "box": item["box"]} for item in items], [item["score"] for item in items]
        )


class InstanceTeacher(DetectionTeacher):
    """`instance-segmentation`: masks, each with its score as confidence. Options: `threshold` (0.5), the lowest score."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForUniversalSegmentation", "AutoModelForInstanceSegmentation")
    values: ClassVar[tuple[type[ValueType], ...]] = (Instances,)

    def prepare(self) -> None:
        super().prepare()
        self.check_processor("post_process_instance_segmentation", "return_binary_maps")

    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        (result,) = self.processor.post_process_instance_segmentation(
            outputs, threshold=self.threshold, target_sizes=[self.label_size(picture)], return_binary_maps=True
        )
        segments = result["segments_info"]
        masks = result["segmentation"].cpu().numpy() > 0 if segments else []
        kept = [
            (segment["score"], {"class": name, "mask": mask})
            for segment, mask in zip(segments, masks, strict=True)
            if (name := self.table.name(segment["label_id"])) is not None and mask.any()
        ]
        kept = sorted(kept, key=lambda pair: -pair[0])[:MOST_INSTANCES]
        return TeacherLabel([item for _, item in kept], [score for score, _ in kept])
