"""A request being generated: its steps one by one, what is known after each, and what can be made of it."""

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
from maskweave.tokenizers.sequence import SequenceTokenizer


class Session:
    """Iterate over it to do the steps of a batch; break off whenever you like, and go on.

        for step in bundle.start([{"caption": "a red cube"}], ["depth"]):
            ...

    Where a step itself is broken off (by Ctrl-C, say), what is done can still be had from `results`, but the session cannot go on.

    Attributes:
        schedule: all steps.
        done: how much of `total` is done, in passes of the model; a sequence that ends early skips the rest of its share.
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
    ):
        self.catalog, self.tokenizers, self.schedule = engine.catalog, tokenizers, schedule
        self._seeds = seeds
        self._names, self._samples, self._made = names, samples, made
        self._steps = run(engine, schedule, given, made, [np.random.default_rng(seed) for seed in seeds])
        costs = [step.tokens if step.scheme == "autoregressive" else 1 for step in schedule.steps]
        self._starts = np.cumsum([0, *costs]).tolist()
        self.total, self.done = self._starts[-1], 0

    def __iter__(self) -> Iterator[Step]:
        if getgeneratorstate(self._steps) == GEN_CLOSED and not self.is_finished:
            raise MaskweaveError("this session was broken off within a step and cannot go on; start another")
        for number in self._steps:
            self.done = max(self.done, self._starts[number]) + 1
            yield self.schedule.steps[number]
        self.done = self.total

    @property
    def is_finished(self) -> bool:
        return self.done == self.total

    def finish(self) -> list[Generated]:
        """Do all that is left, and give the results.

        Raises:
            MaskweaveError: the session cannot go on, see above.
        """
        for _ in self:
            pass
        return self.results()

    def results(self) -> list[Generated]:
        """What is known now, a result for each sample.

        Of a target that is not finished, tokens that are not known are -1, and its value is decoded with the nearest known ones in their
        places. A target whose tokenizer is missing has tokens alone.
        """
        results = [Generated(self.catalog, dict(sample), schedule=self.schedule) for sample in self._samples]
        for target, field in self._made.items():
            assert field.ids is not None
            is_grid = self.catalog[target].kind == "grid"
            rows = [ids if is_grid else ids[mask] for ids, mask in zip(field.ids, field.mask, strict=True)]
            for result, row, mask in zip(results, rows, field.mask, strict=True):
                result.tokens[target] = np.where(mask, row, -1) if is_grid else row.copy()
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
        there = np.flatnonzero(field.mask.any(axis=1)).tolist()  # of the others nothing can be shown yet
        if there:
            grid = self.catalog[target].grid
            whole = np.stack([filled(rows[b], field.mask[b], grid) for b in there])
            # A diffusion decoder starts from noise of its own for every sample.
            if isinstance(tokenizer, GridTokenizer):
                values = tokenizer.decode(whole, [self._seeds[b] for b in there])
            else:
                values = tokenizer.decode(whole)
            for b, value in zip(there, values, strict=True):
                results[b].values[name] = value


def filled(ids: np.ndarray, known: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Tokens (L,) of a grid, each unknown one replaced by the nearest known one."""
    if known.all():
        return ids
    places = np.stack(np.unravel_index(np.arange(len(ids)), tuple(grid)), axis=1)
    distance = ((places[~known, None] - places[known]) ** 2).sum(axis=2)
    out = ids.copy()
    out[~known] = ids[known][distance.argmin(axis=1)]
    return out
