"""Weights and settings of teachers that are not what they should be."""

import json
import shutil
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import CLASSES, grid, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402

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
