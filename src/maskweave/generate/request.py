"""Reads and checks a request before any work: inputs in any accepted form, targets, options, and contradictions between them."""

import difflib
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, get_args

import numpy as np

from maskweave import limits
from maskweave.config import whole_number
from maskweave.data import transforms
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.generate.editing import Region, regions_of
from maskweave.generate.engine import Precision
from maskweave.generate.schedule import Schedule, check_schedule, make_schedule
from maskweave.generate.token_state import Tokens, check_tokens
from maskweave.generate.untrained import OnUntrained
from maskweave.modality.catalogs import Catalog
from maskweave.modality.checks import decoding_problem
from maskweave.modality.decoding import Decoding, Ramp
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.values.files import read_value
from maskweave.values.formats import FRAMES

Sample = Mapping[str, Any]


class Options(TypedDict, total=False):
    """Options of a request, in addition to its inputs and targets."""

    decoding: Mapping[str, Decoding] | None
    """Scheme, steps, temperature, guidance, top-p and top-k of single targets; replaces `decoding` of their entries."""
    conditions: Mapping[str, float | Ramp] | None
    """Guidance: weight by input, or by several inputs joined with `+`; below 0 guides away from them. A weight may be a function of the step. Replaces the
    entries' guidance."""
    guide_with_finished: bool
    """Finished targets join every guided condition."""
    chain: bool
    """Each finished target joins the inputs of the next (the default); otherwise every target is predicted from the inputs only."""
    think: Sequence[str]
    """Modalities that are generated first, in this order, and join the inputs of all targets, also if `chain` is off; their values are in the result too."""
    schedule: Schedule | None
    """Fixes all of the above: the schedule of an earlier request, or one read from a file."""
    return_probs: bool
    """Also return the probability of each id of every generated token, in `Generated.probabilities`: 4 bytes for each, tokens × vocabulary of them."""
    edit: Mapping[str, Region] | Sequence[Mapping[str, Region]] | None
    """Region to regenerate, by target that is also an input; all other tokens are kept. One mapping, or one for each sample."""
    precision: Precision
    """`float32`, or `bf16` for linear layers and attention."""
    compiled: bool
    """Compile the model first; worthwhile on a GPU, for many requests."""
    on_untrained: OnUntrained
    """What to do if the training never or hardly saw the inputs together with a target, as far as its recipe tells: `warn` once (the default), `refuse` or `ignore`."""


class GenerationRequest(NamedTuple):
    """A request after reading and checking."""

    names: dict[str, str]
    """Name under which each generated grid or sequence was requested."""
    schedule: Schedule
    samples: list[dict[str, Any]]
    """Checked values."""
    seeds: Sequence[int]
    edits: list[dict[str, np.ndarray]]
    """Region to regenerate, by generated modality; see `regions_of`."""


def make_request(
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    inputs: Sequence[Sample],
    targets: Sequence[str] | None,
    seeds: Sequence[int] | None,
    options: Options,
    unconditional: bool | None,
) -> GenerationRequest:
    """Checks everything and reads the inputs.

    Raises:
        MaskweaveError: as `plan`, `read` and `regions_of`; invalid seeds; or an edit of a modality that is not both an input and a target.
    """
    if not isinstance(inputs, Sequence):
        raise MaskweaveError(
            f"inputs: found {shown(inputs)}, expected a list with a mapping of values by modality for each sample"
        )
    for sample in inputs:
        if not isinstance(sample, Mapping):
            raise MaskweaveError(
                f"inputs: found {shown(sample)}, expected a mapping of values by modality for each sample"
            )
    seeds = range(len(inputs)) if seeds is None else seeds
    if isinstance(seeds, (str, bytes)) or not isinstance(seeds, (Sequence, np.ndarray)):
        raise MaskweaveError(f"seeds: found {shown(seeds)}; expected one whole number for each sample")
    if len(seeds) != len(inputs):
        raise MaskweaveError(f"seeds: found {len(seeds)} for {len(inputs)} samples; expected one for each sample")
    seeds = [whole_number("seed", seed, most=limits.SEED) for seed in seeds]
    names = list(dict.fromkeys(name for sample in inputs for name in sample))
    resolved, schedule = plan(catalog, names, targets, options, unconditional if len(inputs) else None)
    edit = {} if options.get("edit") is None else options["edit"]
    edits = [edit] * len(inputs) if isinstance(edit, Mapping) else edit
    if not isinstance(edits, (list, tuple)) or not all(isinstance(regions, Mapping) for regions in edits):
        raise MaskweaveError(
            f"edit: found {shown(edit)}; expected a mapping of regions by target, or one for each sample"
        )
    if len(edits) != len(inputs):
        raise MaskweaveError(
            f"edit: found {len(edits)} mappings for {len(inputs)} samples; expected one for each sample, or one for all"
        )
    samples, regenerated = [], []
    for sample, regions, seed in zip(inputs, edits, seeds, strict=True):
        edited = {twin(catalog, name): region for name, region in regions.items()}
        samples.append(read(_with_edited(catalog, sample, edited, resolved), catalog, tokenizers))
        regenerated.append(regions_of(edited, samples[-1], catalog, tokenizers, seed))
    requested = resolved if targets is None else [*options.get("think", ()), *targets]
    requested_as = dict(zip(resolved, requested, strict=True))
    return GenerationRequest(requested_as, schedule, samples, seeds, regenerated)


