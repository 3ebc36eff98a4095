"""Labels: one class of a list for the whole sample, such as the kind of a galaxy or the name of a speaker. It is one token."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.values.array import of_tensor
from maskweave.values.base import Size, TextLabels, ValueType, refuse
from maskweave.values.classes import check_classes
from maskweave.values.distribution import ClassDistribution, point
from maskweave.values.metrics import Metric
from maskweave.values.rules import Rules
from maskweave.values.single import SINGLE_ENDINGS, TEXTS, read_single, says_nothing

EMBEDDING_WIDTH = 64


@dataclass(frozen=True)
class Label(ValueType):
    """One class of a list for the whole sample. It is one token."""

    type: ClassVar[str] = "label"
    python: ClassVar[str] = "text, one of `classes`"
    kinds: ClassVar[tuple[str, ...]] = ("grid",)
    may_be_empty = True
    tokenized_by = "rules"
    mergeable = True
    head = "label"
    stored_facts = ("type", "classes", "key")
    default_decoding: ClassVar[Mapping[str, Any]] = {"temperature": 0.0}
    default_metrics = ("accuracy", "macro_f1")

    classes: tuple[str, ...] = ()
    """Names in order. Files hold a name, or its index from 0 if no class has that number as its name."""
    key: str = ""
    """Name of the label in files that hold several values: JSON objects, tables with one row, archives of arrays. Empty: the file holds only the
    label. Files whose label is empty or null, or that lack the key, say that it is missing."""
    name_pattern: str = ""
    """Regular expression whose first group is the class when it is found in a sample's name, its path below the modalities' folders; then there
    are no files of labels. `^([^/]+)/` takes the folder: `images/cat/001.png` is a cat."""

    def check_settings(self, kind: str) -> None:
        check_classes(self.classes)
        try:
            groups = re.compile(self.name_pattern).groups
        except re.error as error:
            raise MaskweaveError(
                f"value.name_pattern is not a regular expression ({error}), found {shown(self.name_pattern)}"
            ) from error
        if self.name_pattern and not groups:
            raise MaskweaveError(
                f"value.name_pattern needs a group in parentheses that matches the class, found {shown(self.name_pattern)}"
            )

    def describe(self) -> str:
        return f"{self.type}, {len(self.classes)} classes"

    def check(self, value: Any, where: str) -> str:
        return class_name(value, self.classes, where)

    def from_python(self, value: Any, where: str) -> Any:
        """Arrays and tensors of one number become numbers."""
        value = of_tensor(value, where)
        if isinstance(value, np.ndarray) and value.shape in ((), (1,)):
            return value.item()
        return value

    def typed(self, text: str) -> str | None:
        return text if text in self.classes else None

    @property
    def endings(self) -> tuple[str, ...]:
        return SINGLE_ENDINGS

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        found = read_single(content, ending, self.key, where)
        if isinstance(found, str) and found not in self.classes and says_nothing(found):
            return None
        if isinstance(found, float) and ending != "json" and found.is_integer():  # arrays of floats may hold indices
            return int(found)
        is_index = ending in TEXTS and found not in self.classes and found.isascii() and found.isdecimal()
        return int(found) if is_index and len(found) < 10 else found

    @property
    def is_in_name(self) -> bool:
        return bool(self.name_pattern)

    def in_name(self, name: str) -> str:
        found = re.search(self.name_pattern, name)
        if found is None:
            raise refuse(f"name {name!r}", "no match", f"value.name_pattern {self.name_pattern!r}")
        return self.check(found[1], f"name {name!r}")

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write({self.key: value} if self.key else value)

    # Tokens

    @property
    def rule_tokens(self) -> tuple[int, int]:
        return 1, len(self.classes)

    def fit_rules(self, values: Sequence[str]) -> dict[str, Any]:
        return {"classes": list(self.classes)}

    def rules(self, facts: Mapping[str, Any]) -> "LabelRules":
        if facts.get("classes") != list(self.classes):
            raise MaskweaveError(f"expected the entry's classes, found {shown(facts)}")
        return LabelRules(self.classes)

    def label_of(self, value: Any, label: str) -> str:
        return value if not label else super().label_of(value, label)

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`accuracy`; and `macro_f1`: the mean over the classes that occur of each one's F1, and that of each class."""
        counts = partial(_confusion, {name: i for i, name in enumerate(self.classes)})
        common = partial(_most_frequent, self.classes)
        return {
            "accuracy": Metric("accuracy", "higher", counts, accuracy, common),
            "macro_f1": Metric(
                "macro F1", "higher", counts, macro_f1, common, names=self.classes, finish_parts=class_f1s, part="F1"
            ),
        }

    def merge(self, values: Sequence[str], overlap: float) -> str:
        return _most_frequent(self.classes, values)

    # Figures

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the name; of a distribution, the most probable classes."""
        from maskweave.values.drawing_predictions import class_bars
        from maskweave.values.lettering import text_panel

        return class_bars(value, size) if isinstance(value, ClassDistribution) else text_panel(value, size)


class LabelRules(Rules):
    """The index of each class."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.index = {name: i for i, name in enumerate(classes)}

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        return np.array([[self.index[value]] for value in values], np.int64).reshape(-1, 1)

    def decode(self, ids_BL: np.ndarray) -> list[str]:
        return [self.classes[i] for i in ids_BL[:, 0].tolist()]

    def distribution(self, probabilities_LV: np.ndarray) -> ClassDistribution:
        return ClassDistribution(self.classes, np.asarray(probabilities_LV[0], np.float64))

    def embeddings(self) -> np.ndarray:
        """Random vectors, with a fixed seed: classes have no order."""
        return np.random.default_rng(0).normal(size=(len(self.classes), EMBEDDING_WIDTH)).astype(np.float32)


