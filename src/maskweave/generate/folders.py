"""Generation from files into files: one request, or one for every name in folders of inputs, streamed and restartable."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.files import claim_record, sweep
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import check_ensemble, member_seeds, merge_results
from maskweave.generate.request import Options
from maskweave.generate.result import Generated
from maskweave.generate.session import Session
from maskweave.interruption import Interrupted, StopSignal
from maskweave.modality.catalogs import Catalog
from maskweave.progress import progress

DONE = "schedule.yaml"
"""Written last, so its presence says that a result folder is whole."""
REQUEST = "request.yaml"


class Job(NamedTuple):
    """What is given for one name."""

    name: str
    """Of the files in the folders of inputs; empty where no input is a folder."""
    inputs: dict[str, Any]
    edit: dict[str, Any]


class Wanted(NamedTuple):
    """A result folder to be."""

    folder: Path
    job: Job
    seeds: list[int]
    """One, or those of an ensemble's members."""


class BatchRow(NamedTuple):
    """A sample that goes through the model: a result, or a member of one."""

    wanted: Wanted
    values: dict[str, Any]
    seed: int


class _Made:
    """What is generated of results that are not all there yet."""

    def __init__(self) -> None:
        self._members: dict[Path, list[Generated]] = {}

    def add(self, batch: Sequence[BatchRow], session: Session) -> None:
        """Take in a batch. Where it was broken off, members of an ensemble that are whole count alone, if there are any."""
        begun = set(self._members)
        for row, generated in zip(batch, session.results(), strict=True):
            if session.is_finished or row.wanted.folder not in begun:
                self._members.setdefault(row.wanted.folder, []).append(generated)

    def take(self, batch: Sequence[BatchRow], anyway: bool) -> Iterator[tuple[Path, Generated]]:
        """The results that the batch has completed, and `anyway` also those that it has begun."""
        for folder, seeds in {row.wanted.folder: row.wanted.seeds for row in batch}.items():
            if anyway or len(self._members[folder]) == len(seeds):
                members = self._members.pop(folder)
                yield folder, merge_results(members) if len(seeds) > 1 else members[0]


def generate_files(
    bundle: Bundle,
    inputs: Mapping[str, str],
    targets: Sequence[str] | None,
    out: str | os.PathLike[str],
    *,
    samples: int = 1,
    ensemble: int = 1,
    seed: int = 0,
    batch_size: int = 8,
    **options: Unpack[Options],
) -> str:
    """Generate, show the progress, and write a result folder for each sample; see `Generated.save`.

    Ctrl-C: of a single request what is done by then is written. Of folders the finished results stay, and the same call goes on.

    Args:
        inputs: by modality a file, text, or a folder of files. Names of files are samples; what a folder lacks of one is not given.
        out: folder of the result; with folders of inputs of one for each name; with several samples of folders 0, 1, ... inside.
        samples: results for each input, with seeds `seed`, `seed + 1`, ...
        ensemble: each result is merged from so many, as by `Bundle.ensemble`; 1: it is what was generated.
        batch_size: samples, or members of ensembles, that pass through the model together.
        options: as for `Bundle.generate`; an edit's mask may be a folder of masks too.

    Returns:
        what was written, in words.

    Raises:
        MaskweaveError: as `Bundle.generate` and `Bundle.ensemble`, before any work; or `out` holds results of another request. Of folders,
            names whose files cannot be used are left out, unless that is all of them.
        Interrupted: after Ctrl-C.
    """
    numbers = {"samples": (samples, 1), "ensemble": (ensemble, 1), "batch": (batch_size, 1), "seed": (seed, 0)}
    for name, (number, least) in numbers.items():
        if number < least:
            raise MaskweaveError(f"{name} must be {least} or more, found {number}")
    edit = options.get("edit") or {}
    assert isinstance(edit, Mapping)
    schedule = bundle.schedule(list(inputs), targets, **options)
    if ensemble > 1:
        check_ensemble([bundle.catalog[name] for name in schedule.targets], bundle.tokenizers, ensemble)
    out = Path(out)
    _check_out(out, [*inputs.values(), *edit.values()])
    jobs = _jobs(_files(inputs, bundle.catalog), _files(edit, bundle.catalog))
    wanted = _wanted(jobs, out, samples, ensemble, seed)
    is_many = jobs[0].name != ""
    if is_many:
        regions = {name: str(region) for name, region in edit.items()}
        asked = {"inputs": dict(inputs), "edit": regions, "targets": targets, "seed": seed, "ensemble": ensemble}
        claim_record(out / REQUEST, plain({**asked, "schedule": schedule}), "results")
        wanted = [one for one in wanted if not (one.folder / DONE).exists()]
        if not wanted:
            return f"{out}: finished, nothing is left to do"
    first = None if is_many else _read(bundle, jobs[0], targets, options)

    faults: list[MaskweaveError] = []
    made, done = _Made(), 0
    passes = sum(step.tokens if step.scheme == "autoregressive" else 1 for step in schedule.steps)
    with progress("generate", passes * ensemble * len(wanted)) as bar, StopSignal() as stop:

        def rows() -> Iterator[BatchRow]:
            for _, group in groupby(wanted, key=lambda one: one.job.name):
                same = list(group)
                try:
                    values = _read(bundle, same[0].job, targets, options) if first is None else first
                except MaskweaveError as error:
                    faults.append(error)
                    bar.say(f"{same[0].folder}: left out: {error}")
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
                raise Interrupted(f"stopped; {done} new results are in {out}, and the same command goes on")
            if session.is_finished:
                bar.advance((passes - before) * len(batch))  # texts that ended early
            made.add(batch, session)
            for folder, result in made.take(batch, anyway=stop.asked and not is_many):
                sweep(folder)
                result.save(folder)
                done += 1
                for name, problems in result.problems.items():
                    bar.say(f"{folder}: {name}: left out what was broken: {'; '.join(problems)}")
            if stop.asked:
                what = "and the same command goes on" if is_many else "as far as it was generated"
                raise Interrupted(f"stopped; {done} new results are in {out}, {what}")
    if len(faults) == len(jobs):
        raise MaskweaveError(f"none of {len(faults)} inputs can be used, the first because: {faults[0]}")
    left_out = f", {len(faults)} inputs left out" if faults else ""
    return f"{done} results written to {out}{left_out}" if is_many or samples > 1 else f"written to {out}"


