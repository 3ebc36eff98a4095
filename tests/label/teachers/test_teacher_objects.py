"""Boxes and instances by small networks, compared with the networks' own numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import CLASSES, asked, photographs, sequence, teacher_of  # noqa: E402

BOXES = sequence(type="boxes", classes=["tree", "wall"], bins=32)
INSTANCES = sequence(type="instances", size=[32, 32], classes=["tree", "wall"], bins=32)


def softmax_boxes(outputs: Any) -> list[tuple[float, int, list[float]]]:
    """The most probable class of each query, without the class of nothing."""
    scores, ids = outputs.logits[0].softmax(-1)[:, :-1].max(-1)
    return list(zip(scores.tolist(), ids.tolist(), outputs.pred_boxes[0].tolist(), strict=True))


def sigmoid_boxes(outputs: Any) -> list[tuple[float, int, list[float]]]:
    """As many pairs of a query and a class as there are queries, the best."""
    scores_QK, boxes_Q4 = outputs.logits[0].sigmoid().numpy(), outputs.pred_boxes[0].tolist()
    best = sorted(np.ndindex(*scores_QK.shape), key=lambda pair: -scores_QK[pair])[: len(scores_QK)]
    return [(float(scores_QK[q, k]), k, boxes_Q4[q]) for q, k in best]


@pytest.mark.parametrize(
    ("architecture", "candidates", "threshold"),
    [(tiny_teachers.yolos, softmax_boxes, 0.2), (tiny_teachers.rtdetr, sigmoid_boxes, 0.4)],
)
def test_detections_are_the_network_s_boxes(
    architecture: Callable[[Path, Mapping[int, str]], str],
    candidates: Callable[[Any], Any],
    threshold: float,
    tmp_path: Path,
) -> None:
    folder = architecture(tmp_path, CLASSES)
    model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    teacher = teacher_of(BOXES, folder, "object-detection", options={"threshold": threshold})
    labels = asked(teacher, photographs())
    assert sum(len(label.value) for label in labels) > 3
    for picture, label in zip(photographs(), labels, strict=True):
        with torch.inference_mode():
            outputs = model(**processor(images=picture, return_tensors="pt"))
        expected = [
            (score, CLASSES[id], np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1))
            for score, id, (x, y, w, h) in candidates(outputs)
            if score > threshold and CLASSES[id] != "N/A"
        ]
        assert len(label.value) == len(label.confidence) == len(expected)
        for score, name, box in expected:  # queries may have equal scores
            found = [
                abs(sure - score) + np.abs(item["box"] - box).max()
                for item, sure in zip(label.value, label.confidence, strict=True)
                if item["class"] == name
            ]
            assert min(found, default=1) < 1e-4
    assert all(len(label.value) == 0 for label in asked(teacher_of(BOXES, folder, "object-detection", options={"threshold": 1.0}), photographs()))  # fmt: skip


def test_instances_are_the_network_s_masks(tmp_path: Path) -> None:
    folder = tiny_teachers.mask2former(tmp_path, CLASSES)
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder)
    processor = transformers.Mask2FormerImageProcessorPil.from_pretrained(folder)
    teacher = teacher_of(INSTANCES, folder, "instance-segmentation", options={"threshold": 0.1})
    seen = set()
    for picture, label in zip(photographs(), asked(teacher, photographs()), strict=True):
        with torch.inference_mode():
            outputs = model(**processor(images=picture, return_tensors="pt"))
        logits_QHW = interpolate(outputs.masks_queries_logits, (384, 384), mode="bilinear")[0]
        shares_QK = outputs.class_queries_logits[0].softmax(-1)[:, :-1].numpy()
        expected = []
        for q, k in sorted(np.ndindex(*shares_QK.shape), key=lambda pair: -shares_QK[pair])[: len(shares_QK)]:
            inside = logits_QHW[q] > 0
            mask = interpolate(inside[None, None].float(), picture.shape[:2], mode="nearest")[0, 0].numpy() > 0
            score = float(shares_QK[q, k] * logits_QHW[q].sigmoid()[inside].mean())
            if score >= 0.1 and mask.any() and CLASSES[k] != "N/A":
                expected.append((score, CLASSES[k], mask))
        expected.sort(key=lambda item: -item[0])
        assert label.confidence == pytest.approx([score for score, *_ in expected], abs=1e-4)
        assert [item["class"] for item in label.value] == [name for _, name, _ in expected]
        for item, (_, name, mask) in zip(label.value, expected, strict=True):
            assert item["mask"].shape == mask.shape and (item["mask"] != mask).mean() < 0.01
            seen.add((name, mask.tobytes()))
    assert len(seen) > 3 and {name for name, _ in seen} == {"tree", "wall"}
    small = asked(teacher_of(INSTANCES, folder, "instance-segmentation", side=16, options={"threshold": 0.1}), photographs()[:1])  # fmt: skip
    assert {item["mask"].shape for item in small[0].value} <= {(16, 16)}
