"""Schedules: the steps of generation as data. They are made from the entries' `decoding`, and can be printed, saved as YAML, edited and replayed.

The schemes and the guidance are those of 4M (https://arxiv.org/abs/2312.06647), section 3 and appendix.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from maskweave import limits
from maskweave.arguments import check_arguments
from maskweave.config import build, check_types, plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import LEAST, Decoding, Ramp, Scheme, at_step
from maskweave.report.tables import text_table

GRID_SCHEMES = tuple(scheme for scheme in get_args(Scheme) if scheme != "autoregressive")


@dataclass(frozen=True)
class Condition:
    """Inputs that guide a step towards them, or away from them."""

    modalities: tuple[str, ...]
    """Inputs or finished targets that form one joint condition."""
    weight: float
    """s in u + Σ s (c - u), where u sees no condition's inputs and c sees those of this condition. Below 0: away from them."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Step:
    """One pass over a grid, or the generation of a complete sequence."""

    target: str
    scheme: Scheme
    tokens: int
    """Tokens predicted by this step if the grid starts empty; a partly known grid gets a proportional share. For a sequence, the maximum length."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    guidance: tuple[Condition, ...] = ()
    """Empty: no guidance, one pass with all known tokens."""
    detokenize: Literal["sampled", "mean"] = "sampled"
    """As in `Decoding`."""
    choice_temperature: float = 0.0
    """As in `Decoding`."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Schedule:
    """All steps of a request, ordered by target."""

    steps: tuple[Step, ...]
    chain: bool = True
    """Each finished target joins the inputs of the next; otherwise every target is predicted from the inputs only."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(step.target for step in self.steps))

    def of(self, target: str) -> list[Step]:
        return [step for step in self.steps if step.target == target]

    @check_arguments
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the schedule as YAML; `load_schedule` reads it."""
        write_yaml(path, plain(self))

    def __str__(self) -> str:
        rows = [
            [
                str(number),
                step.target,
                step.scheme,
                str(step.tokens),
                f"{step.temperature:.3g}"
                + (f", choice {step.choice_temperature:.3g}" if step.choice_temperature else ""),
                f"{step.top_p:g}",
                str(step.top_k or "all"),
                ", ".join(f"{'+'.join(c.modalities)} × {c.weight:g}" for c in step.guidance) or "none",
            ]
            for number, step in enumerate(self.steps, 1)
        ]
        table = text_table(["step", "target", "scheme", "tokens", "temperature", "top_p", "top_k", "guidance"], rows)
        return f"{table}\nchained: {'yes' if self.chain else 'no'}"


@check_arguments
def load_schedule(path: str | os.PathLike[str]) -> Schedule:
    """Reads a schedule from YAML.

    Raises:
        MaskweaveError: not a readable or valid schedule; the message contains file and key.
    """
    return build(Schedule, read_yaml(path), str(Path(path)))


def make_schedule(
    catalog: Catalog,
    inputs: Sequence[str],
    targets: Sequence[str],
    *,
    decoding: Mapping[str, Decoding] | None = None,
    conditions: Mapping[str, float | Ramp] | None = None,
    guide_with_finished: bool = False,
    chain: bool = True,
) -> Schedule:
    """Makes the schedule of a request.

    Args:
        inputs: modalities that are given.
        targets: grids and sequences, in the order of generation.
        decoding: by target; replaces `decoding` of its entry.
        conditions: weight by input, or by several inputs joined with `+`, which may be a function of the step; replaces every target's `guidance`,
            which weights all inputs together. A condition on an earlier target takes effect once that target is finished.
        guide_with_finished: finished targets join every condition.
        chain: as in `Schedule`.
    """
    decoding = decoding or {}
    steps: list[Step] = []
    for number, target in enumerate(targets):
        modality = catalog[target]
        how = decoding.get(target, modality.decoding)
        finished = list(targets[:number]) if chain else []
        available = {*inputs, *finished} - {target}
        groups = [(tuple(name.split("+")), weight) for name, weight in (conditions or {}).items()]
        if conditions is None and how.guidance != 1:
            groups = [(tuple(inputs), how.guidance)]
        guidance: list[tuple[tuple[str, ...], float | Ramp]] = []
        for names, weight in groups:
            joined = dict.fromkeys([*names, *(finished if guide_with_finished else ())])
            if kept := tuple(name for name in joined if name in available):
                guidance.append((kept, weight))
        is_sequence = modality.kind == "sequence"
        counts = [modality.max_tokens] if is_sequence else tokens_per_step(modality.tokens, how)
        for n, count in enumerate(counts):
            steps.append(
                Step(
                    target,
                    "autoregressive" if is_sequence else how.scheme,
                    count,
                    temperature_of(how, n, len(counts)),
                    how.top_p,
                    how.top_k,
                    conditions_at(guidance, n, len(counts)),
                    how.detokenize,
                    at_step(how.choice_temperature, n, len(counts)),
                )
            )
    return Schedule(tuple(steps), chain)


