"""Targets of a transfer, and batches of examples: the inputs of a sample and its target.

Dimension letters: B samples, M most boxes of a sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskweave.data.augment import Augment
from maskweave.data.labeled import ClassFolders
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.order import Order
from maskweave.data.parts import noting
from maskweave.data.source import Source
from maskweave.data.split import divide, group_of, hash_names, put_last, some_by_hash
from maskweave.errors import BadSample, MaskweaveError
from maskweave.masking.inputs import TransferBatch, read_inputs
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.transfer.recipe import TransferData

TUNED_ON = 0.2
"""Share of the training examples, the last ones, on which a probe chooses its settings. Those of a data set come last by the hashes of their names."""
MOST_BAD = 100
"""Consecutive unusable samples after which making a batch fails."""


@dataclass(frozen=True)
class Target:
    """What a transfer learns to predict."""

    modality: Modality | None
    """The modality whose values are learned; None: the classes of folders."""
    label: str
    """The label that is learned: a metadata key, or `first`. Empty: the complete value, or the folder."""
    classes: tuple[str, ...]
    """Class names of labels, class maps and boxes."""

    @property
    def kind(self) -> str:
        """Kind of head: `label` (one class), `sample` (yes or no for each class), `points` (a value per point) or `boxes`; see `ValueType.head`."""
        return "label" if self.modality is None or self.label else self.modality.value.head

    @property
    def name(self) -> str:
        """Name for messages and reports."""
        return " ".join(filter(None, (self.modality.name if self.modality else "class", self.label)))

    def of(self, sample: Mapping[str, Any]) -> Any:
        """Returns the target of a sample: an index into `classes`, or the value.

        Raises:
            BadSample: the sample does not have it.
        """
        assert self.modality is not None
        value = sample.get(self.modality.reads)
        if value is None:
            raise BadSample(f"the sample has no {self.modality.reads!r}, the target")
        if not self.label and self.kind != "label":
            return value
        try:
            return self.classes.index(self.modality.value.label_of(value, self.label))
        except BadSample as error:
            raise BadSample(f"{self.modality.name}: {error}") from error


def make_target(catalog: Catalog, name: str, label: str, classes: Sequence[str] = ()) -> Target:
    """Returns the target, checked against its entry.

    Args:
        classes: of the data's folders, if it has any.

    Raises:
        MaskweaveError: not a possible target of this data; lists the possible ones.
    """
    possible = [m.name for m in catalog.values() if _is_learnable(m)]
    labels = [f"{m.name} with label {label}" for m in catalog.values() for label in m.value.labels]
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
    if label not in modality.value.labels:
        raise MaskweaveError(f"target {name!r} of type {kind!r} has no label {label!r}; {choices}")
    return Target(modality, label, modality.value.labels[label])


def _is_learnable(m: Modality) -> bool:
    return bool(m.value.head) and len(m.value.size) in (0, 2)


class Examples:
    """Samples with their targets, by index.

    Raises:
        MaskweaveError: the data does not have the inputs or the target.
    """

    def __init__(
        self, source: Source, catalog: Catalog, inputs: Sequence[str], target: Target, indices: Sequence[int] = ()
    ):
        self.source, self.catalog, self.inputs, self.target = source, catalog, list(inputs), target
        self.indices = indices or range(len(source))
        wanted = [catalog[n].reads for n in inputs] + ([target.modality.reads] if target.modality else [])
        if missing := [name for name in wanted if name not in source.names]:
            raise MaskweaveError(f"the data has no {', '.join(missing)}; it has {', '.join(source.names)}")
        self.wanted = list(dict.fromkeys(wanted))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.wanted)

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, i: int) -> str:
        return self.source.key(self.indices[i])

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns sample i: its inputs and the values of its target.

        Raises:
            BadSample: the sample is unusable, or lacks an input or the target.
        """
        with noting("part") as notes:
            sample = self.source[self.indices[i]]
        if missing := [name for name in self.wanted if sample.get(name) is None]:
            reasons = [notes.dropped.get(name, f"{self.key(i)}: has no {name}") for name in missing]
            raise BadSample("; ".join(reasons))
        self.answer(i, sample)
        return {name: sample[name] for name in self.wanted}

    def answer(self, i: int, sample: Mapping[str, Any]) -> Any:
        """Returns the target of `sample`, which is sample i, possibly transformed."""
        if self.target.modality is None:
            labels: Any = self.source  # ClassFolders
            return labels.labels[self.indices[i]]
        return self.target.of(sample)


