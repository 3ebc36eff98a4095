"""What is asked for, checked before any work: inputs in any form as values, targets, and what contradicts itself."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, get_args

import numpy as np

from maskweave.data import transforms
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.generate.editing import Region, regions_of
from maskweave.generate.engine import Precision
from maskweave.generate.schedule import Schedule, check_schedule, make_schedule
from maskweave.generate.token_state import Tokens, check_tokens
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.values.files import read_value

Sample = Mapping[str, Any]


class Options(TypedDict, total=False):
    """What a request may say beside its inputs and targets."""

    decoding: Mapping[str, Decoding] | None
    """Scheme, steps, temperature, guidance and cuts of single targets, in place of the entries' own."""
    conditions: Mapping[str, float] | None
    """Guidance: weight by input, or by several joined with `+`; below 0 leads away from it. In place of the entries' guidance."""
    guide_with_finished: bool
    """Finished targets join every guided condition."""
    chain: bool
    """Each finished target joins the inputs of the next (the default); otherwise every target is predicted from the inputs alone."""
    schedule: Schedule | None
    """All of the above, as an earlier request had it or as read from a file."""
    edit: Mapping[str, Region] | Sequence[Mapping[str, Region]] | None
    """Targets that are given, and what of each is made anew; the rest is kept, token by token. One mapping, or one for each sample."""
    precision: Precision
    """`float32`, or `bf16` for linear layers and attention."""
    compiled: bool
    """Compile the model first; worth it on a GPU, for many requests."""


class GenerationRequest(NamedTuple):
    """A request, read and checked."""

    names: dict[str, str]
    """How each grid or sequence that is generated was called."""
    schedule: Schedule
    samples: list[dict[str, Any]]
    """Checked values."""
    seeds: Sequence[int]
    edits: list[dict[str, np.ndarray]]
    """What is made anew by the modality that is generated, as of `regions_of`."""


def make_request(
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    inputs: Sequence[Sample],
    targets: Sequence[str] | None,
    seeds: Sequence[int] | None,
    options: Options,
    unconditional: bool | None,
) -> GenerationRequest:
    """Check everything, and read the inputs.

    Raises:
        MaskweaveError: see `plan`, `read` and `regions_of`; seeds that do not fit, or an edit of what is not both given and a target.
    """
    for sample in inputs:
        if not isinstance(sample, Mapping):
            raise MaskweaveError(
                f"inputs: found {shown(sample)}, expected a mapping of values by modality for each sample"
            )
    seeds = range(len(inputs)) if seeds is None else seeds
    if len(seeds) != len(inputs):
        raise MaskweaveError(f"{len(inputs)} samples need as many seeds, found {len(seeds)}")
    if min(seeds, default=0) < 0:
        raise MaskweaveError(f"a seed must be 0 or more, found {min(seeds)}")
    names = list(dict.fromkeys(name for sample in inputs for name in sample))
    resolved, schedule = plan(catalog, names, targets, options, unconditional if len(inputs) else None)
    edit = options.get("edit") or {}
    edits = [edit] * len(inputs) if isinstance(edit, Mapping) else edit
    if len(edits) != len(inputs):
        raise MaskweaveError(f"{len(inputs)} samples need as many edits, or one for all, found {len(edits)}")
    samples, anew = [], []
    for sample, regions, seed in zip(inputs, edits, seeds, strict=True):
        edited = {twin(catalog, name): region for name, region in regions.items()}
        samples.append(read(_with_edited(catalog, sample, edited, resolved), catalog, tokenizers))
        anew.append(regions_of(edited, samples[-1], catalog, tokenizers, seed))
    asked = dict(zip(resolved, resolved if targets is None else targets, strict=True))
    return GenerationRequest(asked, schedule, samples, seeds, anew)


def _with_edited(catalog: Catalog, sample: Sample, edit: Mapping[str, Region], targets: Sequence[str]) -> Sample:
    """The sample with a value for each edited target, which may be given under the name of its source."""
    sample = dict(sample)
    for name in edit:
        same = [n for n in sample if catalog[n].reads == catalog[name].reads]
        if name not in targets or not same:
            fault = "a target" if name not in targets else "given"
            raise MaskweaveError(f"edit of {name!r}: it is not {fault}; what is edited must be an input and a target")
        sample.setdefault(name, sample[same[0]])
    return sample


