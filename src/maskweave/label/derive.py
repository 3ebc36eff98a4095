"""Computes labels: derives values from a data set's own values and adds them to it as further shards.

An entry declares how: its value type's rules compute it from a picture (`derive: {from: rgb, by: canny}`), or a teacher does
(`derive: {from: rgb, by: teacher, model: …, task: …}`). Each label has the key of its sample; dense ones have the resolution of the picture.
ROOT/MODALITY/label.json marks a folder written by this module and says where the labels come from; ROOT/MODALITY/shard-00000.json records a
finished shard and the state of what was read for it, and shard-00000.skipped.jsonl lists its skipped samples.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskweave.arguments import check_arguments
from maskweave.config import plain
from maskweave.data.error_budget import SKIPPED, ErrorBudget, Fault, counts, listed, read_faults, write_faults
from maskweave.data.shards import FORMAT, SAMPLES_IN_MEMORY, Shards, Tars
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import digest, read_json, remove, sweep, write_json
from maskweave.label.computing import Computation, computations
from maskweave.limits import limits_in_force, use_limits
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.modality.derivation import COMPUTED
from maskweave.permission import code_allowed
from maskweave.progress import Progress, progress
from maskweave.ranks import WHOLE, JobPart

RECORD = "label.json"


@dataclass(frozen=True)
class LabelReport:
    """Result of labeling a data set."""

    root: Path
    picture: str
    """The modalities that the labels were computed from; empty: nothing to label."""
    labels: dict[str, int]
    """Number of samples by labeled modality, both new and kept."""
    kept: int
    """Number of shards whose labels were all finished by an earlier run."""
    faults: list[Fault]
    """Skipped samples, and labels that could not be computed."""
    notes: list[str]
    unfinished: str = ""
    """What other parts of the job have still to do; then the numbers are those of the shards that are finished."""
    low: dict[str, int] = field(default_factory=dict)
    """Number of labels that were dropped because the teacher was not sure, by modality."""

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.labels.items()) or "nothing to label"
        kept = f" ({self.kept} shards kept from an earlier run)" if self.kept else ""
        low = [f"{name}: dropped {count} labels below the confidence" for name, count in self.low.items() if count]
        lines = [*filter(None, [self.unfinished]), f"{self.root}: {counts}{kept}", *self.notes, *low]
        skipped = len({fault.key for fault in self.faults if not fault.modality})
        if skipped:
            lines.append(f"skipped {skipped} samples:")
        elif self.faults:
            lines.append(f"{len(self.faults)} labels could not be computed:")
        return "\n".join([*lines, listed(self.faults)] if self.faults else lines)


@check_arguments
def label(
    root: str | os.PathLike[str],
    catalog: Catalog,
    limit: float = 0.01,
    jobs: int = 1,
    part: JobPart = WHOLE,
    device: str = "auto",
    only: Sequence[str] = (),
    allow_code: bool = False,
) -> LabelReport:
    """Add shards for the entries with `derive` for which the data set has no values.

    Teachers run one after the other over the whole data set. A second run keeps finished shards whose inputs have not changed.

    Args:
        root: an imported data set, or one in the same layout.
        limit: for each teacher, and for all rules of one modality, the largest fraction of samples that cannot be labeled, 0 to 1; checked after
            100 samples and at the end.
        jobs: values that are read, and labeled by rules, in parallel.
        part: the part of the shards to label.
        device: of the teachers; auto: a GPU if there is one.
        only: the modalities to label; by default all.
        allow_code: run the Python functions that the catalog names as teachers (`model: "python: …"`). They also run where code is allowed
            anyway (`maskweave.permission`).

    Raises:
        MaskweaveError: root is not a finished data set, lacks what the labels are computed from, a teacher cannot be opened, or too many samples
            cannot be labeled.
        FullDisk: no space is left; finished shards are kept.
    """
    if jobs < 1:
        raise MaskweaveError(f"jobs must be 1 or more, found {jobs}")
    for name in only:
        if catalog[name].derive is None:
            raise MaskweaveError(f"{catalog.where}: {name!r} has no 'derive', so it cannot be labeled")
    with code_allowed(allow_code), lock(root, part) if Path(root).is_dir() else contextlib.nullcontext():
        return _label(Shards(root, catalog), limit, jobs, part, device, only)


def _label(shards: Shards, limit: float, jobs: int, part: JobPart, device: str, only: Sequence[str]) -> LabelReport:
    catalog = shards.catalog
    notes: list[str] = []
    wanted, missing = _wanted(shards, notes, only)
    if not wanted and missing:
        raise MaskweaveError(
            f"{shards.root}: labels are computed from pictures; expected shards of {', '.join(missing)}, found {', '.join(shards.names)}"
        )
    if not wanted:
        if not notes:
            notes.append(
                f"no entry of {catalog.where} declares how to compute its values; add for example derive: {{from: rgb, by: canny}}"
            )
        return LabelReport(shards.root, "", {}, 0, [], notes)
    jobs_done: list[_Round] = []
    states: dict[Path, str] = {}
    kept = set(shards.shards) if part.is_whole else {shards.shards[n] for n in part.mine(range(len(shards.shards)))}
    with ThreadPoolExecutor(jobs, initializer=use_limits, initargs=(limits_in_force(),)) as pool:
        for computation in computations(catalog, wanted, device):
            # Opened anew: labels of the rounds before may be inputs.
            work = _Round(Shards(shards.root, catalog) if jobs_done else shards, computation, states)
            kept &= work.run(part, limit, pool)
            notes += computation.notes
            computation.close()
            jobs_done.append(work)
    finished = [shard for shard in shards.shards if all(shard in work.finished_shards for work in jobs_done)]
    left = part.left(len(shards.shards) - len(finished), len(shards.shards), str(shards.root))
    records = {name: work.records_of(name) for work in jobs_done for name in work.computation.names}
    return LabelReport(
        shards.root,
        ", ".join(dict.fromkeys(source for work in jobs_done for source in work.computation.sources)),
        {name: sum(record["samples"] for record in found) for name, found in records.items()},
        len(kept),
        list(dict.fromkeys(fault for work in jobs_done for fault in work.skips.faults)),
        notes,
        left,
        {name: sum(record.get("low", 0) for record in found) for name, found in records.items()},
    )


def _wanted(shards: Shards, notes: list[str], only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the labels that the data set lacks and that can be computed, and modalities that are missing for others."""
    entries = {
        name: entry.derive
        for name, entry in shards.catalog.items()
        if not entry.source and entry.derive is not None and (not only or name in only)
    }
    wanted: list[str] = []
    missing: list[str] = []
    own = {name for name in shards.names if not (shards.root / name / RECORD).exists()}
    possible = set(shards.names)
    while new := {name for name, derive in entries.items() if set(derive.sources) <= possible} - possible:
        possible |= new  # labels may be computed from labels
    for name, derive in entries.items():
        entry = shards.catalog[name]
        lacking = [source for source in derive.sources if source not in possible]
        if name in own:
            notes.append(f"{name}: kept, the data set has its own values")
        elif lacking:
            notes.append(f"{name}: skipped, the data set has no {lacking[0]!r} to compute it from")
            missing += lacking
        elif derive.by in COMPUTED:
            wanted.append(name)
        else:
            can, gaps = entry.value.derivation_gaps(derive.by)
            if gaps:
                notes.append(f"{name}: {gaps}")
            if can:
                wanted.append(name)
    return wanted, list(dict.fromkeys(missing))


