"""Every entry of every shipped catalog, from a random value of its type to a file, tokens and a figure."""

from typing import Any

import numpy as np
import pytest
from value_helpers import network

from maskweave.data.transforms import apply, fit
from maskweave.modality.catalogs import Catalog, load_catalog, shipped
from maskweave.modality.entry import Modality, training_facts
from maskweave.report.figures import draw
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.geometry import Geometry
from maskweave.values.groups import Part

CATALOGS = {name: load_catalog(name) for name in shipped()}
ENTRIES = [
    pytest.param(c, m, id=f"{name}-{m.name}")
    for name, c in CATALOGS.items()
    for m in c.values()
    if not (name != "4m" and CATALOGS["4m"].modalities.get(m.name) == m)  # catalogs that include it
]


def box(rng: np.random.Generator) -> list[float]:
    a, b = np.sort(rng.random((2, 2)), axis=0)
    return [*a.tolist(), *b.tolist()]


def numbers(part: Part, rng: np.random.Generator) -> list[Any]:
    if part.range is None:
        return rng.integers(0, part.codes, part.count).tolist()
    return rng.uniform(*part.range, part.count).tolist()


def random_value(m: Modality, rng: np.random.Generator) -> Any:
    """A value of the entry's type and size."""
    v = m.value
    if m.kind == "vectors":
        return rng.normal(size=(min(5, m.max_tokens), v.channels)).astype(np.float32)
    parts = {name: numbers(part, rng) for name, part in getattr(v, "parts", {}).items()}
    match v.type:
        case "image":
            return rng.integers(0, 256, (*v.size, v.channels), np.uint8)
        case "map":
            return rng.uniform(*(v.range or (3, 90)), v.size).astype(np.float32)
        case "features" | "vector":
            return rng.normal(size=(*v.size, v.channels)).astype(np.float32)
        case "direction":
            x = rng.normal(size=(*v.size, v.channels))
            return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
        case "classes":
            return rng.integers(0, len(v.classes), v.size).astype(np.uint8)
        case "binary":
            return rng.random(v.size) < 0.2
        case "text":
            return "a small red cube, and two zebras on the left"
        case "boxes":
            return [{"class": str(rng.choice(v.classes)), "box": box(rng)} for _ in range(3)]
        case "boxes3d":
            items = [{"class": str(rng.choice(v.classes)), "yaw": float(rng.uniform(-1.5, 1.5))} for _ in range(2)]
            camera = {"focal": [1.0, 1.2], "center": [0.5, 0.5], "pitch": 0.3, "roll": 0.0}
            sizes = rng.uniform(0.5, 1, (2, 3)).tolist()
            places = [[-0.3, 1.0, 4.0], [0.4, 1.2, 5.0]]
            boxes = [{**i, "center": c, "size": s} for i, c, s in zip(items, places, sizes, strict=True)]
            return {"camera": camera, "boxes": boxes}
        case "palette":
            return rng.integers(0, 256, (4, 3)).tolist()
        case "metadata":
            return {name: float(rng.uniform(*key.range)) for name, key in v.keys.items()}
        case "instances":
            return [{"class": str(rng.choice(v.classes)), "mask": rng.random(v.size) < 0.5} for _ in range(2)]
        case "poses":
            return [{"box": box(rng), **parts} for _ in range(2)]
        case "queries":
            return [{"point": rng.random(2).tolist(), "instances": [{"box": box(rng), **parts}]} for _ in range(2)]
    raise AssertionError(f"no value of type {v.type!r} is made here")


@pytest.fixture(scope="module")
def texts() -> dict[str, TextTokenizer]:
    """A text tokenizer of each catalog's vocabulary; those that include another's share its."""
    made: dict[Any, TextTokenizer] = {}
    words = ["a small red cube, and two zebras on the left"]
    with_texts = {name: c.vocabularies["text"] for name, c in CATALOGS.items() if c.vocabularies}
    for vocabulary in with_texts.values():
        made.setdefault(str(vocabulary), TextTokenizer.train(vocabulary, words))
    return {name: made[str(vocabulary)] for name, vocabulary in with_texts.items()}


@pytest.mark.parametrize(("catalog", "modality"), ENTRIES)
def test_an_entry_is_enough(catalog: Catalog, modality: Modality, texts) -> None:
    value = random_value(modality, np.random.default_rng(modality.id))
    checked = modality.value.check(value, "here")
    content, ending = modality.value.to_file(checked, modality.name)
    again = modality.value.read(content, ending, f"file.{ending}")
    alone = Catalog([modality], catalog.vocabularies.values()) if not modality.source else catalog
    fitted = fit({modality.name: again}, alone)[modality.name]
    for picture in (draw(modality, fitted, (64, 64)), draw(modality, None, (64, 64))):
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert draw(modality, fitted, (64, 64)).std() > 0
    key = modality.value.legend(None, [fitted], 200)
    assert key is None or (key.dtype == np.uint8 and key.shape[1] <= 200)
    if modality.kind == "sequence":
        text = texts[next(name for name, c in CATALOGS.items() if c is catalog)]
        tokenizer = SequenceTokenizer(modality, text)
        [ids] = tokenizer.encode([fitted], np.random.default_rng(0))
        [decoded] = tokenizer.decode_with_problems([ids])
        assert len(ids) <= modality.max_tokens and not decoded.problems and decoded.value
        modality.value.check(decoded.value, "decoded")
    elif modality.kind == "grid":
        tensor = network(modality, [fitted])
        assert tensor.shape[0] == 1 and tensor.isfinite().all()
        if modality.value.type not in ("classes", "binary"):
            modality.value.check(modality.value.from_network(tensor)[0], "decoded")


@pytest.mark.parametrize(("catalog", "modality"), [p for p in ENTRIES if p.values[0] is CATALOGS["4m"]])
def test_every_entry_is_cropped_and_flipped(catalog: Catalog, modality: Modality) -> None:
    """Arrays keep their size; what cannot be flipped is left out."""
    value = modality.value.check(random_value(modality, np.random.default_rng(modality.id)), "here")
    sample = {modality.name: value}
    moved = apply(sample, catalog, {modality.view: Geometry((0.1, 0.0, 0.9, 0.8))})
    assert moved.keys() == sample.keys()
    if modality.value.type in ("image", "map", "direction", "features", "classes", "binary"):
        assert np.shape(moved[modality.name]) == np.shape(value)
    flipped = apply(sample, catalog, {modality.view: Geometry(flip=True)})
    assert bool(flipped) == (modality.value.type not in ("poses", "queries"))


def test_what_training_depends_on_leaves_out_units_and_drawings() -> None:
    def keys(content: Any, prefix: str = "") -> set[str]:
        below = content.items() if isinstance(content, dict) else ()
        return {prefix}.union(*(keys(item, f"{prefix}.{key}") for key, item in below))

    poses, metadata = (training_facts(CATALOGS["4m"][name]) for name in ("human_poses", "metadata"))
    assert not {"decoding", "metrics", "derive"} & poses.keys()
    some = next(iter(CATALOGS["4m"]["human_poses"].value.parts))  # type: ignore[attr-defined]
    assert f".value.parts.{some}.range" in keys(poses) and f".value.parts.{some}.bones" not in keys(poses)
    found = keys(metadata)
    assert any(key.endswith(".bins") for key in found) and not any(key.endswith(".unit") for key in found)
