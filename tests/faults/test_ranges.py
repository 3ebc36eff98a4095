"""The range of every number that can be set: the numbers at its ends are accepted, or not, as they are stated here, and those next to them are not, or are."""

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_bundle import save, small_bundle

from maskweave.bundle.io import CALIBRATION, load_bundle
from maskweave.config import whole_number
from maskweave.data.augment import Augment
from maskweave.data.cache import FOLDER_SETTING, SIZE_SETTING, Cache
from maskweave.data.split import Split
from maskweave.errors import MaskweaveError
from maskweave.files import max_text_mb, write_yaml
from maskweave.limits import FACTOR_SETTING, TEXT_SETTING, VALUE_SETTING, ReadingLimits, limit_factor
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.masking.m3ae import MaskRatio
from maskweave.modality.catalogs import catalog_from, load_catalog
from maskweave.modality.decoding import Decoding, Ramp, Remasking
from maskweave.models.fourm import FourMConfig
from maskweave.models.m3ae import M3AEConfig
from maskweave.studio.bounds import Bounds
from maskweave.training.data_settings import DataSettings
from maskweave.training.early_stopping import EarlyStopping
from maskweave.training.settings import TrainSettings
from maskweave.transfer.recipe import HeadSettings, LossSettings, TransferData, TransferRecipe, Tuning
from maskweave.values.files import max_value_bytes

SEED, SAMPLES, PROCESSES = "[0, 4611686018427387904]", "68719476736]", "1024]"


class Entry:
    """A number of a catalog's entry, by its dotted key."""

    def __init__(self, **settings: Any):
        content: dict[str, Any] = {
            "vocabularies": {"text": {"size": 2**19, "values": {"v0": 4}}},
            "modalities": {
                "photo": {"id": 1, "kind": "grid", "value": {"type": "image", "size": [64, 64], "channels": 3}, "grid": [1, 1]},
                "words": {"id": 2, "kind": "sequence", "value": {"type": "text"}, "max_tokens": 64, "vocabulary": "text"},
            },
        }  # fmt: skip
        content["modalities"]["photo"]["tokenizer"] = {"heads": 1, "quantizer": {"type": "vq"}}
        for dotted, value in settings.items():
            *parents, last = dotted.split(".")
            place = content
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        catalog_from(content, "here")


def checked_data(**settings: Any) -> None:
    DataSettings(**{"source": "x", "validation": 1, **settings}).check()


def resolved(cls: Any, **settings: Any) -> None:
    cls(**settings).resolved()


def masked(**settings: Any) -> None:
    MaskSampler(load_catalog("scenes"), MaskingConfig(**settings))


