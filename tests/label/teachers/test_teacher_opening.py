"""Weights and settings of teachers that are not what they should be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import CLASSES, grid, sequence, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402
from maskweave.label.teachers import opening  # noqa: E402

CLASS_MAP = grid(type="classes", classes=["tree", "wall"], ignore=255)


@pytest.fixture
def segformer(tmp_path: Path) -> str:
    return tiny_teachers.segformer(tmp_path / "segformer", CLASSES)


def test_weights_of_another_task_are_refused(segformer: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(segformer)
    folder = tmp_path / "classifier"
    transformers.SegformerForImageClassification(config).save_pretrained(folder)
    shutil.copy(Path(segformer, "preprocessor_config.json"), folder)
    with pytest.raises(
        MaskweaveError, match=r"lack decode_head\.\S+, .* in all\), so it was not trained for 'semantic-segmentation'"
    ):
        teacher_of(CLASS_MAP, str(folder), "semantic-segmentation")


def test_a_model_and_its_inputs_are_on_the_device_of_the_process(
    segformer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(opening, "local_device", lambda name: asked.append(name) or torch.device("meta"))
    teacher: Any = teacher_of(CLASS_MAP, segformer, "semantic-segmentation")  # asks for cpu
    ((_, inputs),) = teacher.groups([{"pixel_values": torch.zeros(1, 3, 32, 32)}])
    assert asked == ["cpu"] and inputs["pixel_values"].device.type == "meta"
    assert {parameter.device.type for parameter in teacher.model.parameters()} == {"meta"}


def test_models_whose_masks_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    config = transformers.EomtConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, num_blocks=1,
        num_queries=4, id2label=CLASSES, label2id={name: id for id, name in CLASSES.items()},
    )  # fmt: skip
    processor = transformers.EomtImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 32})
    folder = tiny_teachers.saved(transformers.EomtForUniversalSegmentation(config), processor, tmp_path)
    instances = sequence(type="instances", size=[32, 32], classes=["tree", "wall"], bins=32)
    for entry, task in ((CLASS_MAP, "panoptic-segmentation"), (instances, "instance-segmentation")):
        with pytest.raises(
            MaskweaveError, match=f"models of type 'eomt' are not for {task} here; choose a Mask2Former"
        ):
            teacher_of(entry, folder, task)


def test_damaged_weights_and_settings_are_told(segformer: str) -> None:
    weights, config = Path(segformer, "model.safetensors"), Path(segformer, "config.json")
    whole, settings = weights.read_bytes(), json.loads(config.read_text(encoding="utf-8"))
    for content, change in (
        (whole[:-100], {}),
        (whole, {"decoder_hidden_size": 24}),
        (whole, {"num_encoder_blocks": "x"}),
    ):
        weights.write_bytes(content)
        config.write_text(json.dumps({**settings, **change}), encoding="utf-8")
        with pytest.raises(MaskweaveError, match="cannot be opened for the task 'semantic-segmentation'"):
            teacher_of(CLASS_MAP, segformer, "semantic-segmentation")