def _with_edited(catalog: Catalog, sample: Sample, edit: Mapping[str, Region], targets: Sequence[str]) -> Sample:
    """Adds a value for each edited target, which the sample may have under the name of the target's source."""
    sample = dict(sample)
    for name in edit:
        same = [n for n in sample if catalog[n].reads == catalog[name].reads]
        if name not in targets or not same:
            fault = "a target" if name not in targets else "an input"
            raise MaskweaveError(
                f"edit of {name!r}: it is not {fault}; an edited modality must be both an input and a target"
            )
        sample.setdefault(name, sample[same[0]])
    return sample


def plan(
    catalog: Catalog,
    inputs: Sequence[str],
    targets: Sequence[str] | None,
    options: Options,
    unconditional: bool | None,
) -> tuple[list[str], Schedule]:
    """Returns the grids and sequences to generate, and the checked schedule.

    Args:
        inputs: all modalities that any sample has.
        unconditional: whether the model was also trained on samples without inputs; None if unknown.

    Raises:
        MaskweaveError: an unknown modality or option, a target the model cannot predict, missing inputs, or a schedule
            that contradicts itself or the rest of the request.
    """
    _check_options(options)
    if isinstance(targets, str):
        raise MaskweaveError(f"targets: found {shown(targets)}, expected a list of names, such as [{shown(targets)}]")
    if targets is not None and not _are_names(targets):
        raise MaskweaveError(f"targets: found {shown(targets)}, expected a list of names")
    schedule = options.get("schedule")
    if schedule is not None and targets is None:
        check_schedule(schedule, catalog, inputs)
        targets = schedule.targets
    thoughts = options.get("think") or ()
    if thoughts and not targets:
        raise MaskweaveError("no targets: give at least one modality to generate after thinking")
    resolved = check_request(catalog, inputs, [*thoughts, *(targets or ())])
    if not inputs and unconditional is False:
        raise MaskweaveError(
            f"no inputs: this model was always trained with inputs (model.masking.unconditional is 0); give at least one of {', '.join(catalog)}"
        )
    decoding = {twin(catalog, name): how for name, how in (options.get("decoding") or {}).items()}
    conditions = options.get("conditions")
    if schedule is not None:
        if more := [
            name
            for name in ("decoding", "conditions", "guide_with_finished", "chain", "think")
            if options.get(name) is not None
        ]:
            raise MaskweaveError(
                f"a schedule fixes all steps, so it cannot be combined with {' and '.join(more)}; remove one of the two"
            )
        if schedule.targets != resolved:
            raise MaskweaveError(
                f"the schedule generates {', '.join(schedule.targets)}, but the request asks for {', '.join(resolved)}; give the same targets, or none"
            )
    else:
        for name in decoding:
            if name not in resolved:
                raise MaskweaveError(
                    f"decoding of {name!r}: not one of the targets {', '.join(resolved)}; add it to the targets or remove its decoding"
                )
            if not isinstance(decoding[name], Decoding):
                raise MaskweaveError(
                    f"decoding of {name!r} is {shown(decoding[name])}; give a Decoding, for example "
                    f"dataclasses.replace(bundle.catalog[{name!r}].decoding, steps=8)"
                )
            if problem := decoding_problem(catalog[name], decoding[name]):
                raise MaskweaveError(f"decoding of {name!r}: {problem}")
        available = [*inputs, *resolved]
        for names in conditions or {}:
            if missing := [name for name in names.split("+") if name not in available]:
                raise MaskweaveError(
                    f"condition {shown(names)}: {missing[0]!r} is neither an input nor a target; expected one of {', '.join(available)}"
                )
        schedule = make_schedule(
            catalog,
            inputs,
            resolved,
            decoding=decoding,
            conditions=conditions,
            guide_with_finished=options.get("guide_with_finished", False),
            chain=options.get("chain", True),
            think=resolved[: len(thoughts)],
        )
        active = {name for step in schedule.steps for condition in step.guidance for name in condition.modalities}
        for names in conditions or {}:
            if not active & {*names.split("+")}:
                raise MaskweaveError(
                    f"condition {shown(names)} has no effect: none of its modalities is known before a target, or no step lies in its interval; use an input or an earlier target, or another interval"
                )
    check_schedule(schedule, catalog, inputs)
    return resolved, schedule


