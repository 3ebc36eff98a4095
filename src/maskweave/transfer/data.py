"""Examples of a transfer and batches of them: the inputs of a sample and its target."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskweave.data.augment import Augment
from maskweave.data.labeled import LabeledPictures
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data, reading_options
from maskweave.data.order import Order
from maskweave.data.parts import noting
from maskweave.data.source import Source
from maskweave.data.split import Split, divide, group_of, grouping, hash_names, put_last, some_by_hash
from maskweave.data.weights import weights_of
from maskweave.errors import BadSample, LackingSample, MaskweaveError
from maskweave.limits import limited_to, limits_in_force
from maskweave.masking.inputs import TransferBatch, raw_inputs, read_inputs
from maskweave.modality.catalogs import Catalog
from maskweave.nn.ridge import FOLDS
from maskweave.tokenizers.base import Tokenizer
from maskweave.transfer.recipe import TransferData
from maskweave.transfer.target import Target, make_target, target_tensor
from maskweave.transfer.thinking import Thinking

TUNED_ON = 0.2
"""Share of the training examples, the last ones, on which a probe chooses its settings. Those of a data set come last by the hashes of their names."""
MOST_HELD_OUT = 1000
"""Most examples that are held out of a data set if no number is given."""
MOST_BAD = 100
"""Consecutive unusable samples after which making a batch fails."""


class Examples:
    """Samples with their targets, by index.

    Raises:
        MaskweaveError: the data does not have the inputs or the target.
    """

    def __init__(
        self,
        source: Source,
        catalog: Catalog,
        inputs: Sequence[str],
        target: Target,
        indices: Sequence[int] = (),
        split: Split | None = None,
        partial: bool = False,
    ):
        self.source, self.catalog, self.inputs, self.target = source, catalog, list(inputs), target
        self.indices = indices or range(len(source))
        self.group = group_of(grouping(source, split or Split()))
        self.partial = partial
        """Whether samples may lack some of the inputs."""
        self.limits = limits_in_force()
        """The limits in force now; samples are read within them in any process."""
        self.reads = [catalog[n].reads for n in inputs]
        wanted = self.reads + ([target.modality.reads] if target.modality else [])
        if missing := [name for name in wanted if name not in source.names]:
            raise MaskweaveError(f"the data has no {', '.join(missing)}; it has {', '.join(source.names)}")
        self.wanted = list(dict.fromkeys(wanted))
        whole = target.modality if not target.label else None
        self.thinking: Thinking | None = None
        """Generates further inputs."""
        self.weighted = catalog[whole.reads] if whole and catalog[whole.reads].weight else None
        """Entry of a target whose numbers have weights."""

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
            LackingSample: the sample lacks an input or the target.
            BadSample: it is unusable.
        """
        with noting("part") as notes, limited_to(self.limits):
            sample = self.source[self.indices[i]]
        missing = [name for name in self.wanted if sample.get(name) is None]
        optional = self.reads if self.partial and any(sample.get(name) is not None for name in self.reads) else []
        needed = [name for name in missing if name not in optional or self._is_target(name)]
        if needed:
            reasons = [notes.dropped.get(name, f"{self.key(i)}: has no {name}") for name in needed]
            are_lacking = not any(name in notes.dropped for name in needed)
            raise (LackingSample if are_lacking else BadSample)("; ".join(reasons))
        self.answer(i, sample)
        names = [name for name in self.wanted if name not in missing]
        if self.weighted and sample.get(self.weighted.weight) is not None:
            names = list(dict.fromkeys([*names, self.weighted.weight]))
        return {name: sample[name] for name in names}

    def _is_target(self, name: str) -> bool:
        return self.target.modality is not None and name == self.target.modality.reads

    def some(self, count: int) -> "Examples":
        """Returns at most `count` of the examples, evenly spread."""
        if count >= len(self):
            return self
        fewer = copy.copy(self)
        fewer.indices = [self.indices[i] for i in np.linspace(0, len(self) - 1, count).astype(int).tolist()]
        return fewer

    def folds(self, numbers: Sequence[int]) -> np.ndarray:
        """Returns a fold, 0 to 4, of each of these examples, for cross-validation: by the hash of its name, or of its group."""
        hashes = hash_names(self.group(self.key(i)) for i in numbers)
        return (hashes % np.uint64(FOLDS)).astype(np.int64)  # the low bits; the split uses the high ones

    def raw_weights(self, samples: Sequence[Mapping[str, Any]]) -> list[np.ndarray] | None:
        """Returns the raw weights of some samples' targets; None if their entry has none."""
        return None if self.weighted is None else [weights_of(sample, self.weighted) for sample in samples]

    def answer(self, i: int, sample: Mapping[str, Any]) -> Any:
        """Returns the target of `sample`, which is sample i, possibly transformed."""
        if self.target.modality is None:
            labels: Any = self.source  # LabeledPictures
            return labels.labels[self.indices[i]]
        return self.target.of(sample)


