"""What computes the labels of a data set: rules of value types, or one teacher; and the order in which labels depend on each other.

A computation prepares samples one by one, in threads, and finishes several at once, so that a network gets batches.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher
from maskweave.label.teachers.confidence import confident
from maskweave.label.teachers.opening import open_teacher
from maskweave.modality.catalogs import Catalog
from maskweave.modality.derivation import COMPUTED, TeacherDerivation


class ComputedLabels(NamedTuple):
    """What was computed for one sample."""

    files: dict[str, tuple[bytes, str]]
    """Bytes and file ending by label."""
    faults: Mapping[str, str] = MappingProxyType({})
    """Why a label could not be computed."""
    low: tuple[str, ...] = ()
    """Labels that were dropped because the teacher was not sure."""


class Computation(Protocol):
    """Computes one or several labels from the same modalities."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    """Modalities to read; samples that lack one have no label."""

    def open(self) -> dict[str, Any]:
        """Load what is needed before the first sample; returns where the labels come from, for their record."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the user should know, after `open`."""
        ...

    def prepare(self, sample: Sample) -> Any:
        """Computes what can be computed for a single sample; called from several threads.

        Raises:
            BadSample: nothing can be computed from it.
        """
        ...

    def finish(self, prepared: Sequence[Any]) -> list[ComputedLabels]:
        """Computes the labels of several samples."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class RuleLabels:
    """Labels that value types compute from a picture."""

    def __init__(self, catalog: Catalog, source: str, names: Sequence[str]):
        self.catalog = catalog
        self.sources: tuple[str, ...] = (source,)
        self.names: tuple[str, ...] = tuple(names)
        self.notes: list[str] = []
        derives = {name: catalog[name].derive for name in names}
        self._compute = {
            name: partial(catalog[name].value.derivations[derive.by], catalog[name].value)
            for name, derive in derives.items()
            if derive is not None
        }

    def open(self) -> dict[str, Any]:
        return {}

    def prepare(self, sample: Sample) -> ComputedLabels:
        picture = sample[self.sources[0]]
        return ComputedLabels(
            {name: self.catalog[name].value.to_file(compute(picture), name) for name, compute in self._compute.items()}
        )

    def finish(self, prepared: Sequence[ComputedLabels]) -> list[ComputedLabels]:
        return list(prepared)

    def close(self) -> None:
        pass


class OneTeacher:
    """The label of one teacher."""

    def __init__(self, catalog: Catalog, name: str, device: str):
        derive = catalog[name].derive
        assert derive is not None
        self.catalog, self.device = catalog, device
        self.names: tuple[str, ...] = (name,)
        self.sources: tuple[str, ...] = derive.sources
        self._derive, self._entry = derive, catalog[name]
        self._teacher: TaskTeacher | None = None

    @property
    def notes(self) -> list[str]:
        return [f"{self.names[0]}: {note}" for note in self._teacher.notes] if self._teacher else []

    def open(self) -> dict[str, Any]:
        self._teacher = open_teacher(self.catalog, self._entry, self.device)
        return self._teacher.provenance

    def prepare(self, sample: Sample) -> Sample:
        return sample

    def finish(self, prepared: Sequence[Sample]) -> list[ComputedLabels]:
        size = getattr(self._derive, "batch_size", 64)
        return [
            outcome
            for start in range(0, len(prepared), size)
            for outcome in self._batch(prepared[start : start + size])
        ]

    def _batch(self, samples: Sequence[Sample]) -> list[ComputedLabels]:
        assert self._teacher is not None
        try:
            labels = self._teacher(samples)
        except BadSample as error:
            if len(samples) > 1:  # find the bad one
                return [outcome for sample in samples for outcome in self._batch([sample])]
            labels = [error]
        if len(labels) != len(samples):
            raise MaskweaveError(
                f"{self.names[0]}: the teacher returned {len(labels)} labels for {len(samples)} samples; expected one each, None if there is none"
            )
        return [self._outcome(label) for label in labels]

    def _outcome(self, label: Any) -> ComputedLabels:
        (name,) = self.names
        if label is None:
            return ComputedLabels({})
        try:
            if isinstance(label, BadSample):
                raise label
            value = label.value
            if isinstance(self._derive, TeacherDerivation) and self._derive.confidence.is_set:
                value = confident(label, self._derive.confidence, self._entry)
                if value is None:
                    return ComputedLabels({}, low=(name,))
            return ComputedLabels({name: self._entry.value.to_file(value, name)})
        except BadSample as error:
            return ComputedLabels({}, {name: str(error)})

    def close(self) -> None:
        self._teacher = None


def computations(catalog: Catalog, wanted: Sequence[str], device: str) -> list[Computation]:
    """Returns computations of the wanted entries in an order in which each one's inputs are computed before.

    Raises:
        MaskweaveError: entries are computed from each other.
    """
    found: list[Computation] = []
    left = list(wanted)
    while left:
        ready = [name for name in left if not set(_sources(catalog, name)) & set(left)]
        if not ready:
            raise MaskweaveError(
                f"{catalog.where}: {', '.join(left)} are computed from each other; correct their derive.from"
            )
        rules: dict[str, list[str]] = {}
        teachers: list[str] = []
        for name in ready:
            derive = catalog[name].derive
            assert derive is not None
            if derive.by in COMPUTED:
                teachers.append(name)
            else:
                rules.setdefault(derive.source, []).append(name)
        found += [RuleLabels(catalog, source, names) for source, names in rules.items()]
        found += [OneTeacher(catalog, name, device) for name in teachers]
        left = [name for name in left if name not in ready]
    return found


def _sources(catalog: Catalog, name: str) -> tuple[str, ...]:
    derive = catalog[name].derive
    return derive.sources if derive else ()
