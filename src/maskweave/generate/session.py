"""A request being generated step by step, with its partial results."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.generate.decode import run
from maskweave.generate.engine import Engine
from maskweave.generate.result import Generated
from maskweave.generate.schedule import Schedule, Step
from maskweave.generate.token_state import TokenState
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.rules import RuleTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer


class Session:
    """Generates a batch step by step: iterate over it, stop at any step, and continue later.

        for step in bundle.start([{"caption": "a red cube"}], ["depth"]):
            ...

    After an interruption within a step (by Ctrl-C, for example), `results` still returns the partial results, but the session cannot continue.

    Attributes:
        schedule: all steps.
        done: finished passes of the model, out of `total`; a sequence that ends early skips the rest of its passes.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizers: Mapping[str, Tokenizer],
        names: Mapping[str, str],
        schedule: Schedule,
        samples: Sequence[Mapping[str, Any]],
        given: Mapping[str, TokenState],
        made: dict[str, TokenState],
        seeds: Sequence[int],
        calibration: Mapping[str, float] | None = None,
        return_probs: bool = False,
    ):
        self.catalog, self.tokenizers, self.schedule = engine.catalog, tokenizers, schedule
        self._seeds = seeds
        self._names, self._samples, self._made = names, samples, made
        codebooks = {
            step.target: tokenizer.codebook
            for step in schedule.steps
            if step.detokenize == "mean" and isinstance(tokenizer := tokenizers.get(step.target), GridTokenizer)
        }
        generators = [np.random.default_rng(seed) for seed in seeds]
        self._steps = run(engine, schedule, given, made, generators, codebooks, calibration, return_probs)
        self._returns_probs = return_probs
        costs = [step.tokens if step.scheme == "autoregressive" else 1 for step in schedule.steps]
        self._starts = np.cumsum([0, *costs]).tolist()
        self.total, self.done = self._starts[-1], 0

    def __iter__(self) -> Iterator[Step]:
        if getgeneratorstate(self._steps) == GEN_CLOSED and not self.is_finished:
            raise MaskweaveError("this session was interrupted within a step and cannot continue; start a new one")
        for number in self._steps:
            self.done = max(self.done, self._starts[number]) + 1
            yield self.schedule.steps[number]
        self.done = self.total

    @property
    def is_finished(self) -> bool:
        return self.done == self.total

    def finish(self) -> list[Generated]:
        """Runs all remaining steps and returns the results.

        Raises:
            MaskweaveError: the session was interrupted within a step.
        """
        for _ in self:
            pass
        return self.results()

    def results(self) -> list[Generated]:
        """Returns the current, possibly partial result of each sample.

        Unknown tokens of an unfinished target are -1; its value is decoded with each of them replaced by the nearest known token. A target
        without tokenizer has tokens only.
        """
        results = [Generated(self.catalog, dict(sample), schedule=self.schedule) for sample in self._samples]
        for target, field in self._made.items():
            field.fetch()
            assert field.ids is not None
            is_grid = self.catalog[target].kind == "grid"
            rows = [ids if is_grid else ids[mask] for ids, mask in zip(field.ids, field.mask, strict=True)]
            for result, row, mask in zip(results, rows, field.mask, strict=True):
                result.tokens[target] = np.where(mask, row, -1) if is_grid else row.copy()
            if self._returns_probs and field.probabilities is not None:
                for result, shares, mask in zip(results, field.probabilities, field.mask, strict=True):
                    result.probabilities[target] = (shares if is_grid else shares[mask]).copy()
            if target in self.tokenizers:
                self._decode(target, field, rows, results)
        return results

    def _decode(self, target: str, field: TokenState, rows: Sequence[np.ndarray], results: Sequence[Generated]) -> None:
        name, tokenizer = self._names[target], self.tokenizers[target]
        if isinstance(tokenizer, SequenceTokenizer):
            for result, item in zip(results, tokenizer.decode_with_problems(rows), strict=True):
                result.values[name] = item.value
                if item.problems:
                    result.problems[name] = item.problems
            return
        if isinstance(tokenizer, RuleTokenizer):
            self._decode_by_rules(name, tokenizer, field, results)
            return
        started = np.flatnonzero(field.mask.any(axis=1)).tolist()  # the other samples have no known token yet
        if started:
            grid = self.catalog[target].grid
            nearest = {b: nearest_known(field.mask[b], grid) for b in started}
            complete = np.stack([rows[b][nearest[b]] for b in started])
            # A diffusion decoder starts from different noise for every sample.
            if isinstance(tokenizer, GridTokenizer):
                means = None if field.means is None else np.stack([field.means[b][nearest[b]] for b in started])
                values = tokenizer.decode(complete, [self._seeds[b] for b in started], means)
            else:
                values = tokenizer.decode(complete)
            for b, value in zip(started, values, strict=True):
                results[b].values[name] = value

    def _decode_by_rules(
        self, name: str, tokenizer: RuleTokenizer, field: TokenState, results: Sequence[Generated]
    ) -> None:
        """Adds the values and their distributions; a token that was given, or that is still unknown and counts as 0, is certain."""
        assert field.ids is not None
        unknown = np.full((*field.mask.shape, tokenizer.vocabulary_size), np.nan, np.float32)
        probabilities = unknown if field.probabilities is None else field.probabilities
        for b in np.flatnonzero(field.mask.any(axis=1)).tolist():
            ids = np.where(field.mask[b], field.ids[b], 0)
            certain = np.eye(tokenizer.vocabulary_size)[ids]
            predicted = np.isfinite(probabilities[b]).all(axis=1, keepdims=True)
            distribution = tokenizer.distribution(np.where(predicted, probabilities[b], certain))
            results[b].distributions[name] = distribution
            by_distribution = tokenizer.rules.answers_by_distribution
            results[b].values[name] = distribution.value if by_distribution else tokenizer.decode(ids[None])[0]


def nearest_known(known: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Returns (L,) the number of the known token of a grid that is nearest to each token: itself if it is known."""
    numbers = np.arange(len(known))
    if known.all():
        return numbers
    points = np.stack(np.unravel_index(numbers, tuple(grid)), axis=1)
    distance = ((points[~known, None] - points[known]) ** 2).sum(axis=2)
    numbers[~known] = numbers[known][distance.argmin(axis=1)]
    return numbers
