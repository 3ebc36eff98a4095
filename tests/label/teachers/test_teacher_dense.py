"""Depth and segmentation by small networks, compared with what the networks themselves compute."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import CLASSES, asked, grid, photographs, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402

DEPTH = grid(type="map", range=[0, 20], unit="m")
CLASS_MAP = grid(type="classes", classes=["tree", "wall"], ignore=255)


def resized(tensor: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    return torch.nn.functional.interpolate(tensor, size, mode=mode, align_corners=False)


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tiny_teachers.depth_anything(tmp_path_factory.mktemp("depth"))
    return tiny_teachers.with_license(folder, "apache-2.0")


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.segformer(tmp_path_factory.mktemp("segformer"), CLASSES)


@pytest.fixture(scope="module")
def upernet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.upernet(tmp_path_factory.mktemp("upernet"), CLASSES)


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.mask2former(tmp_path_factory.mktemp("mask2former"), CLASSES)


def test_depth_has_the_picture_s_size_and_the_network_s_numbers(depth: str) -> None:
    teacher = teacher_of(DEPTH, depth, "depth-estimation")
    found = asked(teacher, photographs())
    model = transformers.DepthAnythingForDepthEstimation.from_pretrained(depth)
    processor = transformers.DPTImageProcessorPil.from_pretrained(depth)
    for picture, label in zip(photographs(), found, strict=True):
        with torch.inference_mode():
            raw = model(**processor(images=picture, return_tensors="pt")).predicted_depth
        expected = resized(raw[None], picture.shape[:2], "bicubic")[0, 0].numpy()
        assert label.value.shape == picture.shape[:2]
        np.testing.assert_allclose(label.value, expected, rtol=1e-4)
    assert np.ptp(found[0].value) > 0 and not np.array_equal(found[1].value, found[2].value)
    assert teacher.provenance["license"] == "apache-2.0"
    assert teacher.provenance["architecture"] == "DepthAnythingForDepthEstimation"
    inverse = asked(teacher_of(DEPTH, depth, "depth-estimation", options={"inverse": True}), photographs()[:1])
    np.testing.assert_allclose(inverse[0].value, 1 / found[0].value, rtol=1e-4)


def test_depth_of_a_shorter_side(depth: str) -> None:
    small = asked(teacher_of(DEPTH, depth, "depth-estimation", side=16), photographs())
    assert [label.value.shape for label in small] == [(16, 16), (16, 24), (16, 24)]
    large = asked(teacher_of(DEPTH, depth, "depth-estimation", side=999), photographs()[:1])
    assert large[0].value.shape == photographs()[0].shape[:2]


def test_zoedepth_s_padding_is_cut_off_on_all_sides(tmp_path: Path) -> None:
    """The network's output is made: at each point the red of the picture that it was given, so the label is that of the picture itself."""
    teacher: Any = teacher_of(DEPTH, tiny_teachers.zoedepth(tmp_path), "depth-estimation")
    mean, std = teacher.processor.image_mean[0], teacher.processor.image_std[0]
    red = np.add.outer(4 * np.arange(24), 2 * np.arange(60))
    picture = np.repeat(red[..., None], 3, -1).astype(np.uint8)
    teacher.processor.size = {"height": 128, "width": 256}
    teacher.model = lambda pixel_values: {"predicted_depth": pixel_values[:, 0] * std + mean}
    (label,) = asked(teacher, [picture])
    assert label.value.shape == red.shape
    np.testing.assert_allclose(label.value[1:-1, 1:-1] * 255, red[1:-1, 1:-1], atol=2)