class TransferBatches:
    """Batches by index: `batches[i]` is a pure function of the seed and i. An unusable sample is replaced by the next one.

    Args:
        shuffle: if False, one pass in order, without augmentation.
        raw: inputs whose values the head reads itself.
        dropout: probability of leaving out each input of a sample; at least one stays.
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
        raw: Sequence[str] = (),
        dropout: float = 0.0,
    ):
        self.examples, self.tokenizers, self.names = examples, tokenizers, names
        self.order = Order([len(examples)], batch_size, seed, shuffle)
        self.seed, self.shuffle, self.augment = seed, shuffle, augment or Augment()
        self.raw, self.dropout = list(raw), dropout

    def __len__(self) -> int:
        """Number of batches in one pass over the examples."""
        return len(self.order)

    def __getitem__(self, i: int) -> TransferBatch:
        examples = self.examples
        samples, answers = [], []
        for place, number in enumerate(self.order[i].tolist(), i * self.order.batch_size):
            rng = np.random.default_rng([self.seed, 3, place])  # not by batch, so that batches may be split
            sample, answer = self._usable(number, rng)
            samples.append(self._kept(sample, rng))
            answers.append(answer)
        thoughts = examples.thinking.names if examples.thinking else ()
        given = [name for name in self.names if name not in thoughts]
        inputs = read_inputs(samples, examples.catalog, self.tokenizers, given, examples.partial)
        if examples.thinking:
            inputs = examples.thinking.added(inputs, samples, self.names)
        raw = raw_inputs(samples, examples.catalog, self.raw)
        return TransferBatch(inputs, target_tensor(examples.target, answers), raw)

    def _kept(self, sample: Mapping[str, Any], rng: np.random.Generator) -> Mapping[str, Any]:
        """Returns the inputs of a sample without those that are left out."""
        if not (self.shuffle and self.dropout):
            return sample
        reads = {name: self.examples.catalog[name].reads for name in self.examples.inputs}
        found = [name for name in reads if sample.get(reads[name]) is not None]
        kept = [name for name in found if rng.random() >= self.dropout] or [found[int(rng.integers(len(found)))]]
        return {name: sample[reads[name]] for name in kept}

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


class Parts(NamedTuple):
    train: Examples
    held_out: Examples


def open_examples(data: TransferData, catalog: Catalog, inputs: Sequence[str], name: str, label: str) -> Parts:
    """Opens the training examples and the held-out examples.

    Raises:
        MaskweaveError: the data does not exist, is too small, or does not have the target.
    """
    endless, partial = is_endless(data.source), data.modality_dropout > 0
    if endless and not (data.samples and data.validation):
        raise MaskweaveError(f"{data.source} is endless: set data.samples and data.validation to 1 or more")
    names = list(filter(None, (*inputs, name)))
    source = _open(data, data.source, data.pictures, catalog, names, data.samples, data.seed)
    classes = source.classes if isinstance(source, LabeledPictures) else ()
    target = make_target(catalog, name, label, classes)
    if endless or data.held_out:
        pictures = data.held_out_pictures or data.pictures
        other = _open(data, data.held_out or data.source, pictures, catalog, names, data.validation, data.seed + 1)
        found = other.classes if isinstance(other, LabeledPictures) else ()
        if found != classes:
            raise MaskweaveError(
                f"{data.held_out}: its {len(found)} classes differ from the {len(classes)} of {data.source}: {', '.join(sorted({*found} ^ {*classes})[:10])} are only in one of them; give both the same class folders"
            )
        kept = range(min(len(other), data.validation or len(other)))
        train: Sequence[int] = range(min(len(source), data.samples or len(source)))
        if not endless:
            train = some_by_hash(source, np.arange(len(source)), data.samples).tolist()
        return Parts(
            Examples(source, catalog, inputs, target, train, data.split, partial),
            Examples(other, catalog, inputs, target, kept, partial=partial),
        )
    count = data.validation or min(max(len(source) // 5, 1), MOST_HELD_OUT)
    if not (data.split.file or data.split.fraction or count < len(source)):
        raise MaskweaveError(
            f"{data.source}: has {len(source)} samples, so data.validation must be from 1 to {len(source) - 1}, found {count}; change it, or set data.held_out"
        )
    parts = divide(source, data.split, count, data.source)
    chosen = parts.train[: data.samples or None]
    if data.split.by == "hash":
        chosen = some_by_hash(source, parts.train, data.samples)
        hashes = hash_names(map(group_of(grouping(source, data.split)), map(source.key, chosen.tolist())))
        chosen = chosen[put_last(hashes, TUNED_ON)]
    return Parts(
        Examples(source, catalog, inputs, target, chosen.tolist(), data.split, partial),
        Examples(source, catalog, inputs, target, parts.held_out.tolist(), data.split, partial),
    )


def _open(
    data: TransferData, place: str, pictures: str, catalog: Catalog, names: Sequence[str], count: int, seed: int
) -> Source:
    """Opens the samples at `place`: all of a fixed data set. `count` and `seed` apply only to endless sources."""
    made: dict[str, Any] = {"samples": count, "seed": seed} if is_endless(place) else {}
    options = {**reading_options(data), "pictures": pictures}
    return open_data(place, catalog, names=names, labeled=True, **options, **made)
