"""Wrong arguments from Python: each gives one clear error, before any work."""

import dataclasses
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskweave import Tokens
from maskweave.config import whole_number
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle, load
from maskweave.generate.schedule import Condition, Schedule, Step
from maskweave.modality.decoding import Decoding
from maskweave.training.settings import TrainSettings

WRONG = (
    "x",
    "",
    b"x",
    None,
    1.5,
    float("nan"),
    float("inf"),
    10**40,
    -1,
    True,
    [],
    {},
    [1],
    (),
    object(),
    2 + 1j,
    np.zeros(3),
    torch.zeros(2),
    print,
)
"""Values of which each argument takes at most a few."""
PICTURE = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tiny_run: Path) -> Bundle:
    return load(tiny_run)


def refused_or_valid(call: Callable[[], Any]) -> bool:
    """Whether a call refuses; anything but a clear error, or a result, fails the test."""
    try:
        call()
    except MaskweaveError as error:
        assert 0 < len(str(error)) < 1000 and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("cls", [Decoding, TrainSettings, Step, Condition, Schedule])
def test_settings_check_their_types(cls: type) -> None:
    valid: dict[str, Any] = {
        Step: {"target": "depth", "scheme": "roar", "tokens": 3},
        Condition: {"modalities": ("rgb",), "weight": 1.0},
        Schedule: {"steps": ()},
    }.get(cls, {})
    for f in dataclasses.fields(cls):
        refusals = [refused_or_valid(partial(cls, **{**valid, f.name: value})) for value in WRONG]
        assert sum(refusals) > len(WRONG) / 2, f.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scheme": "x"},
            "scheme is 'x'; expected one of maskgit, roar, halton, entropy, margin, moment, autoregressive",
        ),
        ({"token_schedule": "x"}, "token_schedule is 'x'; expected one of auto, cosine, arccos, linear"),
        ({"temperature": "a"}, "temperature is 'a'; expected a number"),
        ({"temperature": 1e-40}, "temperature is 1e-40; expected 0, or 1e-06 or more"),
        ({"steps": 1.5}, "steps is 1.5; expected a whole number"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"top_k": 1.5}, "top_k is 1.5; expected a whole number"),
        ({"guidance": 1e38}, r"guidance is 1e\+38; expected -10000 to 10000"),
        ({"temperature_schedule": "onex:0:400"}, "POWER at most 50"),
    ],
)
def test_messages_of_decoding(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        Decoding(**settings)


def test_numbers_of_other_libraries_become_pythons() -> None:
    how = Decoding(steps=np.int64(3), temperature=np.float32(0.5), top_k=torch.tensor(4).item())  # type: ignore[arg-type]
    assert (how.steps, how.temperature) == (3, 0.5)
    assert type(how.steps) is int and type(how.temperature) is float
    assert whole_number("n", np.uint8(3)) == 3


@pytest.mark.parametrize("seed", [1.5, "a", None, [1], float("nan"), -1, 2**70, True, np.float32(1)])
def test_seeds(bundle: Bundle, seed: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: bundle.generate({"rgb": PICTURE}, ["depth"], seed=seed),
        lambda: bundle.generate_batch([{"rgb": PICTURE}], ["depth"], seeds=[seed]),
        lambda: bundle.ensemble({"rgb": PICTURE}, ["depth"], samples=2, seed=seed),
        lambda: bundle.tiles({"rgb": PICTURE}, ["depth"], seed=seed),
    ]
    for call in calls:
        with pytest.raises(MaskweaveError, match="seed is .*; expected"):
            call()


OPTIONS = (
    "decoding",
    "conditions",
    "schedule",
    "edit",
    "guide_with_finished",
    "chain",
    "compiled",
    "precision",
    "on_untrained",
)


@pytest.mark.parametrize("name", [*OPTIONS, "targets", "inputs", "seeds", "batch_size", "samples", "overlap"])
def test_wrong_arguments_of_requests(bundle: Bundle, name: str) -> None:
    """The values that mean nothing are refused with a message that names the argument."""
    rng = random.Random(0)
    for value in (
        *WRONG,
        {"depth": "x"},
        {3: 1.0},
        {"rgb": "a"},
        {"rgb": 1e38},
        {"depth": {"steps": 3}},
        [[]],
        ["depth", 3],
    ):
        options = {name: value}
        targets = options.pop("targets", ["depth"])
        inputs = options.pop("inputs", {"rgb": PICTURE})
        if name in ("seeds", "batch_size"):
            call = lambda: bundle.generate_batch([inputs], targets, **options)  # noqa: E731, B023
        elif name in ("samples", "overlap"):
            call = lambda: bundle.ensemble(inputs, targets, **{"samples": 2, **options})  # noqa: E731, B023
        else:
            call = lambda: bundle.generate(inputs, targets, seed=rng.randrange(9), **options)  # noqa: E731, B023
        if name == "compiled" and value is True:
            continue  # valid, and slow
        refused = refused_or_valid(call)
        if isinstance(value, (str, complex)) or value is print:
            assert refused or value == "", (name, value)


TENSORS = {
    "gradient": torch.ones(64, 64, requires_grad=True),
    "bf16": torch.ones(64, 64, dtype=torch.bfloat16),
    "conjugate": torch.ones(64, 64, dtype=torch.complex64).conj(),
    "sparse": torch.ones(64, 64).to_sparse(),
    "meta": torch.ones(64, 64, device="meta"),
    "quantized": torch.quantize_per_tensor(torch.ones(64, 64), 0.1, 0, torch.quint8),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "masked": np.ma.masked_equal(np.ones((64, 64), np.float32), 1),
    "huge": np.broadcast_to(np.float32(1), (2**20, 2**20)),
    "objects": np.full((64, 64), None),
    "records": np.zeros(4, [("a", "f4")]),
    "dates": np.zeros((64, 64), "M8[s]"),
    "ragged": [[1, 2], [3]],
    "empty picture": Image.new("RGB", (0, 0)),
    "16-bit picture": Image.new("I;16", (64, 64)),
    "float picture": Image.new("F", (64, 64)),
    "bytes": b"abc",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_odd_arrays_and_tensors(bundle: Bundle, kind: str) -> None:
    value = TENSORS[kind]
    refusals = {
        "depth": refused_or_valid(lambda: bundle.read({"depth": value})),
        "rgb": refused_or_valid(lambda: bundle.read({"rgb": value})),
        "tokens": refused_or_valid(lambda: bundle.read({"depth": Tokens(value)})),
    }
    assert refusals["tokens"] and refusals["rgb"]
    assert refusals["depth"] == (kind not in ("gradient", "bf16", "16-bit picture", "float picture", "masked"))


def test_tokens_of_any_tensor(bundle: Bundle) -> None:
    ids = torch.zeros(bundle.catalog["depth"].tokens)
    for good in (ids.long(), ids.int(), ids.numpy().astype(np.uint8), ids.long().tolist()):
        assert bundle.read({"depth": Tokens(good)})["depth"].ids.dtype == np.int64
    with pytest.raises(MaskweaveError, match="rows of different lengths"):
        bundle.read({"depth": Tokens([[1, 2], [3]])})
    with pytest.raises(MaskweaveError, match="found tokens of type float32"):
        bundle.read({"depth": Tokens(ids.requires_grad_())})


@pytest.mark.parametrize("place", [3, None, "x" * 5000, "a\0b", b"x", [], "hf://\0"])
def test_places_that_cannot_be(place: Any) -> None:
    with pytest.raises(MaskweaveError):
        load(place)