class _Round:
    """Writes the labels of one computation shard by shard, each with a record in its label's folder."""

    def __init__(self, shards: Shards, computation: Computation, states: dict[Path, str]):
        self.shards, self.computation = shards, computation
        self.skips = ErrorBudget()
        self.finished_shards: set[str] = set()
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        """Records of finished shards, by label and shard."""
        self._states = states
        self._sources = tuple(name for name in computation.sources if name in shards.names)
        for name in computation.names:
            folder = shards.root / name
            sweep(folder)
            if {key: self._record(name).get(key) for key in self._facts(name)} != self._facts(name):
                self._claim(name, {})

    def run(self, part: JobPart, limit: float, pool: ThreadPoolExecutor) -> set[str]:
        """Writes this part's shards. Returns those that an earlier run had finished."""
        self.skips = skips = ErrorBudget(limit)
        shards = self.shards
        mine = [shards.shards[number] for number in part.mine(range(len(shards.shards)))]
        kept: set[str] = set()
        if any(not self.finished(shard) for shard in mine):
            self._open()
        title = f"label {', '.join(self.computation.names)}"
        with progress(title, sum(len(shards.keys_of(shard)) for shard in mine), quiet=not part.count) as bar:
            for shard in mine:
                if self.finished(shard):
                    kept.add(shard)
                    self.count(shard, skips)
                    bar.advance(len(shards.keys_of(shard)))
                else:
                    self.write(shard, skips, bar, pool)
                skips.check()
        # Other parts have compared their own shards; to finish is to compare all.
        compared = set(mine if part.count else shards.shards)
        self.finished_shards = {s for s in shards.shards if self.finished(s, compare=s in compared)}
        if not part.is_whole:
            self.skips = skips = ErrorBudget(limit)
            for shard in (s for s in shards.shards if s in self.finished_shards):
                self.count(shard, skips)
        if len(self.finished_shards) == len(shards.shards):
            skips.check(finished=True)
        return kept

    def records_of(self, name: str) -> list[dict[str, Any]]:
        """Records of the finished shards of a label."""
        return [self.records[name, shard] for shard in self.shards.shards if shard in self.finished_shards]

    def finished(self, shard: str, compare: bool = True) -> bool:
        """Whether all labels of this shard were computed, and from its current inputs.

        Args:
            compare: read the inputs to find out whether they have changed.
        """
        for name in self.computation.names:
            path = self.shards.path(shard, name)
            size = path.stat().st_size if path.exists() else 0
            try:
                record = read_json(self.record_of(shard, name), limit=None)
                if record["bytes"] != size or (compare and record["picture"] != self._state(shard)):
                    return False
                if not isinstance(record["skipped"], int) or not isinstance(record["samples"], int):
                    return False
            except (MaskweaveError, KeyError, TypeError):
                return False
            self.records[name, shard] = record
        return True

    def count(self, shard: str, skips: ErrorBudget) -> None:
        """Count the samples and faults of a finished shard."""
        name = self.computation.names[0]
        record = self.records[name, shard]
        skips.extend(read_faults(self.skipped(shard, name), record))
        skips.good(record["samples"] + record.get("dropped", 0) + record.get("low", 0))

    def write(self, shard: str, skips: ErrorBudget, bar: Progress, pool: ThreadPoolExecutor) -> None:
        state = self._state(shard)
        keys, first = self.shards.keys_of(shard), self.shards.first_of(shard)
        bad: list[Fault] = []
        low = dict.fromkeys(self.computation.names, 0)
        chunks = [range(n, min(n + SAMPLES_IN_MEMORY, len(keys))) for n in range(0, len(keys), SAMPLES_IN_MEMORY)]
        with Tars(self.shards.root, shard) as tars:
            coming = pool.map(self._prepare, [first + j for j in chunks[0]])
            for n, chunk in enumerate(chunks):
                prepared = list(coming)
                if n + 1 < len(chunks):  # read while the teacher computes
                    coming = pool.map(self._prepare, [first + j for j in chunks[n + 1]])
                usable = [item for item in prepared if item is not None and not isinstance(item, BadSample)]
                outcomes = iter(self.computation.finish(usable))
                for j, item in zip(chunk, prepared, strict=True):
                    if isinstance(item, BadSample):
                        bad.append(Fault(keys[j], str(item)))
                        skips.bad(keys[j], item)
                    elif item is not None:
                        outcome = next(outcomes)
                        skips.good()
                        skips.drop(keys[j], outcome.faults)
                        bad += [Fault(keys[j], reason, name) for name, reason in outcome.faults.items()]
                        for name in outcome.low:
                            low[name] += 1
                        for name, (content, ending) in outcome.files.items():
                            tars.add(name, keys[j], ending, content)
                    bar.advance(1)
                skips.check()
            tars.finish()
        for name in self.computation.names:
            path = self.shards.path(shard, name)
            if name not in tars.counts:
                path.unlink(missing_ok=True)  # from an earlier run with other inputs
            size = path.stat().st_size if path.exists() else 0
            write_faults(self.skipped(shard, name), bad)
            samples = tars.counts.get(name, 0)
            record = {"picture": state, "bytes": size, "samples": samples, "low": low[name], **counts(bad)}
            write_json(self.record_of(shard, name), record)

    def record_of(self, shard: str, name: str) -> Path:
        """File that shows that a shard is finished."""
        return self.shards.root / name / f"{shard}.json"

    def skipped(self, shard: str, name: str) -> Path:
        """File that lists the skipped samples of a shard."""
        return self.shards.root / name / f"{shard}{SKIPPED}"

    def _facts(self, name: str) -> dict[str, Any]:
        """What the labels of a folder depend on, besides the weights of a teacher."""
        entry = self.shards.catalog[name]
        facts = {"format": FORMAT, "made_from": self.computation.sources[0], "value": plain(entry.value)}
        if entry.derive is not None and entry.derive.by in COMPUTED:
            facts["derive"] = plain(entry.derive)
        return json.loads(json.dumps(facts))

    def _record(self, name: str) -> dict[str, Any]:
        try:
            found = read_json(self.shards.root / name / RECORD, limit=None)
        except MaskweaveError:
            return {}
        return found if isinstance(found, dict) else {}

    def _claim(self, name: str, teacher: dict[str, Any]) -> None:
        """Marks a folder as written by this module, and discards labels of other settings or weights."""
        folder = self.shards.root / name
        for path in [*folder.glob("*.json"), *folder.glob("*.tar")]:
            if path.name != RECORD:  # without it the labels would count as the data set's own
                remove(path)
        write_json(folder / RECORD, {**self._facts(name), **({"teacher": teacher} if teacher else {})})

    def _open(self) -> None:
        """Loads the teacher. Labels of other weights are discarded."""
        teacher = json.loads(json.dumps(self.computation.open()))
        for name in self.computation.names:
            if self._record(name).get("teacher", {}) != teacher:
                self._claim(name, teacher)

    def _state(self, shard: str) -> str:
        """Returns the state of a shard's inputs when it was first asked for: all of them are read for it."""
        found = []
        for source in self.computation.sources:
            path = self.shards.path(shard, source)
            if path not in self._states:
                self._states[path] = digest(path)
            found.append(self._states[path])
        return "-".join(found)

    def _prepare(self, i: int) -> Any:
        """Returns what the computation prepares from sample i; None if it lacks a modality."""
        try:
            sample = self.shards.raw(i, self._sources)
            if len(sample) < len(self.computation.sources):
                return None
            return self.computation.prepare(sample)
        except BadSample as error:
            return error