def _read(bundle: Bundle, job: Job, targets: Sequence[str] | None, options: Options) -> dict[str, Any]:
    """What is given, as checked values; what is to be made anew of it is checked too."""
    values = bundle.read(job.inputs)
    if job.edit:
        checked: Options = {**options, "edit": job.edit}
        bundle.request([values], targets, None, checked)
    return values


def _start(bundle: Bundle, batch: Sequence[BatchRow], targets: Sequence[str] | None, options: Options) -> Session:
    edited: Options = {**options, "edit": [row.wanted.job.edit for row in batch]}
    return bundle.start([row.values for row in batch], targets, seeds=[row.seed for row in batch], **edited)


def _jobs(inputs: Mapping[str, Any], edit: Mapping[str, Any]) -> list[Job]:
    """A job for every name in the folders among the inputs (or else among the masks), in order; without folders a single one."""
    folders = [[files for files in part.values() if isinstance(files, dict)] for part in (inputs, edit)]
    jobs = []
    for name in sorted({name for files in folders[0] or folders[1] for name in files}) or [""]:
        given, regions = (
            {m: files.get(name) if isinstance(files, dict) else files for m, files in part.items()}
            for part in (inputs, edit)
        )
        if None in regions.values():
            raise MaskweaveError(f"edit: there is no mask for {name!r}; expected one for every input")
        jobs.append(Job(name, {m: value for m, value in given.items() if value is not None}, regions))
    return jobs


def _wanted(jobs: Sequence[Job], out: Path, samples: int, ensemble: int, seed: int) -> list[Wanted]:
    """What each job gives."""
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
    """By modality: of a folder its files by name, anything else as it is. For a text, only what ends in / is a folder."""
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
                raise MaskweaveError(f"{value}: holds no files; expected NAME.EXT for every sample")
    return found


def _is_folder(value: str | os.PathLike[str]) -> bool:
    try:
        return bool(str(value)) and Path(value).is_dir()
    except OSError:  # text that is too long to be a name
        return False


def _check_out(out: Path, given: Sequence[Any]) -> None:
    """Find what is in the way of the results before any work."""
    for value in given:
        if isinstance(value, (str, os.PathLike)) and _is_folder(value) and Path(value).resolve() == out.resolve():
            raise MaskweaveError(f"{out}: is a folder of inputs; choose another one for the results")
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise MaskweaveError(f"{out}: {there} is a file; expected a folder for the results")
    if not os.access(there, os.W_OK):
        raise MaskweaveError(f"{out}: {there} cannot be written to; choose another folder for the results")
