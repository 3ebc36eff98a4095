"""What each value type makes of the same few values, in numbers, as in `values.json`: checked, moved, varied, as a network sees them, encoded, scored,
merged and drawn.

If it changes on purpose, `python tests/values/test_golden_values.py` writes it. Numbers may differ by a rounding; pictures by some pixels of letters.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
from small_bundle import scenes  # noqa: E402
from value_helpers import value_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402
from maskweave.modality.vocabulary import Vocabulary  # noqa: E402
from maskweave.tokenizers.text import TextTokenizer  # noqa: E402
from maskweave.values.base import ValueType  # noqa: E402
from maskweave.values.geometry import Geometry  # noqa: E402
from maskweave.values.metadata import Key  # noqa: E402
from maskweave.values.variation import Variation  # noqa: E402

STORED = Path(__file__).with_name("values.json")
MOVES = {
    "crop": Geometry((0.25, 0.0, 0.75, 0.5)),
    "flip": Geometry(flip=True),
    "both": Geometry((0.1, 0.2, 1.0, 0.9), flip=True),
}
VARIATIONS = {
    "colors": Variation(1.2, 0.8, 0.5),
    "noise": Variation(noise=0.1, seed=(3,)),
    "shift": Variation(shift=0.25),
}
BOX = {"class": "a", "box": [0.1, 0.2, 0.8, 0.9]}
SOLID = {"class": "a", "center": [0.3, 0.2, 4.0], "size": [2.0, 1.0, 1.5], "yaw": 0.4}
CAMERA = {"focal": [1.0, 1.2], "center": [0.5, 0.45], "pitch": 0.1, "roll": -0.05}


def dense(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0, unknown: bool = False) -> list[np.ndarray]:
    """Three smooth values with some noise."""
    rng = np.random.default_rng(seed)
    grid = np.add.outer(np.linspace(0, 1, shape[0]), np.linspace(0, 1, int(np.prod(shape[1:])))).reshape(shape) / 2
    found = [
        (low + (high - low) * np.clip(grid * (0.5 + n / 4) + 0.1 * rng.random(shape), 0, 1)).astype(np.float32)
        for n in range(3)
    ]
    if unknown:
        found[1][0] = np.nan
    return found


def masks() -> list[np.ndarray]:
    return [np.add.outer(np.arange(8), np.arange(8)) > n for n in (5, 7, 9)]


CASES: dict[str, tuple[Callable[[], ValueType], Callable[[], list[Any]]]] = {
    "image": (lambda: value_of("image", size=(12, 16), channels=3), lambda: [(x * 255).astype(np.uint8) for x in dense(12, 16, 3)]),
    "gray image": (lambda: value_of("image", size=(12, 12), channels=1), lambda: [(x * 255).astype(np.uint8) for x in dense(12, 12, 1)]),
    "map": (lambda: value_of("map", size=(8, 8), range=(0, 10), unit="m"), lambda: dense(8, 8, high=9)),
    "map with unknown points": (lambda: value_of("map", size=(8, 8), range=(0, 10), unit="m", missing=("nan",)), lambda: dense(8, 8, high=9, unknown=True)),
    "map of channels": (lambda: value_of("map", size=(8, 8), channels=4, range=(-9, 9)), lambda: dense(8, 8, 4, low=-8, high=8)),
    "spectrum": (lambda: value_of("map", size=(32,), range=(0, 1), unit="$/m"), lambda: [x.ravel() for x in dense(32, 1)]),
    "relative map": (lambda: value_of("map", size=(8, 8), trim_quantile=0.1), lambda: dense(8, 8, high=50)),
    "logarithmic map": (lambda: value_of("map", size=(8, 8), range=(0.1, 100), scale="log"), lambda: dense(8, 8, low=0.2, high=90)),
    "direction": (lambda: value_of("direction", size=(8, 8), channels=3), lambda: [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in dense(8, 8, 3, low=0.1)]),
    "classes": (lambda: value_of("classes", size=(8, 8), classes=("a", "b", "c")), lambda: [(x * 2.9).astype(np.uint8) for x in dense(8, 8)]),
    "binary": (lambda: value_of("binary", size=(8, 8)), masks),
    "vector": (lambda: value_of("vector", channels=6), lambda: [x.ravel() for x in dense(6, 1, low=-2, high=2)]),
    "vectors": (lambda: value_of("vectors", channels=4), lambda: dense(5, 4, low=-1)),
    "features": (lambda: value_of("features", size=(4, 4), channels=6), lambda: dense(4, 4, 6, low=-1)),
    "series": (lambda: value_of("series", size=(16,), channels=2, mean=(0.5, 0.5), std=(0.25, 0.5), rate=8.0), lambda: dense(16, 2)),
    "scalar": (lambda: value_of("scalar", range=(0, 10), unit="kg"), lambda: [1.5, 4.25, 9.0]),
    "label": (lambda: value_of("label", classes=("cat", "dog", "bird")), lambda: ["dog", "cat", "dog"]),
    "tags": (lambda: value_of("tags", classes=("red", "green", "blue")), lambda: [["red"], ["red", "blue"], []]),
    "text": (lambda: value_of("text"), lambda: ["a red cube", "two red spheres", "a blue cube"]),
    "boxes": (lambda: value_of("boxes", classes=("a", "b")), lambda: [[BOX], [BOX, {"class": "b", "box": [0.5, 0.1, 0.9, 0.4]}], []]),
    "boxes3d": (lambda: value_of("boxes3d", classes=("a", "b")), lambda: [{"camera": CAMERA, "boxes": [SOLID]}, {"camera": CAMERA, "boxes": [{**SOLID, "yaw": 0.5}]}]),
    "palette": (lambda: value_of("palette"), lambda: [[[255, 0, 0], [0, 0, 255]], [[250, 10, 0]], [[9, 8, 7], [1, 2, 3], [90, 80, 70]]]),
    "metadata": (
        lambda: value_of("metadata", keys={"height": Key(0, (0, 5), unit="m"), "count": Key(1, (0, 3), bins=4, integer=True)}),
        lambda: [{"height": 1.5, "count": 2}, {"height": 4.0, "count": 0}, {"height": 2.0}],
    ),
    "instances": (lambda: value_of("instances", size=(8, 8), classes=("a", "b")), lambda: [[{"class": "b", "mask": m}] for m in masks()]),
    "poses": (lambda: value_of("poses"), lambda: [[{"box": [0.1, 0.2, 0.8, 0.9]}], [{"box": [0.5, 0.5, 0.9, 1.0]}, {"box": [0.0, 0.1, 0.3, 0.6]}]]),
    "queries": (lambda: value_of("queries", size=(8, 8)), lambda: [[{"point": [0.5, 0.5], "instances": [{"box": [0.1, 0.2, 0.8, 0.9]}]}, {"point": [0.1, 0.9], "instances": []}]]),
}  # fmt: skip


@functools.cache
def text() -> TextTokenizer:
    vocabulary = Vocabulary(
        "text", 4000, sentinels=10, values={f"v{n}": 1000 if n < 3 else 64 for n in range(4)}, words=("a", "b")
    )
    return TextTokenizer.train(vocabulary, [sample["caption"] for sample in scenes(8)])


def told(value: Any) -> Any:
    """A value in a few plain numbers: an array as its shape, mean, weighted mean and share of unknown numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.ndarray) and value.size:
        numbers = value.astype(np.float64).ravel()
        known = np.isfinite(numbers)
        weights = np.linspace(1, 2, len(numbers))[known]
        kept = numbers[known]
        means = [kept.mean(), (kept * weights).sum() / weights.sum()] if len(kept) else []
        return [f"{value.dtype} {value.shape}", *(round(float(x), 5) for x in means), round(float(1 - known.mean()), 4)]
    if isinstance(value, dict):
        return {str(key): told(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return value if value is None or isinstance(value, str) else re.sub(r" at 0x\w+", "", repr(value))[:200]


def attempt(work: Callable[[], Any]) -> Any:
    """What a method returns; of one that a type does not have, the kind of its error."""
    try:
        return told(work())
    except MaskweaveError as error:
        return f"refused: {str(error)[:120]}"
    except (NotImplementedError, AttributeError, TypeError, AssertionError, ValueError, KeyError) as error:
        return type(error).__name__


def facts(v: ValueType, values: list[Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    checked = [v.check(value, "here") for value in values]
    first, last = checked[0], checked[-1]
    for name in ("describe", "describe_range", "natural_size"):
        yield name, getattr(v, name, lambda: None)
    for name in ("unit", "channels", "num_classes", "input_channels", "output_channels", "aspect", "endings", "labels", "number_scale", "rule_tokens", "has_unknown", "is_picture", "row_dtype", "written_words"):  # fmt: skip
        yield name, lambda name=name: getattr(v, name)
    yield "checked", lambda: checked
    yield "extent", lambda: v.extent(first)
    yield "known", lambda: [v.known(value) for value in checked]
    yield "ending", lambda: v.write(first)[1]
    yield "read again", lambda: v.parse(*v.write(first), "here")
    for name, move in MOVES.items():
        yield f"moved: {name}", lambda move=move: v.transform(first, move)
        yield f"fitted: {name}", lambda move=move: v.fit_sizes(v.transform(first, move), "here")
    for name, variation in VARIATIONS.items():
        yield f"varied: {name}", lambda variation=variation: v.vary(first, variation)
    yield "network", lambda: v.to_network(checked)
    yield "from network", lambda: v.from_network(v.to_network(checked))
    yield "rows", lambda: v.normalize_rows(np.arange(12, dtype=np.float32).reshape(3, 4))
    yield "span", lambda: v.span(checked)  # type: ignore[attr-defined]
    yield "merged", lambda: v.merge(checked, 0.5)
    yield "spread", lambda: v.spread(checked)
    yield "blended", lambda: v.from_blend((v.to_blend(first) + v.to_blend(last)) / 2)
    for name, metric in v.metrics(lambda words: words.split()).items():
        yield f"metric {name}", lambda metric=metric: [
            metric.name, metric.better, metric.statistics(first, last), metric.statistics(first, first), metric.score(checked, checked[::-1]),
            metric.best_constant(checked), metric.score([metric.best_constant(checked)] * len(checked), checked), metric.names,
        ]  # fmt: skip
    yield "codec", lambda: [v.codec("here", 99, text()).encode(value) for value in checked]
    yield (
        "decoded",
        lambda: [v.codec("here", 99, text()).decode(v.codec("here", 99, text()).encode(value)) for value in checked],
    )
    yield "drawn", lambda: v.draw(first, (60, 90), None, None, None)  # type: ignore[attr-defined]
    yield "drawn over a picture", lambda: v.draw(last, (60, 90), np.full((8, 8, 3), 200, np.uint8), (0.0, 5.0), first)  # type: ignore[attr-defined]
    yield "legend", lambda: v.legend(None, checked, 300)  # type: ignore[attr-defined]
    yield "playable", lambda: v.playable(first)  # type: ignore[attr-defined]


def found(name: str) -> dict[str, Any]:
    make, values = CASES[name]
    return {what: attempt(work) for what, work in facts(make(), values())}


LOOSE = {"drawn": 4.0, "drawn over a picture": 4.0, "legend": 8.0}
"""Differences of the mean brightness of pictures with letters, of which each version of the library draws others."""


def assert_close(found: Any, stored: Any, where: str, tolerance: float) -> None:
    if isinstance(stored, dict):
        assert isinstance(found, dict) and found.keys() == stored.keys(), where
        for key in stored:
            assert_close(found[key], stored[key], f"{where}: {key}", LOOSE.get(key, tolerance))
    elif isinstance(stored, list):
        assert isinstance(found, list) and len(found) == len(stored), where
        for i, one in enumerate(stored):
            assert_close(found[i], one, f"{where} [{i}]", tolerance)
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, rel=1e-4, abs=tolerance, nan_ok=True), where
    else:
        assert found == stored, f"{where}; on purpose: python tests/values/test_golden_values.py"


@functools.cache
def stored() -> dict[str, Any]:
    return dict(json.loads(STORED.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", CASES)
def test_values_are_what_is_stored(name: str) -> None:
    assert_close(found(name), stored()[name], name, 3e-5)


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(what)}: {json.dumps(fact, ensure_ascii=False)}" for what, fact in found(name).items()) + "\n}" for name in CASES]  # fmt: skip
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
