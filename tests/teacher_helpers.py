"""Entries and pictures for the tests of teachers, and small data sets of photographs."""

from functools import cache
from typing import Any

import numpy as np

from maskweave.label.teachers.base import TaskTeacher
from maskweave.label.teachers.opening import open_teacher
from maskweave.modality.catalogs import Catalog, catalog_from

CLASSES = {0: "wall", 1: "tree", 2: "N/A"}
"""Classes of the small networks, by id."""


@cache
def photographs() -> list[np.ndarray]:
    """Three small photographs of scikit-image, of two shapes."""
    from skimage import data

    return [np.ascontiguousarray(p[::8, ::8]) for p in (data.astronaut(), data.coffee(), data.coffee()[:, ::-1])]


def entries(**more: dict[str, Any]) -> Catalog:
    """A catalog with pictures, text, and more entries, numbered from 10."""
    vocabulary = {"size": 600, "sentinels": 4, "values": {"v0": 64, "v1": 256}, "words": ["wall", "tree", "object"]}
    rgb = {"id": 1, "kind": "patches", "grid": [4, 4], "value": {"type": "image", "size": [32, 32], "channels": 3}}
    text = {"id": 2, "kind": "sequence", "vocabulary": "text", "max_tokens": 64, "value": {"type": "text"}}
    numbered = {name: {"id": n, **entry} for n, (name, entry) in enumerate(more.items(), 10)}
    return catalog_from(
        {"vocabularies": {"text": vocabulary}, "modalities": {"rgb": rgb, "words": text, **numbered}}, "test"
    )


def grid(**value: Any) -> dict[str, Any]:
    return {"kind": "grid", "grid": [4, 4], "value": {"size": [32, 32], "fit": "crop", **value}}


def sequence(**value: Any) -> dict[str, Any]:
    chunk = {"boxes": 5, "instances": 13}.get(value["type"], 1)
    return {"kind": "sequence", "vocabulary": "text", "max_tokens": 200, "chunk": chunk, "value": value}


def teacher_of(entry: dict[str, Any], model: str, task: str, source: str = "rgb", **derive: Any) -> TaskTeacher:
    """Opens the teacher of an entry named `label`."""
    derive = {"from": source, "by": "teacher", "model": model, "task": task, **derive}
    catalog = entries(label={**entry, "derive": derive})
    return open_teacher(catalog, catalog["label"], "cpu")


def asked(teacher: TaskTeacher, values: list[Any], source: str = "rgb") -> list[Any]:
    """The labels of values."""
    return list(teacher([{source: value} for value in values]))
