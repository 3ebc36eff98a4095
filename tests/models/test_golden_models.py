"""Names and shapes of all parameters and buffers of the models, and what the models and their objectives compute with weights of a formula, as in
`models.json`.

If it changes on purpose, `python tests/models/test_golden_models.py` writes it. Checkpoints of earlier versions have these names and shapes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
from network_numbers import assert_close, filled, told  # noqa: E402
from tiny_catalog import random_columns, tiny, tiny_batch  # noqa: E402

from maskweave.families.base import family_named  # noqa: E402
from maskweave.masking.fourm import MaskingConfig  # noqa: E402
from maskweave.masking.m3ae import NOTHING, MaskRatio, mask_columns  # noqa: E402
from maskweave.models.embeddings import place_count  # noqa: E402
from maskweave.models.fourm import FourMConfig  # noqa: E402

STORED = Path(__file__).with_name("models.json")
BASE: dict[str, Any] = {"width": 32, "heads": 2, "encoder_depth": 2, "decoder_depth": 1}
FOURM: dict[str, dict[str, Any]] = {
    "fourm": {}, "fourm without gates": {"gated": False, "qk_norm": True, "mlp_ratio": 3.0}, "fourm with biases": {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "norm_bias": True},
    "fourm with registers and its own tables": {"registers": 3, "separate": True}, "fourm of token loss": {"loss": "token", "tied": True},
}  # fmt: skip
PAIRS: dict[str, dict[str, Any]] = {
    "m3ae": {"width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "m3ae of normalized patches": {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "normalized_patches": True},
    "contrastive": {"width": 32, "depth": 2, "heads": 2, "group_size": 3},
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Any]:
    """An objective with its model, and a batch."""
    torch.manual_seed(0)
    if name in FOURM:
        family, catalog = family_named("fourm"), tiny()
        settings = family.Settings(**{**BASE, "masking": MaskingConfig(12, 10), **FOURM[name]})
        batch: Any = tiny_batch(catalog, 5, tokens=12)
    else:
        family, catalog = family_named(name.split()[0]), tiny().subset(["photo", "caption"])
        settings = family.Settings(**PAIRS[name])
        ratio = NOTHING if name == "contrastive" else MaskRatio(0.6, 0.5)
        batch = mask_columns(
            random_columns(catalog, 6, np.random.default_rng(1), 0.2),
            catalog,
            ratio,
            np.random.default_rng(2),
            np.arange(6),
        )
    return family.build_objective(family.build_model(catalog, settings), settings, catalog), batch


def found(name: str) -> dict[str, Any]:
    objective, batch = built(name)
    model: Any = objective.model
    buffers = {key: list(t.shape) for key, t in model.named_buffers()}
    shapes = {key: list(p.shape) for key, p in model.named_parameters()}
    start = {key: told(p)[1] for key, p in model.named_parameters() if p.numel() > 1}
    fixed = {key: told(t) for key, t in model.named_buffers() if t.is_floating_point() and t.numel()}
    filled(objective)
    losses = {}
    for mode in ("train", "eval"):
        getattr(objective, mode)()
        objective.zero_grad()
        loss, metrics = objective(batch)
        loss.backward()
        gradient = sum(float(p.grad.double().square().sum()) for p in objective.parameters() if p.grad is not None)
        losses[mode] = {
            "loss": told(loss),
            "gradient": [gradient**0.5],
            **{key: told(value) for key, value in sorted(metrics.items())},
        }
    counts: Any = objective
    return {"parameters": shapes, "buffers": buffers, "fixed": fixed, "start": start, "losses": losses, "count": counts.count(batch), "unused": len(counts.unused_parameters(dict.fromkeys(counts.count(batch), 0)))}  # fmt: skip


@pytest.mark.parametrize("name", [*FOURM, *PAIRS])
def test_models_compute_what_is_stored(name: str) -> None:
    made, stored = found(name), json.loads(STORED.read_text(encoding="utf-8"))[name]
    assert made.pop("start") == pytest.approx(stored.pop("start"), rel=0.1, abs=1e-3), (
        "standard deviations of new weights"
    )
    assert_close(made, stored, name)


def test_sequences_have_twice_as_many_places_and_one_more() -> None:
    assert {name: place_count(m) for name, m in tiny().items()} == {
        "photo": 16, "codes": 16, "spectrum": 5, "caption": 41, "facts": 19, "feature": 9,
    }  # fmt: skip


@pytest.mark.parametrize("size", ["nano", "micro", "mini", "Ti", "S", "B", "L", "XL"])
def test_sizes_are_resolved(size: str) -> None:
    stated = {
        "nano": (128, 4, 4, 3), "micro": (192, 6, 5, 4), "mini": (256, 8, 6, 6), "Ti": (384, 6, 6, 6), "S": (512, 8, 8, 8), "B": (768, 12, 12, 12),
        "L": (1024, 16, 24, 24), "XL": (2048, 32, 24, 24),
    }  # fmt: skip
    made = FourMConfig(size=size).resolved()  # type: ignore[arg-type]
    assert (made.width, made.heads, made.encoder_depth, made.decoder_depth) == stated[size]


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(found(name))}" for name in [*FOURM, *PAIRS]]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
