"""Variations of values: colors, noise and shifts, for every type that has them."""

import numpy as np
import pytest

from maskweave.values import value_types
from maskweave.values.audio import Audio
from maskweave.values.base import ValueType
from maskweave.values.classes import Classes
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.sound import Sound
from maskweave.values.variation import Variation
from maskweave.values.vector import Vector
from maskweave.values.video import Video

NOISY = Variation(noise=0.1, seed=(1,))


def test_colors_of_pictures() -> None:
    gray = np.full((2, 2, 3), 100, np.uint8)
    picture = Image((2, 2), 3)
    assert (picture.vary(gray, Variation(brightness=1.5)) == 150).all()
    assert (picture.vary(gray, Variation(contrast=1.5, saturation=0.2)) == 100).all(), "it has neither"
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    assert (picture.vary(red, Variation(saturation=0.0)) == round(200 * 0.299)).all()
    half = gray.copy()
    half[0] = 200
    low, high = picture.vary(half, Variation(contrast=0.5))[[0, 1], 0, 0]
    assert (low, high) == (175, 125)
    clear = np.concatenate([gray, np.full((2, 2, 1), 7, np.uint8)], -1)
    assert (Image((2, 2), 4).vary(clear, Variation(brightness=0.5))[..., 3] == 7).all(), "alpha is no color"


@pytest.mark.parametrize(
    ("value", "of"),
    [
        (Image((4, 4), 3), np.full((4, 4, 3), 128, np.uint8)),
        (Map((40,), range=(0.0, 10.0)), np.full(40, 5, np.float32)),
        (Map((40, 2), channels=2, range=(0.0, 10.0)), np.full((40, 2, 2), 5, np.float32)),
        (Vector(channels=40), np.zeros(40, np.float32)),
    ],
    ids=lambda v: v.type if isinstance(v, ValueType) else "",
)
def test_noise_is_in_the_scale_of_the_network(value: ValueType, of: np.ndarray) -> None:
    noisy = value.vary(of, NOISY)
    assert noisy.shape == of.shape and noisy.dtype == of.dtype
    value.check(noisy, "the noisy value")
    difference = value.to_network([noisy]) - value.to_network([of])
    assert 0.05 < float(difference.std()) < 0.15
    assert np.array_equal(noisy, value.vary(of, NOISY)) and not np.array_equal(
        noisy, value.vary(of, Variation(noise=0.1))
    )


def test_noise_stays_in_the_range_and_keeps_unknown_points() -> None:
    value = Map((50,), range=(0.0, 1.0), missing=("nan",))
    edge = np.zeros(50, np.float32)
    edge[7] = np.nan
    noisy = value.vary(edge, Variation(noise=0.5))
    assert np.nanmin(noisy) == 0 and np.nanmax(noisy) > 0.1 and np.isnan(noisy[7]) and np.isnan(noisy).sum() == 1


def test_noise_of_a_standardized_map_is_relative_to_its_deviation() -> None:
    value = Map((1000,), trim_quantile=0.0)
    wave = 1e4 * np.sin(np.arange(1000, dtype=np.float32))
    difference = value.to_network([value.vary(wave, NOISY)]) - value.to_network([wave])
    assert 0.08 < float(difference.std()) < 0.12


def test_shifts_along_time() -> None:
    ramp = np.arange(10, dtype=np.float32)
    later = Map((10,), range=(0, 10)).vary(ramp, Variation(shift=0.2))
    assert later.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7], "the edge is repeated"
    earlier = Map((10,), range=(0, 10), missing=("nan",)).vary(ramp, Variation(shift=-0.2))
    assert earlier[:8].tolist() == ramp[2:].tolist() and np.isnan(earlier[8:]).all(), "what was not seen is unknown"
    mel = Map((2, 10), range=(0, 10)).vary(np.stack([ramp, ramp]), Variation(shift=0.1))
    assert mel.tolist() == [[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]] * 2, "time is the axis of columns"
    classes = Classes((4, 1, 1), classes=("a", "b"))
    assert classes.vary(np.array([0, 1, 0, 1]).reshape(4, 1, 1), Variation(shift=0.25)).ravel().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("shift", [-1.0, -0.6, 0.4, 1.0])
def test_shifts_leave_something_of_a_short_series(shift: float) -> None:
    value = Map((2, 10), range=(0, 10), missing=("nan",))
    series = np.full((2, 10), np.nan, np.float32)
    series[1, 2:4] = 5
    assert np.nanmax(value.vary(series, Variation(shift=shift))) == 5
    late = series[:, ::-1].copy()
    assert np.nanmax(value.vary(late, Variation(shift=shift))) == 5
    nothing = np.full((2, 10), np.nan, np.float32)
    assert np.isnan(value.vary(nothing, Variation(shift=shift))).all()


@pytest.mark.parametrize("name", value_types())
def test_what_a_type_says_it_varies_is_known(name: str) -> None:
    assert set(value_types()[name].varied_by) <= {"color", "noise", "shift"}


@pytest.mark.parametrize("scaling", ["fit", "fit_log"])
def test_noise_before_a_scaling_is_learned_is_relative_to_the_value(scaling: str) -> None:
    value = Map((1000,), scaling=scaling)
    wave = (1e4 * np.random.default_rng(0).lognormal(size=1000)).astype(np.float32)
    fitted = value.fit_to(wave[None])
    for each in (value, fitted):
        difference = fitted.to_network([each.vary(wave, NOISY)]) - fitted.to_network([wave])
        assert 0.08 < float(difference.std()) < 0.12


def test_sounds_are_shifted_and_noisy() -> None:
    value = Audio(rate=8000, max_seconds=1.0, mels=8)
    T = value.size[1]
    low, high = value.range
    mel = np.linspace(low, high, T // 2, dtype=np.float32)[None].repeat(8, 0)
    sound = Sound(value.analysis, log_mel=mel)
    later = value.vary(sound, Variation(shift=0.25)).log_mel
    n = round(0.25 * T)
    assert later.shape == (8, T // 2 + n) and (later[:, :n] == low).all() and np.allclose(later[:, n:], mel)
    earlier = value.vary(sound, Variation(shift=-0.25)).log_mel
    assert np.allclose(earlier, mel[:, n:])
    padded = value.padded(sound)
    assert np.array_equal(
        value.vary(padded, Variation(shift=0.25)), value.padded(Sound(value.analysis, log_mel=later)), equal_nan=True
    )
    noisy = value.vary(sound, NOISY).log_mel
    assert 0.05 < (noisy - mel).std() * 2 / (high - low) < 0.15 and noisy.min() >= low and noisy.max() <= high
    assert value.vary(sound, Variation()) is sound


def test_videos_keep_their_end() -> None:
    value = Video((4, 2, 2), fps=8)
    frames = np.full((3, 2, 2, 3), 100, np.uint8)
    brighter = value.vary(frames, Variation(brightness=1.5))
    assert brighter.shape == frames.shape and (brighter == 150).all()
    padded = value.vary(value.padded(frames), Variation(brightness=1.5))
    assert (padded[:3] == 150).all() and np.isnan(padded[3]).all()
