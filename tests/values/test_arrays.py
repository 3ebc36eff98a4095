import dataclasses

import numpy as np
import pytest
import torch
from value_helpers import network, value_of

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.nn.patches import patchify, unpatchify
from maskweave.values.text import Text

CLASSES = ("floor", "wall", "cube", "cone", "sphere")


def entry(type, size=(8, 6), grid=(4, 3), kind="grid", **value):
    return Modality(name="probe", id=1, kind=kind, value=value_of(type, size=size, **value), grid=grid)


ENTRIES = {
    "image": entry("image", channels=3),
    "standardized": entry("image", channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    "map": entry("map", range=(0, 10), unit="m"),
    "features": entry("map", channels=5, range=(-3, 3)),
    "direction": entry("direction", channels=3),
    "classes": entry("classes", classes=CLASSES),
    "binary": entry("binary"),
    "vector": entry("vector", size=(), grid=(4,), channels=7),
    "spectrum": entry("map", size=(12,), grid=(4,), range=(0, 1)),
    "volume": entry("image", size=(4, 6, 8), grid=(2, 3, 2), channels=3),
}


def sample(modality, batch=3, seed=0):
    rng, v = np.random.default_rng(seed), modality.value
    shape = (batch, *v.size)
    match v.type:
        case "image":
            return rng.integers(0, 256, (*shape, v.channels), dtype=np.uint8)
        case "map":
            return rng.uniform(*v.range, shape if v.channels == 1 else (*shape, v.channels)).astype(np.float32)
        case "direction":
            x = rng.normal(size=(*shape, 3)).astype(np.float32)
            return x / np.linalg.norm(x, axis=-1, keepdims=True)
        case "classes":
            return rng.integers(0, len(v.classes), shape, dtype=np.uint8)
        case "binary":
            return rng.random(shape) < 0.3
        case "vector":
            return rng.normal(size=(batch, v.channels)).astype(np.float32)


def as_output(modality, x):
    """What a perfect network would give for network tensor `x`."""
    return (
        torch.nn.functional.one_hot(x, len(modality.value.classes)).movedim(-1, 1).float()
        if modality.value.type == "classes"
        else x
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_round_trip(name):
    modality = ENTRIES[name]
    values = sample(modality)
    x = network(modality, values)
    back = modality.value.from_network(as_output(modality, x))
    assert back.dtype == values.dtype and back.shape == values.shape
    np.testing.assert_allclose(back, values, atol=1e-5)
    assert torch.equal(x, network(modality, list(values)))  # a list of arrays
    assert torch.equal(x, network(modality, torch.from_numpy(values)))
    assert torch.equal(x, network(modality, [torch.from_numpy(v) for v in values]))


def test_network_forms():
    x = network(
        ENTRIES["image"], np.array([0, 255], np.uint8)[:, None, None, None].repeat(8, 1).repeat(6, 2).repeat(3, 3)
    )
    assert x.shape == (2, 3, 8, 6) and x.dtype == torch.float32 and x[0].eq(-1).all() and x[1].eq(1).all()
    depth = network(ENTRIES["map"], [np.full((8, 6), 2.5), np.full((8, 6, 1), 10.0)])
    assert depth.shape == (2, 1, 8, 6) and depth[0].eq(-0.5).all() and depth[1].eq(1).all()
    assert network(ENTRIES["classes"], sample(ENTRIES["classes"])).dtype == torch.int64
    assert set(network(ENTRIES["binary"], sample(ENTRIES["binary"])).unique().tolist()) == {-1.0, 1.0}
    standardized = network(ENTRIES["standardized"], np.full((1, 8, 6, 3), 255, np.uint8))
    torch.testing.assert_close(standardized[0, :, 0, 0], torch.tensor([3.0, 2.0, 4 / 3]))


def test_output_is_brought_into_range():
    assert ENTRIES["map"].value.from_network(torch.full((1, 1, 8, 6), 7.0)).max() == 10
    assert ENTRIES["image"].value.from_network(torch.full((1, 3, 8, 6), -9.0)).max() == 0
    normals = ENTRIES["direction"].value.from_network(torch.randn(2, 3, 8, 6) * 5)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)


def test_empty_batch():
    assert network(ENTRIES["image"], []).shape == (0, 3, 8, 6)


def _spoilt(name, where, what):
    values = list(sample(ENTRIES[name]).copy())
    values[1] = (
        values[1].astype(np.asarray(what).dtype) if np.asarray(what).dtype.kind != values[1].dtype.kind else values[1]
    )
    values[1][where] = what
    return values


@pytest.mark.parametrize(
    "name, values, words",
    [
        ("image", [np.zeros((8, 6, 2), np.uint8)], ["value 0", "(8, 6, 2)", "(height, width, 3)", "3 channels"]),
        ("image", [np.zeros((2, 8, 6, 3), np.uint8)], ["(2, 8, 6, 3)", "(height, width, 3)"]),
        ("image", [np.zeros((800, 600, 3), np.uint8)], ["(800, 600, 3)", "resize"]),
        ("image", [np.zeros((8, 6, 3), np.float32)], ["float32", "uint8"]),
        ("image", ["photo.png"], ["'photo.png'", "an array of numbers"]),
        ("image", [[[[1, 2, 3]], [[1, 2]]]], ["[[[1, 2, 3]], [[1, 2]]]", "all rows of one length"]),
        ("map", _spoilt("map", (2, 3), np.nan), ["value 1", "NaN", "1 of 48"]),
        ("map", _spoilt("map", (2, 3), -np.inf), ["value 1", "infinite"]),
        ("map", _spoilt("map", (0, 0), 10.5), ["value 1", "10.5", "0 to 10 m", "2.08% of them", "widen"]),
        ("map", _spoilt("map", (0, 0), 10.02), ["value 1", "10.02", "0 to 10 m"]),
        ("map", [np.zeros((8, 6), bool)], ["bool", "numbers"]),
        ("map", [np.zeros((2, 8, 6))], ["(2, 8, 6)", "(height, width), 1 channel"]),
        ("map", [np.zeros((0, 6))], ["(0, 6)", "1 to 64,000,000 points"]),
        ("map", [[[1.0], [1.0, 2.0]]], ["[[1.0], [1.0, 2.0]]", "all rows of one length"]),
        (
            "direction",
            _spoilt("direction", (4, 4), [0.0, 0.0, 0.5]),
            ["value 1", "length 0.5 to 1;", "unit vectors", "divide each"],
        ),
        ("direction", _spoilt("direction", (4, 4), [0.0, 0.0, 1.2]), ["value 1", "to 1.2;", "unit vectors"]),
        ("direction", _spoilt("direction", (4, 4, 0), np.nan), ["NaN"]),
        (
            "classes",
            _spoilt("classes", (1, 1), 5),
            ["value 1", "class ids", "to 5, 2.08% of them", "0 to 4 (5 classes)"],
        ),
        ("classes", [np.full((8, 6), -1)], ["from -1 to -1", "100.00% of them", "0 to 4"]),
        ("classes", [np.zeros((8, 6))], ["float64", "whole numbers"]),
        ("binary", [np.full((8, 6), 254, np.uint8)], ["from 254 to 254", "0 and 1, 0 and 255"]),
        ("binary", [np.array([[0, 1, 255] * 2] * 8, np.uint8)], ["from 0 to 255", "0 and 1, 0 and 255"]),
        ("binary", [np.array([[0, -1] * 3] * 8)], ["from -1 to 0", "0 and 1"]),
        ("binary", [np.zeros((8, 6))], ["float64", "true or false"]),
        ("vector", [np.zeros(8)], ["(8,)", "(7,)"]),
        ("vector", [np.full(7, np.nan)], ["7 of 7 values NaN"]),
        ("spectrum", [np.zeros(13)], ["(13,)", "(12,)"]),
    ],
)
def test_refusals(name, values, words):
    with pytest.raises(BadSample) as caught:
        network(ENTRIES[name], values)
    for word in ["probe", *words]:
        assert word in str(caught.value)


def test_refusals_count_from_the_given_first_and_take_stacked_arrays():
    values = sample(ENTRIES["map"])
    values[2, 0, 0] = 99
    with pytest.raises(BadSample, match="value 12 of the batch"):
        np.stack(ENTRIES["map"].value.check_batch(values, ENTRIES["map"].name, first=10))
    with pytest.raises(BadSample, match=r"\(9, 6\)"):
        np.stack(ENTRIES["map"].value.check_batch(np.zeros((2, 9, 6)), ENTRIES["map"].name))


def test_rounding_at_the_range_is_forgiven_and_clipped():
    x = network(ENTRIES["map"], [np.full((8, 6), 10.009), np.full((8, 6), -0.009)])  # a thousandth of 0 to 10
    assert x.max() == 1 and x.min() == -1


def test_directions_of_nearly_unit_length_are_brought_to_it_and_rounding_stays():
    check, unit = ENTRIES["direction"].value.check, sample(ENTRIES["direction"])[0]
    half = unit.astype(np.float16)
    np.testing.assert_array_equal(check(half, "x"), half.astype(np.float32))  # within 0.001 of 1
    for factor in (0.91, 1.09):
        np.testing.assert_allclose(check(unit * factor, "x"), unit, atol=1e-6)
    network(ENTRIES["direction"], unit[None].astype(np.float16))


def test_gray_pictures_and_those_with_alpha_become_color():
    gray, alpha = np.arange(48, dtype=np.uint8).reshape(8, 6), sample(entry("image", channels=4))[0]
    check = ENTRIES["image"].value.check
    np.testing.assert_array_equal(check(gray, "x"), np.repeat(gray[..., None], 3, -1))
    np.testing.assert_array_equal(check(gray[..., None], "x"), np.repeat(gray[..., None], 3, -1))
    np.testing.assert_array_equal(
        check(np.dstack([alpha[..., :3], np.full((8, 6), 255, np.uint8)]), "x"), alpha[..., :3]
    )
    share = alpha[..., 3:] / 255
    np.testing.assert_allclose(check(alpha, "x"), alpha[..., :3] * share + 255 * (1 - share), atol=0.51)


def test_vectors_keep_their_digits_and_their_range() -> None:
    value = value_of("vectors", channels=2)
    rows = np.array([[12.3456789, 1e6]], np.float32)
    np.testing.assert_array_equal(value.check(rows, "x").astype(value.row_dtype), rows)
    halved = value_of("vectors", channels=2, storage="float16")
    assert halved.row_dtype == np.float16
    with pytest.raises(
        BadSample, match="numbers up to 1e[+]06; expected at most 65,504 for float16; set value.storage"
    ):
        halved.check(rows, "x")


@pytest.mark.parametrize("highest", [True, 1, 255])
def test_marks_are_0_and_1_or_0_and_255(highest):
    marks = sample(ENTRIES["binary"])[0]
    found = ENTRIES["binary"].value.check(np.where(marks, np.asarray(highest), np.asarray(highest) * 0), "x")
    assert found.dtype == bool and np.array_equal(found, marks)


@pytest.mark.parametrize("size, grid", [((12,), (4,)), ((8, 6), (4, 2)), ((4, 6, 8), (2, 3, 2))])
def test_patches_are_row_column_channel(size, grid):
    array = np.arange(2 * np.prod(size) * 3).reshape(2, *size, 3)
    rows = patchify(array, grid)
    patch = tuple(s // g for s, g in zip(size, grid, strict=True))
    assert rows.shape == (2, np.prod(grid), np.prod(patch) * 3)
    second = (*(slice(0, p) for p in patch[:-1]), slice(patch[-1], 2 * patch[-1]))
    np.testing.assert_array_equal(rows[1, 1], array[1][second].reshape(-1))
    np.testing.assert_array_equal(unpatchify(rows, grid, patch), array)
    assert torch.equal(patchify(torch.from_numpy(array), grid), torch.from_numpy(rows))


@pytest.mark.parametrize(
    "name", ["image", "standardized", "features", "map", "direction", "spectrum", "volume", "binary"]
)
def test_rows_scaled_late_equal_rows_scaled_early(name):
    modality = ENTRIES[name]
    values = sample(modality)
    x = network(modality, values)
    early = patchify(x.movedim(1, -1), modality.grid)
    raw = np.stack(modality.value.check_batch(values, modality.name))
    rows = patchify(raw if raw.ndim == len(modality.value.size) + 2 else raw[..., None], modality.grid)
    late = modality.value.normalize_rows(rows)
    assert late.dtype == np.float32
    np.testing.assert_allclose(late, early.numpy(), atol=1e-6)
    assert torch.equal(unpatchify(early, modality.grid, modality.patch).movedim(-1, 1), x)


def test_class_indices_are_not_numbers():
    with pytest.raises(MaskweaveError, match="class maps are categorical and cannot be raw patches"):
        ENTRIES["classes"].value.normalize_rows(np.zeros((1, 4, 4)))


def test_structured_values_are_refused():
    text = Modality(name="words", id=1, kind="sequence", value=Text(), max_tokens=8)
    with pytest.raises(MaskweaveError, match="'text' are not arrays"):
        network(text, ["a cube"])


def test_maps_without_a_range_are_standardized_by_themselves():
    modality = entry("map", size=(10, 10), grid=(5, 5), trim_quantile=0.1, unit="m")
    x = np.random.default_rng(0).permutation(100).astype(np.float32).reshape(10, 10)
    outlier = np.where(x == 99, np.float32(1e6), x)
    middle = np.arange(9, 91)  # the 10% and 90% quantiles of 0 to 99 are 9.9 and 89.1; these include a point each side
    expected = (x - middle.mean()) / np.sqrt(middle.var() + 1e-6)
    a, b = network(modality, [x, 7 * outlier + 3])[:, 0].numpy()
    np.testing.assert_allclose(a, expected, atol=1e-5)
    np.testing.assert_allclose(
        b[x < 99], a[x < 99], atol=1e-4
    )  # neither scale, nor shift, nor what is in the tails matters
    np.testing.assert_allclose(network(modality, [a])[0, 0], a, atol=1e-4)
    back = modality.value.from_network(torch.from_numpy(a[None, None]))
    assert back.shape == (1, 10, 10) and np.array_equal(back[0], a)  # relative units, not clipped
    assert not network(modality, [np.full((10, 10), 5.0)]).any()
    pair = dataclasses.replace(modality.value, channels=2)
    np.testing.assert_allclose(pair.standardize(np.stack([x, -x], -1))[..., 1], -expected, atol=1e-5)
    with pytest.raises(BadSample, match="NaN or infinite"):
        network(modality, [np.where(x == 3, np.nan, x)])


def test_features_are_taken_as_they_are():
    modality = entry("features", size=(4, 3), grid=(4, 3), channels=5)
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32) * 1e4
    tensor = network(modality, x)
    assert tensor.shape == (2, 5, 4, 3) and np.array_equal(modality.value.from_network(tensor), x)
    with pytest.raises(BadSample, match="NaN or infinite"):
        network(modality, np.where(x > 0, np.inf, x))


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (5,), (2, 3, 5)])
def test_rows_of_vectors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    vectors = value_of("vectors", channels=5)
    assert vectors.check(np.ones((1, 5)), "v").shape == (1, 5)
    with pytest.raises(BadSample, match=r"v: .*expected \(vectors, 5\) with one vector or more"):
        vectors.check(np.ones(shape), "v")
