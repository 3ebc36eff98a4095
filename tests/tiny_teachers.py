"""Models of the transformers library with random weights, saved as folders: one small model of each architecture that the tests of teachers use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def saved(model: Any, processor: Any, folder: Path) -> str:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def depth_anything(folder: Path) -> str:
    torch.manual_seed(0)
    backbone = hf.Dinov2Config(
        **VIT, image_size=28, patch_size=14, out_features=["stage1", "stage2"], reshape_hidden_states=False
    )
    config = hf.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, reassemble_factors=[2, 1], neck_hidden_sizes=[8, 8], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    processor = hf.DPTImageProcessorPil(size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=14)
    model = hf.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # else all depths are alike
    return saved(model, processor, folder)


def segformer(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    config = hf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2],
        mlp_ratios=[2, 2], decoder_hidden_size=16, id2label=dict(labels), label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = hf.SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=3)
    return saved(model, hf.SegformerImageProcessorPil(size={"height": 32, "width": 32}), folder)


def mask2former(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    backbone = hf.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2, out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = hf.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, num_queries=6, id2label=dict(labels), label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = hf.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=2)
    return saved(model, hf.Mask2FormerImageProcessorPil(size={"height": 32, "width": 32}), folder)


def yolos(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    config = hf.YolosConfig(**VIT, image_size=[32, 32], patch_size=8, num_detection_tokens=5, id2label=dict(labels), label2id={v: k for k, v in labels.items()})  # fmt: skip
    model = hf.YolosForObjectDetection(config)
    torch.nn.init.normal_(model.class_labels_classifier.layers[-1].weight, std=2)
    return saved(model, hf.YolosImageProcessorPil(size={"height": 32, "width": 32}), folder)


def with_license(folder: str, license: str) -> str:
    Path(folder, "README.md").write_text(f"---\nlicense: {license}\n---\n# A model\n")
    return folder


def settings_of(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "preprocessor_config.json").read_text())
