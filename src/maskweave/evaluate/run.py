"""Evaluating a run on held-out samples: every request's predictions, beside the best constant and the tokenizer's own reconstruction."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from maskweave.config import build
from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import read
from maskweave.data.source import text_labels_of
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_yaml, short_name, write_json
from maskweave.generate.bundle import Bundle
from maskweave.progress import progress
from maskweave.report.sheets import sheet_for
from maskweave.report.tables import text_table
from maskweave.training.recipe import EvaluationRequest, Recipe
from maskweave.training.sources import held_out_seed, open_source
from maskweave.values.metrics import Metric

CONSTANT_SAMPLES = 500
"""Training samples that the constants are fitted to."""
CHUNK = 64

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationRow:
    """One line of the evaluation."""

    inputs: list[str]
    target: str
    metric: str
    better: str
    """`lower` or `higher`."""
    value: float
    constant: float
    """The best constant prediction, fitted to training samples."""
    tokenizer: float
    """The truth through the tokenizer and back: the upper bound. Where the target is read again, what is read from that."""
    samples: int
    """Those scored: held-out ones that have all inputs and the target."""
    seed: int
    """Of the held-out samples where they are made by code, such as scenes; else of the sampling."""
    part: bool = False
    """Whether it is the score of one channel, key or class, beneath that of all together."""


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder, as it was resolved."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise MaskweaveError(
            f"{folder}: has no recipe.yaml, so it is not a run; give the folder that 'maskweave run' made"
        )
    return build(Recipe, read_yaml(path), str(path))


def evaluate(bundle: Bundle, folder: Path, *, scenes_seed: int | None = None, samples: int = 0) -> list[EvaluationRow]:
    """Evaluate a run by its recipe's requests, and write `folder/evaluation.json`.

    Args:
        scenes_seed: other scenes than the recipe's held-out ones; so for any source without an end.
        samples: how many, in place of the recipe's.

    Raises:
        MaskweaveError: the folder is no run, its recipe has no requests, or no held-out sample can be read.
    """
    recipe = read_recipe(folder)
    requests = recipe.evaluate.requests
    if not requests:
        raise MaskweaveError(
            f"{folder}: its recipe has no evaluate.requests, so there is nothing to evaluate; add some to {folder / 'recipe.yaml'}"
        )
    samples = samples or recipe.evaluate.samples
    source = open_source(recipe, bundle.catalog, "validation", scenes_seed, samples)
    held_out = _samples(source, samples, "held-out samples")
    training = _samples(
        open_source(recipe, bundle.catalog, "train", samples=CONSTANT_SAMPLES), CONSTANT_SAMPLES, "constants"
    )
    parse = text_labels_of(source)  # of captions of scenes, the objects that they name
    made_with = held_out_seed(recipe) if scenes_seed is None else scenes_seed
    seed = recipe.evaluate.seed if made_with is None else made_with
    rows: list[EvaluationRow] = []
    predictions = sum(len(r.targets) + (2 * len(r.read)) for r in requests) * len(held_out)
    with progress("evaluate", predictions) as bar:
        for request in requests:
            asked = _that_have(bundle, held_out, request.inputs)
            for scored, outcome in _scored(bundle, request, asked, recipe.evaluate.seed, bar.advance):
                modality = bundle.catalog[scored]
                for metric in modality.scores(parse):
                    target = scored if not request.read else request.targets[0]
                    truth = [s.get(modality.reads) for s in asked]
                    seen = [s[modality.reads] for s in training if modality.reads in s]
                    constants = [metric.best_constant(seen)] * len(truth) if seen else None
                    found, baseline, bound = (
                        _scores(metric, values, truth) for values in (outcome.predicted, constants, outcome.bound)
                    )
                    counted = sum(t is not None for t in truth)
                    for name, value in found.items():
                        label = name if not request.read else f"{name} of the {scored} read from it"
                        references = (baseline.get(name, math.nan), bound.get(name, math.nan))
                        part = name != metric.name
                        row = EvaluationRow(
                            request.inputs, target, label, metric.better, value, *references, counted, seed, part
                        )
                        rows.append(row)
    write_rows(rows, folder / "evaluation.json")
    return rows


def write_rows(rows: Sequence[EvaluationRow], path: Path) -> None:
    """Write rows as JSON, which has no NaN and no infinity: they become null."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_json(path, [{key: finite(value) for key, value in asdict(row).items()} for row in rows])


@dataclass(frozen=True)
class _Outcome:
    predicted: list[Any]
    bound: list[Any]


def _scored(
    bundle: Bundle, request: EvaluationRequest, samples: Samples, seed: int, advance: Any
) -> list[tuple[str, _Outcome]]:
    """Predictions of a request and the reconstructions they are measured against, by scored modality."""
    given = [_given(bundle, s, request.inputs) for s in samples]
    predicted = _predict(bundle, given, request.targets, seed, advance, request.via)
    truth = {name: [s.get(bundle.catalog[name].reads) for s in samples] for name in request.targets}
    bound = {name: _reconstructed(bundle, name, truth[name]) for name in request.targets}
    if not request.read:
        return [(name, _Outcome([p[name] for p in predicted], bound[name])) for name in request.targets]
    again = _predict(bundle, [_as_inputs(bundle, p) for p in predicted], request.read, seed, advance)
    best = [{name: bound[name][i] for name in request.targets} for i in range(len(samples))]
    from_bound = _predict(bundle, [_as_inputs(bundle, p) for p in best], request.read, seed, advance)
    return [(name, _Outcome([p[name] for p in again], [p[name] for p in from_bound])) for name in request.read]


