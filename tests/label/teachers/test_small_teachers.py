"""Filters by confidence, class tables, functions as teachers, normals and agreement at their limits."""

import sys
import types
from typing import Any

import numpy as np
import pytest
from teacher_helpers import entries, grid

from maskweave.errors import BadSample, MaskweaveError
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.classes import ClassTable
from maskweave.label.teachers.confidence import confident
from maskweave.label.teachers.function import FunctionTeacher
from maskweave.label.teachers.normals import normals_of
from maskweave.label.teachers.opening import TASKS, open_teacher
from maskweave.modality.derivation import Confidence, TeacherDerivation

DEPTH = grid(type="map", range=[0, 100], missing="nan")
entry = entries(label=DEPTH)["label"]


def test_items_of_lists_are_dropped_one_by_one() -> None:
    label = TeacherLabel(["a", "b", "c"], [0.49, 0.5, 0.9])
    assert confident(label, Confidence(drop_below=0.5), entry) == ["b", "c"]
    assert confident(label, Confidence(drop_below=1.0), entry) == []
    assert confident(TeacherLabel(["a"], [0.0]), Confidence(), entry) == ["a"]
    with pytest.raises(MaskweaveError, match="unknown_below is for dense labels; use drop_below"):
        confident(label, Confidence(unknown_below=0.5), entry)
    with pytest.raises(MaskweaveError, match="its teacher does not tell how sure it is"):
        confident(TeacherLabel("a"), Confidence(drop_below=0.5), entry)


def test_other_labels_are_dropped_as_a_whole() -> None:
    assert confident(TeacherLabel("a", 0.5), Confidence(drop_below=0.5), entry) == "a"
    assert confident(TeacherLabel("a", 0.49), Confidence(drop_below=0.5), entry) is None
    assert confident(TeacherLabel("a", np.array([[0.2, 0.6]])), Confidence(drop_below=0.5), entry) is None


def test_points_become_unknown() -> None:
    value = np.ones((8, 8), np.float32)
    sure = np.full((4, 4), 0.6)
    sure[0, 1] = 0.5
    found = confident(TeacherLabel(value, sure), Confidence(unknown_below=0.6), entry)
    assert np.isnan(found[:2, 2:4]).all() and np.isnan(found).sum() == 4
    assert confident(TeacherLabel(value, sure), Confidence(unknown_below=0.7), entry) is None, "nothing is left"
    with pytest.raises(MaskweaveError, match="needs the confidence of each point"):
        confident(TeacherLabel(value, 0.9), Confidence(unknown_below=0.6), entry)


def table(names: dict[int, str], own: list[str], translated: dict[str, str] | None = None, **value: Any) -> ClassTable:
    label = entries(label=grid(type="classes", classes=own, **value))["label"]
    return ClassTable(
        names,
        TeacherDerivation("one", model="a/b", task="semantic-segmentation", classes=translated or {}),
        label,
        "here",
    )


def test_classes_by_the_ids_of_a_teacher() -> None:
    found = table(
        {0: " cat", 2: "dog ", 3: "bus", 5: "car"},
        ["car", "cat", "hound"],
        {"dog": "hound", "fox": "cat"},
        ignore=255,
    )
    assert [found.name(n) for n in (-1, 0, 1, 2, 3, 4, 5, 6)] == [None, "cat", None, "hound", None, None, "car", None]
    assert found.map(np.array([[-1, 0, 1, 2], [3, 5, 6, 99]])).tolist() == [[-1, 1, -1, 2], [-1, 0, -1, -1]]
    assert found.notes == [
        "classes that the entry lacks are left out: bus",
        "derive.classes translates fox, which the teacher lacks",
    ]


def test_many_classes_that_are_left_out_are_cut() -> None:
    names = {0: "a", **{n: f"c{n:02}" for n in range(1, 10)}}
    found = table(names, ["a"], ignore=255)
    assert found.notes == [
        "classes that the entry lacks are left out: c01, c02, c03, c04, c05, c06, c07, c08, … 1 more"
    ]
    names.pop(9)
    assert table(names, ["a"], ignore=255).notes[0].endswith("c07, c08")


@pytest.mark.parametrize(
    ("names", "translated", "message"),
    [
        ({0: "b", 1: "c"}, {}, r"none of the teacher's classes \(b, c\) is one of the entry's \(a\)"),
        (
            {0: "a"},
            {"a": "z"},
            "derive.classes translates to z, which the entry lacks; expected some of a",
        ),
        ({0: "a", 1: "c"}, {}, "the entry lacks the teacher's classes c; translate them"),
    ],
)
def test_classes_that_do_not_fit(names: dict[int, str], translated: dict[str, str], message: str) -> None:
    with pytest.raises(MaskweaveError, match=f"here: {message}"):
        table(names, ["a"], translated)


def function(name: str, **settings: Any) -> FunctionTeacher:
    return FunctionTeacher(TeacherDerivation("one", model=f"python: {name}", **settings), entry)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("own_module")
    module.number = 3
    module.plain = lambda values, by=1: [value * by for value in values]
    module.odd = lambda values: [None, BadSample("no"), TeacherLabel(5, 0.5), 7][: len(values)]
    module.wrong = lambda values: 3
    monkeypatch.setitem(sys.modules, "own_module", module)
    return module


def test_functions_are_teachers(own: Any) -> None:
    assert [label.value for label in function("own_module:plain", options={"by": 3})([{"one": 2}, {"one": 5}])] == [
        6,
        15,
    ]
    none, bad, sure, plain = function("own_module:odd")([{"one": n} for n in range(4)])
    assert none is None and isinstance(bad, BadSample) and sure == TeacherLabel(5, 0.5) and plain == TeacherLabel(7)
    assert function("own_module:plain").provenance == {
        "model": "python: own_module:plain",
        "revision": "unknown",
        "license": "unknown",
    }
    assert function("own_module:plain", license="mit").provenance["license"] == "mit"
    assert (
        function("json:dumps").provenance["revision"].startswith("sha256:")
        and len(function("json:dumps").provenance["revision"]) == 23
    )
    assert function("numpy:array").provenance["revision"] == f"numpy {np.__version__}"


