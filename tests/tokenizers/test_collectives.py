"""Two processes with half of a batch each train the tokenizer that one process trains with the whole batch."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskweave.data.batches import ValueBatches
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.quantizers.vq import VQ
from maskweave.training.loop import fit
from maskweave.training.metrics import read_metrics
from maskweave.training.processes import run_together
from maskweave.training.settings import TrainSettings
from maskweave.values.image import Image

QUANTIZERS = {"vq": Quantizer("vq", codes=16, dim=4), "lfq": Quantizer("lfq", codes=16)}
DEAD = 6
TOLERANCE = 1e-4
"""Against weights that moved by 5e-3: AdamW makes much of small differences."""
SUMMANDS = {"vq": 0.25, "lfq": 0.1 * math.log(16)}
"""Size of the terms of the quantizers' losses: a commitment loss; two entropies, which nearly cancel and leave their rounding behind."""


def train(folder: Path, batch_size: int) -> None:
    """A tokenizer with each quantizer. Their validation has three batches, so that one of two processes has none for the last."""
    for name, quantizer in QUANTIZERS.items():
        spec = TokenizerSpec(width=16, heads=2, depth=1, decoder_depth=1, quantizer=quantizer)
        modality = Modality("probe", 1, "grid", Image((8, 8), 3), grid=(4, 4), tokenizer=spec)
        pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
        torch.manual_seed(0)
        fit(
            TokenizerObjective(GridTokenizer(modality)),
            ValueBatches(modality, pictures, batch_size),
            TrainSettings(steps=5, batch_size=batch_size, log_every=1, validate_every=5, learning_rate=1e-3),
            folder / name,
            validation=ValueBatches(modality, pictures[:24], 8, shuffle=False),
        )


def latents(rank: int) -> Tensor:
    return torch.randn(5, 20, 8, generator=torch.Generator().manual_seed(rank))


def together(folder: Path) -> None:
    """The body of each of the two: train, then see codes die."""
    train(folder, batch_size=4)
    rank = torch.distributed.get_rank()
    quantizer = VQ(16, 8).train()
    quantizer(latents(rank))
    quantizer.usage[:DEAD] = 0
    quantizer(latents(rank))
    save_file(dict(quantizer.state_dict()), folder / f"revived-{rank}.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made, `two`, and one, `one`."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("one", "two"):
        (folder / name).mkdir()
    train(folder / "one", batch_size=8)
    run_together(2, together, folder / "two")
    return folder


@pytest.mark.parametrize("name", QUANTIZERS)
def test_halves_of_a_batch_train_as_the_whole(trained: Path, name: str) -> None:
    one, two = (
        load_file(trained / who / name / "checkpoints/step-00000005/model.safetensors") for who in ("one", "two")
    )
    assert one.keys() == two.keys() and one["counts"].sum() > 0
    for key in one:
        if not key.endswith("k.bias"):  # without effect: its gradient is rounding alone, which AdamW takes for more
            assert (two[key].float() - one[key].float()).abs().max() < TOLERANCE, key


@pytest.mark.parametrize("name", QUANTIZERS)
def test_metrics_are_those_of_the_whole_batch(trained: Path, name: str) -> None:
    one, two = (read_metrics(trained / who / name) for who in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "quantizer", "perplexity", "codebook_use"):
            size = SUMMANDS[name] if key == "quantizer" else abs(b[key])
            assert a[key] == pytest.approx(b[key], rel=0, abs=TOLERANCE * size), (
                f"{a['split']}, step {a['step']}: {key}"
            )


def test_revived_codes_are_the_same_everywhere_and_of_all_processes(trained: Path) -> None:
    first, second = (load_file(trained / "two" / f"revived-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    own = [F.normalize(latents(rank), dim=-1).flatten(0, 1) for rank in (0, 1)]
    for code in range(DEAD):
        nearest = [(rows @ first["codebook"][code]).max().item() for rows in own]
        assert nearest[code % 2] == pytest.approx(1, abs=1e-6) and nearest[1 - code % 2] < 0.9999
