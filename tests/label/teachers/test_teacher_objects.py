"""Boxes and instances by small networks, compared with the networks' own numbers."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import CLASSES, asked, photographs, sequence, teacher_of  # noqa: E402

BOXES = sequence(type="boxes", classes=["tree", "wall"], bins=32)
INSTANCES = sequence(type="instances", size=[32, 32], classes=["tree", "wall"], bins=32)


def test_detections_are_the_network_s_boxes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_teachers.yolos(tmp_path_factory.mktemp("yolos"), CLASSES)
    model = transformers.YolosForObjectDetection.from_pretrained(folder)
    processor = transformers.YolosImageProcessorPil.from_pretrained(folder)
    teacher = teacher_of(BOXES, folder, "object-detection", options={"threshold": 0.2})
    labels = asked(teacher, photographs())
    assert sum(len(label.value) for label in labels) > 3
    for picture, label in zip(photographs(), labels, strict=True):
        with torch.inference_mode():
            outputs = model(**processor(images=picture, return_tensors="pt"))
        scores, ids = outputs.logits[0].softmax(-1)[:, :-1].max(-1)
        expected = {}
        for score, id, (x, y, w, h) in zip(scores.tolist(), ids.tolist(), outputs.pred_boxes[0].tolist(), strict=True):
            if score > 0.2 and CLASSES[id] != "N/A":
                expected[round(score, 5)] = CLASSES[id], np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1)
        found = {round(score, 5): item for score, item in zip(label.confidence, label.value, strict=True)}
        assert set(found) == set(expected)
        for score, item in found.items():
            assert item["class"] == expected[score][0]
            np.testing.assert_allclose(item["box"], expected[score][1], atol=1e-5)
    assert all(len(label.value) == 0 for label in asked(teacher_of(BOXES, folder, "object-detection", options={"threshold": 1.0}), photographs()))  # fmt: skip


def test_instances_are_masks_of_the_picture_s_size(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_teachers.mask2former(tmp_path_factory.mktemp("mask2former"), CLASSES)
    teacher = teacher_of(INSTANCES, folder, "instance-segmentation", options={"threshold": 0.1})
    labels = asked(teacher, photographs())
    assert sum(len(label.value) for label in labels) > 1
    for picture, label in zip(photographs(), labels, strict=True):
        assert label.confidence == sorted(label.confidence, reverse=True) and min(label.confidence, default=1) >= 0.1
        for item in label.value:
            assert item["mask"].shape == picture.shape[:2] and item["mask"].any() and item["class"] in ("tree", "wall")
    small = asked(teacher_of(INSTANCES, folder, "instance-segmentation", side=16, options={"threshold": 0.1}), photographs()[:1])  # fmt: skip
    assert {item["mask"].shape for item in small[0].value} <= {(16, 16)}