@pytest.mark.parametrize("network", ["segformer", "upernet"])
def test_semantic_segmentation_renumbers_classes_and_tells_their_probability(
    network: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(network)
    teacher = teacher_of(CLASS_MAP, folder, "semantic-segmentation")
    found = asked(teacher, photographs())
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    processor = transformers.SegformerImageProcessorPil.from_pretrained(folder)
    to_ours = np.array([1, 0, -1])  # wall, tree, N/A
    seen = set()
    for picture, label in zip(photographs(), found, strict=True):
        with torch.inference_mode():
            logits = model(**processor(images=picture, return_tensors="pt")).logits
        shares = resized(logits, picture.shape[:2], "bilinear")[0].softmax(0).numpy()
        np.testing.assert_array_equal(label.value, to_ours[shares.argmax(0)])
        np.testing.assert_allclose(label.confidence, shares.max(0), atol=1e-5)
        seen |= set(np.unique(label.value))
    assert len(seen) > 1, "the network must tell classes apart"
    assert teacher.notes == ["classes that the entry lacks are left out: N/A"]


def test_classes_are_translated_or_refused(segformer: str) -> None:
    translated = grid(type="classes", classes=["bark", "wall", "N/A"])
    teacher = teacher_of(translated, segformer, "semantic-segmentation", classes={"tree": "bark"})
    assert teacher.notes == [] and {0, 1, 2} >= set(np.unique(asked(teacher, photographs()[:1])[0].value))
    with pytest.raises(MaskweaveError, match="the entry lacks the teacher's classes N/A; translate them"):
        teacher_of(grid(type="classes", classes=["tree", "wall"]), segformer, "semantic-segmentation")
    with pytest.raises(MaskweaveError, match="none of the teacher's classes .N/A, tree, wall. is one of the entry's"):
        teacher_of(grid(type="classes", classes=["sea", "sky"], ignore=255), segformer, "semantic-segmentation")
    with pytest.raises(MaskweaveError, match="derive.classes translates to bush, which the entry lacks"):
        teacher_of(CLASS_MAP, segformer, "semantic-segmentation", classes={"tree": "bush"})
    needless = teacher_of(CLASS_MAP, segformer, "semantic-segmentation", classes={"trees": "tree"})
    assert needless.notes[-1] == "derive.classes translates trees, which the teacher lacks"


def test_semantic_segmentation_by_mask_queries(mask2former: str) -> None:
    found = asked(teacher_of(CLASS_MAP, mask2former, "semantic-segmentation"), photographs()[:2])
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(mask2former)
    processor = transformers.Mask2FormerImageProcessorPil.from_pretrained(mask2former)
    for picture, label in zip(photographs(), found, strict=False):
        with torch.inference_mode():
            outputs = model(**processor(images=picture, return_tensors="pt"))
        masks = resized(outputs.masks_queries_logits, (384, 384), "bilinear").sigmoid()
        scores = torch.einsum("qk,qhw->khw", outputs.class_queries_logits[0].softmax(-1)[:, :-1], masks[0])
        scores = resized(scores[None], picture.shape[:2], "bilinear")[0].numpy()
        np.testing.assert_array_equal(label.value, np.array([1, 0, -1])[scores.argmax(0)])
        np.testing.assert_allclose(label.confidence, scores.max(0) / scores.sum(0), atol=1e-5)


def test_panoptic_segmentation_is_unknown_where_no_segment_is(mask2former: str) -> None:
    """The network's output is made: four queries with the areas of a wall, a tree, something else and nothing."""
    teacher: Any = teacher_of(CLASS_MAP, mask2former, "panoptic-segmentation")
    areas = np.zeros((4, 8, 8))
    areas[0, :, :4], areas[1, :4, 4:], areas[2, 4:, 4:6], areas[3, 4:, 6:] = 1, 1, 1, 1
    logits = torch.diag(torch.tensor([2.0, 3.0, 4.0, 5.0]))[None]
    made = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=torch.tensor(areas * 60 - 30)[None])
    label = teacher.label(made, np.zeros((48, 80, 3), np.uint8))
    assert label.value.shape == label.confidence.shape == (48, 80)
    np.testing.assert_array_equal(label.value[3::6, 5::10], areas[0] - areas[2] - areas[3])
    scores = [np.exp(n) / (np.exp(n) + 3) for n in (2, 3, 4)]
    np.testing.assert_allclose(label.confidence[3::6, 5::10], np.tensordot(scores, areas[:3], 1), atol=1e-5)
    none = asked(teacher_of(CLASS_MAP, mask2former, "panoptic-segmentation", options={"threshold": 1.0}), photographs())
    assert all((item.value == -1).all() for item in none)
    with pytest.raises(MaskweaveError, match=r"set value.ignore: 255 of the entry, or use semantic-segmentation"):
        teacher_of(grid(type="classes", classes=["tree", "wall", "N/A"]), mask2former, "panoptic-segmentation")


def test_models_and_entries_that_do_not_fit(depth: str, segformer: str, tmp_path: Path) -> None:
    with pytest.raises(
        MaskweaveError, match="'depth-estimation' gives values of type map, but the entry's type is 'classes'"
    ):
        teacher_of(CLASS_MAP, depth, "depth-estimation")
    with pytest.raises(MaskweaveError, match="models of type 'segformer' are not for it"):
        teacher_of(DEPTH, segformer, "depth-estimation")
    with pytest.raises(MaskweaveError, match="reads color pictures, but derive.from is 'words' of type 'text'"):
        teacher_of(DEPTH, depth, "depth-estimation", source="words")
    with pytest.raises(MaskweaveError, match="expected a model of transformers for it, with safetensors weights"):
        teacher_of(DEPTH, str(tmp_path), "depth-estimation")
    with pytest.raises(MaskweaveError, match="derive.options.inverse is 'yes'; expected one like False"):
        teacher_of(DEPTH, depth, "depth-estimation", options={"inverse": "yes"})


def test_pickled_weights_are_refused(depth: str, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in Path(depth).glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    torch.save(transformers.DepthAnythingForDepthEstimation.from_pretrained(depth).state_dict(), folder / "pytorch_model.bin")  # fmt: skip
    with pytest.raises(MaskweaveError, match="with safetensors weights"):
        teacher_of(DEPTH, str(folder), "depth-estimation")
