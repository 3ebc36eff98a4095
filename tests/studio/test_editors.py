"""Editors: what widgets send becomes values, for every value type; wrong and hostile payloads give one clear message."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image as Picture

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.studio.editors import Upload, editors_of, paint_payload, read_payloads, write_payload
from maskweave.values.base import ValueType
from maskweave.values.binary import Binary
from maskweave.values.boxes import Boxes
from maskweave.values.classes import Classes
from maskweave.values.image import Image
from maskweave.values.label import Label
from maskweave.values.map import Map
from maskweave.values.metadata import Key, Metadata
from maskweave.values.palette import Palette
from maskweave.values.scalar import Scalar
from maskweave.values.tags import Tags
from maskweave.values.text import Text


def entry(value, kind: str = "grid") -> Modality:
    return Modality("seen", 1, kind, value)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def upload(folder: Path, name: str, content: bytes) -> Upload:
    path = folder / "stored-under-another-name"
    path.write_bytes(content)
    return Upload(path, name)


COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
BOX = {"class": "cat", "box": [0.1, 0.2, 0.5, 0.75]}
KEYS = {"height": Key(0, (0, 10)), "count": Key(1, (0, 4), integer=True)}

SHOWN = [
    (Text(), "text", "a red cube", "a red cube"),
    (Label(classes=("cat", "dog")), "choice", "dog", "dog"),
    (Tags(classes=("cat", "dog", "owl")), "choices", ["owl", "cat"], ["cat", "owl"]),
    (Scalar(range=(0, 5)), "number", 2, 2.0),
    (Boxes(classes=("cat", "dog")), "boxes", json.dumps([BOX]), [BOX]),
    (Palette(), "colors", "[[1, 2, 255]]", [[1, 2, 255]]),
    (Metadata(keys=KEYS), "sliders", '{"height": 2.5, "count": 3}', {"height": 2.5, "count": 3}),
]


@pytest.mark.parametrize(("value", "widget", "payload", "expected"), SHOWN, ids=lambda one: getattr(one, "type", ""))
def test_widgets_give_values_and_show_them_again(value, widget, payload, expected) -> None:
    editor = editors_of(value)[0]
    assert editor.widget == widget
    found = read_payloads(entry(value), {widget: payload})
    assert found == expected
    again = write_payload(editor, value, found)
    assert read_payloads(entry(value), {widget: again}) == expected


def test_class_maps_are_painted() -> None:
    ids = np.full((4, 6), 255, np.uint8)
    ids[1, 2:5] = 1
    plain, unknown = Classes(size=(4, 6), classes=("a", "b")), Classes(size=(4, 6), classes=("a", "b"), ignore=(255,))
    found = read_payloads(entry(plain), {"paint": paint_payload(ids)})
    assert found.shape == (4, 6) and found.sum() == 3 and found[1, 2:5].tolist() == [1, 1, 1]
    known = read_payloads(entry(unknown), {"paint": paint_payload(ids)})
    assert (known == -1).sum() == 21 and (known == 1).sum() == 3, "what is not painted is unknown if it may be"
    assert json.loads(write_payload(editors_of(unknown)[0], unknown, known)) == json.loads(paint_payload(ids))
    assert read_payloads(entry(plain), {"paint": paint_payload(np.full((4, 6), 255, np.uint8))}) is None
    lines = read_payloads(entry(Binary(size=(4, 6))), {"paint": paint_payload(ids)})
    assert lines.dtype == bool and lines.sum() == 3


def test_drawings_and_uploads_are_read_by_the_type(tmp_path) -> None:
    value = Image(size=(6, 8), channels=3)
    drawn = "data:image/png;base64," + base64.b64encode(png(COLORS)).decode()
    assert np.array_equal(read_payloads(entry(value), {"draw": drawn}), COLORS)
    found = read_payloads(entry(value), {"draw": drawn, "file": upload(tmp_path, "mine.PNG", png(255 - COLORS))})
    assert np.array_equal(found, 255 - COLORS), "a file comes first"
    depth = np.linspace(0, 3, 24, dtype=np.float32).reshape(4, 6)
    buffer = io.BytesIO()
    np.save(buffer, depth)
    deep = Map(size=(4, 6), range=(0, 16), unit="m")
    assert [editor.widget for editor in editors_of(deep)] == ["file"]
    assert np.array_equal(read_payloads(entry(deep), {"file": upload(tmp_path, "depth.npy", buffer.getvalue())}), depth)


@dataclass(frozen=True)
class Parcel(Label):
    """A type of another package, derived from one with an editor."""

    type: ClassVar[str] = "parcel"


@dataclass(frozen=True)
class Sealed(ValueType):
    """A type of another package without any editor."""

    type: ClassVar[str] = "sealed"
    python: ClassVar[str] = "dict"
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)

    def check_settings(self, kind: str) -> None: ...

    def check(self, value, where: str):
        if not isinstance(value, dict):
            raise BadSample(f"{where}: found no dict")
        return value

    def draw(self, value, size, over=None, span=None, reference=None): ...


def test_types_of_other_packages_have_editors(tmp_path) -> None:
    assert [editor.widget for editor in editors_of(Parcel(classes=("a",)))] == ["choice", "file"]
    assert [editor.widget for editor in editors_of(Sealed())] == ["file"]
    found = read_payloads(entry(Sealed()), {"file": upload(tmp_path, "x.json", b'{"a": 1}')})
    assert found == {"a": 1}


WRONG = [
    (Boxes(classes=("cat",)), "boxes", "[[", "expected JSON"),
    (Boxes(classes=("cat",)), "boxes", '[{"class": "dog", "box": [0, 0, 1, 1]}]', "dog"),
    (Boxes(classes=("cat",)), "boxes", "[" * 100_000, "expected JSON"),
    (Palette(), "colors", '{"a": 1}', "colors"),
    (Palette(), "colors", 7, "characters of JSON"),
    (Classes(size=(4, 6), classes=("a",)), "paint", '{"size": [4, 6], "ids": "AAAA"}', "3 ids for 4 × 6"),
    (Classes(size=(4, 6), classes=("a",)), "paint", '{"size": [4000000, 6], "ids": ""}', "1 to 512"),
    (Classes(size=(4, 6), classes=("a",)), "paint", '{"size": [1, 1], "ids": "!"}', "base64"),
    (Classes(size=(4, 6), classes=("a",)), "paint", paint_payload(np.full((4, 6), 9, np.uint8)), "class ids"),
    (Image(size=(6, 8), channels=3), "draw", "data:image/svg+xml;base64,AAAA", "expected a PNG"),
    (Image(size=(6, 8), channels=3), "draw", "data:image/png;base64,AAAA", "corrupt"),
    (Label(classes=("cat",)), "choice", ["cat"], "classes"),
    (Scalar(range=(0, 5)), "number", 9, "0 to 5"),
    (Scalar(), "number", {"a": 1}, "cannot have sent"),
    (Text(), "text", 5, "text"),
    (Metadata(keys=KEYS), "sliders", '{"nothing": 1}', "height"),
]


@pytest.mark.parametrize(("value", "widget", "payload", "said"), WRONG)
def test_wrong_payloads_give_one_message(value, widget, payload, said) -> None:
    with pytest.raises(MaskweaveError, match=said) as caught:
        read_payloads(entry(value), {widget: payload})
    assert len(str(caught.value)) < 600


def test_wrong_files_name_themselves_and_not_their_path(tmp_path) -> None:
    value = Image(size=(6, 8), channels=3)
    for name, content, said in (
        ("notes.txt", b"hello", "ends in 'txt'"),
        ("none", b"hello", "ends in ''"),
        ("broken.png", b"hello", "corrupt"),
        ("cut.png", png(COLORS)[:60], "corrupt"),
        ("empty.png", b"", "empty"),
    ):
        with pytest.raises(MaskweaveError, match=said) as caught:
            read_payloads(entry(value), {"picture": upload(tmp_path, name, content)})
        assert name in str(caught.value) and str(tmp_path) not in str(caught.value)
