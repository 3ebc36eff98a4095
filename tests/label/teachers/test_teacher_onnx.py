"""ONNX models as teachers: small ones made on the spot, compared with NumPy, and the text detector that a package ships."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from teacher_helpers import asked, grid, photographs, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402
from maskweave.label.teachers import opening  # noqa: E402

WEIGHTS = np.array([[1, 2, -1], [0.5, -1, 1], [-1, 1, 0.5]], np.float32)
PICTURE = {"size": [16, 16], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 1.0]}


def model(path: Path, batch: int | str = "batch", pooled: bool = False, outputs: int = 3) -> str:
    """A model whose output at each pixel is WEIGHTS times its three channels; or the mean of this over all pixels."""
    weight = onnx.numpy_helper.from_array(WEIGHTS[:outputs, :, None, None], "w")
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y"])]
    shape: list[Any] = [batch, outputs, "h", "w"]
    if pooled:
        nodes += [
            onnx.helper.make_node("GlobalAveragePool", ["y"], ["g"]),
            onnx.helper.make_node("Flatten", ["g"], ["z"]),
        ]
        shape = [batch, outputs]
    names = ["x"], ["z" if pooled else "y"]
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in ((names[0][0], [batch, 3, "h", "w"]), (names[1][0], shape))
    ]
    graph = onnx.helper.make_graph(nodes, "test", sides[:1], sides[1:], [weight])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return str(path)


def squares() -> list[np.ndarray]:
    """Pictures of the model's own size, so that nothing is resized."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(3)]


def expected(picture: np.ndarray, order: slice = slice(None)) -> np.ndarray:
    x = picture[..., order].astype(np.float32) / 255
    return ((x - PICTURE["mean"]) / PICTURE["std"]) @ WEIGHTS.T


def test_a_model_runs_on_its_process_s_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, session, given = model(tmp_path / "map.onnx"), onnxruntime.InferenceSession, []

    def opened(path: str, options: Any, providers: list[Any]) -> Any:
        given.append(providers)
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(opening, "local_device", lambda _: torch.device("cuda", 3))
    for found in (["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda found=found: found)
        teacher_of(
            grid(type="map", size=[16, 16], channels=3, range=[-20, 20]), path, "map-estimation", picture=PICTURE
        )
    gpu = ("CUDAExecutionProvider", {"device_id": 3})
    assert given == [["CPUExecutionProvider"], [gpu, "CPUExecutionProvider"]]


@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_numbers_at_each_point(tmp_path: Path, batch: int | str) -> None:
    path = model(tmp_path / "map.onnx", batch)
    entry = grid(type="map", size=[16, 16], channels=3, range=[-20, 20])
    teacher = teacher_of(entry, path, "map-estimation", picture=PICTURE, license="MIT")
    for picture, label in zip(squares(), asked(teacher, squares()), strict=True):
        np.testing.assert_allclose(label.value, expected(picture), atol=1e-4)
    assert teacher.provenance["license"] == "MIT" and teacher.provenance["revision"].startswith("sha256:")
    other = teacher_of(entry, path, "map-estimation", picture={**PICTURE, "bgr": True})
    np.testing.assert_allclose(
        asked(other, squares())[1].value, expected(squares()[1], slice(None, None, -1)), atol=1e-4
    )


def test_pictures_of_another_size_are_resized_as_pillow_does(tmp_path: Path) -> None:
    """Bicubic, over as many pixels as become one."""
    whole = {"size": [16, 16], "mean": [0.0] * 3, "std": [1.0] * 3}
    entry = grid(type="map", size=[16, 16], channels=3, range=[-20, 20])
    teacher = teacher_of(entry, model(tmp_path / "m.onnx"), "map-estimation", picture=whole)
    middle = [picture // 2 + 64 for picture in photographs()]  # far from black and white, which Pillow clips to twice
    for picture in middle:
        small = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC))
        found = teacher._input(picture)[0].movedim(0, -1).numpy() * 255  # type: ignore[attr-defined]
        assert np.abs(found - small).max() < 1.5 and small.std() > 5


def test_labels_have_the_picture_s_size(tmp_path: Path) -> None:
    entry = grid(type="map", channels=3, range=[-20, 20])
    labels = asked(teacher_of(entry, model(tmp_path / "m.onnx"), "map-estimation", picture=PICTURE), photographs())
    assert [label.value.shape[:2] for label in labels] == [picture.shape[:2] for picture in photographs()]


def test_classes_directions_labels_and_vectors(tmp_path: Path) -> None:
    dense, pooled = model(tmp_path / "dense.onnx"), model(tmp_path / "pooled.onnx", pooled=True)
    names = {"labels": ["wall", "tree", "N/A"], "picture": PICTURE}
    (first, *_), truth = squares(), expected(squares()[0])
    shares = np.exp(truth) / np.exp(truth).sum(-1, keepdims=True)

    classes = grid(type="classes", size=[16, 16], classes=["tree", "wall"], ignore=255)
    (label,) = asked(teacher_of(classes, dense, "semantic-segmentation", **names), [first])
    np.testing.assert_array_equal(label.value, np.array([1, 0, -1])[truth.argmax(-1)])
    np.testing.assert_allclose(label.confidence, shares.max(-1), atol=1e-5)

    direction = grid(type="direction", size=[16, 16], channels=3)
    (label,) = asked(teacher_of(direction, dense, "normal-estimation", picture=PICTURE), [first])
    np.testing.assert_allclose(label.value, truth / np.linalg.norm(truth, axis=-1, keepdims=True), atol=1e-5)

    kind = {"kind": "grid", "value": {"type": "label", "classes": ["wall", "tree"]}}
    (label,) = asked(teacher_of(kind, pooled, "image-classification", **names), [first])
    mean = truth.mean((0, 1))
    best = int(mean.argmax())
    assert label is None if best == 2 else label.value == names["labels"][best]

    vector = {"kind": "grid", "grid": [4], "value": {"type": "vector", "channels": 3}, "tokenizer": {"model": "mlp"}}
    (label,) = asked(teacher_of(vector, pooled, "image-feature-extraction", picture=PICTURE), [first])
    np.testing.assert_allclose(label.value, mean, atol=1e-5)


def test_what_does_not_fit(tmp_path: Path) -> None:
    path, entry = model(tmp_path / "m.onnx"), grid(type="map", channels=3, range=[-20, 20])
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    for model_path, task, more, message in (
        (path, "map-estimation", {}, "the key derive.picture is missing"),
        (path, "painting", {"picture": PICTURE}, "found the task 'painting' for values of type 'map'; expected one of depth-estimation"),
        (path, "map-estimation", {"picture": PICTURE, "options": {"output": "q"}}, "the outputs .'y'.; expected one input of pictures"),
        (str(wrong), "map-estimation", {"picture": PICTURE}, "cannot be opened as a model in the ONNX format"),
        (str(tmp_path / "none.onnx"), "map-estimation", {"picture": PICTURE}, "no such file; expected a model in the ONNX format"),
    ):  # fmt: skip
        with pytest.raises(MaskweaveError, match=message):
            teacher_of(entry, model_path, task, **more)
    flat = teacher_of(entry, model(tmp_path / "flat.onnx", pooled=True), "map-estimation", picture=PICTURE)
    with pytest.raises(MaskweaveError, match=r"output 'z' has the shape \(3,\) for each picture; expected 3 axes"):
        asked(flat, squares())