def test_values_with_their_boxes_are_pairs(own: Any) -> None:
    own.pairs = lambda values: [f"{a}{b}" for a, b in values]
    assert function("own_module:pairs", boxes="two")([{"one": 1, "two": 2}])[0] == TeacherLabel("12")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own_module", {}, "expected python: package.module:function"),
        (":plain", {}, "expected python: package.module:function"),
        ("own_module:", {}, "expected python: package.module:function"),
        ("not_there.at_all:x", {}, "module not_there.at_all cannot be imported"),
        ("own_module:missing", {}, "module own_module has no function or class missing"),
        ("own_module:number", {}, "module own_module has no function or class number"),
        ("own_module:plain", {"other": 1}, "cannot be called with derive.options"),
    ],
)
def test_functions_that_cannot_be_called(name: str, options: dict[str, Any], message: str, own: Any) -> None:
    with pytest.raises(MaskweaveError, match=message):
        function(name, options=options)


def test_labels_that_are_no_list(own: Any) -> None:
    with pytest.raises(MaskweaveError, match="returned int; expected a list with one label for each value"):
        function("own_module:wrong")([{"one": 1}])


def opened(label: dict[str, Any], **derive: Any) -> Any:
    catalog = entries(one=DEPTH, other=DEPTH, label={**label, "derive": {"from": "one", **derive}})
    return open_teacher(catalog, catalog["label"])


def test_what_is_opened() -> None:
    with pytest.raises(
        MaskweaveError, match=r"'label': its teacher is code, python: a:b, which runs only if you allow it"
    ):
        opened(DEPTH, by="teacher", model="python: a:b")
    with pytest.raises(
        MaskweaveError, match="'label': unknown derive.task 'magic'; expected one of depth-estimation, "
    ):
        opened(DEPTH, by="teacher", model="owner/name", task="magic")
    assert {task: cls.__name__ for task, cls in TASKS.items()} == {
        "depth-estimation": "DepthTeacher", "semantic-segmentation": "SemanticTeacher", "panoptic-segmentation": "PanopticTeacher",
        "object-detection": "DetectionTeacher", "instance-segmentation": "InstanceTeacher", "mask-generation": "MaskTeacher",
        "pose-estimation": "PoseTeacher", "image-to-text": "CaptionTeacher", "text-embedding": "TextEmbeddingTeacher",
        "image-feature-extraction": "EmbeddingTeacher", "automatic-speech-recognition": "SpeechTeacher",
        "audio-feature-extraction": "SoundEmbeddingTeacher",
    }  # fmt: skip


NORMALS = grid(type="direction", channels=3, missing="nan")


def test_depth_of_0_and_below_is_unknown() -> None:
    depth = np.full((6, 6), 3, np.float32)
    depth[0, 0], depth[5, 5] = 0, -1
    (found,) = opened(NORMALS, by="normals")([{"one": depth}])
    assert (
        np.isnan(found.value[0, 0]).all()
        and np.isnan(found.value[5, 4]).all()
        and not np.isnan(found.value[3, 3]).any()
    )
    for refused in (np.zeros((6, 6)), np.ones((1, 6)), np.full((6, 6), np.nan)):
        (bad,) = opened(NORMALS, by="normals")([{"one": refused}])
        assert isinstance(bad, BadSample) and "without any above 0; expected 2×2 or more" in str(bad)
    (least,) = opened(NORMALS, by="normals")([{"one": np.ones((2, 2))}])
    assert np.allclose(least.value, (0, 0, 1), atol=1e-6)
    assert opened(NORMALS, by="normals", field_of_view=70).provenance == {"field_of_view": 70.0}


@pytest.mark.parametrize("size", [(20, 30), (30, 20)])
def test_the_field_of_view_is_along_the_longer_side(size: tuple[int, int]) -> None:
    """A plane that falls towards the viewer, 45 degrees, seen with 90 degrees: the focal length is half of the longer side, 15."""
    y = -(np.arange(size[0])[:, None] + 0.5 - size[0] / 2) / 15
    depth = np.broadcast_to(1 / (1 + y), size)  # points (x, y z, −z) with y z + z = 1
    expected = np.array([0, 1, -1]) / -np.sqrt(2)
    assert np.allclose(normals_of(depth, 90)[5:9, 5:15], expected, atol=1e-4)


def test_agreement_of_maps_without_spread_or_known_points() -> None:
    weight = grid(type="map", range=[0, 1])
    for align in (False, True):
        teacher = opened(weight, by="agreement", align=align, **{"with": "other"})
        assert teacher.provenance == {"with": "other", "align": align}
        unknown = np.full((1, 3), np.nan, np.float32)
        assert teacher([{"one": unknown, "other": unknown}])[0].value.tolist() == [[0, 0, 0]]
        flat = np.full((1, 3), 2, np.float32)
        assert teacher([{"one": flat, "other": flat}])[0].value.tolist() == [[1, 1, 1]]
        found = teacher([{"one": flat, "other": flat + 1}])[0].value
        assert found.max() < 1e-6 if not align else (found == 1).all(), "a flat map is aligned by its mean"
    teacher = opened(weight, by="agreement", align=True, **{"with": "other"})
    one = np.array([[1, np.nan, np.nan]], np.float32)
    assert teacher([{"one": one, "other": one + 1}])[0].value.max() < 1e-6, "one point aligns nothing"