def tokens_per_step(total: int, decoding: Decoding) -> list[int]:
    """Returns how many tokens of a grid each step predicts. Steps that would predict none are omitted.

    Cosine: https://arxiv.org/abs/2202.04200, section 3.2. Arccos: https://arxiv.org/abs/2310.14400.
    """
    steps = min(decoding.steps, total)
    kind = decoding.token_schedule
    if kind == "auto":
        kind = "linear" if decoding.scheme == "roar" else "cosine"
    shares = [(s + 1) / steps for s in range(steps)]
    if kind == "cosine":
        left = [math.floor(total * math.cos(math.pi / 2 * (s + 1) / steps)) for s in range(steps)]
    elif kind == "arccos":
        left = [math.floor(total * math.acos(share) / (math.pi / 2)) for share in shares]
    else:
        left = [round(total * (1 - share)) for share in shares]
    left[-1] = 0
    counts = [before - after for before, after in zip([total, *left], left, strict=False)]
    return [count for count in counts if count > 0]


def temperature_of(decoding: Decoding, step: int, steps: int) -> float:
    """Returns the temperature of step `step` (from 0) of `steps`."""
    temperature = at_step(decoding.temperature, step, steps)
    if decoding.temperature_schedule == "linear":
        temperature *= 1 - step / steps
    elif decoding.onex:
        least, power = decoding.onex
        temperature = max(least, temperature / (step + 1) ** power)
    return temperature if temperature >= LEAST else 0.0


def conditions_at(
    guidance: Sequence[tuple[tuple[str, ...], float | Ramp]], step: int, steps: int
) -> tuple[Condition, ...]:
    """Returns the conditions of step `step` (from 0) of `steps`. One that is off in this step is left out: every pass sees its inputs."""
    return tuple(
        Condition(names, at_step(weight, step, steps))
        for names, weight in guidance
        if not isinstance(weight, Ramp) or weight.is_on(step, steps)
    )


def check_schedule(schedule: Schedule, catalog: Catalog, inputs: Sequence[str], where: str = "schedule") -> None:
    """Checks that every step is possible and that the steps predict all tokens of every target.

    Raises:
        MaskweaveError: an invalid schedule; the message contains the step (from 1).
    """
    if not schedule.steps:
        raise MaskweaveError(f"{where}: has no steps; expected at least one")
    finished: list[str] = []
    for number, step in enumerate(schedule.steps, 1):
        at = f"{where}: step {number} ({step.target!r})"
        modality = catalog[step.target]
        is_sequence = modality.kind == "sequence"
        if not modality.is_target:
            raise MaskweaveError(
                f"{at}: is input only, of kind {modality.kind}; expected a grid or sequence that the model can predict"
            )
        if finished[-1:] != [step.target]:
            if step.target in finished:
                raise MaskweaveError(
                    f"{at}: this target was finished by an earlier step; put all steps of a target together"
                )
            finished.append(step.target)
        if (step.scheme == "autoregressive") != is_sequence:
            wanted = "'autoregressive'" if is_sequence else " or ".join(map(repr, GRID_SCHEMES))
            raise MaskweaveError(f"{at}: scheme {step.scheme!r} does not fit a {modality.kind}; expected {wanted}")
        if not 1 <= step.tokens <= modality.tokens:
            raise MaskweaveError(f"{at}: tokens is {step.tokens}; expected 1 to {modality.tokens}")
        _check_sampling(step, at)
        available = {*inputs, *(finished if schedule.chain else ())} - {step.target}
        for condition in step.guidance:
            if not condition.modalities or not abs(condition.weight) <= limits.GUIDANCE:
                raise MaskweaveError(
                    f"{at}: a condition needs modalities and a weight from -{limits.GUIDANCE} to {limits.GUIDANCE}, found {shown(condition)}"
                )
            for name in condition.modalities:
                if name not in available:
                    known = ", ".join(sorted(available)) or "nothing"
                    raise MaskweaveError(
                        f"{at}: is guided by {name!r}, which is neither an input nor an earlier target; expected one of: {known}"
                    )
    for target in schedule.targets:
        steps, total = schedule.of(target), catalog[target].tokens
        predicted = sum(step.tokens for step in steps)
        if catalog[target].kind == "sequence" and len(steps) > 1:
            raise MaskweaveError(f"{where}: {target!r} is a sequence, which takes one step, found {len(steps)}")
        if catalog[target].kind == "grid" and predicted != total:
            raise MaskweaveError(f"{where}: the steps of {target!r} predict {predicted} tokens; expected all {total}")


def _check_sampling(step: Step, at: str) -> None:
    try:
        Decoding(
            step.scheme,
            temperature=step.temperature,
            top_p=step.top_p,
            top_k=step.top_k,
            choice_temperature=step.choice_temperature,
        )
    except MaskweaveError as error:
        raise MaskweaveError(f"{at}: {error}") from None