def class_name(value: Any, classes: Sequence[str], where: str) -> str:
    """Returns a class, given by its name, or by its index from 0 if no class has a whole number as its name.

    Raises:
        BadSample: it is not one of the classes.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -1 <= value < 10**9:
        index = int(value)
        is_index = 0 <= index < len(classes) and not any(name.removeprefix("-").isdecimal() for name in classes)
        value = classes[index] if is_index else str(index)
    if not isinstance(value, str) or value not in classes:
        some = f"{', '.join(classes[:8])}{', …' * (len(classes) > 8)}"
        raise refuse(where, shown(value), f"one of the entry's {len(classes)} classes: {some}")
    return value


def accuracy(confusion_KL: np.ndarray) -> float:
    """Share of right answers; NaN without any."""
    total = confusion_KL.sum()
    return float(np.trace(confusion_KL) / total) if total else float("nan")


def class_f1s(confusion_KL: np.ndarray) -> np.ndarray:
    """(K,) F1 of each class; NaN for classes that are neither in the truth nor predicted."""
    both = confusion_KL.sum(axis=0) + confusion_KL.sum(axis=1)
    return np.where(both > 0, 2 * np.diag(confusion_KL) / np.maximum(both, 1), np.nan)


def macro_f1(confusion_KL: np.ndarray) -> float:
    """Mean of `class_f1s` over the classes that occur."""
    f1s = class_f1s(confusion_KL)
    return float(np.nanmean(f1s)) if np.isfinite(f1s).any() else float("nan")


def _confusion(index: Mapping[str, int], prediction: Any, truth: str) -> np.ndarray:
    """(K, K) with a 1 at the true row and the predicted column."""
    counts = np.zeros((len(index), len(index)))
    counts[index[truth], index[point(prediction)]] = 1
    return counts


def _most_frequent(classes: Sequence[str], values: Sequence[str]) -> str:
    """The most frequent class, the first of equally frequent ones."""
    return max(classes, key=list(values).count)
