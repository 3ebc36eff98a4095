"""Teachers of dense labels: depth, and semantic or panoptic segmentation."""

import inspect
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.classes import ClassTable
from maskweave.label.teachers.transformers import PictureTeacher
from maskweave.values.base import ValueType
from maskweave.values.classes import Classes
from maskweave.values.map import Map


class DepthTeacher(PictureTeacher):
    """`depth-estimation`: the model's own numbers, in meters for metric models; many models give a relative inverse depth.

    Options: `inverse: true` gives 1 / number instead.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForDepthEstimation",)
    values: ClassVar[tuple[type[ValueType], ...]] = (Map,)

    def prepare(self) -> None:
        self.inverse = self.option("inverse", False)

    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        depth = self._resized(outputs, picture).cpu().numpy()
        return TeacherLabel(1 / depth.clip(1e-6) if self.inverse else depth)

    def _resized(self, outputs: Any, picture: np.ndarray) -> Tensor:
        size, (height, width) = self.label_size(picture), picture.shape[:2]
        process = getattr(self.processor, "post_process_depth_estimation", None)
        pads = process is not None and "source_sizes" in inspect.signature(process).parameters
        if process is not None and not pads:
            return process(outputs, target_sizes=[size])[0]["predicted_depth"].float()
        depth = outputs.predicted_depth[None]
        if pads and getattr(self.processor, "do_pad", True):  # ZoeDepth; its own function for this needs torchvision
            rows, columns = (int(3 * (n / 2) ** 0.5) for n in (height, width))
            whole = (height + 2 * rows, width + 2 * columns)
            depth = F.interpolate(depth, whole, mode="bicubic", align_corners=False)
            depth = depth[..., rows : rows + height, columns : columns + width]
        return F.interpolate(depth, size, mode="bicubic", align_corners=False)[0, 0]


class SemanticTeacher(PictureTeacher):
    """`semantic-segmentation`: the most probable class of each point. The confidence is its probability; for models of mask queries, its share
    of the scores of all classes."""

    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
        "AutoModelForInstanceSegmentation",
    )
    values: ClassVar[tuple[type[ValueType], ...]] = (Classes,)

    def prepare(self) -> None:
        self.table = ClassTable(self.model.config.id2label, self.settings, self.entry, self.where)
        self.notes += self.table.notes

    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        (result,) = self.processor.post_process_semantic_segmentation(
            outputs, target_sizes=[self.label_size(picture)], return_segmentation_scores=True
        )
        scores_KHW = result["segmentation_scores"]
        shares = scores_KHW.softmax(0) if hasattr(outputs, "logits") else scores_KHW / scores_KHW.sum(0).clamp_min(1e-9)
        return TeacherLabel(self.table.map(result["segmentation"].cpu().numpy()), shares.amax(0).cpu().numpy())


class PanopticTeacher(SemanticTeacher):
    """`panoptic-segmentation`: the class of the segment of each point; the confidence is the segment's score. Points without a segment are unknown.

    Options: `threshold` (0.5), the lowest score of a segment.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForUniversalSegmentation", "AutoModelForInstanceSegmentation")

    def prepare(self) -> None:
        super().prepare()
        self.threshold = self.option("threshold", 0.5)
        self.check_processor("post_process_panoptic_segmentation", "label_ids_to_fuse")
        if not self.entry.value.has_unknown:
            raise MaskweaveError(
                f"{self.where}: points without a segment are unknown; set value.ignore: 255 of the entry, or use semantic-segmentation"
            )

    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        (result,) = self.processor.post_process_panoptic_segmentation(
            outputs, threshold=self.threshold, target_sizes=[self.label_size(picture)], label_ids_to_fuse=set()
        )
        segments = result["segmentation"].cpu().numpy()
        ids, confidence = np.full(segments.shape, -1, np.int64), np.zeros(segments.shape, np.float32)
        covered = self._covered(outputs, segments.shape) if result["segments_info"] else False
        for segment in result["segments_info"]:
            inside = (segments == segment["id"]) & covered
            ids[inside], confidence[inside] = segment["label_id"], segment["score"]
        return TeacherLabel(self.table.map(ids), confidence)

    def _covered(self, outputs: Any, size: tuple[int, ...]) -> np.ndarray:
        """Returns which points (H, W) the mask of their best query covers, as in the published code of MaskFormer; transformers gives the other
        points to a segment, too."""
        names = ("logits", "pred_masks") if hasattr(outputs, "pred_masks") else ("class_queries_logits", "masks_queries_logits")  # fmt: skip
        logits_QK, masks_Qhw = (getattr(outputs, name)[0] for name in names)
        scores_Q, ids_Q = logits_QK.softmax(-1).max(-1)
        sure_Q = (scores_Q > self.threshold) & (ids_Q < logits_QK.shape[-1] - 1)
        shares_QHW = F.interpolate(masks_Qhw[sure_Q].sigmoid()[None], size, mode="bilinear", align_corners=False)[0]
        best_1HW = (shares_QHW * scores_Q[sure_Q, None, None]).argmax(0, keepdim=True)
        return (shares_QHW.gather(0, best_1HW)[0] >= 0.5).cpu().numpy()
