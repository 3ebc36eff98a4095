"""Scores of generated values that a network gives: of their features as a set, Inception score, CLIP score, LPIPS.

Inception score: https://arxiv.org/abs/1606.03498. CLIP score: https://arxiv.org/abs/2104.08718. LPIPS: https://arxiv.org/abs/1801.03924.

Dimension letters: S samples, D width of the features, K classes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from maskweave.evaluate.predicting import Samples
from maskweave.evaluate.sets import SEED, SetFeatures, SetScored, moved_interval, set_scores, valid_samples
from maskweave.generate.bundle import Bundle
from maskweave.training.recipe import EvaluationRequest, SetScore
from maskweave.values.bootstrap import bootstrap

Network = Callable[[Samples], np.ndarray]
"""Maps samples with one modality to (S, D)."""
Triple = tuple[Any, Any, Any]
"""A generated value, its truth, and the truth as the tokenizer reconstructs it."""


class Judge(ABC):
    """A network, and how it scores the generated values of a target. Chunks of samples are measured apart and scored together."""

    label: str
    """What it computes."""
    needs: str
    """Why it cannot score other targets."""

    @abstractmethod
    def reads(self, inputs: Sequence[str], target: str) -> bool:
        """Whether it can score a target that is generated from some inputs."""

    @abstractmethod
    def measured(self, inputs: Sequence[str], target: str, values: Sequence[Triple], samples: Samples) -> np.ndarray:
        """Returns what is needed of each sample, (any, S, D); NaN for values that do not fit their entry.

        Args:
            samples: where the values belong.
        """

    @abstractmethod
    def scores(self, measured: np.ndarray) -> list[SetScored]:
        """Scores all samples together."""


class FeatureJudge(Judge):
    """Distances of the sets, similarity and identification, in the space of features."""

    label, needs = "scores of sets", "the network of the features has no such input"

    def __init__(self, features: SetFeatures, names: Sequence[SetScore]):
        self.features, self.names = features, names

    def reads(self, inputs: Sequence[str], target: str) -> bool:
        return self.features.reads(target)

    def measured(self, inputs: Sequence[str], target: str, values: Sequence[Triple], samples: Samples) -> np.ndarray:
        return self.features(target, values)

    def scores(self, measured: np.ndarray) -> list[SetScored]:
        return set_scores(self.names, measured)


def inception_score(logits_SK: np.ndarray) -> float:
    """Returns exp(mean of KL(p(class | picture) || p(class))): from 1, all alike or undecided, to the number of classes. NaN without pictures."""
    if not len(logits_SK):
        return math.nan
    log_SK = torch.from_numpy(np.asarray(logits_SK, np.float64)).log_softmax(dim=1).numpy()
    probability_SK = np.exp(log_SK)
    marginal_K = np.maximum(probability_SK.mean(axis=0), np.finfo(np.float64).tiny)
    return float(np.exp((probability_SK * (log_SK - np.log(marginal_K))).sum(axis=1).mean()))


class InceptionJudge(Judge):
    """Inception score of pictures, of all together rather than the mean of ten parts.

    Args:
        classifier: maps pictures to logits (S, K).
    """

    label, needs = "Inception score", "it is for pictures"

    def __init__(self, bundle: Bundle, classifier: Network):
        self.features = SetFeatures(bundle, classifier)

    def reads(self, inputs: Sequence[str], target: str) -> bool:
        return self.features.entry(target).value.is_picture

    def measured(self, inputs: Sequence[str], target: str, values: Sequence[Triple], samples: Samples) -> np.ndarray:
        return self.features(target, values)

    def scores(self, measured: np.ndarray) -> list[SetScored]:
        found, _, bound = (logits[np.isfinite(logits).all(axis=1)] for logits in measured)
        if not len(bound):
            return []
        value = inception_score(found)
        interval = moved_interval(lambda i: inception_score(found[i]), len(found), value)
        return [SetScored(self.label, "higher", value, inception_score(bound), 1.0, interval, len(found))]


def clip_scores(pictures_SD: np.ndarray, texts_SD: np.ndarray) -> np.ndarray:
    """Returns (S,) 100 · max(cosine, 0) of pairs of features."""
    x, y = (np.asarray(features, np.float64) for features in (pictures_SD, texts_SD))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(100 * np.maximum((x * y).sum(axis=1) / np.maximum(lengths, 1e-12), 0))


class ClipJudge(Judge):
    """CLIP score: how well a generated picture fits the text among its inputs, or a generated text the picture.

    A value that does not fit its entry has the score 0.

    Args:
        network: maps pictures, and texts, to features in one space.
    """

    label, needs = "CLIP score", "it compares a picture with a text, one generated from the other"

    def __init__(self, bundle: Bundle, network: Network):
        self.features, self.network = SetFeatures(bundle, network), network

    def reads(self, inputs: Sequence[str], target: str) -> bool:
        return bool(self._partner(inputs, target))

    def _partner(self, inputs: Sequence[str], target: str) -> str:
        """Returns the input that the target is compared with; empty if there is none."""
        value = self.features.entry(target).value
        for entry in map(self.features.entry, inputs):
            if (value.is_picture and entry.value.is_text) or (value.is_text and entry.value.is_picture):
                return entry.name
        return ""

    def measured(self, inputs: Sequence[str], target: str, values: Sequence[Triple], samples: Samples) -> np.ndarray:
        made_3SD = self.features(target, values)
        partner = self._partner(inputs, target)
        other_SD = np.asarray(self.network([{partner: sample[partner]} for sample in samples]))
        if not np.isfinite(made_3SD).any():
            made_3SD = np.full((3, *other_SD.shape), np.nan)
        return np.concatenate([made_3SD, other_SD[None]])

    def scores(self, measured: np.ndarray) -> list[SetScored]:
        if not measured.shape[1]:
            return []
        found, _, bound, other = measured
        score = lambda features: clip_scores(np.nan_to_num(features), other)  # noqa: E731
        each, samples = score(found), len(found)
        # Each value with the partner of the next sample.
        chance = float(score(np.roll(found, 1, axis=0)).mean()) if samples > 1 else math.nan
        interval = bootstrap(lambda i: float(each[i].mean()), samples, SEED)
        value, of_bound = float(each.mean()), float(score(bound).mean())
        return [SetScored(self.label, "higher", value, of_bound, chance, interval, samples)]


class PerceptualJudge(Judge):
    """Perceptual distance of pictures from their truths, such as LPIPS.

    Args:
        distances: maps two lists of samples with one picture each to their distances (S,).
        label: name of the distance.
    """

    needs = "it is for pictures"

    def __init__(self, bundle: Bundle, distances: Callable[[Samples, Samples], np.ndarray], label: str):
        self.features, self.distances, self.label = SetFeatures(bundle), distances, label

    def reads(self, inputs: Sequence[str], target: str) -> bool:
        return self.features.entry(target).value.is_picture

    def measured(self, inputs: Sequence[str], target: str, values: Sequence[Triple], samples: Samples) -> np.ndarray:
        """Returns (3, S, 1): distances of the generated value, of the reconstruction, and of the next truth."""
        entry = self.features.entry(target)
        found, truth, bound = (valid_samples(entry, [value[which] for value in values]) for which in range(3))
        others = truth[1:] + truth[:1] if len(truth) > 1 else [{} for _ in truth]
        rows = np.full((3, len(values), 1), np.nan)
        for row, some in zip(rows, (found, bound, others), strict=True):
            pairs = [i for i, sample in enumerate(some) if sample and truth[i]]
            if pairs:
                row[pairs, 0] = self.distances([some[i] for i in pairs], [truth[i] for i in pairs])
        return rows

    def scores(self, measured: np.ndarray) -> list[SetScored]:
        each, bound, others = (row[np.isfinite(row)] for row in measured[..., 0])
        if not len(bound):
            return []
        interval = bootstrap(lambda i: float(each[i].mean()), len(each), SEED)
        value, of_bound, of_others = (float(row.mean()) if len(row) else math.nan for row in (each, bound, others))
        return [SetScored(self.label, "lower", value, of_bound, of_others, interval, len(each))]


def unjudged(judges: Sequence[Judge], requests: Sequence[EvaluationRequest]) -> list[str]:
    """Returns a sentence for each judge that cannot score all generated targets."""
    generated = [(one.inputs, name) for one in requests if not (one.read or one.truth) for name in one.targets]
    found = []
    for judge in judges:
        names = dict.fromkeys(name for inputs, name in generated if not judge.reads(inputs, name))
        if names:
            found.append(f"no {judge.label} for {', '.join(names)}: {judge.needs}")
    return found
