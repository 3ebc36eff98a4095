"""Captions, masks of everything, and poses by small networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import asked, entries, grid, photographs, sequence, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402
from maskweave.label.teachers.opening import open_teacher  # noqa: E402
from maskweave.label.teachers.sam import distinct, edges_of, stability_of  # noqa: E402

ALL = {"points": 4, "quality": -99.0, "stability": 0.0}
"""Options with which a network of random weights has masks."""


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.sam(tmp_path_factory.mktemp("sam"))


def test_captions_are_the_most_probable_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_teachers.blip(tmp_path_factory.mktemp("blip"))
    teacher = teacher_of(sequence(type="text"), folder, "image-to-text", options={"max_new_tokens": 5})
    found = asked(teacher, photographs())
    check_captions(folder, [], found, 5)


def check_captions(folder: str, prompt: list[str], found: list[Any], count: int) -> None:
    """Compares captions with what the network writes after a prompt: one word after the other, each the most probable."""
    model = transformers.BlipForConditionalGeneration.from_pretrained(folder)
    processor = transformers.BlipImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for picture, label in zip(photographs()[:2], found, strict=False):
        ids, probabilities = [2, *tokenizer.convert_tokens_to_ids(prompt)], []
        given = len(ids)
        with torch.inference_mode():
            seen = model.vision_model(**processor(images=picture, return_tensors="pt")).last_hidden_state
            while len(ids) < given + count and 3 not in ids[given:]:
                logits = model.text_decoder(torch.tensor([ids]), encoder_hidden_states=seen).logits[0, -1]
                ids.append(int(logits.argmax()))
                probabilities.append(float(logits.softmax(-1).max()))
        assert label.value == " ".join(tokenizer.decode(ids[given:], skip_special_tokens=True).split())
        assert label.confidence == pytest.approx(np.exp(np.mean(np.log(probabilities))), rel=1e-3)


CHAT = (
    "{% for message in messages %}{% for part in message.content %}{% if part.type == 'text' %}dog {{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} on{% endif %}"
)
"""A chat: the text after a word, and another word where the answer begins."""


def test_captions_answer_a_prompt_with_and_without_a_chat(tmp_path: Path) -> None:
    folder = tiny_teachers.blip(tmp_path / "blip")
    task, options = "image-to-text", {"max_new_tokens": 4, "prompt": "the red cat"}
    answers = asked(teacher_of(sequence(type="text"), folder, task, options=options), photographs())
    check_captions(folder, ["the", "red", "cat"], answers, 4)
    chatting, unasked = (
        teacher_of(sequence(type="text"), folder, task, options=given) for given in (options, {"max_new_tokens": 4})
    )
    chatting.processor.chat_template = unasked.processor.chat_template = CHAT  # BLIP's own processor does not read it
    chatted = asked(chatting, photographs())
    check_captions(folder, ["dog", "the", "red", "cat", "on"], chatted, 4)
    assert [label.value for label in chatted] != [label.value for label in answers]
    sentence = [*unasked.processor.tokenizer.tokenize("dog Describe this picture in one sentence."), "on"]
    check_captions(folder, sentence, asked(unasked, photographs()), 4)
    with pytest.raises(MaskweaveError, match="derive.options.prompt is 3; expected one like ''"):
        teacher_of(sequence(type="text"), folder, task, options={"prompt": 3})


class LikeCuda(str):
    """The CPU, which says that it is a GPU."""

    type = "cuda"


def test_bfloat16_is_for_gpus_and_gives_nearly_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = grid(type="map", range=[0, 20])
    folders = {"depth-estimation": tiny_teachers.depth_anything(tmp_path / "depth"), "image-to-text": tiny_teachers.blip(tmp_path / "blip")}  # fmt: skip
    autocast = torch.autocast
    for task, folder in folders.items():
        entry = depth if task == "depth-estimation" else sequence(type="text")
        exact, low = (teacher_of(entry, folder, task, precision=p) for p in ("float32", "bfloat16"))
        wanted = asked(exact, photographs())
        for one, other in zip(asked(low, photographs()), wanted, strict=True):
            assert np.array_equal(one.value, other.value), "on the CPU it is float32"
        with monkeypatch.context() as patch:
            patch.setattr(torch, "autocast", lambda _, dtype, enabled: autocast("cpu", dtype, enabled=enabled))
            for teacher in (exact, low):
                patch.setattr(teacher, "device", LikeCuda("cpu"))
            for one, other in zip(asked(exact, photographs()), wanted, strict=True):
                assert np.array_equal(one.value, other.value)
            rounded = asked(low, photographs())
        if task == "depth-estimation":
            for one, other in zip(rounded, wanted, strict=True):
                assert one.value.dtype == np.float32 and not np.array_equal(one.value, other.value)
                np.testing.assert_allclose(one.value, other.value, rtol=0.1)
        else:
            assert all(0 < label.confidence <= 1 and isinstance(label.value, str) for label in rounded if label)
            assert any(a.confidence != b.confidence for a, b in zip(rounded, wanted, strict=True) if a and b)


def test_masks_lie_within_the_picture_and_do_not_repeat(sam: str) -> None:
    masks = sequence(type="instances", size=[32, 32], classes=["object"], bins=32)
    labels = asked(teacher_of(masks, sam, "mask-generation", options={**ALL, "overlap": 0.9}), photographs())
    assert sum(len(label.value) for label in labels) > 2
    for picture, label in zip(photographs(), labels, strict=True):
        shown = [item["mask"] for item in label.value]
        assert all(mask.shape == picture.shape[:2] and mask.any() for mask in shown)
    none = asked(teacher_of(masks, sam, "mask-generation", options={"points": 2, "quality": 99.0}), photographs()[:1])
    assert none[0].value == [] and none[0].confidence == []


def test_masks_as_points_and_as_edges(sam: str) -> None:
    points = sequence(type="queries", size=[32, 32], bins=32)
    (label,) = asked(teacher_of(points, sam, "mask-generation", options=ALL), photographs()[:1])
    ticks = {0.125, 0.375, 0.625, 0.875}
    assert label.value and all(set(item["point"]) <= ticks and len(item["instances"]) == 1 for item in label.value)
    (edges,) = asked(teacher_of(grid(type="map", range=[0, 1]), sam, "mask-generation", options=ALL), photographs()[:1])
    assert edges.value.shape == photographs()[0].shape[:2] and edges.value.max() == pytest.approx(1)
    with pytest.raises(MaskweaveError, match="the masks have no classes; give the entry one"):
        teacher_of(sequence(type="instances", size=[32, 32], classes=["wall", "tree"], bins=32), sam, "mask-generation")
    coded = sequence(type="queries", size=[32, 32], parts={"codes": {"count": 2, "codes": 16}})
    with pytest.raises(MaskweaveError, match="need a tokenizer of masks, which is not included"):
        teacher_of(coded, sam, "mask-generation")


def test_masks_are_those_of_their_points_and_are_enlarged_one_at_a_time(
    sam: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = photographs()[1]
    options = {**ALL, "overlap": 1.0}
    teacher: Any = teacher_of(sequence(type="queries", size=[32, 32], bins=32), sam, "mask-generation", options=options)
    enlarge, sizes = teacher.processor.post_process_masks, []
    monkeypatch.setattr(
        teacher.processor,
        "post_process_masks",
        lambda masks, *rest, **more: sizes.append(len(masks[0])) or enlarge(masks, *rest, **more),
    )
    with torch.inference_mode():
        logits, quality, points = teacher._masks(picture)
        logits = list(logits)
    assert sizes == [1] * len(quality) and logits[0].shape == picture.shape[:2]
    # A point off the diagonal, by the model itself; the longer side of the picture has 64 points for it.
    n = next(n for n, (x, y) in enumerate(points.tolist()) if x != y)
    high, wide = (int(side * 64 / max(picture.shape[:2]) + 0.5) for side in picture.shape[:2])
    x, y = points[n].tolist()
    model = transformers.SamModel.from_pretrained(sam)
    pixels = transformers.SamImageProcessorPil.from_pretrained(sam)(images=picture, return_tensors="pt").pixel_values

    def distance(x: float, y: float) -> float:
        at = torch.tensor([[[[x * wide, y * high]]]])
        with torch.inference_mode():
            scores = model(pixel_values=pixels, input_points=at, multimask_output=True).iou_scores
        return float((scores - quality[n]).abs().min())

    assert distance(x, y) < 1e-4 and distance(y, x) > 1e-3


def test_overlapping_masks_stability_and_edges() -> None:
    masks = torch.zeros(4, 6, 6)
    masks[0, :3], masks[1, :4], masks[2, 3:], masks[3, 5, 5] = 1, 1, 1, 1
    # 0 and 1 overlap by 18/24; 1 is better. 2 and 3 overlap by 1/18.
    assert distinct(masks > 0, torch.tensor([0.5, 0.9, 0.7, 0.6]), 0.7).tolist() == [1, 2, 3]
    assert distinct(masks > 0, torch.tensor([0.5, 0.9, 0.7, 0.6]), 0.8).tolist() == [1, 2, 3, 0]
    logits = torch.tensor([[[2.0, 0.5, -0.5, -2.0]]])
    assert stability_of(logits).tolist() == [pytest.approx(1 / 3)]
    edges = edges_of((masks[:1] * 2 - 1) * 100, (6, 6))
    np.testing.assert_allclose(edges, np.repeat([[0], [0], [1], [1], [0], [0]], 6, 1), atol=1e-6)
    assert edges_of(torch.zeros(0, 6, 6), (6, 6)).max() == 0


def test_poses_are_the_joints_of_each_person(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_teachers.vitpose(tmp_path_factory.mktemp("vitpose"))
    boxes = sequence(type="boxes", classes=["wall", "tree"], bins=32)
    parts = {"joints": {"count": 6, "range": [0, 1]}, "shape": {"count": 4, "range": [0, 1]}}

    def opened(**derive: Any) -> Any:
        derive = {"from": "rgb", "by": "teacher", "model": folder, "task": "pose-estimation", **derive}
        catalog = entries(people=boxes, label={**sequence(type="poses", bins=32, parts=parts), "derive": derive})
        return open_teacher(catalog, catalog["label"], "cpu")

    teacher = opened(boxes="people", options={"person": "wall"})
    people = [
        {"class": "wall", "box": [0.1, 0.1, 0.5, 0.9]},
        {"class": "tree", "box": [0, 0, 1, 1]},
        {"class": "wall", "box": [0.4, 0.2, 0.9, 0.8]},
    ]
    picture = photographs()[1]  # not square
    first, second = teacher([{"rgb": picture, "people": people}, {"rgb": photographs()[0], "people": []}])
    assert [person["box"] for person in first.value] == [people[0]["box"], people[2]["box"]] and second.value == []
    model = transformers.VitPoseForPoseEstimation.from_pretrained(folder)
    processor = transformers.VitPoseImageProcessorPil.from_pretrained(folder)
    size = np.array(picture.shape[1::-1])
    for person, confidence in zip(first.value, first.confidence, strict=True):
        x0, y0, x1, y1 = np.tile(size, 2) * person["box"]
        coco = [[[x0, y0, x1 - x0, y1 - y0]]]
        with torch.inference_mode():
            outputs = model(**processor(images=[picture], boxes=coco, return_tensors="pt"))
        (expected,) = processor.post_process_pose_estimation(outputs, boxes=coco)[0]
        np.testing.assert_allclose(
            np.reshape(person["joints"], (3, 2)) * size, expected["keypoints"], atol=0.5
        )  # sub-pixel steps of noise are unstable
        assert confidence == pytest.approx(float(expected["scores"].mean()), abs=1e-5)
    with pytest.raises(MaskweaveError, match="needs derive.boxes, the modality of the people's boxes, and one part"):
        opened()
