"""Ranges, means and statistics of each channel; names and units of channels; scaling that is learned from training values."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from maskweave.config import build, plain
from maskweave.data.token_store import entry_fingerprint
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.base import ValueType
from maskweave.values.drawing import color_mapped
from maskweave.values.features import Features
from maskweave.values.map import Map
from maskweave.values.scales import from_scale, to_scale
from maskweave.values.scaling import KNEE, MARGIN, fit_statistics

rng = np.random.default_rng(0)


def catalog(**value: Any) -> Catalog:
    value = {"type": "map", "size": [8], **value}
    return catalog_from({"modalities": {"a": {"id": 1, "kind": "grid", "grid": [2], "value": value}}}, "c.yaml")


def entry(value: ValueType, grid: tuple[int, ...] = (2,)) -> Modality:
    spec = TokenizerSpec(width=16, heads=1, quantizer=Quantizer("fsq", levels=(5, 4)))
    return Modality("a", 1, "grid", value, grid=grid, tokenizer=spec)


# Channels by name, with ranges, means and deviations of their own


def test_channels_may_be_a_list_of_names_and_units() -> None:
    value: Any = catalog(channels=["red", {"name": "nir", "unit": "W"}], range=[0, 9])["a"].value
    assert (value.channels, value.channel_names, value.channel_units) == (2, ("red", "nir"), ("", "W"))
    assert build(ValueType, plain(value), "x") == value
    assert value.curve_names() == ["red", "nir (W)"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": []}, r"c.yaml: modality 'a': value.channels is an empty list; expected names, or the number"),
        ({"channels": [{"names": "x"}]}, "unknown key 'value.channels.0.names'; did you mean 'value.channels.0.name'"),
        ({"channels": ["a"], "channel_names": ["b"]}, "lists names, and so does channel_names; keep one of them"),
        ({"channels": ["a", "a"]}, "value.channel_names must differ, found 'a' twice"),
        ({"channels": 2, "channel_units": ["m"]}, "value.channel_units needs 2 units, found 1"),
        ({"channels": 3, "range": [[0, 1], [0, 2]]}, "value.range needs one range per channel \\(3\\), found 2"),
        ({"channels": 2, "range": [[0, 1], [2, 2]]}, r"value.range must be \[lowest, highest\]"),
        ({"range": None, "mean": 1}, "value.mean and value.std need one number each, or one per channel"),
        ({"range": None, "mean": 1, "std": 0}, "value.std above 0"),
        ({"mean": 1, "std": 1}, "found range and mean and std"),
        ({"range": None}, "found none of them"),
        (
            {"range": None, "scaling": "fit", "mean": 0, "std": 1},
            "value.scaling: fit learns the mean and deviation; remove",
        ),
    ],
)
def test_contradicting_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        catalog(**{"range": [0, 1], **settings})


def test_each_channel_has_its_own_range() -> None:
    value = Map((2,), 2, range=((0, 1), (0, 1000)), channel_names=("small", "large"))
    array = np.array([[0.25, 250], [1, 0]], np.float32)
    x = value.to_network([value.check(array, "x")])
    assert x[0].T.tolist() == [[-0.5, -0.5], [1, -1]]
    assert np.allclose(value.from_network(x)[0], array)
    assert value.describe_range() == "0 to 1000, by channel" and value.full_span == (0, 1000)
    with pytest.raises(
        BadSample, match="values from 0.25 to 3 in channel small, 25.00% of them outside; expected 0 to 1;"
    ):
        value.check(array * [[1, 1], [3, 1]], "x")
    clipped = dataclasses.replace(value, outside="clip").check(array * [[1, 9], [3, 1]], "x")
    assert clipped.tolist() == [[0.25, 1000], [1, 0]]


@pytest.mark.parametrize("cls", [Map, Features])
def test_each_channel_has_its_own_mean_and_deviation(cls: Any) -> None:
    value = cls((3,), 2, mean=(1, 1e6), std=(2, 0.5))
    array = np.array([[1, 1e6], [3, 1e6 + 1], [-1, 1e6 - 0.5]], np.float32)
    x = value.to_network([value.check(array, "x")])
    assert x[0].T.tolist() == [[0, 0], [1, 2], [-1, -1]]
    assert np.array_equal(value.from_network(x)[0], array)
    one = cls((3,), mean=(5,), std=(2,))
    assert one.from_network(one.to_network([np.array([5, 7, 3], np.float32)])).tolist() == [[5, 7, 3]]
    assert np.array_equal(value.normalize_rows(array[None]), x[0].T[None].numpy())


def test_scores_name_the_channels() -> None:
    value = Map((2,), 2, range=(0, 9), channel_names=("red", "nir"))
    mae = value.metrics()["mae"].scores([np.zeros((2, 2))], [np.array([[1, 2], [1, 4]])])
    assert mae == {"MAE": 2, "MAE red": 1, "MAE nir": 3}
    features = Features((2,), 2, channel_names=("p", "q")).metrics()["mae"]
    assert features.scores([np.zeros((2, 2))], [np.array([[1, 2], [1, 4]])]) == {"MAE": 2, "MAE p": 1, "MAE q": 3}
    assert Features((2,), 2).metrics()["mae"].names == ()


def test_curves_have_a_legend_of_their_channels() -> None:
    array = rng.normal(size=(30, 2))
    plain_figure, named = (
        Map((30,), 2, range=(-5, 5), channel_names=names).draw(array, (96, 128)) for names in ((), ("p", "q"))
    )
    assert plain_figure.shape == named.shape == (96, 128, 3) and not np.array_equal(plain_figure, named)


def test_new_settings_do_not_change_the_fingerprints_of_old_entries() -> None:
    old = entry(Map((8,), 2, range=(0, 1)))
    assert entry_fingerprint(old) == "d711302d63b99c39"
    named = dataclasses.replace(old, value=Map((8,), 2, range=(0, 1), channel_names=("a", "b")))
    assert entry_fingerprint(named) == entry_fingerprint(old), "names may change after training"
    assert entry_fingerprint(entry(Map((8,), 2, range=((0, 1), (0, 2))))) != entry_fingerprint(old)


# Learned scaling


@pytest.mark.parametrize("scale", ["linear", "log", "asinh"])
def test_statistics_are_robust_and_invert(scale: Any) -> None:
    y = rng.normal(3, 0.5, (50, 40, 2)) * [1, 4]
    values = from_scale(y, scale) if scale != "linear" else y
    values[0, 0] *= 1e6 if scale == "linear" else 1  # one broken point
    values[3, :7, 1] = np.nan
    found = fit_statistics(values, scale, 2)
    z = found.scale(values, scale)
    known = np.isfinite(values)
    assert np.array_equal(np.isfinite(z), known)
    for c in range(2):
        inner = z[..., c][known[..., c]]
        assert abs(np.median(inner)) < 0.02 and 0.8 < np.std(np.clip(inner, -4, 4)) < 1.2 and np.abs(inner).max() < 80
    assert np.allclose(found.unscale(z, scale)[known], values[known], rtol=0.01)


def test_numbers_far_from_the_median_are_compressed_and_decoded_numbers_bounded() -> None:
    found = fit_statistics(np.array([*range(-100, 100), 0, 1000.0]), "linear", 1)
    width = found.spread[0]
    inside, knee, far = found.scale(np.array([[width], [KNEE * width], [1000.0]]), "linear")[:, 0]
    assert inside == pytest.approx(1) and knee == pytest.approx(KNEE)
    assert far == pytest.approx(KNEE * (1 + np.log(1000 / (KNEE * width))), rel=1e-5)
    assert found.unscale(np.array([[1e9]]), "linear") == found.unscale(np.array([[found.high[0] + MARGIN]]), "linear")


@pytest.mark.parametrize(
    "values",
    [np.full((5, 3), 7.0), np.full((5, 3), np.nan), np.array([[0.0] * 999 + [5.0]])],
    ids=["equal", "unknown", "rare"],
)
def test_channels_that_hardly_vary_can_be_scaled(values: np.ndarray) -> None:
    for scale in ("linear", "asinh"):
        found = fit_statistics(values, scale, 1)  # type: ignore[arg-type]
        assert found.spread[0] > 0
        assert np.allclose(
            found.unscale(found.scale(values[..., None], scale), scale), values[..., None], equal_nan=True
        )  # type: ignore[arg-type]


def test_what_is_learned_is_stored_with_the_tokenizer(tmp_path: Any) -> None:
    values = np.exp(rng.normal(0, 3, (64, 8, 2))).astype(np.float32) * [1, 1e4]
    asked = Map((8,), 2, scaling="fit_log", channel_names=("a", "b"))
    with pytest.raises(
        MaskweaveError, match="scaling: fit_log is learned in a run from its training samples, and was not here"
    ):
        asked.to_network(values)
    tokenizer = GridTokenizer(entry(asked.fit_to(values)))
    ids = tokenizer.encode(values)
    restored = tokenizer.decode(ids)
    assert (
        restored.shape == values.shape
        and (restored > 0).all()
        and restored[..., 1].mean() > 100 * restored[..., 0].mean()
    )
    tokenizer.save(tmp_path)
    loaded = GridTokenizer.load(tmp_path, entry(asked))
    assert loaded.modality.value == tokenizer.modality.value and loaded.fingerprint == tokenizer.fingerprint
    assert torch.equal(loaded.encode(values), ids)
    with pytest.raises(MaskweaveError, match="value.scaling is 'fit_log' there, 'fit' here"):
        GridTokenizer.load(tmp_path, entry(Map((8,), 2, scaling="fit")))
    other = GridTokenizer(entry(asked.fit_to(values * 2)))
    other.load_state_dict(tokenizer.state_dict())
    assert other.fingerprint != tokenizer.fingerprint


def test_numbers_that_cannot_be_on_the_scale_are_refused() -> None:
    with pytest.raises(BadSample, match="x: found -1; expected numbers above 0; .* use fit_asinh"):
        Map((2,), scaling="fit_log").check(np.array([1.0, -1.0]), "x")


@pytest.mark.parametrize("scale", ["linear", "asinh"])
def test_tiny_numbers_are_scaled_as_others(scale: Any) -> None:
    flux = rng.normal(5, 1, (9, 8))
    tiny, usual = (fit_statistics(values, scale, 1) for values in (flux * 1e-17, flux))
    assert np.allclose(tiny.scale(flux[..., None] * 1e-17, scale), usual.scale(flux[..., None], scale), atol=1e-4)
    for constant in (0.0, 3e-17, 3e9):
        assert fit_statistics(np.full((9, 8), constant), scale, 1).spread == (1.0,)


@pytest.mark.parametrize(("scaling", "softening"), [("fit_log", 1.0), ("fit_asinh", 0.1)])
def test_figures_have_the_scale_of_the_values(scaling: Any, softening: float) -> None:
    numbers = np.array([[1.0, 10], [100, 1000]], np.float32)
    plane = Map((2, 2), scaling=scaling)
    plain = Map((2, 2), scaling="fit")
    span, scale = (1.0, 1000.0), "log" if scaling == "fit_log" else "asinh"
    on_scale = to_scale(numbers, scale, 1.0)
    assert np.array_equal(plane.colors(numbers, span, None), color_mapped(on_scale, on_scale[0, 0], on_scale[1, 1]))
    assert np.array_equal(plain.colors(numbers, span, None), color_mapped(numbers, *span))
    bar, other = (value.legend(span, None, 220) for value in (plane, plain))
    assert bar is not None and other is not None and not np.array_equal(bar, other), "the scale is named"
    curve = Map((60,), scaling=scaling)
    steady = from_scale(np.linspace(1, 4, 60), scale, softening).astype(np.float32)
    fitted = curve.fit_to(steady[None])
    assert fitted.figure_scale(span)[0] == scale
    picture = fitted.draw(steady, (128, 192), span=(float(steady[0]), float(steady[-1]))).astype(int)
    blue = (np.abs(picture - [31, 119, 180]).sum(axis=-1) < 120) & (np.arange(192) > 40)
    rows = np.array([np.flatnonzero(column).mean() for column in blue.T if column.any()])
    if scaling == "fit_log":
        assert len(rows) > 100 and np.abs(rows - np.linspace(rows[0], rows[-1], len(rows))).max() < 3, "a straight line"
    else:
        assert len(rows) > 100 and abs(rows[len(rows) // 2] - (rows[0] + rows[-1]) / 2) < 25
    flat = Map((60,), scaling="fit").draw(steady, (128, 192))
    assert not np.array_equal(picture, flat)
    assert plane.figure_scale((-3.0, 3.0))[0] == ("linear" if scaling == "fit_log" else "asinh"), "no logarithm of -3"
