"""Tags: any number of classes of a list for the whole sample, such as the kinds of land in a satellite tile. One token per class says yes or no."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values import files, formats
from maskweave.values.base import Size, TextLabels, ValueType, refuse
from maskweave.values.classes import check_classes
from maskweave.values.distribution import TagDistribution, point
from maskweave.values.formats.base import Selection
from maskweave.values.label import class_name
from maskweave.values.metrics import Labels, Metric, best_multiset, f1_of_labels
from maskweave.values.rules import Rules
from maskweave.values.single import TEXTS, read_single

EMBEDDING_WIDTH = 16
MOST_LOG_ODDS, LEVELS = 12.0, 960
"""Scores are counted in this many levels of the log-odds, from -12 to 12, for the average precision; closer scores are ties."""


@dataclass(frozen=True)
class Tags(ValueType):
    """Any number of classes of a list for the whole sample. One token per class says whether it applies."""

    type: ClassVar[str] = "tags"
    python: ClassVar[str] = "[text, …], some of `classes`, in their order"
    kinds: ClassVar[tuple[str, ...]] = ("grid",)
    may_be_empty = True
    tokenized_by = "rules"
    mergeable = True
    head = "sample"
    stored_facts = ("type", "classes", "key")
    default_decoding: ClassVar[Mapping[str, Any]] = {"temperature": 0.0, "steps": 1}
    default_metrics = ("micro_f1", "macro_f1", "map")

    classes: tuple[str, ...] = ()
    """Names in order. Files hold names, indices from 0 if no class has such a name, or true or false (1 or 0) for each class."""
    key: str = ""
    """Name of the tags in files that hold several values: JSON objects, archives of arrays. Empty: the file holds only the tags. In JSON, `[]` says
    that no class applies; null, and an object without the key, that the tags are missing."""

    def check_settings(self, kind: str) -> None:
        check_classes(self.classes)

    def describe(self) -> str:
        return f"{self.type}, {len(self.classes)} classes"

    def check(self, value: Any, where: str) -> list[str]:
        if isinstance(value, np.ndarray) and value.shape == (len(self.classes),) and _is_flags(value):
            chosen = {name for name, flag in zip(self.classes, value.tolist(), strict=True) if flag}
        elif isinstance(value, Mapping) and value and all(isinstance(flag, bool) for flag in value.values()):
            chosen = {name for name in self._known(value, where) if value[name]}
        elif isinstance(value, (list, tuple, set, frozenset)):
            chosen = set(self._known(value, where))
        else:
            raise refuse(where, shown(value), "a list of names, or true or false for each class")
        return [name for name in self.classes if name in chosen]

    def _known(self, names: Any, where: str) -> list[str]:
        return [class_name(name, self.classes, where) for name in names]

    def from_python(self, value: Any, where: str) -> Any:
        """Tensors become arrays, and text is split as in files."""
        if isinstance(value, Tensor):
            return value.detach().cpu().numpy()
        return self._split(value) if isinstance(value, str) else value

    def typed(self, text: str) -> list[str] | None:
        names = self._split(text)
        return names if names and set(names) <= set(self.classes) else None

    def _split(self, text: str) -> list[Any]:
        """Names on lines of their own, or separated by commas; a name with a comma needs quotes, or a line of its own."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) == 1 and lines[0] not in self.classes:
            lines = [cell.strip() for row in csv.reader(io.StringIO(lines[0]), skipinitialspace=True) for cell in row]
        return lines

    @property
    def endings(self) -> tuple[str, ...]:
        return ("json", *TEXTS, *formats.ARRAYS)

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        match ending:
            case "json":
                return read_single(content, ending, self.key, where)
            case "txt" | "csv":
                names = self._split(files.read_text(content, where))
                if not names:
                    advice = "for no tags, write [] into a json file; if they are unknown, leave the file out"
                    raise refuse(where, "no names", "names on lines of their own or separated by commas", advice)
                return names
            case _:
                return formats.read(content, ending, where, Selection(self.key, axes=0)).numbers()

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write({self.key: value} if self.key else value)

    # Tokens

    @property
    def rule_tokens(self) -> tuple[int, int]:
        return len(self.classes), 2

    def fit_rules(self, values: Sequence[Any]) -> dict[str, Any]:
        return {"classes": list(self.classes)}

    def rules(self, facts: Mapping[str, Any]) -> "TagRules":
        if facts.get("classes") != list(self.classes):
            raise MaskweaveError(f"expected the entry's classes, found {shown(facts)}")
        return TagRules(self)

    # Fine-tuning

    def flags(self, values: Sequence[Any]) -> np.ndarray:
        """Returns whether each class applies, int64 (B, K)."""
        return np.array([[name in value for name in self.classes] for value in values], np.int64).reshape(
            -1, len(self.classes)
        )

    def to_network(self, values: Sequence[Any]) -> Tensor:
        """Returns 0 or 1 for each class, float32 (B, K)."""
        return torch.from_numpy(self.flags(values)).float()

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean binary cross-entropy over samples and classes, and the share of right decisions (`accuracy`)."""
        loss = F.binary_cross_entropy_with_logits(output.float(), target)
        return loss, {"accuracy": ((output > 0) == (target > 0.5)).float().mean()}

    def answers(self, output: Tensor) -> list[TagDistribution]:
        p_BK = output.detach().cpu().double().sigmoid().numpy()
        return [TagDistribution(self.classes, p_K) for p_K in p_BK]

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`micro_f1`, over all decisions; `macro_f1`, the mean over the classes that occur, and that of each; and `map`, the mean over the classes
        that occur of the average precision, for predictions with probabilities."""
        counts = partial(_counts, self)
        return {
            "micro_f1": Metric(
                "micro F1", "higher", counts, lambda sums: f1_of_labels(sums.sum(axis=1)), self._frequent
            ),
            "macro_f1": Metric(
                "macro F1",
                "higher",
                counts,
                _macro_f1,
                lambda values: list(self.classes),
                names=self.classes,
                finish_parts=_class_f1s,
                part="F1",
            ),
            "map": Metric("mAP", "higher", partial(_levels, self), mean_average_precision, self._shares),
        }

    def _frequent(self, values: Sequence[Any]) -> list[str]:
        """The tags whose constant prediction has the highest micro F1."""
        chosen = best_multiset([Labels(value) for value in values])
        return [name for name in self.classes if name in chosen]

    def _shares(self, values: Sequence[Any]) -> TagDistribution:
        return TagDistribution(self.classes, self.flags(values).mean(axis=0))

    def merge(self, values: Sequence[Any], overlap: float) -> list[str]:
        """The tags that at least half of the values have."""
        return self._shares(values).value

    # Figures

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the names; of a distribution, the most probable tags."""
        from maskweave.values.drawing_predictions import class_bars
        from maskweave.values.lettering import message, text_panel

        if isinstance(value, TagDistribution):
            return class_bars(value, size)
        return text_panel("\n".join(value), size) if value else message("none", size)


class TagRules(Rules):
    """Token k is 1 if class k applies, otherwise 0."""

    def __init__(self, value: Tags):
        self.value = value

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        return self.value.flags(values)

    def decode(self, ids_BL: np.ndarray) -> list[list[str]]:
        return [[name for name, id in zip(self.value.classes, row, strict=True) if id] for row in ids_BL.tolist()]

    def distribution(self, probabilities_LV: np.ndarray) -> TagDistribution:
        return TagDistribution(self.value.classes, np.asarray(probabilities_LV[:, 1], np.float64))

    def embeddings(self) -> np.ndarray:
        """Opposite vectors for no and yes."""
        yes = np.random.default_rng(0).normal(size=EMBEDDING_WIDTH).astype(np.float32)
        return np.stack([-yes, yes])


def mean_average_precision(counts_2LK: np.ndarray) -> float:
    """Mean over the classes with any true sample of the average precision: the mean over its true samples of the precision at their scores.

    Args:
        counts_2LK: false and true samples of each class at each level of the score, L levels in ascending order.
    """
    if not counts_2LK.sum():
        return math.nan
    below, above = np.cumsum(counts_2LK[:, ::-1], axis=1)
    precision = above / np.maximum(below + above, 1)
    true = counts_2LK[1].sum(axis=0)
    average = (precision * counts_2LK[1, ::-1]).sum(axis=0) / np.maximum(true, 1)
    return float(average[true > 0].mean()) if (true > 0).any() else math.nan


def _class_f1s(sums_3K: np.ndarray) -> np.ndarray:
    return np.array([f1_of_labels(sums) for sums in sums_3K.T])


def _macro_f1(sums_3K: np.ndarray) -> float:
    f1s = _class_f1s(sums_3K)
    return float(np.nanmean(f1s)) if np.isfinite(f1s).any() else math.nan


def _counts(value: Tags, prediction: Any, truth: Any) -> np.ndarray:
    """(3, K): true positive, false positive, false negative."""
    p, t = value.flags([point(prediction), truth]).astype(bool)
    return np.stack([p & t, p & ~t, ~p & t]).astype(np.float64)


def _levels(value: Tags, prediction: Any, truth: Any) -> np.ndarray:
    """(2, L, K) with a 1 for each class, by its truth and the level of its score; zeros for a prediction without probabilities."""
    K = len(value.classes)
    counts = np.zeros((2, LEVELS, K))
    if isinstance(prediction, TagDistribution):
        p = prediction.probabilities.clip(1e-12, 1 - 1e-12)
        odds = np.log(p / (1 - p)).clip(-MOST_LOG_ODDS, MOST_LOG_ODDS)
        level = ((odds / MOST_LOG_ODDS + 1) / 2 * (LEVELS - 1)).round().astype(np.int64)
        counts[value.flags([truth])[0], level, np.arange(K)] = 1
    return counts


def _is_flags(array: np.ndarray) -> bool:
    return array.dtype == bool or (array.dtype.kind in "iuf" and bool(np.isin(array, (0, 1)).all()))
