"""The size of the model and the number of steps that suit the data, the machine and the time."""

import time
from dataclasses import dataclass

import torch

from maskweave.init.finding import Finding

MEASURED_FOR = 0.1
"""Seconds for which the machine's speed is measured."""
MATRIX = 256
REFERENCE_SPEED = 50.0
"""Billion multiply-adds and additions per second of one thread at which the two costs below were measured."""
MODEL_COST = 4.0e-5
"""Seconds of one thread for a training step of the smallest model, per token of the batch."""
TOKENIZER_COST = 6.0e-5
"""The same of a tokenizer, per token of the batch."""
TOKENIZERS_SHARE, MODEL_SHARE = 0.35, 0.5
"""Shares of the time; the rest is for reading, evaluation and the report."""
TOKENIZER_STEPS = (100, 4000)
MODEL_STEPS = (200, 200_000)
EPOCHS = 300
"""Most passes over the data, after which small models only memorize it."""
TOKENIZER_BATCH = 8
MOST_INPUTS, MOST_TARGETS = 256, 96
MODEL_SIZES = ((2000, 60, "mini"), (500, 30, "micro"), (0, 0, "nano"))
"""Model by the smallest number of samples and of minutes."""
SIZE_COSTS = {"nano": 1.0, "micro": 3.0, "mini": 8.0}
"""Cost of a step relative to the smallest model."""
HELD_OUT = 0.1
MOST_PROCESSES = 8


@dataclass(frozen=True)
class Plan:
    """Settings of the recipe."""

    validation: int
    evaluated: int
    size: str
    input_tokens: int
    target_tokens: int
    batch_size: int
    processes: int
    steps: int
    tokenizer_steps: int
    jobs: int


def machine_speed() -> float:
    """Returns the speed of one thread in billion operations per second, by matrix products of 0.1 s."""
    x = torch.ones(MATRIX, MATRIX)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x @ x  # the first product is slow
        start, products = time.perf_counter(), 0
        while time.perf_counter() - start < MEASURED_FOR:
            x @ x
            products += 1
        return 2 * MATRIX**3 * products / (time.perf_counter() - start) / 1e9
    finally:
        torch.set_num_threads(threads)


def make_plan(findings: list[Finding], samples: int, minutes: float, speed: float, threads: int) -> Plan:
    """Returns settings that should take about the given time.

    Args:
        findings: those with an entry.
        samples: all samples, of which some are held out.
        speed: of one thread, in billion operations per second.
        threads: cores to use.
    """
    tokens = {f.name: _tokens(f) for f in findings}
    networks = [f for f in findings if f.grid]
    inputs = min(MOST_INPUTS, max(8, sum(tokens.values())))
    targets = min(MOST_TARGETS, max(8, max(tokens.values())))
    size = next(name for least, time_, name in MODEL_SIZES if samples >= least and minutes >= time_)
    processes = max(1, min(threads, MOST_PROCESSES))
    batch_size = max(4, 32 // processes)
    slower, seconds = REFERENCE_SPEED / speed, 60 * minutes
    step = MODEL_COST * SIZE_COSTS[size] * slower * batch_size * (inputs + targets)
    jobs = max(1, min(threads, len(networks)))
    each = [TOKENIZER_COST * slower * TOKENIZER_BATCH * max(16, tokens[f.name]) for f in networks]
    tokenizer_steps = TOKENIZERS_SHARE * seconds * jobs / sum(each) if each else 0
    share = MODEL_SHARE if networks else MODEL_SHARE + TOKENIZERS_SHARE
    epochs = EPOCHS * samples / (batch_size * processes)
    validation = max(1, min(256, round(HELD_OUT * samples)))
    return Plan(
        validation,
        min(validation, 100),
        size,
        inputs,
        targets,
        batch_size,
        processes,
        _round(min(share * seconds / step, max(epochs, MODEL_STEPS[0])), *MODEL_STEPS),
        _round(tokenizer_steps, *TOKENIZER_STEPS),
        jobs,
    )


def _tokens(finding: Finding) -> int:
    product = 1
    for n in finding.grid:
        product *= n
    return (
        product
        if finding.grid
        else finding.max_tokens or len(finding.value.get("classes", ())) * (finding.type == "tags") or 1
    )


def _round(steps: float, least: int, most: int) -> int:
    steps = int(min(max(steps, least), most))
    digits = 10 ** max(0, len(str(steps)) - 2)
    return steps // digits * digits