def plan(
    catalog: Catalog,
    inputs: Sequence[str],
    targets: Sequence[str] | None,
    options: Options,
    unconditional: bool | None,
) -> tuple[list[str], Schedule]:
    """The grids and sequences to generate and the checked schedule.

    Args:
        inputs: all names that any sample gives.
        unconditional: whether the model was trained with samples that have no input; None if that is unknown.

    Raises:
        MaskweaveError: an unknown modality or option, a target the model cannot predict, no inputs where there must be some, or a schedule
            that contradicts itself or the rest of the request.
    """
    _check_options(options)
    if isinstance(targets, str):
        raise MaskweaveError(f"targets: found {shown(targets)}, expected a list of names, such as [{shown(targets)}]")
    schedule = options.get("schedule")
    if schedule is not None and targets is None:
        check_schedule(schedule, catalog, inputs)
        targets = schedule.targets
    resolved = check_request(catalog, inputs, targets or ())
    if not inputs and unconditional is False:
        raise MaskweaveError(
            f"no inputs: this model was trained with some always (model.masking.unconditional is 0); give at least one of {', '.join(catalog)}"
        )
    decoding = {twin(catalog, name): how for name, how in (options.get("decoding") or {}).items()}
    conditions = options.get("conditions")
    if schedule is not None:
        if more := [
            name for name in ("decoding", "conditions", "guide_with_finished", "chain") if options.get(name) is not None
        ]:
            raise MaskweaveError(f"a schedule fixes all steps, so {' and '.join(more)} cannot be given beside it")
        if schedule.targets != resolved:
            raise MaskweaveError(
                f"the schedule generates {', '.join(schedule.targets)}; the request asks for {', '.join(resolved)}"
            )
    else:
        for name in decoding:
            if name not in resolved:
                raise MaskweaveError(f"decoding names {name!r}, which is not among the targets {', '.join(resolved)}")
            if catalog[name].kind == "grid" and decoding[name].scheme == "autoregressive":
                raise MaskweaveError(
                    f"decoding of {name!r}: scheme 'autoregressive' is for sequences; a grid takes 'maskgit' or 'roar'"
                )
        there = [*inputs, *resolved]
        for names in conditions or {}:
            if missing := [name for name in names.split("+") if name not in there]:
                raise MaskweaveError(
                    f"condition {shown(names)}: {missing[0]!r} is neither given nor a target; known: {', '.join(there)}"
                )
        schedule = make_schedule(
            catalog,
            inputs,
            resolved,
            decoding=decoding,
            conditions=conditions,
            guide_with_finished=options.get("guide_with_finished", False),
            chain=options.get("chain", True),
        )
        acting = {name for step in schedule.steps for condition in step.guidance for name in condition.modalities}
        for names in conditions or {}:
            if not acting & {*names.split("+")}:
                raise MaskweaveError(
                    f"condition {shown(names)} guides nothing: none of it is there when a target is generated; name an input, or an earlier target"
                )
    check_schedule(schedule, catalog, inputs)
    return resolved, schedule


def _check_options(options: Options) -> None:
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise MaskweaveError(f"unknown option {name!r}; {hint}known: {', '.join(known)}")
    precision = options.get("precision", "float32")
    if precision not in get_args(Precision):
        raise MaskweaveError(f"precision is {shown(precision)}; expected {' or '.join(get_args(Precision))}")


def check_request(catalog: Catalog, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The modalities to generate, in order; an input-only modality stands for the grid that is made from the same values.

    Raises:
        MaskweaveError: an unknown modality, or a target the model cannot predict.
    """
    for name in inputs:
        catalog[name]
    resolved = [twin(catalog, name) for name in targets]
    if not resolved:
        raise MaskweaveError("no targets: name at least one modality to generate")
    if len(set(resolved)) < len(resolved):
        raise MaskweaveError(f"a target is named twice in {', '.join(targets)}")
    return resolved


def twin(catalog: Catalog, name: str) -> str:
    """The modality that is generated where `name` is asked for."""
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
    """Inputs in any accepted form as checked values of their entries' sizes.

    Raises:
        MaskweaveError: a value does not fit its entry, or its tokenizer is missing; says what was found and what is expected.
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
                f"input {name!r}: this bundle has no tokenizer of it; give its tokens as maskweave.Tokens(ids), or other inputs"
            )
        values[name] = _value(value, modality)
    try:
        return {**transforms.fit(values, catalog), **tokens}
    except BadSample as error:
        raise MaskweaveError(f"inputs: {error}") from error


def _value(value: Any, modality: Modality) -> Any:
    where = f"input {modality.name!r}"
    if isinstance(value, os.PathLike) or (isinstance(value, str) and not modality.value.is_text):
        path = Path(value)
        if not is_file(path):
            raise MaskweaveError(f"{where}: {str(path)[:200]}: no such file")
        return read_value(path, modality.value, f"{where}: {path}")
    return modality.value.check(modality.value.from_python(value, where), where)


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # text that is too long to be a name
        return False
