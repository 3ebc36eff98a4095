"""Evaluates a run on held-out samples: scores each request's predictions, the best constant prediction, and the tokenizer's reconstruction."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from maskweave.arguments import check_arguments
from maskweave.config import build
from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import read
from maskweave.data.source import text_labels_of
from maskweave.data.weights import scaled_weights_of
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import short_name, write_json
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.progress import progress
from maskweave.report.sheets import sheet_for
from maskweave.report.tables import short_number, text_table
from maskweave.training.recipe import EvaluationRequest, Recipe
from maskweave.training.run_folder import read_run_recipe
from maskweave.training.sources import held_out_seed, open_source
from maskweave.values.metrics import Metric, Weights

CONSTANT_SAMPLES = 500
"""Number of training samples that the constants are fitted to."""
CHUNK = 64

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationRow:
    """One line of the evaluation."""

    inputs: list[str]
    target: str
    metric: str
    better: str
    """`lower`, `higher`, or the ideal number."""
    value: float
    constant: float
    """Score of the best constant prediction, fitted to training samples."""
    tokenizer: float
    """Score of the tokenizer's reconstruction of the truth: the upper bound. With `read`, score of the values read from the reconstruction."""
    samples: int
    """Number of scored samples: held-out samples that have all inputs and the target."""
    seed: int
    """Seed of the held-out samples if they are synthetic, such as scenes; otherwise the seed of sampling."""
    part: bool = False
    """Whether this is the score of a single channel, key or class, following the score of all together."""


def read_recipe(folder: Path) -> Recipe:
    """Returns the resolved recipe of a run folder."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise MaskweaveError(
            f"{folder}: has no recipe.yaml, so it is not a run; give the folder that 'maskweave run' made"
        )
    return build(Recipe, read_run_recipe(path), str(path))


@check_arguments
def evaluate(bundle: Bundle, folder: Path, *, scenes_seed: int | None = None, samples: int = 0) -> list[EvaluationRow]:
    """Evaluates a run by its recipe's requests, and writes `folder/evaluation.json`.

    Args:
        scenes_seed: seed of other scenes than the recipe's held-out ones; also for any other endless source.
        samples: number of samples; 0: the recipe's.

    Raises:
        MaskweaveError: the folder is not a run, its recipe has no requests, or no held-out sample can be read.
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
    parse = text_labels_of(source)  # for captions of scenes, the objects that they mention
    made_with = held_out_seed(recipe) if scenes_seed is None else scenes_seed
    seed = recipe.evaluate.seed if made_with is None else made_with
    rows: list[EvaluationRow] = []
    predictions = sum(len(r.targets) + (2 * len(r.read)) for r in requests) * len(held_out)
    with progress("evaluate", predictions) as bar:
        for request in requests:
            complete = _that_have(bundle, held_out, request.inputs)
            for scored, outcome in _scored(bundle, request, complete, recipe.evaluate.seed, bar.advance):
                modality = bundle.catalog[scored]
                entry = bundle.catalog[modality.reads]
                trained = [s for s in training if entry.name in s]
                trained_weights = scaled_weights_of(trained, entry)
                weights = scaled_weights_of([s for s in complete if s.get(entry.name) is not None], entry)
                for metric in modality.scores(parse):
                    target = scored if not request.read else request.targets[0]
                    truth = [s.get(modality.reads) for s in complete]
                    seen = [s[modality.reads] for s in trained]
                    constant = metric.best_constant(seen, trained_weights) if seen else None
                    constants = [constant] * len(truth) if seen else None
                    scores, baseline, bound = (
                        _scores(metric, values, truth, weights)
                        for values in (outcome.predicted, constants, outcome.bound)
                    )
                    counted = sum(t is not None for t in truth)
                    for name, value in scores.items():
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
    """Writes rows as JSON; NaN and infinity become null, since JSON has neither."""

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
    """Returns the predictions of a request and the reconstructions they are compared with, by scored modality."""
    given = [_given(bundle, s, request.inputs) for s in samples]
    predicted = _predict(bundle, given, request.targets, seed, advance, request.via, whole=not request.read)
    truth = {name: [s.get(bundle.catalog[name].reads) for s in samples] for name in request.targets}
    bound = {name: _reconstructed(bundle, name, truth[name]) for name in request.targets}
    if not request.read:
        return [(name, _Outcome([p[name] for p in predicted], bound[name])) for name in request.targets]
    again = _predict(bundle, [_as_inputs(bundle, p) for p in predicted], request.read, seed, advance)
    best = [{name: bound[name][i] for name in request.targets} for i in range(len(samples))]
    from_bound = _predict(bundle, [_as_inputs(bundle, p) for p in best], request.read, seed, advance)
    return [(name, _Outcome([p[name] for p in again], [p[name] for p in from_bound])) for name in request.read]


def _predict(
    bundle: Bundle,
    inputs: Samples,
    targets: Sequence[str],
    seed: int,
    advance: Any,
    via: Sequence[str] = (),
    whole: bool = True,
) -> Samples:
    """Predicts each target from the inputs and the generated `via` modalities; the same seed gives all targets of a sample the same `via`.

    Args:
        whole: return distributions instead of values where there are any.
    """
    results: Samples = []
    for target in targets:
        values: list[Any] = []
        for start in range(0, len(inputs), CHUNK):
            chunk = inputs[start : start + CHUNK]
            seeds = [seed + start + i for i in range(len(chunk))]
            results_of = bundle.generate_batch(
                chunk, [*via, target], seeds=seeds, precision=bulk_precision(bundle.device)
            )
            values += [r.prediction(target) if whole else r[target] for r in results_of]
            advance(len(chunk))
        results = [{**old, target: value} for old, value in zip(results or [{}] * len(values), values, strict=True)]
    return results