class TransferBatches:
    """Batches by index: `batches[i]` is a pure function of the seed and i. An unusable sample is replaced by the next one.

    Args:
        shuffle: if False, one pass in order, without augmentation.
    """

    def __init__(
        self,
        examples: Examples,
        tokenizers: Mapping[str, Tokenizer],
        names: Sequence[str],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
    ):
        self.examples, self.tokenizers, self.names = examples, tokenizers, names
        self.order = Order([len(examples)], batch_size, seed, shuffle)
        self.seed, self.shuffle, self.augment = seed, shuffle, augment or Augment()

    def __len__(self) -> int:
        """Number of batches in one pass over the examples."""
        return len(self.order)

    def __getitem__(self, i: int) -> TransferBatch:
        examples = self.examples
        rng = np.random.default_rng([self.seed, 3, i])
        samples, answers = [], []
        for number in self.order[i].tolist():
            sample, answer = self._usable(number, rng)
            samples.append(sample)
            answers.append(answer)
        inputs = read_inputs(samples, examples.catalog, self.tokenizers, self.names)
        return TransferBatch(inputs, target_tensor(examples.target, answers))

    def _usable(self, number: int, rng: np.random.Generator) -> tuple[dict[str, Any], Any]:
        augmented = self.shuffle and self.augment.changes
        for i in range(number, number + MOST_BAD):
            i %= len(self.examples)
            try:
                sample = self.examples[i]
                if augmented:
                    sample = self.augment(sample, self.examples.catalog, rng)
                return sample, self.examples.answer(i, sample)
            except BadSample as error:
                last = error
        raise MaskweaveError(f"{MOST_BAD} consecutive examples are unusable; the last one: {last}")


def target_tensor(target: Target, answers: Sequence[Any]) -> Tensor:
    """Returns the tensor for `TransferBatch.target`."""
    if target.kind == "label":
        return torch.tensor(answers)
    assert target.modality is not None
    if target.kind != "boxes":
        return target.modality.value.to_network(answers)
    out_BM5 = torch.full((len(answers), max(1, max(map(len, answers))), 5), -1.0)
    for b, boxes in enumerate(answers):
        for m, item in enumerate(boxes):
            x0, y0, x1, y1 = item["box"]
            label = target.classes.index(item["class"])
            out_BM5[b, m] = torch.tensor([label, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
    return out_BM5


class Parts(NamedTuple):
    train: Examples
    held_out: Examples


def open_examples(data: TransferData, catalog: Catalog, inputs: Sequence[str], name: str, label: str) -> Parts:
    """Opens the training examples and the held-out examples.

    Raises:
        MaskweaveError: the data does not exist, is too small, or does not have the target.
    """
    endless = is_endless(data.source)
    if endless and not (data.samples and data.validation):
        raise MaskweaveError(f"{data.source} is endless: set data.samples and data.validation to 1 or more")
    names = list(filter(None, (*inputs, name)))
    source = _open(data, data.source, data.pictures, catalog, names, data.samples, data.seed)
    classes = source.classes if isinstance(source, ClassFolders) else ()
    target = make_target(catalog, name, label, classes)
    if endless or data.held_out:
        pictures = data.held_out_pictures or data.pictures
        other = _open(data, data.held_out or data.source, pictures, catalog, names, data.validation, data.seed + 1)
        found = other.classes if isinstance(other, ClassFolders) else ()
        if found != classes:
            raise MaskweaveError(
                f"{data.held_out}: its {len(found)} classes differ from the {len(classes)} of {data.source}: {', '.join(sorted({*found} ^ {*classes})[:10])} are only in one of them; give both the same class folders"
            )
        kept = range(min(len(other), data.validation or len(other)))
        train = range(min(len(source), data.samples or len(source)))
        return Parts(Examples(source, catalog, inputs, target, train), Examples(other, catalog, inputs, target, kept))
    if not (data.split.file or data.split.fraction or 1 <= data.validation < len(source)):
        raise MaskweaveError(
            f"{data.source}: has {len(source)} samples, so data.validation must be from 1 to {len(source) - 1}, found {data.validation}; change it, or set data.held_out"
        )
    parts = divide(source, data.split, data.validation, data.source)
    chosen = parts.train[: data.samples or None]
    if data.split.by == "hash":
        chosen = some_by_hash(source, parts.train, data.samples)
        hashes = hash_names(map(group_of(data.split), map(source.key, chosen.tolist())))
        chosen = chosen[put_last(hashes, TUNED_ON)]
    return Parts(
        Examples(source, catalog, inputs, target, chosen.tolist()),
        Examples(source, catalog, inputs, target, parts.held_out.tolist()),
    )


def _open(
    data: TransferData, place: str, pictures: str, catalog: Catalog, names: Sequence[str], count: int, seed: int
) -> Source:
    """Opens the samples at `place`: all of a fixed data set. `count` and `seed` apply only to endless sources."""
    made: dict[str, Any] = {"samples": count, "seed": seed} if is_endless(place) else {}
    return open_data(
        place,
        catalog,
        names=names,
        pictures=pictures,
        labeled=True,
        fields=data.fields,
        outside_paths=data.outside_paths,
        window=data.window,
        **made,
    )