def _check_options(options: Options) -> None:
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise MaskweaveError(f"unknown option {name!r}; {hint}known: {', '.join(known)}")
    for name, kind, expected in (
        ("decoding", Mapping, "a mapping of Decoding by target"),
        ("conditions", Mapping, "a mapping of weights by input"),
        ("schedule", Schedule, "a Schedule"),
        ("guide_with_finished", bool, "True or False"),
        ("chain", bool, "True or False"),
        ("compiled", bool, "True or False"),
        ("return_probs", bool, "True or False"),
    ):
        if (found := options.get(name)) is not None and not isinstance(found, kind):
            raise MaskweaveError(f"{name} is {shown(found)}; expected {expected}")
    if not _are_names(options.get("think") or ()) or isinstance(options.get("think"), str):
        raise MaskweaveError(f"think is {shown(options['think'])}; expected a list of names")
    for name, weight in (options.get("conditions") or {}).items():
        if not isinstance(name, str) or isinstance(weight, (bool, str)) or not isinstance(weight, (Real, Ramp)):
            raise MaskweaveError(
                f"condition {shown(name)} is {shown(weight)}; expected a number, or a Ramp, for the name of an input"
            )
    for name, choices in (("precision", get_args(Precision)), ("on_untrained", get_args(OnUntrained))):
        chosen = options.get(name, choices[0])
        if not isinstance(chosen, str) or chosen not in choices:
            raise MaskweaveError(f"{name} is {shown(chosen)}; expected {' or '.join(choices)}")


def _are_names(names: Any) -> bool:
    return isinstance(names, Sequence) and all(isinstance(name, str) for name in names)


def check_request(catalog: Catalog, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Returns the modalities to generate, in order; an input-only modality is replaced by the grid with the same source.

    Raises:
        MaskweaveError: an unknown modality, or a target the model cannot predict.
    """
    for name in inputs:
        catalog[name]
    resolved = [twin(catalog, name) for name in targets]
    if not resolved:
        raise MaskweaveError("no targets: give at least one modality to generate")
    if len(set(resolved)) < len(resolved):
        raise MaskweaveError(f"targets: found one twice in {', '.join(targets)}; expected each target once")
    return resolved


def twin(catalog: Catalog, name: str) -> str:
    """Returns the modality to generate for a requested `name`: itself, or the grid with the same source if it is input only."""
    modality = catalog[name]
    if modality.is_target:
        return name
    twins = [m.name for m in catalog.values() if m.source == name and m.is_target]
    if not twins:
        kind = "" if modality.has_tokens else f" of kind {modality.kind}, which is"
        possible = ", ".join(m.name for m in catalog.values() if m.is_target)
        raise MaskweaveError(f"{name!r} is{kind} input only; the model can predict {possible}")
    return twins[0]


def read(inputs: Sample, catalog: Catalog, tokenizers: Mapping[str, Tokenizer]) -> dict[str, Any]:
    """Converts inputs in any accepted form to checked values of their entries' sizes.

    Raises:
        MaskweaveError: a value does not fit its entry, or its tokenizer is missing.
    """
    values, tokens = {}, {}
    for name, value in inputs.items():
        modality = catalog[name]
        if isinstance(value, Tokens):
            size = catalog.vocabulary_size(name) if modality.has_tokens else 0
            tokens[name] = check_tokens(value, modality, size, f"input {name!r}")
            continue
        if modality.has_tokens and name not in tokenizers:
            raise MaskweaveError(
                f"input {name!r}: this bundle has no tokenizer for it; give its tokens as maskweave.Tokens(ids), or use other inputs"
            )
        values[name] = _value(value, modality)
    try:
        return {**transforms.fit(values, catalog), **tokens}
    except BadSample as error:
        raise MaskweaveError(f"inputs: {error}") from error


def _value(value: Any, modality: Modality) -> Any:
    where = f"input {modality.name!r}"
    if isinstance(value, str) and (typed := modality.value.typed(value)) is not None:
        return modality.value.check(typed, where)
    if isinstance(value, os.PathLike) or (isinstance(value, str) and not modality.value.is_text):
        path = Path(value)
        if not is_file(path) and not (FRAMES in modality.value.endings and path.is_dir()):
            raise MaskweaveError(f"{where}: {str(path)[:200]}: no such file; give an existing one")
        found = read_value(path, modality.value, f"{where}: {path}")
        if found is None:
            raise MaskweaveError(f"{where}: {path}: the file holds no value; leave the input out, or give another file")
        return found
    return modality.value.check(modality.value.from_python(value, where), where)


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # text that is too long for a file name
        return False
