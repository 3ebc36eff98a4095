"""Masks of everything in a picture, by a grid of points: SAM (https://arxiv.org/abs/2304.02643).

As in the paper's appendix B: masks below a predicted quality or stability are dropped, and of those that overlap strongly the best is kept; here by
the overlap of the masks instead of their boxes, without crops. Edges follow its appendix D.2: Sobel filters of the masks' probabilities, the largest at
each point, divided by the largest of all, without thinning.

Dimension letters: N masks, P points of a batch, H and W of the picture.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.objects import MOST_INSTANCES
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.values.base import ValueType
from maskweave.values.geometry import box_around, nearest_along_axes
from maskweave.values.instances import Instances
from maskweave.values.map import Map
from maskweave.values.queries import Queries

POINTS_AT_ONCE = 64


class MaskTeacher(TransformersTeacher):
    """`mask-generation`: for entries of type `instances` with a single class, all masks; for `queries` without parts, the points with the boxes of
    their masks; for `map`, the edges of the masks, 0 to 1. The confidence is the model's own estimate of a mask's overlap with the truth.

    Options: `points` (16) along each side, `quality` (0.88) and `stability` (0.95), the least of a mask, `overlap` (0.7) from which two masks are one.
    """

    auto_classes = ("AutoModelForMaskGeneration",)
    processor_class = "AutoImageProcessor"
    values: ClassVar[tuple[type[ValueType], ...]] = (Instances, Queries, Map)

    def prepare(self) -> None:
        self.points = self.option("points", 16)
        self.quality, self.stability = self.option("quality", 0.88), self.option("stability", 0.95)
        self.overlap = self.option("overlap", 0.7)
        value = self.entry.value
        if not hasattr(self.model, "get_image_embeddings") or not 1 <= self.points <= 64:
            raise MaskweaveError(f"{self.where}: expected a SAM model, and derive.options.points from 1 to 64")
        if isinstance(value, Instances) and len(value.classes) != 1:
            raise MaskweaveError(
                f"{self.where}: the masks have no classes; give the entry one, such as classes: [object], found {len(value.classes)}"
            )
        if isinstance(value, Queries) and value.parts:
            raise MaskweaveError(
                f"{self.where}: the codes of value.parts need a tokenizer of masks, which is not included; remove the parts"
            )

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        return [self._label(picture) for picture in self.pictures(samples)]

    def _label(self, picture: np.ndarray) -> TeacherLabel:
        logits, quality_N, points_N2 = self._masks(picture)
        size, value = self.label_size(picture), self.entry.value
        if isinstance(value, Map):
            return TeacherLabel(nearest_along_axes(edges_of(logits, picture.shape[:2]), size))
        masks = [nearest_along_axes((one_HW > 0).numpy(), size) for one_HW in logits]
        kept = [n for n, mask in enumerate(masks) if mask.any()][:MOST_INSTANCES]
        confidence = [float(quality_N[n].clamp(0, 1)) for n in kept]
        if isinstance(value, Queries):
            items = [{"point": points_N2[n].tolist(), "instances": [{"box": box_around(masks[n])}]} for n in kept]
            return TeacherLabel(items, confidence)
        return TeacherLabel([{"class": value.classes[0], "mask": masks[n]} for n in kept], confidence)

    def _masks(self, picture: np.ndarray) -> tuple[Iterator[Tensor], Tensor, Tensor]:
        """Returns the masks' logits (H, W), the best first, their estimated quality (N), and the points (N, 2) as x, y, 0 to 1."""
        inputs: Any = self.processor(images=picture, return_tensors="pt")
        ticks = (torch.arange(self.points) + 0.5) / self.points
        shares_P2 = torch.cartesian_prod(ticks, ticks).flip(-1)
        high, wide = inputs["reshaped_input_sizes"][0].tolist()
        coordinates_P2 = (shares_P2 * torch.tensor([wide, high])).to(self.device)
        with self.compute():
            embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
        logits, quality, points = [], [], []
        for start in range(0, len(coordinates_P2), POINTS_AT_ONCE):
            some = slice(start, start + POINTS_AT_ONCE)
            with self.compute():
                output = self.model(
                    image_embeddings=embeddings, input_points=coordinates_P2[some][None, :, None], multimask_output=True
                )
            masks, scores = output.pred_masks[0].float().flatten(0, 1), output.iou_scores[0].float().flatten()
            good = (scores >= self.quality) & (stability_of(masks) >= self.stability)
            logits.append(masks[good].cpu())
            quality.append(scores[good].cpu())
            points.append(shares_P2[some].repeat_interleave(output.iou_scores.shape[-1], 0)[good.cpu()])
        small_Nhw, quality_N, points_N2 = torch.cat(logits), torch.cat(quality), torch.cat(points)
        keep = distinct(small_Nhw > 0, quality_N, self.overlap)

        def whole(small_hw: Tensor) -> Tensor:  # one at a time: hundreds of masks of a large picture take gigabytes
            (found_11HW,) = self.processor.post_process_masks(
                [small_hw[None, None]], inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
            )
            return found_11HW[0, 0]

        return map(whole, small_Nhw[keep]), quality_N[keep], points_N2[keep]


def stability_of(logits_Nhw: Tensor) -> Tensor:
    """Overlap of each mask with thresholds 1 and −1: how little it depends on the threshold."""
    return (logits_Nhw > 1).sum((-2, -1)) / (logits_Nhw > -1).sum((-2, -1)).clamp_min(1)


def distinct(masks_Nhw: Tensor, quality_N: Tensor, overlap: float) -> Tensor:
    """Returns the numbers of the masks of which none overlaps a better one by this intersection over union, the best first."""
    order = quality_N.argsort(descending=True, stable=True)
    flat = masks_Nhw[order].flatten(1).float()
    common, area = flat @ flat.T, flat.sum(1)
    same = common / (area[:, None] + area - common).clamp_min(1) >= overlap
    kept: list[int] = []
    for n in range(len(order)):
        if area[n] > 0 and not same[n, kept].any():
            kept.append(n)
    return order[kept]


def edges_of(logits: Iterable[Tensor], size: tuple[int, ...]) -> np.ndarray:
    """Returns the edges of masks, float32 (H, W), 0 to 1."""
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    filters = torch.stack([sobel, sobel.T])[:, None]
    edges = torch.zeros(*size)
    for logits_HW in logits:
        padded = torch.nn.functional.pad(logits_HW.sigmoid()[None, None], (1, 1, 1, 1), mode="replicate")
        edges = torch.maximum(edges, torch.nn.functional.conv2d(padded, filters)[0].norm(dim=0))
    return (edges / edges.max().clamp_min(1e-9)).numpy()
