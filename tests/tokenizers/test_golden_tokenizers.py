"""What tokenizer networks and heads compute with weights of a formula, and how many parameters they have, as in `networks.json`: no layer, scale or
connection changes unnoticed.

If it changes on purpose, `python tests/tokenizers/test_golden_tokenizers.py` writes it.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # where this file is run by itself
from network_numbers import assert_close, filled, shapes, told  # noqa: E402
from test_grid_tokenizer import ENTRIES, entry, sample, variant  # noqa: E402

from maskweave.models.encoder import Encoded  # noqa: E402
from maskweave.models.heads import BoxHead, DenseHead  # noqa: E402
from maskweave.models.raw_features import mean_and_deviation  # noqa: E402
from maskweave.models.sample_heads import ClassHead, NumberHead  # noqa: E402
from maskweave.objectives.tokenizer import TokenizerObjective  # noqa: E402
from maskweave.tokenizers.grid import GridTokenizer  # noqa: E402
from maskweave.values.image import Image  # noqa: E402
from maskweave.values.map import Map  # noqa: E402
from maskweave.values.series import Series  # noqa: E402

STORED = Path(__file__).with_name("networks.json")
GRIDS = {name: modality for name, modality in ENTRIES.items() if name != "diffusion"}
"""Diffusion decoders have tests of their own: the import of their library takes seconds."""
MORE = {
    "series": entry(Series((16,), 2, mean=(0.5, 0.5), std=(0.25, 0.5)), (4,)),
    "blended map": entry(Map((8, 8), range=(0, 10)), (2, 2), variant(overlap="blend")),
    "unknown points": entry(Map((8, 8), range=(0, 10), missing=("nan",)), (2, 2)),
}  # fmt: skip


def of_tokenizer(name: str) -> dict[str, Any]:
    modality = (GRIDS | MORE)[name]
    torch.manual_seed(0)
    tokenizer = GridTokenizer(modality)
    filled(tokenizer)
    values = sample(modality, 3) if name in GRIDS else None
    if values is None:
        v: Any = modality.value
        values = np.random.default_rng(0).random((3, *v.size, v.channels)).astype(np.float32)
        values = (values * 255).astype(np.uint8) if isinstance(v, Image) else values
        if v.has_unknown:
            values[:, :3] = np.nan
    batch = modality.value.to_network(modality.value.check_batch(values, name))
    tokenizer.eval()
    with torch.inference_mode():
        ids = torch.from_numpy(np.asarray(tokenizer.encode(values)).astype(np.int64))
        found = {
            "parameters": shapes(tokenizer),
            "input": told(batch),
            "ids": ids.flatten(1).tolist(),
            "embeddings": told(tokenizer.token_embeddings),
        }
        if modality.tokenizer is not None:
            output, target, quantized, validity = tokenizer(batch)
            found |= {
                "output": told(output),
                "target": told(target),
                "latents": told(quantized.z_q),
                "loss": told(quantized.loss),
            }
            found |= {
                "validity": None if validity is None else told(validity),
                "decoded": told(tokenizer.decode_tensor(ids)),
            }
            total, metrics = TokenizerObjective(tokenizer).eval()(
                type("Batch", (), {"values": batch, "weights": None})()
            )  # type: ignore[arg-type]
            found |= {"objective": told(total), "metrics": {key: told(value) for key, value in metrics.items()}}
    return found


def encoded() -> Encoded:
    tokens = torch.sin(torch.arange(2 * 24 * 8) * 0.7).view(2, 24, 8)
    present = torch.ones(2, 24, dtype=torch.bool)
    present[1, 20:] = False
    return Encoded(tokens, present, {"a": slice(0, 12), "b": slice(12, 24)}, {"a": (3, 4), "b": (3, 4)})


HEADS = {
    "dense": lambda: DenseHead(["a", "b"], 8, channels=3, size=(12, 16), head_width=4, depth=2, upsample=4),
    "boxes": lambda: BoxHead(8, 5, queries=7, head_width=16, depth=2, heads=2),
    "boxes at tokens": lambda: BoxHead(8, 5, queries=0, head_width=16, depth=2, heads=2, numbers=10, free=2),
    "classes": lambda: ClassHead(8, 5),
    "classes with attention": lambda: ClassHead(8, 5, attention=2),
    "gaussian": lambda: NumberHead(8, 3, "gaussian"),
    "quantile": lambda: NumberHead(8, 3, "quantile"),
    "histogram": lambda: NumberHead(8, 1, "histogram", bins=6),
}


def of_head(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    head = HEADS[name]()
    start = (
        {key: told(p) for key, p in head.named_parameters() if not p.std() or p.ndim == 1}
        if isinstance(head, NumberHead)
        else {}
    )
    filled(head)
    with torch.inference_mode():
        output = head.eval()(encoded())
    return {"parameters": shapes(head), "shape": [*output.shape], "output": told(output), "start": start}


def found(name: str) -> dict[str, Any]:
    return of_head(name) if name in HEADS else of_tokenizer(name)


@pytest.mark.parametrize("name", [*GRIDS, *MORE, *HEADS])
def test_networks_compute_what_is_stored(name: str) -> None:
    assert_close(found(name), json.loads(STORED.read_text(encoding="utf-8"))[name], name)


def test_means_and_deviations_of_parts() -> None:
    x = torch.tensor([[[1.0, 5.0, math.nan], [math.nan, math.nan, math.nan]]])
    assert mean_and_deviation(x)[0, ::2].tolist() == [3.0, 2.0] and mean_and_deviation(x)[0, 1::2].isnan().all()


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(found(name))}" for name in [*GRIDS, *MORE, *HEADS]]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
