"""Tags: files that hold sets of classes, exact tokens, probabilities, scores, figures, and the head that learns them."""

import json

import numpy as np
import pytest
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.distribution import TagDistribution
from maskweave.values.files import write_npy
from maskweave.values.tags import Tags

VALUE = Tags(classes=("forest", "water", "city, old"))


def test_all_files_hold_the_same_set() -> None:
    contents = {
        "json": [
            b'["city, old", "forest"]',
            b"[2, 0]",
            b'{"forest": true, "water": false, "city, old": true}',
        ],
        "txt": [b"forest\ncity, old\n", b'forest, "city, old"'],
        "csv": [b'forest,"city, old"\n'],
        "npy": [write_npy(np.array([1, 0, 1])), write_npy(np.array([True, False, True]))],
    }
    assert set(contents) <= set(VALUE.endings)
    for ending, variants in contents.items():
        for content in variants:
            assert VALUE.read(content, ending, "here") == ["forest", "city, old"], content
    content, ending = VALUE.to_file({"water", "forest"}, "here")
    assert VALUE.read(content, ending, "again") == ["forest", "water"]
    keyed = Tags(classes=VALUE.classes, key="land")
    assert json.loads(keyed.write(["water"])[0]) == {"land": ["water"]}
    assert keyed.read(b'{"land": [], "n": 1}', "json", "here") == []
    assert keyed.read(b'{"n": 1}', "json", "here") is None is VALUE.read(b"null", "json", "here")
    assert VALUE.read(b"city, old", "txt", "here") == ["city, old"], "a name with a comma on a line of its own"


@pytest.mark.parametrize(
    ("ending", "content", "said"),
    [
        ("json", b'["sea"]', "here: found 'sea'; expected one of the entry's 3 classes"),
        ("json", b'{"land": ["sea"], "n": 1}', "expected a list of names, or true or false for each class"),
        ("json", b'{"sea": true}', "found 'sea'; expected one of"),
        ("json", b"3", "found 3; expected a list of names"),
        ("txt", b"", r"found no names; expected names on lines .*; for no tags, write \[\] into a json file"),
        ("txt", b"forest; water", "found 'forest; water'; expected one of"),
        ("npy", write_npy(np.array([0, 2, 1])), "expected a list of names, or true or false for each class"),
        ("npy", write_npy(np.array([0, 1])), "expected a list of names, or true or false for each class"),
    ],
)
def test_other_contents_are_refused(ending: str, content: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        VALUE.read(content, ending, "here")


def test_python_forms() -> None:
    for given in ("forest, water", ["water", "forest"], ("forest", 1), {0, 1}, torch.tensor([1, 1, 0])):
        assert VALUE.check(VALUE.from_python(given, "here"), "here") == ["forest", "water"]
    assert (VALUE.typed("water"), VALUE.typed("tags.txt")) == (["water"], None)
    with pytest.raises(MaskweaveError, match="value.classes is missing"):
        Tags().check_settings("grid")


def test_tokens_are_exact() -> None:
    rules = VALUE.rules(VALUE.fit_rules([]))
    values = [[], ["water"], ["forest", "city, old"]]
    ids = rules.encode(values)
    assert ids.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 1]] and rules.decode(ids) == values
    assert rules.encode([]).shape == (0, 3) and VALUE.rule_tokens == (3, 2) and rules.embeddings().shape == (2, 16)
    found = rules.distribution(np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]))
    assert dict(found) == pytest.approx({"forest": 0.8, "water": 0.5, "city, old": 0.1})
    assert found.value == ["forest", "water"]
    with pytest.raises(MaskweaveError, match="expected the entry's classes, found"):
        VALUE.rules({"classes": ["forest"]})


def test_f1_of_sets() -> None:
    metrics = VALUE.metrics()
    truth, found = [["forest"], ["forest", "water"], []], [["forest", "water"], ["forest"], []]
    assert metrics["micro_f1"].score(found, truth) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    scores = metrics["macro_f1"].scores(found, truth)
    assert scores["F1 forest"] == 1 and scores["F1 water"] == 0 and np.isnan(scores["F1 city, old"])
    assert scores["macro F1"] == 0.5 and np.isnan(metrics["map"].score(found, truth))
    assert metrics["micro_f1"].best_constant(truth) == ["forest"]
    assert VALUE.merge([["forest"], ["forest", "water"], []], 0.5) == ["forest"]


def test_average_precision_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth = rng.random((300, 3)) < (0.5, 0.1, 0.02)
    p = 1 / (1 + np.exp(-(rng.normal(size=(300, 3)) * 2 + 2 * truth)))
    names = [[name for name, flag in zip(VALUE.classes, row, strict=True) if flag] for row in truth]
    found = VALUE.metrics()["map"].score([TagDistribution(VALUE.classes, row) for row in p], names)
    wanted = np.mean([metrics.average_precision_score(truth[:, k], p[:, k]) for k in range(3)])
    assert found == pytest.approx(wanted, abs=5e-3)
    constant = VALUE.metrics()["map"].best_constant(names)
    score = VALUE.metrics()["map"].score([constant] * 300, names)
    assert score == pytest.approx(truth.mean(axis=0).mean()), "the share of true samples"


def test_the_head_learns_each_tag() -> None:
    target = VALUE.to_network([["forest"], ["water", "city, old"]])
    assert target.tolist() == [[1, 0, 0], [0, 1, 1]] and target.dtype == torch.float32
    loss, metrics = VALUE.task_loss(torch.tensor([[2.0, -2, -2], [-2, 2, -2]]), target)
    wanted = torch.nn.functional.softplus(torch.tensor([-2.0] * 5 + [2.0])).mean()
    assert loss == pytest.approx(wanted.item()) and metrics["accuracy"] == pytest.approx(5 / 6)
    (answer,) = VALUE.answers(torch.tensor([[0.0, -3.0, 3.0]]))
    assert answer.value == ["forest", "city, old"] and answer["water"] == pytest.approx(1 / (1 + np.exp(3)))


def test_figures() -> None:
    found = TagDistribution(VALUE.classes, np.array([0.1, 0.7, 0.9]))
    for figure in (VALUE.draw(["forest"], (64, 96)), VALUE.draw([], (64, 96)), VALUE.draw(found, (64, 96))):
        assert figure.shape == (64, 96, 3) and figure.dtype == np.uint8 and figure.std() > 2
