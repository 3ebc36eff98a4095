"""Keys of metadata on logarithmic scales, with strict ranges and missing numbers, and scores of each key."""

import numpy as np
import pytest

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.vocabulary import Vocabulary
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.metadata import Key, Metadata

KEYS = {
    "mass": Key(0, (1e8, 1e12), bins=40, scale="log", unit="Msun"),
    "velocity": Key(1, (-1e4, 1e4), bins=40, scale="asinh", softening=10.0),
    "height": Key(2, (0, 10), bins=40, clip=False, unit="m"),
    "count": Key(3, (0, 9), bins=10, integer=True),
}
VALUE = Metadata(keys=KEYS)


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(Vocabulary("text", 400, sentinels=8, values={"v0": 64, "v1": 8}), ["a"])


def test_bins_are_equal_on_the_scale(text: TextTokenizer) -> None:
    codec = VALUE.codec("facts", 20, text)
    rng = np.random.default_rng(0)
    for mass, velocity in zip(10 ** rng.uniform(8, 12, 50), np.sinh(rng.uniform(-7, 7, 50)) * 10, strict=True):
        (value, problems) = codec.decode(codec.encode({"mass": mass, "velocity": velocity}))
        assert not problems and abs(np.log10(value["mass"] / mass)) <= 0.05 + 1e-9, "half of a tenth of a power of ten"
        assert abs(np.arcsinh(value["velocity"] / 10) - np.arcsinh(velocity / 10)) <= np.arcsinh(1e3) / 40 + 1e-9
        assert codec.encode(value) == codec.encode({"mass": mass, "velocity": velocity})
    (clipped, _) = codec.decode(codec.encode({"mass": 0.0, "count": 12}))
    assert clipped == {"mass": pytest.approx(10**8.05), "count": 9}


def test_numbers_outside_are_refused_without_clip() -> None:
    assert VALUE.check({"mass": 1.0, "height": 10}, "here") == {"mass": 1.0, "height": 10}
    with pytest.raises(BadSample, match="here: found height = 11; expected 0 to 10 m; widen its range"):
        VALUE.check({"height": 11}, "here")


def test_null_and_nan_in_files_are_missing_keys() -> None:
    assert VALUE.read(b'{"mass": 1e9, "height": null, "count": NaN, "other": null}', "json", "here") == {"mass": 1e9}
    assert VALUE.read(b'{"mass": null, "other": 3}', "json", "here") is None
    with pytest.raises(BadSample, match="found keys other; expected at least one of mass"):
        VALUE.read(b'{"other": 3}', "json", "here")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (Key(0, (0, 1), scale="log"), "value.keys.x.scale 'log' needs a range above 0, found the lowest value 0"),
        (Key(0, (1, 5), scale="log", integer=True), "value.keys.x: scale 'log' is for numbers in equal bins"),
        (Key(0, (1, 5), bins=2, scale="log", splits=(2,)), "value.keys.x: scale 'log' is for numbers in equal bins"),
        (Key(0, (1, 5), scale="asinh", softening=0), "value.keys.x.softening must be a number above 0, found 0"),
    ],
)
def test_contradicting_keys_are_refused(key: Key, said: str) -> None:
    with pytest.raises(MaskweaveError, match=said):
        Metadata(keys={"x": key}).check_settings("sequence")


def test_scores_of_each_key() -> None:
    truth = [{"mass": 1e9, "count": 3}, {"mass": 1e11, "count": 4}, {"mass": 1e10}]
    found = [{"mass": 1e10, "count": 3}, {"mass": 1e11, "count": 5}, {"mass": 1e10, "count": 1}]
    metrics = VALUE.metrics()
    mae = metrics["mae"].scores(found, truth)
    assert mae["MAE mass"] == pytest.approx(3e9) and mae["MAE count"] == 0.5
    assert mae["MAE"] == pytest.approx((1 / 4 + 1 / 9) / 5), "a power of ten of four, one of nine"
    r2 = metrics["r2"].scores(found, truth)
    assert r2["R² mass"] == pytest.approx(0.5) and r2["R² count"] == pytest.approx(-1)
    assert r2["R²"] == pytest.approx(-0.25) and np.isnan(r2["R² height"])
    constant = metrics["r2"].best_constant(truth)
    assert constant == pytest.approx({"mass": 1e10, "count": 3.5})
    assert metrics["r2"].scores([constant] * 3, truth)["R² mass"] == pytest.approx(0)
    assert metrics["accuracy"].scores(found, truth) == {"accuracy": 0.5, "accuracy count": 0.5}
    assert metrics["accuracy"].best_constant(truth)["count"] == 3
    missing = metrics["accuracy"].scores([{"mass": 1e9}] * 3, truth)
    assert missing["accuracy"] == 0 and metrics["r2"].scores([{"count": 1}] * 3, truth)["R² mass"] < 1
