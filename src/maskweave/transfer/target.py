"""Targets of a transfer: what is learned of a sample.

Dimension letters: B samples, M most boxes of a sample, P numbers of a box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskweave.errors import BadSample, LackingSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.base import ValueType
from maskweave.values.detection import Detected
from maskweave.values.metrics import Metric

NUMBER_METRICS = ("mae", "rmse", "r2", "nll", "coverage")


@dataclass(frozen=True)
class Target:
    """What a transfer learns to predict."""

    modality: Modality | None
    """The modality whose values are learned; None: the classes of folders."""
    label: str
    """The label or number that is learned: a metadata key, or `first`. Empty: the complete value, or the folder."""
    classes: tuple[str, ...]
    """Class names of labels, class maps and boxes."""

    @property
    def value(self) -> ValueType | None:
        """Type of what is learned; None: a class of folders, or a label that is a part of another value."""
        if self.modality is None or (self.label and not self.is_number):
            return None
        return self.modality.value.numbers[self.label] if self.label else self.modality.value

    @property
    def is_number(self) -> bool:
        """Whether it is one number of a value that holds several."""
        return self.modality is not None and self.label in self.modality.value.numbers

    @property
    def kind(self) -> str:
        """Kind of head: `label` (one class), `sample` (yes or no for each class), `numbers`, `points` (a value at each point of a plane) or `boxes`; see
        `ValueType.head`."""
        return "label" if self.value is None else kind_of(self.value)

    @property
    def name(self) -> str:
        """Name for messages and reports."""
        return " ".join(filter(None, (self.modality.name if self.modality else "class", self.label)))

    def of(self, sample: Mapping[str, Any]) -> Any:
        """Returns the target of a sample: an index into `classes`, or the value.

        Raises:
            LackingSample: the sample does not have it.
            BadSample: it is not one of the classes.
        """
        assert self.modality is not None
        value = sample.get(self.modality.reads)
        if value is None:
            raise LackingSample(f"the sample has no {self.modality.reads!r}, the target")
        if not self.label and self.kind != "label":
            return value
        try:
            if self.is_number:
                return self.modality.value.number_of(value, self.label)
            return self.classes.index(self.modality.value.label_of(value, self.label))
        except BadSample as error:
            raise type(error)(f"{self.modality.name}: {error}") from error

    def scores(self) -> list[Metric]:
        """The metrics of predicted values: those of the entry, and for numbers all that the type has."""
        assert self.modality is not None and self.value is not None
        if self.kind != "numbers" or (self.modality.metrics and not self.is_number):
            return self.modality.scores()
        known = self.value.metrics()
        return [known[name] for name in NUMBER_METRICS if name in known]


def kind_of(value: ValueType) -> str:
    """Returns the kind of head for complete values of a type; numbers along one axis are predicted together."""
    return "numbers" if value.head == "points" and len(value.size) == 1 and not value.num_classes else value.head


def make_target(catalog: Catalog, name: str, label: str, classes: Sequence[str] = ()) -> Target:
    """Returns the target, checked against its entry.

    Args:
        classes: of the data's folders, if it has any.

    Raises:
        MaskweaveError: not a possible target of this data; lists the possible ones.
    """
    possible = [m.name for m in catalog.values() if _is_learnable(m)]
    labels = [f"{m.name} with label {label}" for m in catalog.values() for label in (*m.value.labels, *m.value.numbers)]
    choices = f"possible targets: {', '.join([*possible, *labels])}"
    if classes:
        if name or label:
            raise MaskweaveError(
                f"class folders allow only the class as target, found {name or label!r}; remove target and label"
            )
        return Target(None, "", tuple(classes))
    if not name:
        raise MaskweaveError(
            f"target is empty, and this data has no folders of classes; set target to one of the {choices}"
        )
    modality = catalog[name]
    kind = modality.value.type
    if not label:
        if not _is_learnable(modality):
            raise MaskweaveError(f"target {name!r}: complete values of type {kind!r} cannot be learned; {choices}")
        return Target(modality, "", modality.value.classes)
    if label in modality.value.numbers:
        return Target(modality, label, ())
    if label not in modality.value.labels:
        raise MaskweaveError(f"target {name!r} of type {kind!r} has no label {label!r}; {choices}")
    return Target(modality, label, modality.value.labels[label])


def _is_learnable(m: Modality) -> bool:
    return bool(kind_of(m.value)) and (kind_of(m.value) == "numbers" or len(m.value.size) in (0, 2))


def target_tensor(target: Target, answers: Sequence[Any]) -> Tensor:
    """Returns the tensor for `TransferBatch.target`."""
    if target.kind == "label":
        return torch.tensor(answers)
    assert target.value is not None
    if target.kind == "numbers":  # shorter series are unknown past their end
        answers = [target.value.fit_sizes(answer, f"target {target.name!r}") for answer in answers]
    if not isinstance(target.value, Detected):
        return target.value.to_network(answers)
    rows = [torch.from_numpy(target.value.box_rows(answer)) for answer in answers]
    out_BMX = torch.full((len(answers), max(1, max(map(len, rows))), 1 + target.value.box_numbers), -1.0)
    for b, found in enumerate(rows):
        out_BMX[b, : len(found)] = found
    return out_BMX
