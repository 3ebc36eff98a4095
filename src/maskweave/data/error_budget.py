"""Error budget of long jobs: unusable samples are skipped and unusable values dropped, counted and listed at the end; too many stop the job."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskweave.data.parts import Remarks
from maskweave.data.reading import Read
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_json_lines, remove, write_json_lines

SKIPPED = ".skipped.jsonl"
"""Ending of the files that list the faults of a shard, one [key, reason] or [key, reason, modality] per line. The shard's record has only
their count."""

FIRST_CHECK = 100
"""A running job is not stopped before it has seen this many samples: the share of bad ones among fewer is not reliable."""
EXAMPLES = 2
"""Examples of dropped values that a message has for each modality."""


class Fault(NamedTuple):
    """An unusable sample, or an unusable value of a sample that is kept."""

    key: str
    reason: str
    modality: str = ""
    """Modality of the dropped value; empty: the sample was skipped."""


class ErrorBudget:
    """The faults of a job.

    Args:
        limit: largest share of samples with faults, 0 to 1. It is checked once 100 samples were seen, and again at the end. At the end, a
            single bad sample out of a few can exceed it.

    Raises:
        MaskweaveError: limit is not from 0 to 1.
    """

    def __init__(self, limit: float = 0.01):
        if not 0 <= limit <= 1:
            raise MaskweaveError(f"the limit of skipped samples must be a share from 0 to 1, found {limit}")
        self.limit = limit
        self.seen = 0
        self.faults: list[Fault] = []
        self.remarks: Remarks = Counter()
        """What reading changed about values that are kept."""
        self.lacking = 0
        """Samples that were skipped because they lack a modality."""
        self._faulty = 0  # samples with faults

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of each skipped sample."""
        return [(fault.key, fault.reason) for fault in self.faults if not fault.modality]

    @property
    def dropped(self) -> list[Fault]:
        """The values that were dropped from samples that are kept."""
        return [fault for fault in self.faults if fault.modality]

    def take(self, item: Read) -> bool:
        """Count a sample that was read. Returns whether it can be used."""
        if item.lacks:
            self.seen += 1
            self.lacking += 1
            return False
        if item.error:
            self.bad(item.key, item.error)
            return False
        self.good()
        self.drop(item.key, item.dropped)
        return True

    def good(self, count: int = 1) -> None:
        """Count samples that are kept, with dropped values or without."""
        self.seen += count

    def bad(self, key: str, error: Exception | str) -> None:
        """Count a sample that is skipped."""
        self.seen += 1
        self._faulty += 1
        self.faults.append(Fault(key, str(error)))

    def drop(self, key: str, reasons: Mapping[str, str]) -> None:
        """Record the values that were dropped from a sample, which `good` counts."""
        self._faulty += bool(reasons)
        self.faults += [Fault(key, reason, modality) for modality, reason in reasons.items()]

    def extend(self, faults: Iterable[Fault]) -> None:
        """Record the faults of an earlier run."""
        values: dict[str, dict[str, str]] = {}
        for fault in faults:
            if fault.modality:
                values.setdefault(fault.key, {})[fault.modality] = fault.reason
            else:
                self.bad(fault.key, fault.reason)
        for key, reasons in values.items():
            self.drop(key, reasons)

    def record(self) -> dict[str, Any]:
        """Returns what was counted, except remarks, in the types of JSON."""
        return {
            "seen": self.seen, "lacking": self.lacking, "faulty": self._faulty, "faults": [list(f) for f in self.faults],
        }  # fmt: skip

    def add(self, record: Mapping[str, Any]) -> None:
        """Add what another process counted, its `record`."""
        self.seen += record["seen"]
        self.lacking += record["lacking"]
        self._faulty += record["faulty"]
        self.faults += [Fault(*fault) for fault in record["faults"]]

    def check(self, finished: bool = False) -> None:
        """Stop the job if too many samples have faults. Call this during the job, and with `finished` at its end.

        Raises:
            MaskweaveError: the share of samples with faults exceeds the limit. The message has examples and the reasons.
        """
        if self._faulty > self.limit * self.seen and (finished or self.seen >= FIRST_CHECK):
            what = "have unusable values" if self.dropped else "are unusable"
            raise MaskweaveError(
                f"{self._faulty} of {self.seen} samples {what}, more than the limit of {self.limit:.3g} ({self.limit:.1%}):\n"
                f"{listed(self.faults, 5)}\nFix or remove them, or raise the limit, then run the same command again; finished shards are kept"
            )

    def check_shards(self, records: Iterable[Path], finished: bool = False, index: Path | None = None) -> None:
        """As `check`; before it raises, the shards with faults are marked as unfinished, so that they are written again after a fix.

        Args:
            records: the records of shards, with the `counts` of their faults. They need not exist; those of shards with faults are removed.
            index: the file that says that all shards are finished; it is removed first.
        """
        try:
            self.check(finished)
        except MaskweaveError:
            if index is not None:
                remove(index)
            for path in records:
                with contextlib.suppress(MaskweaveError):  # not written, or just removed by another part of the job
                    if faulty(read_json(path, limit=None)):
                        remove(path)
            raise

    def summary(self, where: str = "") -> str:
        """Lines with the counts, with names and reasons of the first skipped samples, and with examples of dropped values; empty if nothing was
        skipped or dropped.

        Args:
            where: the file that lists all faults.
        """
        lacking = f"{self.lacking} of {self.seen} samples lack a modality that is needed, and are not used"
        if not self.faults:
            return lacking if self.lacking else ""
        parts = [f"skipped {len(self.skipped)} of {self.seen} samples"] if self.skipped else []
        if self.dropped:
            parts.append(f"dropped {len(self.dropped)} values of {len({fault.key for fault in self.dropped})} samples")
        told = f"{' and '.join(parts)}{f'; all are listed in {where}' if where else ''}:\n{listed(self.faults)}"
        return f"{lacking}\n{told}" if self.lacking else told