def _predict(
    bundle: Bundle, inputs: Samples, targets: Sequence[str], seed: int, advance: Any, via: Sequence[str] = ()
) -> Samples:
    """Each target from the inputs and what is generated first; the same seed gives every target of a sample the same `via`."""
    results: Samples = []
    for target in targets:
        found: list[Any] = []
        for start in range(0, len(inputs), CHUNK):
            chunk = inputs[start : start + CHUNK]
            seeds = [seed + start + i for i in range(len(chunk))]
            found += [r[target] for r in bundle.generate_batch(chunk, [*via, target], seeds=seeds)]
            advance(len(chunk))
        results = [{**old, target: value} for old, value in zip(results or [{}] * len(found), found, strict=True)]
    return results


def _that_have(bundle: Bundle, samples: Samples, names: Sequence[str]) -> Samples:
    """The samples that have all of some modalities."""
    return [s for s in samples if all(bundle.catalog[name].reads in s for name in names)]


def _given(bundle: Bundle, sample: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: sample[bundle.catalog[name].reads] for name in names if bundle.catalog[name].reads in sample}


def _as_inputs(bundle: Bundle, values: Mapping[str, Any]) -> dict[str, Any]:
    """Generated values as inputs: a grid's value goes in as what its source is, where the catalog has that.

    A sequence of which nothing sound was generated, a palette without colors for instance, is left out.
    """
    inputs = {}
    for name, value in values.items():
        with contextlib.suppress(BadSample):
            inputs[bundle.catalog[name].reads] = bundle.catalog[name].value.check(value, name)
    return inputs


def _reconstructed(bundle: Bundle, name: str, truth: Sequence[Any]) -> list[Any]:
    tokenizer = bundle.tokenizers[name]
    there = [value for value in truth if value is not None]
    back = iter(tokenizer.decode(tokenizer.encode(there)) if there else ())
    return [None if value is None else next(back) for value in truth]


def _scores(metric: Metric, predictions: Sequence[Any] | None, truth: Sequence[Any]) -> dict[str, float]:
    """The metric and its parts where the truth is known, rounded; NaN where there are no predictions."""
    if predictions is None:
        return {}
    pairs = [(p, t) for p, t in zip(predictions, truth, strict=True) if t is not None]
    found = metric.scores([p for p, _ in pairs], [t for _, t in pairs])
    return {name: round(value, 5) for name, value in found.items()}


def held_out_samples(bundle: Bundle, recipe: Recipe, scenes_seed: int | None, samples: int) -> Samples:
    return _samples(
        open_source(recipe, bundle.catalog, "validation", scenes_seed, samples), samples, "held-out samples"
    )


def _samples(source: Any, count: int, title: str) -> Samples:
    """The usable ones of a source's first samples. The others are counted and named; whether they are too many, tokenizing has judged."""
    found, skips = [], ErrorBudget(limit=1)
    with progress(title, min(count, len(source))) as bar:
        for item in read(source, range(min(count, len(source)))):
            if item.error:
                skips.bad(item.key, item.error)
            else:
                skips.good()
                found.append(item.sample)
            bar.advance()
        if skips.summary():
            bar.say(skips.summary())
    if not found:
        raise MaskweaveError("no held-out sample could be read")
    return found


def contact_sheets(bundle: Bundle, folder: Path, *, shown: int = 4) -> list[tuple[str, Image.Image]]:
    """A sheet for each of the recipe's `evaluate.sheets`, of the first held-out samples that have its inputs; also written to `folder/sheets`."""
    recipe = read_recipe(folder)
    held_out = held_out_samples(bundle, recipe, None, shown * len(recipe.data.weights))
    sheets = []
    with progress("contact sheets", len(recipe.evaluate.sheets)) as bar:
        for number, request in enumerate(recipe.evaluate.sheets):
            samples = _that_have(bundle, held_out, request.inputs)[:shown]
            inputs = [_given(bundle, s, request.inputs) for s in samples]
            predicted = _predict(bundle, inputs, request.targets, recipe.evaluate.seed, lambda n: None, request.via)
            truth = [_given(bundle, s, request.targets) for s in samples]
            steps = [" + ".join(request.inputs), *request.via, ", ".join(request.targets)]
            title = " → ".join(steps)
            rows = [
                {"inputs": i, "predictions": p, "truth": t} for i, p, t in zip(inputs, predicted, truth, strict=True)
            ]
            sheet = sheet_for(title, rows, bundle.catalog)
            (folder / "sheets").mkdir(parents=True, exist_ok=True)
            sheet.save(folder / "sheets" / f"{short_name(f'{number + 1}-' + '+'.join(request.inputs))}.png")
            sheets.append((title, sheet))
            bar.advance()
    return sheets


def describe(rows: Sequence[EvaluationRow]) -> str:
    """The rows as a table in plain text, without those of single channels, keys and classes."""
    heads = ["inputs", "target", "metric", "better", "model", "constant", "tokenizer"]
    numbers = lambda r: [f"{x:.3f}" for x in (r.value, r.constant, r.tokenizer)]  # noqa: E731
    return text_table(
        heads, [[" + ".join(r.inputs), r.target, r.metric, r.better, *numbers(r)] for r in rows if not r.part]
    )
