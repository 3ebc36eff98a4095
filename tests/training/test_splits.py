"""An update is the same however its samples are split over batches and processes, and a run may resume with another split."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import split_training
import torch
from safetensors.torch import load_file
from split_training import KINDS, train
from timeless import numbers, timeless

from maskweave.errors import MaskweaveError
from maskweave.training.metrics import read_metrics

DECLARED = ("mod", "m3ae", "contrastive", "tied")
"""Objectives that say which parameters an update does not use, so that a divided model has the gradients of a whole one."""
UNSEARCHED = ("mod", "contrastive")
"""Of these, DDP must not need to search the graph for unused parameters, as it does on CPUs."""
LEARNING = {"learning_rate": 1e-2, "clip": 1.0, "steps": 12, "checkpoint_every": 6, "validate_every": 6}


def with_two_processes(runs: list[dict[str, object]]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, split_training.__file__, json.dumps(runs, default=str)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of training with the same updates split in three ways; and runs that two processes resume or begin."""
    root = tmp_path_factory.mktemp("splits")
    for kind in KINDS:
        size = 4 if kind == "seldom" else 8  # batches of the stub are functions of their size
        train(str(root / kind / "whole"), kind, size, 2 if kind == "seldom" else 1)
        train(str(root / kind / "halves"), kind, 4, 2)
    train(str(root / "alone"), "mod", 8, **LEARNING)
    train(str(root / "one_two"), "mod", 8, **{**LEARNING, "steps": 6, "warmup": 0.0, "schedule": "constant"})
    learning = {**LEARNING, "warmup": 0.0, "schedule": "constant"}
    train(str(root / "one"), "mod", 8, **learning)
    with_two_processes(
        [
            *({"folder": root / kind / "together", "kind": kind, "batch_size": 4} for kind in KINDS),
            *(
                {"folder": root / k / "divided", "kind": k, "batch_size": 2, "accumulate": 2, "parallel": "fsdp"}
                for k in DECLARED
            ),
            *({"folder": root / k / "unsearched", "kind": k, "batch_size": 4, "as_on_gpu": True} for k in UNSEARCHED),
            {"folder": root / "one_two", "kind": "mod", "batch_size": 4, **learning},
            {"folder": root / "two", "kind": "mod", "batch_size": 4, **learning},
            {"folder": root / "two_two", "kind": "mod", "batch_size": 4, **{**learning, "steps": 6}},
            {"folder": root / "two_two", "kind": "mod", "batch_size": 4, **learning},
            {"folder": root / "quiet", "kind": "mod", "batch_size": 4, "steps": 32, "log_every": 32},
            {"folder": root / "two_one", "kind": "mod", "batch_size": 4, **{**learning, "steps": 6}},
        ]
    )
    train(str(root / "two_one"), "mod", 4, 2, **learning)
    return root


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        *((k, s) for k in KINDS for s in ("halves", "together")),
        *((k, "divided") for k in DECLARED),
        *((k, "unsearched") for k in UNSEARCHED),
    ],
)
def test_losses_and_gradients_do_not_depend_on_the_split(root: Path, kind: str, split: str) -> None:
    lines = [read_metrics(root / kind / how) for how in ("whole", split)]
    assert len(lines[0]) == len(lines[1]) == 13, "with one of validation"
    for a, b in zip(*lines, strict=True):
        assert a.pop("split") == b.pop("split")
        a, b = ({k: math.nan if v is None else v for k, v in timeless(line).items()} for line in (a, b))
        assert a == pytest.approx(b, abs=1e-6, rel=1e-6, nan_ok=True)
    whole, other = (load_file(root / kind / how / "gradients.safetensors") for how in ("whole", split))
    assert whole.keys() == other.keys(), "the same parameters have a gradient"
    for step in {name.partition("/")[0] for name in whole}:
        of_step = [n for n in whole if n.startswith(f"{step}/")]
        both = [torch.cat([found[n].flatten().double() for n in of_step]) for found in (whole, other)]
        assert (both[0] - both[1]).norm() < 5e-6 * both[0].norm(), "more than the rounding of float32"


def test_the_data_are_uneven(root: Path) -> None:
    """The trainings above have what makes splitting difficult."""
    objective, batches = split_training.build("mod", 4)
    counts = [objective.count(batches[i]) for i in range(24)]
    targets = [{name: n for name, n in c.items() if name.startswith("targets/")} for c in counts]
    assert any(not any(t.values()) for t in targets), "a half without any target"
    assert any(bool(a[name]) != bool(b[name]) for a, b in zip(targets[::2], targets[1::2], strict=True) for name in a)
    gradients = load_file(root / "mod" / "whole" / "gradients.safetensors")
    steps = {n.partition("/")[0] for n in gradients}
    assert len({n.partition("/")[2] for n in gradients}) * len(steps) > len(gradients), "unused parameters"


def test_a_run_resumes_with_more_or_fewer_processes(root: Path) -> None:
    one, two, one_two, two_one, two_two = (
        numbers(root / name) for name in ("one", "two", "one_two", "two_one", "two_two")
    )
    assert two_two == two, "with the same number of processes, bit for bit"
    assert one_two[:6] == one[:6] and two_one[:6] == two[:6]
    for other in (two, one_two, two_one):
        for a, b in zip(one, other, strict=True):
            assert a["loss"] == (None if b["loss"] is None else pytest.approx(b["loss"], abs=1e-4))
    assert one[-1]["loss"] < one[0]["loss"] - 0.1, "it learns, so that a wrong sample or mask would show"


def test_another_number_of_samples_is_refused(root: Path) -> None:
    words = r"its steps have 8 samples \(batch_size 4 × accumulate 1 × 2 processes\), those of this run 4 \(batch_size 4 × accumulate 1 × 1 processes\)"
    with pytest.raises(MaskweaveError, match=words):
        train(str(root / "two_two"), "mod", 4, **{**LEARNING, "steps": 20})


def test_every_run_reports_its_pace(root: Path) -> None:
    for name in ("mod/whole", "mod/together", "m3ae/whole"):
        line = read_metrics(root / name)[-2]
        assert 0 < line["share_of_peak"] < 1
        assert line["tokens_per_second"] > line["samples_per_second"] > 0
        assert line["seconds_waiting_for_data"] > 0 and 0.05 < line["memory_gib"] < 20
    lines = [line for line in read_metrics(root / "mod" / "whole") if line["split"] == "train"]
    objective, batches = split_training.build("mod", 8)
    filled = [objective.count(batches[i]) for i in range(12)]
    for side in ("inputs", "targets"):
        tokens = [sum(n for name, n in counts.items() if name.startswith(side)) for counts in filled]
        assert [line[f"fill/{side}"] for line in lines] == pytest.approx([n / (8 * 12) for n in tokens])


def test_processes_do_not_talk_in_every_step(root: Path) -> None:
    """Besides the gradients, which DDP sends by itself."""
    for rank in (0, 1):
        calls = json.loads((root / "quiet" / f"calls-{rank}.json").read_text(encoding="utf-8"))
        agreements, of_metrics, at_the_ends = 32 // 8, 2 * 2, 4
        assert calls.count("all_reduce") <= agreements + of_metrics + at_the_ends
        assert calls.count("all_gather") <= 2 * 7, (
            "two each: names of metrics (twice), counts of validation, the checkpoint (three times), the devices"
        )