def remark_lines(remarks: Remarks, totals: Mapping[str, int]) -> list[str]:
    """Lines with the number of values that reading changed, by modality and remark.

    Args:
        totals: number of all values of each modality, as far as known.
    """
    return [
        f"{name}: {text}: {count}{' (all)' * (count >= totals.get(name, count + 1))}"
        for (name, text), count in sorted(remarks.items())
    ]


def listed(faults: Sequence[Fault], most: int = 20) -> str:
    """Lines with name and reason of the first `most` skipped samples, then for each modality its dropped values with examples."""
    skipped = [fault for fault in faults if not fault.modality]
    lines = [f"  {fault.key}: {fault.reason}" for fault in skipped[:most]]
    if len(skipped) > most:
        lines.append(f"  … and {len(skipped) - most} more")
    modalities: dict[str, list[Fault]] = {}
    for fault in faults:
        if fault.modality:
            modalities.setdefault(fault.modality, []).append(fault)
    for modality, found in modalities.items():
        examples = "; ".join(f"{fault.key}: {fault.reason}" for fault in found[:EXAMPLES])
        lines.append(f"  {modality}: {len(found)} values, {'such as ' * (len(found) > EXAMPLES)}{examples}")
    return "\n".join(lines)


def faults_of(items: Iterable[Read]) -> list[Fault]:
    """The faults of samples that were read."""
    return [
        fault
        for item in items
        for fault in (
            [Fault(item.key, item.error)]
            if item.error
            else [Fault(item.key, reason, modality) for modality, reason in item.dropped.items()]
        )
    ]


def counts(faults: Iterable[Fault]) -> dict[str, int]:
    """Counts of faults for a record: `skipped` samples and `dropped` values."""
    modalities = [fault.modality for fault in faults]
    return {"skipped": modalities.count(""), "dropped": len(modalities) - modalities.count("")}


def faulty(record: Mapping[str, Any]) -> int:
    """Returns the number of faults of a record with `counts`."""
    return int(record["skipped"]) + int(record.get("dropped", 0))


def write_faults(path: Path, faults: Sequence[Fault]) -> None:
    """Write the faults to `path`; if there are none, remove the file."""
    if faults:
        write_json_lines(path, [list(fault) if fault.modality else [fault.key, fault.reason] for fault in faults])
    else:
        remove(path)


def read_faults(path: Path, record: Mapping[str, Any]) -> list[Fault]:
    """Read what `write_faults` wrote.

    Args:
        record: with the `counts`. If the file is missing or damaged, as many skipped samples with the name "?" are returned.
    """
    count = faulty(record)
    try:
        faults = [Fault(*map(str, line)) for line in read_json_lines(path)] if count else []
    except (MaskweaveError, OSError, ValueError, TypeError):
        faults = []
    return faults if len(faults) == count else [Fault("?", f"{path} is missing or damaged")] * count
