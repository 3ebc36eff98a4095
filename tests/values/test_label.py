"""Labels: files and names that hold them, exact tokens, probabilities, scores and figures."""

import numpy as np
import pytest
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.distribution import ClassDistribution
from maskweave.values.files import write_npy
from maskweave.values.label import Label

VALUE = Label(classes=("red", "green", "blue"))


def test_all_files_hold_the_same_class() -> None:
    value = Label(classes=VALUE.classes, key="kind")
    contents = {
        "txt": [b"green\n", b" green", b"1"],
        "json": [b'"green"', b"1", b'{"kind": "green", "n": 3}'],
        "csv": [b"green", b"kind,n\ngreen,3\n"],
        "npy": [write_npy(np.array(1)), write_npy(np.array([1], np.uint8))],
    }
    assert set(contents) <= set(value.endings)
    for ending, variants in contents.items():
        for content in variants:
            assert value.read(content, ending, "here") == "green"
    for one in (value, VALUE):
        content, ending = one.to_file("blue", "here")
        assert one.read(content, ending, "again") == "blue"
    for ending, missing in (
        ("json", b"null"),
        ("json", b'{"n": 3}'),
        ("txt", b""),
        ("csv", b"na"),
        ("csv", b"kind,n\n,3"),
    ):
        assert value.read(missing, ending, "here") is None
    assert Label(classes=("none", "one")).read(b"none", "txt", "here") == "none"


def test_numbers_may_be_names() -> None:
    digits = Label(classes=("7", "8", "9"))
    assert digits.read(b"8", "txt", "here") == "8" and digits.read(b"9", "json", "here") == "9"
    for unknown in (b"3", b"2", b"0"):  # never an index, not even one below the number of classes
        with pytest.raises(
            BadSample, match=f"here: found '{unknown.decode()}'; .* one of the entry's 3 classes: 7, 8, 9"
        ):
            digits.read(unknown, "json", "here")
    with pytest.raises(BadSample, match="found '2'"):
        digits.check(2, "here")


@pytest.mark.parametrize("given", ["Red", "", 3, -1, 1.0, True, None, ["red"]])
def test_other_values_are_refused(given) -> None:
    with pytest.raises(BadSample, match="expected one of the entry's 3 classes: red, green, blue"):
        VALUE.check(given, "here")


def test_python_forms() -> None:
    for given in ("green", 1, np.int64(1), np.array(1), torch.tensor([1])):
        assert VALUE.check(VALUE.from_python(given, "here"), "here") == "green"
    assert (VALUE.typed("blue"), VALUE.typed("blue.txt")) == ("blue", None)


def test_names_tell_the_class() -> None:
    folder, speaker = (Label(classes=("a", "b"), name_pattern=p) for p in (r"^([^/]+)/", r"_([ab])_"))
    assert folder.is_in_name and not VALUE.is_in_name
    assert folder.in_name("a/b/001") == "a" and speaker.in_name("take_b_01") == "b"
    with pytest.raises(BadSample, match=r"name '001': found no match; expected value.name_pattern '\^"):
        folder.in_name("001")
    with pytest.raises(BadSample, match="name 'c/001': found 'c'; expected one of the entry's 2 classes"):
        folder.in_name("c/001")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "value.classes is missing"),
        ({"classes": ("a", "a")}, "value.classes has 'a' twice"),
        ({"classes": ("a",), "name_pattern": "("}, "value.name_pattern is not a regular expression"),
        ({"classes": ("a",), "name_pattern": "a/"}, "value.name_pattern needs a group in parentheses"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(MaskweaveError, match=said):
        Label(**settings).check_settings("grid")


def test_tokens_are_exact() -> None:
    rules = VALUE.rules(VALUE.fit_rules(["red"]))
    ids = rules.encode(["blue", "red", "green"])
    assert ids.tolist() == [[2], [0], [1]] and rules.decode(ids) == ["blue", "red", "green"]
    assert rules.embeddings().shape == (3, 64) and VALUE.target_smoothing is None
    with pytest.raises(MaskweaveError, match="expected the entry's classes, found"):
        VALUE.rules({"classes": ["red", "blue"]})


def test_probabilities_by_class() -> None:
    found = VALUE.rules(VALUE.fit_rules([])).distribution(np.array([[0.1, 0.7, 0.2]]))
    assert dict(found) == {"red": 0.1, "green": 0.7, "blue": 0.2} and found.value == "green" and len(found) == 3
    mixed = ClassDistribution.mixture([found, ClassDistribution(VALUE.classes, np.array([0, 0, 1.0]))])
    assert mixed["blue"] == pytest.approx(0.6) and mixed.value == "blue"
    assert found.to_plain() == {"value": "green", "probabilities": {"red": 0.1, "green": 0.7, "blue": 0.2}}


def test_scores() -> None:
    metrics = VALUE.metrics()
    truth = ["red", "red", "red", "green"]
    found = ["red", "red", ClassDistribution(VALUE.classes, np.array([0.2, 0.8, 0])), "green"]
    assert metrics["accuracy"].score(found, truth) == 0.75
    scores = metrics["macro_f1"].scores(found, truth)
    assert scores["F1 red"] == pytest.approx(0.8) and scores["F1 green"] == pytest.approx(2 / 3)
    assert np.isnan(scores["F1 blue"]) and scores["macro F1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics["accuracy"].best_constant(truth) == "red"
    assert VALUE.merge(["blue", "green", "green", "blue"], 0.5) == "green", "the first of equally frequent ones"


def test_figures() -> None:
    found = ClassDistribution(VALUE.classes, np.array([0.1, 0.7, 0.2]))
    for figure in (VALUE.draw("red", (64, 96)), VALUE.draw(found, (64, 96))):
        assert figure.shape == (64, 96, 3) and figure.dtype == np.uint8 and figure.std() > 5
