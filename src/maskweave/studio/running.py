"""Runs a request step by step, within its bounds, and says after each step what there is."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import merge_results
from maskweave.generate.result import Generated
from maskweave.generate.schedule import Schedule
from maskweave.generate.scoring import Score
from maskweave.studio.bounds import Bounds
from maskweave.studio.request import StudioRequest
from maskweave.tokenizers.sequence import SequenceTokenizer

INTERVAL = 0.25
"""Seconds between two states that are shown, so that drawing takes no more time than the model."""


@dataclass(frozen=True)
class RequestState:
    """The state of a request after a step."""

    results: list[Generated]
    """One for each sample."""
    schedule: Schedule
    done: int
    """Finished passes of the model, out of `total`."""
    total: int
    target: str = ""
    """What the last step predicted."""
    merged: Generated | None = None
    """Of an ensemble, when it is finished."""
    stopped: str = ""
    """Why it stopped before its end."""

    @property
    def best(self) -> Generated:
        """The result that further requests build on: the merged one, or the first."""
        return self.merged or self.results[0]


def run(
    bundle: Bundle, request: StudioRequest, bounds: Bounds, clock: Callable[[], float] = time.monotonic
) -> Iterator[RequestState]:
    """Generates what a request asks for. Yields the state about four times a second, and at the end.

    Raises:
        MaskweaveError: as `Bundle.generate`, or a number is out of bounds; before any work.
    """
    started = clock()
    request.check(bundle, bounds)
    options = request.options(bundle.catalog)
    targets = list(request.targets) or None
    session = bundle.start([request.inputs] * request.samples, targets, seeds=request.seeds, **options)
    shown, stopped, target = clock(), "", ""

    def state() -> RequestState:
        return RequestState(session.results(), session.schedule, session.done, session.total, target, stopped=stopped)

    for step in session:
        target = step.target
        now = clock()
        if now - started > bounds.seconds and not session.is_finished:
            stopped = bounds.stopped
            yield state()
            return
        if now - shown >= INTERVAL:
            yield state()
            shown = clock()
    target = ""
    last = state()
    if request.ensemble:
        last = replace(last, merged=merge_results(last.results))
    yield last


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a value, by token."""

    score: Score
    words: tuple[str, ...]
    """What each token says, or its number."""


def likelihood(bundle: Bundle, inputs: Mapping[str, Any], name: str) -> Likelihood:
    """Returns the log-likelihood of one of the inputs given the others.

    Raises:
        MaskweaveError: the value is not among the inputs, or the model cannot predict it.
    """
    if name not in inputs:
        raise MaskweaveError(f"likelihood of {name!r}: it is not among the inputs; give its value as an input")
    source = bundle.catalog[name].reads
    rest = {n: value for n, value in inputs.items() if bundle.catalog[n].reads != source}
    score = bundle.score(rest, {name: inputs[name]})[name]
    words = tuple(str(n) for n in range(len(score.tokens)))
    tokenizer = bundle.tokenizers.get(name)
    if isinstance(tokenizer, SequenceTokenizer):
        ids = tokenizer.encode([bundle.read({name: inputs[name]})[name]])[0]
        words = tuple(tokenizer.text.piece(int(id)) for id in ids)
    if len(words) != len(score.tokens):
        words = tuple(str(n) for n in range(len(score.tokens)))
    return Likelihood(score, words)