PHOTO, DIFFUSION = "modalities.photo.tokenizer", "modalities.photo.tokenizer.diffusion"
RANGES: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "TrainSettings": (TrainSettings, {
        "steps": "[1, 68719476736]", "batch_size": "[1, 1048576]", "accumulate": "[1, 1048576]", "log_every": "[1, inf)", "keep": "[1, inf)",
        "processes": "[1, 1024]", "validate_every": "[0, inf)", "checkpoint_every": "[0, inf)", "workers": "[0, 1024]", "threads": "[0, 1024]",
        "seed": SEED, "skip_nonfinite": "[0, inf)", "weight_decay": "[0.0, inf)", "clip": "[0.0, inf)", "warmup": "[0.0, 1.0]",
        "final_learning_rate": "[0.0, 1.0]", "learning_rate": "(0.0, inf)", "ema": "[0.0, 1.0)", "betas.0": "[0.0, 1.0)", "betas.1": "[0.0, 1.0)",
    }),
    "TransferData": (TransferData, {
        "samples": "[0, inf)", "validation": "[0, inf)", "seed": SEED, "limit": "[0.0, 1.0]", "crop": "(0.0, 1.0]", "flip": "[0.0, 1.0]", "color": "[0.0, 1.0)",
        "modality_dropout": "[0.0, 1.0)",
    }),
    "Tuning": (Tuning, {"layer_decay": "(0.0, 1.0]", "stochastic_depth": "[0.0, 1.0)", "rank": "[1, 32768]", "alpha": "(0.0, inf)"}),
    "HeadSettings": (HeadSettings, {
        "width": "[1, 32768]", "depth": "[1, 1024]", "upsample": "[1, 1024]", "queries": "[0, 262144]", "heads": "[1, 1024]",
        "skip_width": "[1, 32768]", "calibrate": "[0.0, 0.5]", "bins": "[2, 65536]", "attention": "[0, 1024]",
    }),
    "LossSettings": (LossSettings, {"focal": "[0.0, 10.0]", "dice": "[0.0, 100.0]"}),
    "TransferRecipe": (TransferRecipe, {"seed": SEED}),
    "Augment": (partial(Augment, noise={"a": 1.0}), {"copies": "[0, 1024]", "crop": "(0.0, 1.0]", "flip": "[0.0, 1.0]", "color": "[0.0, 1.0)"}),
    "Split": (Split, {"fraction": "[0.0, 1.0)", "seed": SEED}),
    "EarlyStopping": (EarlyStopping, {"patience": "[1, inf)", "min_delta": "[0.0, inf)"}),
    "DataSettings": (checked_data, {
        "validation": "[1, " + SAMPLES, "seed": SEED, "workers": "[0, " + PROCESSES, "shard_size": "[1, 16777216]", "shuffle_window": "[0, inf)",
        "samples": "[0, " + SAMPLES, "limit": "[0.0, 1.0]",
    }),
    "Decoding": (Decoding, {
        "steps": "[1, 262144]", "top_p": "(0.0, 1.0]", "top_k": "[0, inf)", "guidance": "[-10000.0, 10000.0]", "temperature": "{0.0} [1e-06, inf)",
    }),
    "choosing": (partial(Decoding, scheme="maskgit"), {"choice_temperature": "[0.0, inf)"}),
    "Ramp": (partial(Ramp, 1.0), {"interval.0": "[0.0, 1.0)", "interval.1": "(0.0, 1.0]"}),
    "Remasking": (partial(Remasking, "cap", 0.5), {"interval.0": "[0.0, 1.0)", "interval.1": "(0.0, 1.0]", "known": "(0.0, 1.0)"}),
    "share": (partial(Remasking, "conf"), {"share": "(0.0, 1.0]"}),
    "loop": (partial(Remasking, "loop", 0.5, interval=(0.25, 0.75)), {"interval.0": "(0.0, 0.75)", "interval.1": "(0.25, 1.0)"}),
    "MaskingConfig": (masked, {
        "input_tokens": "[1, 1048576]", "target_tokens": "[1, 1048576]", "unconditional": "[0.0, 1.0]", "target_beta.0": "(0.0, inf)",
        "target_beta.1": "(0.0, inf)",
    }),
    "MaskRatio": (MaskRatio, {"patches": "[0.0, 1.0]", "sequence": "[0.0, 1.0]"}),
    "FourMConfig": (partial(resolved, FourMConfig), {
        "registers": "[0, 4096]", "encoder_depth": "[0, 1024]", "decoder_depth": "[0, 1024]", "mlp_ratio": "[0.015625, 64.0]",
    }),
    "M3AEConfig": (partial(resolved, M3AEConfig, width=128, decoder_width=128), {
        "depth": "[0, 1024]", "decoder_depth": "[0, 1024]", "mlp_ratio": "[0.0078125, 64.0]",
    }),
    "Bounds": (Bounds, {
        "upload_mb": "[1, 4096]", "value_mb": "[1, 1048576]", "seconds": "[1, 86400]", "waiting": "[1, 1000]", "samples": "[1, 1000]",
    }),
    "ReadingLimits": (ReadingLimits, {"value_mb": "[1, 1048576]", "text_mb": "[1, 1048576]"}),
    "entries": (Entry, {
        "modalities.photo.id": "[3, 65536]", "modalities.words.max_tokens": "[2, 262144]", "modalities.words.chunk": "[1, 63]",
        "vocabularies.text.sentinels": "[3, 524024]", "vocabularies.text.size": "[464, 1048576]", f"{PHOTO}.depth": "[0, 1024]",
        f"{PHOTO}.decoder_depth": "[0, 1024]", f"{PHOTO}.class_width": "[1, 8192]", f"{PHOTO}.image_blocks": "[0, 1024]",
        f"{PHOTO}.inner_width": "[0, 32768]", f"{PHOTO}.decoder_inner_width": "[0, 32768]", f"{PHOTO}.quantizer.dim": "[1, 8192]",
        f"{PHOTO}.quantizer.codes": "[2, 1048576]",
    }),
    "diffusion": (partial(Entry, **{f"{DIFFUSION}.patch": 4}), {
        f"{DIFFUSION}.training_steps": "[25, 65536]", f"{DIFFUSION}.steps": "[1, 1000]", f"{DIFFUSION}.layers": "[1, 64]",
        f"{DIFFUSION}.shift": "(0.0, inf)", f"{DIFFUSION}.attention": "[0, 4]",
    }),
}  # fmt: skip


