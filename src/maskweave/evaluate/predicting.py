"""Predictions of a run's evaluation, and the reconstructions that they are compared with."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from maskweave.errors import BadSample
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.generate.request import Options, twin
from maskweave.generate.untrained import untrained
from maskweave.masking.paths import TrainedPaths
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding
from maskweave.training.recipe import EvaluationRequest

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    predicted: list[Any]
    bound: list[Any]
    equal: int = 0
    """Samples whose ensemble has members that are all equal."""


def scored_outcomes(
    bundle: Bundle, request: EvaluationRequest, samples: Samples, seed: int, advance: Any
) -> list[tuple[str, Outcome]]:
    """Returns the predictions of a request and the reconstructions they are compared with, by scored modality.

    Args:
        seed: of the first sample; the others have the next ones.
    """
    given = [given_inputs(bundle, s, request.inputs) for s in samples]
    decoding = request.decodings(bundle.catalog)
    equal, members = Counter[str](), (request.ensemble, request.best_of)
    predicted = predict(
        bundle, given, request.targets, seed, advance, request.via, not request.read, *members, decoding, equal
    )
    if request.truth:  # of another entry, which the tokenizer does not know
        return [(name, Outcome([p[name] for p in predicted], [], equal[name])) for name in request.targets]
    truth = {name: [s.get(bundle.catalog[name].reads) for s in samples] for name in request.targets}
    bound = {name: reconstructed(bundle, name, truth[name]) for name in request.targets}
    if not request.read:
        return [(name, Outcome([p[name] for p in predicted], bound[name], equal[name])) for name in request.targets]
    read = partial(predict, bundle, targets=request.read, seed=seed, advance=advance, decoding=decoding)
    again = read(inputs=[as_inputs(bundle, p) for p in predicted])
    best = [{name: bound[name][i] for name in request.targets} for i in range(len(samples))]
    from_bound = read(inputs=[as_inputs(bundle, p) for p in best])
    same = max(equal.values(), default=0)
    return [(name, Outcome([p[name] for p in again], [p[name] for p in from_bound], same)) for name in request.read]


def predict(
    bundle: Bundle,
    inputs: Samples,
    targets: Sequence[str],
    seed: int,
    advance: Any,
    via: Sequence[str] = (),
    whole: bool = True,
    ensemble: int = 1,
    best_of: int = 1,
    decoding: Mapping[str, Decoding] | None = None,
    equal: Counter[str] | None = None,
) -> Samples:
    """Predicts each target from the inputs and the generated `via` modalities; the same seed gives all targets of a sample the same `via`.

    Args:
        whole: return distributions instead of values where there are any.
        ensemble: number of predictions of each sample that are merged.
        best_of: number of predictions of each sample of which one is kept.
        decoding: by generated modality, instead of that of its entry.
        equal: counts the ensembles of each target whose members are all equal.
    """
    results: Samples = [{} for _ in inputs]
    seeds = range(seed, seed + len(inputs))
    for target in targets if inputs else ():
        chain = [*via, target]
        # `untrained_requests` tells.
        options: Options = {"precision": bulk_precision(bundle.device), "on_untrained": "ignore"}
        options["decoding"] = {name: how for name, how in (decoding or {}).items() if name in chain}
        if ensemble > 1:
            results_of = [
                bundle.ensemble(one, chain, samples=ensemble, seed=number, **options)
                for one, number in zip(inputs, seeds, strict=True)
            ]
        elif best_of > 1:
            options["think"] = via
            results_of = [
                bundle.best_of(one, [target], samples=best_of, seed=number, **options)
                for one, number in zip(inputs, seeds, strict=True)
            ]
        else:
            results_of = bundle.generate_batch(inputs, chain, seeds=seeds, **options)
        for values, result in zip(results, results_of, strict=True):
            if equal is not None:
                equal.update(result.equal & {target})
            values[target] = result.prediction(target) if whole else result[target]
        advance(len(inputs))
    return results


def untrained_requests(
    paths: TrainedPaths | None, catalog: Catalog, requests: Sequence[EvaluationRequest]
) -> list[str]:
    """Returns a sentence for each path of some requests that was never or hardly trained."""
    found = []
    for request in requests:
        for target in request.targets:
            found += untrained(paths, request.inputs, [twin(catalog, n) for n in (*request.via, target)], chain=True)
        read_from = [catalog[name].reads for name in request.targets]
        found += [s for name in request.read for s in untrained(paths, read_from, [twin(catalog, name)], chain=True)]
    return list(dict.fromkeys(found))


def that_have(bundle: Bundle, samples: Samples, names: Sequence[str]) -> Samples:
    """Returns the samples that have all of the given modalities."""
    return [s for s in samples if all(bundle.catalog[name].reads in s for name in names)]


def given_inputs(bundle: Bundle, sample: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: sample[bundle.catalog[name].reads] for name in names if bundle.catalog[name].reads in sample}


def as_inputs(bundle: Bundle, values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts generated values to inputs: a grid's value becomes the value of its source, if the catalog has one.

    A sequence without any valid part, for instance a palette without colors, is omitted.
    """
    inputs = {}
    for name, value in values.items():
        with contextlib.suppress(BadSample):
            inputs[bundle.catalog[name].reads] = bundle.catalog[name].value.check(value, name)
    return inputs


def reconstructed(bundle: Bundle, name: str, truth: Sequence[Any]) -> list[Any]:
    tokenizer = bundle.tokenizers[name]
    known = [value for value in truth if value is not None]
    decoded = iter(tokenizer.decode(tokenizer.encode(known)) if known else ())
    return [None if value is None else next(decoded) for value in truth]
