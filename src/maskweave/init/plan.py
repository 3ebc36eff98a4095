"""The size of the model and the number of steps that suit the data, the machine and the time."""

import math
import time
from dataclasses import dataclass

import torch

from maskweave.init.finding import Finding
from maskweave.training.hardware import torch_threads

MEASURED_FOR = 0.1
"""Seconds for which the machine's speed is measured."""
MATRIX = 256
MODEL_COST = 7.0
"""Million operations of a training step of the smallest model, with Muon, per token of the batch. Measured at 13 billion operations per second."""
TOKENIZER_COST, ROW_COST = 0.85, 0.0033
"""The same of a tokenizer: for a token, and for each number that it covers."""
TOKENIZERS_SHARE, MODEL_SHARE = 0.35, 0.5
"""Shares of the time; the rest is for reading, evaluation and the report."""
TOKENIZER_STEPS = (100, 4000)
MODEL_STEPS = (100, 200_000)
ENOUGH_STEPS = 1000
"""Steps for which larger batches and budgets are given up."""
EPOCHS = 1000
"""Most passes over the data, after which small models only memorize it."""
TOKENIZER_BATCH = 8
BUDGETS = ((512, 96, 32), (512, 64, 16), (512, 64, 8), (256, 64, 8), (128, 64, 8), (64, 32, 8))
"""Most input and target tokens of a sample, and samples of an update, the most costly first. Inputs that a sample has in use should fit in training:
the model does not learn to read all of a modality if it always sees a part."""
CLASS_WIDTH = 8
"""Numbers that a class takes in a tokenizer, at least."""
MODEL_SIZES = ((2000, 60, "mini"), (500, 30, "micro"), (0, 0, "nano"))
"""Model by the smallest number of samples and of minutes."""
SIZE_COSTS = {"nano": 1.0, "micro": 3.0, "mini": 8.0}
"""Cost of a step relative to the smallest model."""
HELD_OUT = 0.1
MOST_EVALUATED = 100
MOST_CORES = 8


@dataclass(frozen=True)
class Plan:
    """Settings of the recipe."""

    validation: int
    evaluated: int
    size: str
    input_tokens: int
    target_tokens: int
    batch_size: int
    cores: int
    """Cores that the time was planned for; they divide the batch size."""
    steps: int
    tokenizer_steps: int
    jobs: int


def machine_speed() -> float:
    """Returns the speed of one thread in billion operations per second, by matrix products of 0.1 s."""
    x = torch.ones(MATRIX, MATRIX)
    with torch_threads(1):
        x @ x  # the first product is slow
        start, products = time.perf_counter(), 0
        while time.perf_counter() - start < MEASURED_FOR:
            x @ x
            products += 1
        return 2 * MATRIX**3 * products / (time.perf_counter() - start) / 1e9


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
    size = next(name for least, time_, name in MODEL_SIZES if samples >= least and minutes >= time_)
    cores = max(1, min(threads, MOST_CORES))
    operations = 60 * minutes * speed * 1e3  # million, of one thread
    jobs = max(1, min(threads, len(networks)))
    each = [(TOKENIZER_COST + ROW_COST * _row_width(f)) * TOKENIZER_BATCH * max(16, tokens[f.name]) for f in networks]
    tokenizer_steps = TOKENIZERS_SHARE * operations * jobs / sum(each) if each else 0
    share = MODEL_SHARE if networks else MODEL_SHARE + TOKENIZERS_SHARE
    for most_inputs, most_targets, batch in BUDGETS:
        inputs = min(most_inputs, max(8, sum(tokens.values())))
        targets = min(most_targets, max(8, max(tokens.values())))
        each_core = max(4, batch // cores)
        steps = share * operations / (MODEL_COST * SIZE_COSTS[size] * each_core * (inputs + targets))
        if steps >= ENOUGH_STEPS:
            break
    epochs = EPOCHS * samples / (each_core * cores)
    validation = max(1, min(256, round(HELD_OUT * samples)))
    return Plan(
        validation,
        min(validation, MOST_EVALUATED),
        size,
        inputs,
        targets,
        each_core * cores,
        cores,
        _round(min(steps, epochs), *MODEL_STEPS),
        _round(tokenizer_steps, *TOKENIZER_STEPS),
        jobs,
    )


def _tokens(finding: Finding) -> int:
    return (
        math.prod(finding.grid)
        if finding.grid
        else finding.max_tokens or len(finding.value.get("classes", ())) * (finding.type == "tags") or 1
    )


def _row_width(finding: Finding) -> int:
    """Numbers that a token covers."""
    points = math.prod(finding.points) // math.prod(finding.grid)
    if finding.type == "classes":
        return points * max(CLASS_WIDTH, len(finding.value["classes"]))
    channels = 3 if finding.type == "video" else int(finding.value.get("channels", 1))
    return points * channels


def _round(steps: float, least: int, most: int) -> int:
    steps = int(min(max(steps, least), most))
    digits = 10 ** max(0, len(str(steps)) - 2)
    return steps // digits * digits