PAIRS = {"betas": (0.9, 0.95), "interval": (0.0, 1.0), "target_beta": (0.1, 1.0)}
FREE = {"start", "end", "choice_temperature", "window"}
"""Numbers that may be any, or are tried with other settings; windows are checked with their source."""


def numbers(text: str) -> tuple[list[Any], list[Any]]:
    """The numbers that a range accepts, and those that it does not: at its ends and next to them.

    Args:
        text: an interval, of real numbers if its ends have a point; numbers in braces before it are accepted, too.
    """
    also, opening, low, high, closing = re.fullmatch(r"(?:\{(.*)\} )?([\[(])(.*), (.*)([])])", text).groups()  # type: ignore[union-attr]
    inside, outside = [float(also)] if also else [], []
    is_real = {".", "e"} & {*low, *high.replace("inf", "")}
    for end, is_closed, out in ((low, opening == "[", -math.inf), (high, closing == "]", math.inf)):
        if end == "inf":
            inside.append(1e300 if is_real else 10**12)
            outside += [math.inf, math.nan] if is_real else []
            continue
        number = float(end) if is_real else int(end)
        step = (
            (lambda to, n=number: math.nextafter(n, to))
            if is_real
            else (lambda to, n=number: n + int(math.copysign(1, to)))
        )
        inside.append(number if is_closed else step(-out))
        outside.append(step(out) if is_closed else number)
    return inside, outside


def with_setting(make: Callable[..., Any], key: str, value: Any) -> Callable[[], Any]:
    """Sets a number; `key.0` is the first of a pair, whose other one stays."""
    name, _, place = key.rpartition(".")
    if not place.isdigit():
        return partial(make, **{key: value})
    given = make.keywords if isinstance(make, partial) else {}
    pair = [*given.get(name, PAIRS[name])]
    pair[int(place)] = value
    return partial(make, **{name: tuple(pair)})


CASES = [
    pytest.param(make, key, text, id=f"{name}-{key}")
    for name, (make, keys) in RANGES.items()
    for key, text in keys.items()
]


@pytest.mark.parametrize(("make", "key", "text"), CASES)
def test_ranges(make: Callable[..., Any], key: str, text: str) -> None:
    inside, outside = numbers(text)
    for value in inside:
        with_setting(make, key, value)()
    named = key.removesuffix(".0").removesuffix(".1").rpartition(".")[2]
    for value in outside:
        with pytest.raises(MaskweaveError, match=named.rpartition("_")[2]):
            with_setting(make, key, value)()


def test_every_number_of_these_settings_has_a_range() -> None:
    for name, (cls, keys) in RANGES.items():
        if isinstance(cls, type) and dataclasses.is_dataclass(cls):
            hints = {
                f: hint for f, hint in typing.get_type_hints(cls).items() if typing.get_origin(hint) not in (dict, list)
            }
            found = {f for f, hint in hints.items() if {hint, *typing.get_args(hint)} & {int, float}}
            assert found <= {key.split(".")[0] for key in keys} | FREE, name


