"""What training sample n of seed s draws is the same tomorrow: random numbers, budgets, masks, order. As in `masks.yaml`.

If it changes on purpose, `python tests/masking/test_golden_masks.py` writes it. A run that is resumed with another version then goes on with other masks.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
from tiny_catalog import random_columns, tiny  # noqa: E402

from maskweave.masking.budgets import dirichlet_budgets, fill, first_budgets, log_gamma, target_numbers  # noqa: E402
from maskweave.masking.fourm import MaskingConfig, MaskSampler, Mixture  # noqa: E402
from maskweave.masking.m3ae import MaskRatio, mask_columns, separate  # noqa: E402
from maskweave.masking.paths import TrainedPaths  # noqa: E402
from maskweave.masking.random import SampleRandom  # noqa: E402

STORED = Path(__file__).with_name("masks.yaml")
RNG = SampleRandom.at(5, np.array([0, 1, 7]))


def plain(array: Any) -> Any:
    """Numbers with 9 digits, which no rounding of logarithms changes."""
    found = np.asarray(array).tolist()
    return _rounded(found)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def numbers() -> dict[str, Any]:
    capacity = np.array([[4, 0, 9, 30], [1, 5, 0, 2], [8, 8, 8, 8]])
    alpha = np.array([[0.5, 1.0, 0.0, 5.0], [0.01, 0.5, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    return {
        "uniform": plain(RNG.random(3)),
        "float32": plain(RNG.random(3, np.float32)),
        "streams": plain([RNG.stream(0).random(1), RNG.stream(4).random(1), RNG.stream(np.array([0, 4, 2])).random(1)]),
        "exponential": plain(RNG.standard_exponential(3)),
        "gamma": plain(RNG.standard_gamma(np.array([[1.0, 2.5, 40.0]] * 3))),
        "log gamma": plain(np.nan_to_num(log_gamma(alpha, RNG), neginf=-999)),
        "dirichlet": plain([dirichlet_budgets(alpha, capacity, total, RNG) for total in (1, 7, 20)]),
        "first": plain([first_budgets(capacity, total, RNG) for total in (1, 7, 20)]),
        "fill": plain([fill(capacity, np.array([total, 0, 99]), RNG) for total in (1, 7, 20)]),
        "targets": plain([target_numbers(beta, 50, RNG) for beta in ((0.1, 1.0), (5.0, 0.5))]),
        "of a generator": plain(SampleRandom.of(np.random.default_rng(3), 2).random(2)),
    }


MASKING = {
    "one mixture": MaskingConfig(12, 10),
    "mixtures": MaskingConfig(
        9, 14,
        [
            Mixture({"default": 0.5, "photo": 2.0}, {"default": 1.0, "caption": 0.0}, 2.0, "all"),
            Mixture({"caption": 1.0, "facts": 0.1}, {"codes": 0.5, "spectrum": 5.0}, 1.0, "all_or_nothing"),
        ],
        0.3,
    ),
    "uniform": MaskingConfig(20, 30, allocation="uniform", target_beta=(1.0, 0.5)),
}  # fmt: skip


def side(slots: Any) -> dict[str, Any]:
    return {"ids": plain(slots.ids), "modality": plain(slots.modality), "position": plain(slots.position)}


def masks(name: str) -> dict[str, Any]:
    catalog = tiny()
    columns = random_columns(catalog, 4, np.random.default_rng(1), 0.2)
    batch = MaskSampler(catalog, MASKING[name])(columns, SampleRandom.at(2, np.arange(4)))
    rows = {key: plain(np.asarray(value, np.float64).sum(axis=1)) for key, value in batch.rows.items()}
    return {"inputs": side(batch.inputs), "targets": side(batch.targets), "labels": plain(batch.labels), "rows": rows}


def autoencoding() -> list[dict[str, Any]]:
    catalog = tiny().subset(["photo", "caption"])
    columns = random_columns(catalog, 5, np.random.default_rng(1), 0.2)
    rng = SampleRandom.at(3, np.arange(5))
    apart = separate(columns, np.array([True, False, True, False, False]), catalog, rng)
    batch = mask_columns(apart, catalog, MaskRatio(0.75, 0.5), rng)
    return [
        {"samples": plain(group.samples), **{name: plain(part.masked.int()) for name, part in group.parts.items()}}
        for group in batch.groups
    ]


def paths() -> dict[str, Any]:
    catalog = tiny()
    found = {}
    for name, masking in MASKING.items():
        trained = TrainedPaths(catalog, masking)
        found[name] = {
            f"{target} from {'+'.join(inputs)}": [trained.is_possible(inputs, target), plain(trained.share(inputs, target)), trained.problem(inputs, target)]
            for inputs, target in ((["photo"], "caption"), (["caption", "facts"], "codes"), ([], "codes"), (["feature"], "spectrum"), (["photo", "codes", "spectrum", "caption", "facts", "feature"], "codes"))
        }  # fmt: skip
    return found


PARTS = {"numbers": numbers, **{name: (lambda name=name: masks(name)) for name in MASKING}, "autoencoding": autoencoding, "paths": paths}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_what_is_drawn_is_what_is_stored(name: str) -> None:
    stored = yaml.safe_load(STORED.read_text(encoding="utf-8"))[name]
    assert PARTS[name]() == stored, f"{name} changed; on purpose: python tests/masking/test_golden_masks.py"


if __name__ == "__main__":
    content = {name: make() for name, make in PARTS.items()}
    STORED.write_text(yaml.safe_dump(content, default_flow_style=None, width=150, sort_keys=False), encoding="utf-8")