def _that_have(bundle: Bundle, samples: Samples, names: Sequence[str]) -> Samples:
    """Returns the samples that have all of the given modalities."""
    return [s for s in samples if all(bundle.catalog[name].reads in s for name in names)]


def _given(bundle: Bundle, sample: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: sample[bundle.catalog[name].reads] for name in names if bundle.catalog[name].reads in sample}


def _as_inputs(bundle: Bundle, values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts generated values to inputs: a grid's value becomes the value of its source, if the catalog has one.

    A sequence without any valid part, for instance a palette without colors, is omitted.
    """
    inputs = {}
    for name, value in values.items():
        with contextlib.suppress(BadSample):
            inputs[bundle.catalog[name].reads] = bundle.catalog[name].value.check(value, name)
    return inputs


def _reconstructed(bundle: Bundle, name: str, truth: Sequence[Any]) -> list[Any]:
    tokenizer = bundle.tokenizers[name]
    known = [value for value in truth if value is not None]
    decoded = iter(tokenizer.decode(tokenizer.encode(known)) if known else ())
    return [None if value is None else next(decoded) for value in truth]


def _scores(
    metric: Metric, predictions: Sequence[Any] | None, truth: Sequence[Any], weights: Weights
) -> dict[str, float]:
    """Returns the metric and its parts over the samples whose truth is known; empty without predictions.

    Args:
        weights: of the known truths.
    """
    if predictions is None:
        return {}
    pairs = [(p, t) for p, t in zip(predictions, truth, strict=True) if t is not None]
    return metric.scores([p for p, _ in pairs], [t for _, t in pairs], weights)


def held_out_samples(bundle: Bundle, recipe: Recipe, scenes_seed: int | None, samples: int) -> Samples:
    return _samples(
        open_source(recipe, bundle.catalog, "validation", scenes_seed, samples), samples, "held-out samples"
    )


def _samples(source: Any, count: int, title: str) -> Samples:
    """Returns the usable samples among a source's first `count`. The others are counted and reported; tokenizing has already checked their number."""
    samples, skips = [], ErrorBudget(limit=1)
    with progress(title, min(count, len(source))) as bar:
        for item in read(source, range(min(count, len(source)))):
            if skips.take(item):
                samples.append(item.sample)
            bar.advance()
        if skips.summary():
            bar.say(skips.summary())
    if not samples:
        raise MaskweaveError(f"{title}: no sample could be read; check the recipe's data and the skipped samples above")
    return samples


class ShownRequest(NamedTuple):
    """One of the recipe's `evaluate.sheets` with its first held-out samples, in the form that `sheet_for` takes."""

    title: str
    file: str
    """Name of the sheet's file, without ending."""
    samples: list[dict[str, dict[str, Any]]]


def shown_requests(bundle: Bundle, folder: Path, *, shown: int = 4) -> list[ShownRequest]:
    """Predicts what the recipe's `evaluate.sheets` show: the first held-out samples with the inputs of each."""
    recipe = read_recipe(folder)
    held_out = held_out_samples(bundle, recipe, None, shown * len(recipe.data.weights))
    found = []
    with progress("contact sheets", len(recipe.evaluate.sheets)) as bar:
        for number, request in enumerate(recipe.evaluate.sheets):
            samples = _that_have(bundle, held_out, request.inputs)[:shown]
            inputs = [_given(bundle, s, request.inputs) for s in samples]
            predicted = _predict(bundle, inputs, request.targets, recipe.evaluate.seed, lambda n: None, request.via)
            truth = [_given(bundle, s, request.targets) for s in samples]
            steps = [" + ".join(request.inputs), *request.via, ", ".join(request.targets)]
            rows = [
                {"inputs": i, "predictions": p, "truth": t} for i, p, t in zip(inputs, predicted, truth, strict=True)
            ]
            found.append(ShownRequest(" → ".join(steps), short_name(f"{number + 1}-" + "+".join(request.inputs)), rows))
            bar.advance()
    return found


def contact_sheets(bundle: Bundle, folder: Path, requests: Sequence[ShownRequest]) -> list[tuple[str, Image.Image]]:
    """Draws a sheet for each request; also writes it to `folder/sheets`."""
    sheets = []
    for request in requests:
        sheet = sheet_for(request.title, request.samples, bundle.catalog)
        (folder / "sheets").mkdir(parents=True, exist_ok=True)
        sheet.save(folder / "sheets" / f"{request.file}.png")
        sheets.append((request.title, sheet))
    return sheets


def describe(rows: Sequence[EvaluationRow]) -> str:
    """Formats the rows as a plain-text table, without the scores of single channels, keys and classes."""
    heads = ["inputs", "target", "metric", "better", "model", "constant", "tokenizer"]
    numbers = lambda r: [short_number(x) for x in (r.value, r.constant, r.tokenizer)]  # noqa: E731
    return text_table(
        heads, [[" + ".join(r.inputs), r.target, r.metric, r.better, *numbers(r)] for r in rows if not r.part]
    )