def test_how_ranges_are_read() -> None:
    assert numbers("[1, 9)") == ([1, 8], [0, 9])
    assert numbers("(0, inf)") == ([1, 10**12], [0])
    inside, outside = numbers("{0} (0.5, 1.0]")
    assert inside == [0.0, math.nextafter(0.5, 1), 1.0] and outside == [0.5, math.nextafter(1, 2)]


FIXED = {
    "*.seed", "Augment.copies", "HeadSettings.bins", "HeadSettings.attention", "Bounds.*", "ReadingLimits.*", "entries.modalities.words.chunk",
    "entries.vocabularies.text.sentinels", f"diffusion.{DIFFUSION}.steps", f"diffusion.{DIFFUSION}.attention",
}  # fmt: skip
"""Whole numbers whose limits are not multiplied: what is above cannot be, whatever is intended."""


@pytest.mark.parametrize(("make", "key", "text"), CASES)
def test_a_factor_multiplies_limits(
    make: Callable[..., Any], key: str, text: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id.split("-")[0]
    limit = re.fullmatch(r"\[\d+, (\d+)\]", text)
    if limit is None:
        assert "." in text or "inf" in text
        return
    monkeypatch.setenv(FACTOR_SETTING, "3")
    is_fixed = bool({f"*.{key}", f"{name}.*", f"{name}.{key}"} & FIXED)
    if not is_fixed:
        with_setting(make, key, 3 * int(limit[1]))()
    with pytest.raises(MaskweaveError, match=key.rpartition(".")[2].rpartition("_")[2]):
        with_setting(make, key, int(limit[1]) * (1 if is_fixed else 3) + 1)()


def test_whole_numbers_of_python_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTOR_SETTING, "3")
    assert [whole_number("n", n, 1, 5) for n in (1, 5)] == [1, 5] and whole_number("n", 10**40) == 10**40
    for wrong in (0, 6, 1.0, True, "1", None):
        with pytest.raises(MaskweaveError, match="n is .*; expected"):
            whole_number("n", wrong, 1, 5)


def test_temperatures_of_a_calibrated_bundle(tmp_path: Path) -> None:
    folder = save(small_bundle(), tmp_path)
    for inside in (5e-324, 1.0, 1e308):
        write_yaml(folder / CALIBRATION, {"temperatures": {"depth": inside}})
        assert load_bundle(folder).calibration == {"depth": inside}
    for name, outside in (("depth", 0.0), ("depth", -1.0), ("depth", math.inf), ("depth", math.nan), ("other", 1.0)):
        write_yaml(folder / CALIBRATION, {"temperatures": {name: outside}})
        with pytest.raises(MaskweaveError, match=f"the temperature of '{name}' is .*; expected a number above 0"):
            load_bundle(folder)


def cache_bytes() -> int:
    return Cache.of_machine().limit


@pytest.mark.parametrize(
    ("variable", "read", "valid", "wrong"),
    [
        (TEXT_SETTING, max_text_mb, {"": 64.0, "5e-324": 5e-324, " 8 ": 8.0, "inf": math.inf}, ["0", "-1", "nan", "x"]),
        (VALUE_SETTING, max_value_bytes, {"": 2**30, "1": 2**20, "999999999": 999_999_999 * 2**20}, ["0", "1000000000", "1.5", "-1", "²"]),
        (SIZE_SETTING, cache_bytes, {"": 10**11, "1e-9": 1, "5e-324": 0, " 2 ": 2 * 10**9}, ["0", "-1", "nan", "inf", "x"]),
        (FACTOR_SETTING, limit_factor, {"": 1, "1": 1, "999999999": 999_999_999}, ["0", "1000000000", "1.5", "-1", "²"]),
    ],
)  # fmt: skip
def test_variables(
    variable: str,
    read: Callable[[], Any],
    valid: dict[str, Any],
    wrong: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv(FOLDER_SETTING, str(tmp_path))
    for text, value in valid.items():
        monkeypatch.setenv(variable, text)
        assert read() == value
    for text in wrong:
        monkeypatch.setenv(variable, text)
        with pytest.raises(MaskweaveError, match=f"{variable} is {text!r}; expected a"):
            read()
