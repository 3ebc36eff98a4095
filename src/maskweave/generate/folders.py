"""Generation from files to files: one request, or one for every file name in folders of inputs, streamed and resumable."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from maskweave import limits
from maskweave.arguments import check_arguments
from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.files import claim_record, sweep
from maskweave.generate.best_of import best_result, check_judging, judges_of
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import check_ensemble, member_seeds, merge_results, told_equal
from maskweave.generate.places import find_places
from maskweave.generate.request import Options
from maskweave.generate.result import Generated
from maskweave.generate.schedule import Schedule
from maskweave.generate.session import Session
from maskweave.interruption import Interrupted, StopSignal
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.progress import progress

DONE = "schedule.yaml"
"""Written last: a result folder that contains it is complete."""
REQUEST = "request.yaml"


class Job(NamedTuple):
    """The inputs and edits of one file name."""

    name: str
    """File name without extension in the folders of inputs; empty if no input is a folder."""
    inputs: dict[str, Any]
    edit: dict[str, Any]


class Wanted(NamedTuple):
    """A result folder to write."""

    folder: Path
    job: Job
    seeds: list[int]
    """One seed, or one for each member of an ensemble."""


class BatchRow(NamedTuple):
    """A sample that is generated: a result, or a member of an ensemble."""

    wanted: Wanted
    values: dict[str, Any]
    seed: int


Combine = Callable[[Sequence[Generated], Job], Generated]


class _Made:
    """Collects the members of results that are not complete yet.

    Args:
        combine: makes one result of the members of a job.
    """

    def __init__(self, combine: Combine) -> None:
        self._members: dict[Path, list[Generated]] = {}
        self._combine = combine

    def add(self, batch: Sequence[BatchRow], session: Session) -> None:
        """Adds the results of a batch. Partial members of an interrupted batch are added only if their ensemble has no finished member."""
        begun = set(self._members)
        for row, generated in zip(batch, session.results(), strict=True):
            if session.is_finished or row.wanted.folder not in begun:
                self._members.setdefault(row.wanted.folder, []).append(generated)

    def take(self, batch: Sequence[BatchRow], anyway: bool) -> Iterator[tuple[Path, Generated]]:
        """Yields the results that the batch has completed; with `anyway`, also the incomplete ones."""
        for folder, wanted in {row.wanted.folder: row.wanted for row in batch}.items():
            if anyway or len(self._members[folder]) == len(wanted.seeds):
                members = self._members.pop(folder)
                yield folder, self._combine(members, wanted.job) if len(wanted.seeds) > 1 else members[0]


@check_arguments
def generate_files(
    bundle: Bundle,
    inputs: Mapping[str, str],
    targets: Sequence[str] | None,
    out: str | os.PathLike[str],
    *,
    samples: int = 1,
    ensemble: int = 1,
    best_of: int = 1,
    by: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 8,
    **options: Unpack[Options],
) -> str:
    """Generates with a progress bar, and writes a result folder for each sample; see `Generated.save`.

    After Ctrl-C, a single request writes its partial result. With folders of inputs, the finished results are kept, and the same call resumes.

    Args:
        inputs: by modality, a file, a text, or a folder of files. Each file name is a sample; a folder without that name does not give this input.
        out: result folder; with folders of inputs, it contains one folder per name; with several samples, there are folders 0, 1, ... inside.
        samples: results for each input, with seeds `seed`, `seed + 1`, ...
        ensemble: number of samples that each result is merged from, as in `Bundle.ensemble`; 1: no merging.
        best_of: number of samples from which each result is chosen, as in `Bundle.best_of`; 1: no choice.
        by: inputs that decide with `best_of`; by default all that can.
        batch_size: samples, or members of ensembles, that are generated in one batch.
        options: as for `Bundle.generate`; an edit's mask may also be a folder of masks.

    Returns:
        A sentence that says what was written.

    Raises:
        MaskweaveError: as `Bundle.generate` and `Bundle.ensemble`, before any work; `out` contains results of another request; or none of
            the files in the folders can be used (single unusable files are reported and skipped).
        Interrupted: after Ctrl-C.
        Locked: another command is writing to `out`.
    """
    numbers = {
        "samples": (samples, 1, limits.ENSEMBLE),
        "ensemble": (ensemble, 1, limits.ENSEMBLE),
        "best_of": (best_of, 1, limits.ENSEMBLE),
        "batch": (batch_size, 1, limits.BATCH_SIZE),
        "seed": (seed, 0, limits.SEED),
    }
    for name, (number, least, most) in numbers.items():
        if number < least:
            raise MaskweaveError(f"{name} must be {least} or more, found {number}")
        limits.check_most(name, number, most)
    edit = options.get("edit") or {}
    assert isinstance(edit, Mapping)
    schedule = bundle.schedule(list(inputs), targets, **options)
    if ensemble > 1 and best_of > 1:
        raise MaskweaveError(f"ensemble is {ensemble} and best_of is {best_of}; merge samples, or choose one of them")
    asked = [name for name in schedule.targets if name not in schedule.think]
    if ensemble > 1:
        check_ensemble([bundle.catalog[name] for name in asked], bundle.tokenizers, ensemble)
    combine: Combine = _merge
    if by and best_of < 2:
        raise MaskweaveError("by names inputs that choose among results, but best_of is 1; raise best_of")
    if best_of > 1:
        combine = _chooser(bundle, list(inputs), asked, by, best_of, batch_size, options)
    out = Path(out)
    _check_out(out, [*inputs.values(), *edit.values()])
    with lock(out):
        members = {"ensemble": ensemble} | ({"best_of": best_of} if best_of > 1 else {})
        return _generate(
            bundle, inputs, edit, targets, schedule, out, samples, members, by, combine, seed, batch_size, options
        )


def _generate(
    bundle: Bundle,
    inputs: Mapping[str, str],
    edit: Mapping[str, Any],
    targets: Sequence[str] | None,
    schedule: Schedule,
    out: Path,
    samples: int,
    members: Mapping[str, int],
    by: Sequence[str],
    combine: Combine,
    seed: int,
    batch_size: int,
    options: Options,
) -> str:
    ensemble = max(members.values())
    jobs = _jobs(_files(inputs, bundle.catalog), _files(edit, bundle.catalog))
    wanted = _wanted(jobs, out, samples, ensemble, seed)
    is_many = jobs[0].name != ""
    if is_many:
        regions = {name: str(region) for name, region in edit.items()}
        asked = {"inputs": dict(inputs), "edit": regions, "targets": targets, "seed": seed, **members}
        asked |= {"by": list(by)} if by else {}
        claim_record(out / REQUEST, plain({**asked, "schedule": schedule}), "results")
        wanted = [one for one in wanted if not (one.folder / DONE).exists()]
        if not wanted:
            return f"{out}: already complete, nothing is left to do"
    first = None if is_many else _read(bundle, jobs[0], targets, options)

    faults: list[MaskweaveError] = []
    made, done, equal = _Made(combine), 0, Counter[str]()
    inputs_of: dict[Path, dict[str, Any]] = {}
    passes = sum(step.tokens if step.scheme == "autoregressive" else 1 for step in schedule.steps)
    with progress("generate", passes * ensemble * len(wanted)) as bar, StopSignal() as stop:

        def rows() -> Iterator[BatchRow]:
            for _, group in groupby(wanted, key=lambda one: one.job.name):
                same = list(group)
                try:
                    values = _read(bundle, same[0].job, targets, options) if first is None else first
                except MaskweaveError as error:
                    faults.append(error)
                    bar.say(f"{same[0].folder}: skipped: {error}")
                    bar.advance(passes * ensemble * len(same))
                else:
                    yield from (BatchRow(one, values, seed) for one in same for seed in one.seeds)

        rest = rows()
        while batch := list(islice(rest, batch_size)):
            session = _start(bundle, batch, targets, options)
            before = 0
            for _ in session:
                bar.advance((session.done - before) * len(batch))
                before = session.done
                if stop.asked:
                    break
            if is_many and not session.is_finished:
                raise Interrupted(f"stopped; {done} new results are in {out}; run the same command again to resume")
            if session.is_finished:
                bar.advance((passes - before) * len(batch))  # sequences that ended early
            made.add(batch, session)
            inputs_of |= {row.wanted.folder: row.wanted.job.inputs for row in batch}
            for folder, result in made.take(batch, anyway=stop.asked and not is_many):
                sweep(folder)
                result.places = find_places(inputs_of.pop(folder), bundle.catalog)
                result.save(folder)
                done += 1
                equal.update(result.equal)
                for name, problems in result.problems.items():
                    bar.say(f"{folder}: {name}: skipped invalid parts: {'; '.join(problems)}")
            if stop.asked:
                note = "; run the same command again to resume" if is_many else ", generated in part"
                raise Interrupted(f"stopped; {done} new results are in {out}{note}")
        for name, count in equal.items():
            bar.say(f"warning: {told_equal(name, count, done)}")
    if len(faults) == len(jobs):
        raise MaskweaveError(f"none of {len(faults)} inputs can be used; the first error: {faults[0]}")
    skipped = f", {len(faults)} inputs skipped" if faults else ""
    return f"{done} results written to {out}{skipped}" if is_many or samples > 1 else f"written to {out}"


def _merge(members: Sequence[Generated], job: Job) -> Generated:
    return merge_results(members)


def _chooser(
    bundle: Bundle,
    inputs: Sequence[str],
    targets: Sequence[str],
    by: Sequence[str],
    samples: int,
    batch_size: int,
    options: Options,
) -> Combine:
    """Checks that the best of several results can be chosen, and returns what chooses."""
    judges = judges_of(bundle.catalog, inputs, targets, by, samples)
    on_untrained = options.get("on_untrained", "warn")
    check_judging(bundle.trained_paths, bundle.catalog, targets, judges, on_untrained, set())

    def choose(members: Sequence[Generated], job: Job) -> Generated:
        given = bundle.read(job.inputs)
        there = [name for name in judges if name in given]
        return best_result(members, given, targets, there, bundle.score_batch, batch_size)

    return choose


def _read(bundle: Bundle, job: Job, targets: Sequence[str] | None, options: Options) -> dict[str, Any]:
    """Reads and checks the inputs of a job, and checks its edits."""
    values = bundle.read(job.inputs)
    if job.edit:
        checked: Options = {**options, "edit": job.edit}
        bundle.request([values], targets, None, checked)
    return values


def _start(bundle: Bundle, batch: Sequence[BatchRow], targets: Sequence[str] | None, options: Options) -> Session:
    edited: Options = {**options, "edit": [row.wanted.job.edit for row in batch]}
    return bundle.start([row.values for row in batch], targets, seeds=[row.seed for row in batch], **edited)


def _jobs(inputs: Mapping[str, Any], edit: Mapping[str, Any]) -> list[Job]:
    """Returns a sorted job for every file name in the input folders (or else the mask folders); without folders, a single job."""
    folders = [[files for files in part.values() if isinstance(files, dict)] for part in (inputs, edit)]
    jobs = []
    for name in sorted({name for files in folders[0] or folders[1] for name in files}) or [""]:
        given, regions = (
            {m: files.get(name) if isinstance(files, dict) else files for m, files in part.items()}
            for part in (inputs, edit)
        )
        if None in regions.values():
            raise MaskweaveError(f"edit: no mask for {name!r}; expected one for every input; add it")
        jobs.append(Job(name, {m: value for m, value in given.items() if value is not None}, regions))
    return jobs


def _wanted(jobs: Sequence[Job], out: Path, samples: int, ensemble: int, seed: int) -> list[Wanted]:
    """Returns the result folders of all jobs."""
    return [
        Wanted(
            out / job.name / str(n) if samples > 1 else out / job.name,
            job,
            member_seeds(seed + n, ensemble) if ensemble > 1 else [seed + n],
        )
        for job in jobs
        for n in range(samples)
    ]


def _files(values: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Replaces each folder by its files by name. A text modality's value is a folder only if it ends in /."""
    found = {}
    for modality, value in values.items():
        found[modality] = value
        is_text = catalog[modality].value.is_text and not str(value).endswith("/")
        if isinstance(value, (str, os.PathLike)) and not is_text and _is_folder(value):
            found[modality] = {}
            for path in sorted(p for p in Path(value).iterdir() if p.is_file() and p.name[0] != "."):
                other = found[modality].setdefault(path.stem, path)
                if other != path:
                    raise MaskweaveError(f"{value}: two files for one name: {other.name} and {path.name}; keep one")
            if not found[modality]:
                raise MaskweaveError(f"{value}: contains no files; expected NAME.EXT for every sample")
    return found


def _is_folder(value: str | os.PathLike[str]) -> bool:
    try:
        return bool(str(value)) and Path(value).is_dir()
    except OSError:  # text that is too long for a file name
        return False


def _check_out(out: Path, given: Sequence[Any]) -> None:
    """Checks before any work that the results can be written."""
    for value in given:
        if isinstance(value, (str, os.PathLike)) and _is_folder(value) and Path(value).resolve() == out.resolve():
            raise MaskweaveError(f"{out}: is a folder of inputs; choose another one for the results")
    existing = next(path for path in (out, *out.parents) if path.exists())
    if not existing.is_dir():
        raise MaskweaveError(f"{out}: {existing} is a file; expected a folder for the results; choose another one")
    if not os.access(existing, os.W_OK):
        raise MaskweaveError(f"{out}: {existing} is not writable; choose another folder for the results")
