"""Generation from files into files: one request, or one for every name in folders of inputs, streamed and restartable."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from maskweave.catalogues import Catalogue
from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.request import Options
from maskweave.progress import progress
from maskweave.train.interruption import Interrupted, StopSignal

DONE = "schedule.yaml"
"""Written last, so its presence says that a result folder is whole."""
REQUEST = "request.yaml"


class Job(NamedTuple):
    """One result folder, or several samples of it."""

    inputs: dict[str, Any]
    edit: dict[str, Any]
    folders: list[Path]
    """One for each sample."""


def generate_files(
    bundle: Bundle,
    inputs: Mapping[str, str],
    targets: Sequence[str] | None,
    out: str | os.PathLike[str],
    *,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 8,
    **options: Unpack[Options],
) -> str:
    """Generate, show the progress, and write a result folder for each sample; see `Generated.save`.

    Ctrl-C: of a single request what is done by then is written. Of folders the finished results stay, and the same call goes on.

    Args:
        inputs: by modality a file, text, or a folder of files. Names of files are samples; what a folder lacks of one is not given.
        out: folder of the result; with folders of inputs of one for each name; with several samples of folders 0, 1, ... inside.
        samples: how often each input is used, with seeds `seed`, `seed + 1`, ...
        batch_size: samples that pass through the model together.
        options: as for `Bundle.generate`; an edit's mask may be a folder of masks too.

    Returns:
        what was written, in words.

    Raises:
        MaskweaveError: as `Bundle.generate`, before any work; or `out` holds results of another request.
        Interrupted: after Ctrl-C.
    """
    if samples < 1 or batch_size < 1:
        raise MaskweaveError(f"samples and batch size must be 1 or more, found {samples} and {batch_size}")
    edit = options.get("edit") or {}
    assert isinstance(edit, Mapping)
    schedule = bundle.schedule(list(inputs), targets, **options)
    out = Path(out)
    jobs = _jobs(_files(inputs, bundle.catalogue), _files(edit, bundle.catalogue), out, samples)
    is_many = jobs[0].folders[0] not in (out, out / "0")
    if is_many:
        regions = {name: str(region) for name, region in edit.items()}
        asked = {"inputs": dict(inputs), "edit": regions, "targets": targets, "seed": seed, "schedule": schedule}
        _claim(out, plain(asked))
        jobs = [job for job in jobs if not all((folder / DONE).exists() for folder in job.folders)]
    done, faults = 0, []
    passes = sum(step.tokens if step.scheme == "autoregressive" else 1 for step in schedule.steps)
    with progress("generate", passes * len(jobs)) as bar, StopSignal() as stop:
        for batch in _batches(jobs, max(1, batch_size // samples)):
            read = []
            for job in batch:
                try:
                    read.append((bundle.read(job.inputs), job))
                except MaskweaveError as error:
                    if not is_many:
                        raise
                    faults.append(error)
                    bar.say(f"{job.folders[0]}: left out: {error}")
            rows = [(values, job.edit, seed + n, job.folders[n]) for values, job in read for n in range(samples)]
            if not rows:
                bar.advance(passes * len(batch))
                continue
            options["edit"] = [edit for _, edit, _, _ in rows]
            session = bundle.start([r[0] for r in rows], targets, seeds=[r[2] for r in rows], **options)
            before = 0
            for _ in session:
                bar.advance((session.done - before) * len(batch))
                before = session.done
                if stop.asked:
                    break
            if is_many and not session.is_finished:
                raise Interrupted(f"stopped; {done} new results are in {out}, and the same command goes on")
            bar.advance((passes - before) * len(batch))
            for result, row in zip(session.results(), rows, strict=True):
                result.save(row[3])
                for name, problems in result.problems.items():
                    bar.say(f"{row[3]}: {name}: left out what was broken: {'; '.join(problems)}")
            done += len(rows)
            if stop.asked:
                rest = "and the same command goes on" if is_many else "as far as it was generated"
                raise Interrupted(f"stopped; {done} new results are in {out}, {rest}")
    if faults and not done:
        raise MaskweaveError(f"none of {len(faults)} inputs can be used, the first because: {faults[0]}")
    left_out = f", {len(faults)} inputs left out" if faults else ""
    return f"{done} results written to {out}{left_out}" if is_many or samples > 1 else f"written to {out}"


def _jobs(inputs: Mapping[str, Any], edit: Mapping[str, Any], out: Path, samples: int) -> list[Job]:
    """A job for every name in the folders among the inputs, in order; without folders a single one."""
    names = sorted({name for files in (*inputs.values(), *edit.values()) if isinstance(files, dict) for name in files})
    jobs = []
    for name in names or [""]:
        mine = [
            {m: files.get(name) if isinstance(files, dict) else files for m, files in part.items()}
            for part in (inputs, edit)
        ]
        if None in mine[1].values():
            raise MaskweaveError(f"edit: there is no mask for {name!r}; expected one for every input")
        folder = out / name
        folders = [folder / str(n) for n in range(samples)] if samples > 1 else [folder]
        jobs.append(Job({m: value for m, value in mine[0].items() if value is not None}, mine[1], folders))
    return jobs


def _files(values: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """By modality: of a folder its files by name, anything else as it is. For a text, only what ends in / is a folder."""
    found = {}
    for modality, value in values.items():
        found[modality] = value
        is_text = catalogue[modality].value.type == "text" and not str(value).endswith("/")
        if isinstance(value, (str, os.PathLike)) and value and not is_text and _is_folder(value):
            found[modality] = {p.stem: p for p in sorted(Path(value).iterdir()) if p.is_file() and p.name[0] != "."}
            if not found[modality]:
                raise MaskweaveError(f"{value}: holds no files; expected NAME.EXT for every sample")
    return found


def _is_folder(value: str | os.PathLike[str]) -> bool:
    try:
        return Path(value).is_dir()
    except OSError:  # text that is too long to be a name
        return False


def _batches(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _claim(out: Path, request: dict[str, Any]) -> None:
    """Results of two requests must not be mixed in one folder."""
    path = out / REQUEST
    if path.exists():
        if read_yaml(path) != plain(request):
            raise MaskweaveError(
                f"{out}: holds results of another request; give another folder, or remove {path} with them"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_yaml(path, plain(request))
