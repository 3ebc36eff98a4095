"""Evaluates a run on held-out samples: scores each request's predictions, the best constant prediction, and the tokenizer's reconstruction.

Launched processes share the work. Each one sums the statistics of whole chunks of samples, and the first one adds the sums in the order of the chunks,
so the scores do not depend on the number of processes.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from maskweave import ranks
from maskweave.arguments import check_arguments
from maskweave.config import build
from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import read
from maskweave.data.source import text_labels_of
from maskweave.data.weights import scaled_weights_of
from maskweave.errors import MaskweaveError, shown_command
from maskweave.evaluate.judges import FeatureJudge, Judge, unjudged
from maskweave.evaluate.predicting import Samples, given_inputs, predict, scored_outcomes, that_have, untrained_requests
from maskweave.evaluate.references import NAMES, Reference, simple_references
from maskweave.evaluate.sets import SetFeatures, joined
from maskweave.families.weights import is_transfer
from maskweave.files import short_name, write_json
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import told_equal
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import progress
from maskweave.report.sheets import sheet_for
from maskweave.report.tables import best_reference, short_number, text_table
from maskweave.training.gathering import gather
from maskweave.training.recipe import EvaluationRequest, Recipe
from maskweave.training.run_folder import read_run_recipe
from maskweave.training.sources import check_recipe_allowed, held_out_seed, open_source
from maskweave.values.base import TextLabels
from maskweave.values.bootstrap import UNKNOWN, metric_intervals, replicated
from maskweave.values.metrics import Metric

CONSTANT_SAMPLES = 500
"""Number of training samples that the constants are fitted to."""
CHUNK = 64
"""Samples that are predicted together, in one process."""
COMPARED = ("model", "constant", "bound", *NAMES)
"""What is scored: predictions, the best constant, reconstructions, and simple references."""
REPLICATES, SETS, EQUAL = "replicates", "sets", "equal"
"""Stand for the statistics of the predictions in each replicate of the bootstrap, for what judges measured, and for the number of ensembles with equal members."""


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
    low: float = math.nan
    high: float = math.nan
    """Ends of the 95% interval of `value`, by bootstrap over the samples (`maskweave.values.bootstrap`)."""
    references: dict[str, float] = field(default_factory=dict)
    """Scores of simple predictions, by name (`maskweave.evaluate.references`)."""


def read_recipe(folder: Path) -> Recipe:
    """Returns the resolved recipe of a run folder."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise MaskweaveError(
            f"{folder}: has no recipe.yaml, so it is not a run; give the folder that 'maskweave run' made"
        )
    content = read_run_recipe(path)
    if is_transfer(content):
        command = shown_command("transfer", path, "--out", folder)
        raise MaskweaveError(
            f"{folder}: is a transfer, which has a report of its own; finish or repeat it with: {command}"
        )
    return build(Recipe, content, str(path))


class _Job(NamedTuple):
    """What one process predicts together: targets of a request, from the inputs of a chunk of its samples."""

    request: int
    targets: list[str]
    start: int
    """The first sample of the chunk."""


@check_arguments
def evaluate(
    bundle: Bundle,
    folder: Path,
    *,
    scenes_seed: int | None = None,
    samples: int = 0,
    features: Callable[[Samples], np.ndarray] | None = None,
    readable: Sequence[str] | None = None,
    judges: Sequence[Judge] = (),
) -> list[EvaluationRow]:
    """Evaluates a run by its recipe's requests, and writes `folder/evaluation.json`. Of launched processes, only the first one returns rows.

    Args:
        scenes_seed: seed of other scenes than the recipe's held-out ones; also for any other endless source.
        samples: number of samples; 0: the recipe's.
        features: maps samples with one modality to features (S, D) for `evaluate.sets`; by default the model's own, pooled.
        readable: modalities that `features` takes; the values of other targets are not scored as a set. By default all.
        judges: networks that score generated values, too, as `maskweave.label.judge_networks.open_judge` returns them.

    Raises:
        MaskweaveError: the folder is not a run, its recipe has no requests, its data is code that is not allowed to run, or no held-out sample can be read.
    """
    recipe = read_recipe(folder)
    check_recipe_allowed(recipe)
    requests = recipe.evaluate.requests
    if not requests:
        raise MaskweaveError(
            f"{folder}: its recipe has no evaluate.requests, so there is nothing to evaluate; add some to {folder / 'recipe.yaml'}"
        )
    samples = samples or recipe.evaluate.samples
    source = open_source(recipe, bundle.catalog, "validation", scenes_seed, samples)
    held_out = usable_samples(source, samples, "held-out samples")
    training = usable_samples(
        open_source(recipe, bundle.catalog, "train", samples=CONSTANT_SAMPLES), CONSTANT_SAMPLES, "constants"
    )
    parse = text_labels_of(source)  # for captions of scenes, the objects that they mention
    made_with = held_out_seed(recipe) if scenes_seed is None else scenes_seed
    seed = recipe.evaluate.seed if made_with is None else made_with
    settings = recipe.evaluate
    data = ScoredData(bundle.catalog, held_out, training, parse, settings.seed, seed, settings.references)
    if settings.sets:
        judges = [FeatureJudge(SetFeatures(bundle, features, readable), settings.sets), *judges]
    rows = score_requests(bundle, requests, data, judges)
    if not ranks.rank():
        write_rows(rows, folder / "evaluation.json")
    return rows


@dataclass(frozen=True)
class ScoredData:
    """The samples that requests are scored on."""

    catalog: Catalog
    """Entries of the values that are compared; those of the bundle, and others that requests name as `truth`."""
    held_out: Samples
    training: Samples
    """Samples that constants and simple references are fitted to."""
    parse: TextLabels | None = None
    """Labels of a text."""
    seed: int = 0
    """Seed of the sampling."""
    made_with: int = 0
    """Seed that the rows tell."""
    references: bool = False
    """Fit simple references, too."""


def score_requests(
    bundle: Bundle,
    requests: Sequence[EvaluationRequest],
    data: ScoredData,
    judges: Sequence[Judge] = (),
) -> list[EvaluationRow]:
    """Returns the rows of some requests; of launched processes, only the first one does."""
    if not ranks.rank():
        for note in unjudged(judges, requests):
            print(f"note: {note}", file=sys.stderr)
        for sentence in untrained_requests(bundle.trained_paths, bundle.catalog, requests):
            print(f"warning: {sentence}", file=sys.stderr)
    references = {
        (number, name): _References.of(bundle, request, name, data)
        for number, request in enumerate(requests)
        for name in request.read or request.targets
    }
    complete = [that_have(bundle, data.held_out, request.inputs) for request in requests]
    jobs = [
        _Job(number, targets, start)
        for number, request in enumerate(requests)
        for targets in ([request.targets] if request.read else [[name] for name in request.targets])
        for start in starts_of(complete[number])
    ]
    mine = jobs[ranks.rank() :: ranks.world()]
    sums = _sums(bundle, requests, complete, references, data, mine, judges)
    found = {key: tensor.numpy() for one in gather(bundle.device, None, sums) for key, tensor in one.tensors.items()}
    if ranks.rank():
        return []
    rows: list[EvaluationRow] = []
    for number, request in enumerate(requests):
        for scored in request.read or request.targets:
            reference = references[number, scored]
            counted = sum(s.get(reference.reads) is not None for s in complete[number])
            if equal := sum(int(found.get(f"{number} {scored} {EQUAL} {k}", 0)) for k in starts_of(complete[number])):
                sentence = told_equal(", ".join(request.targets), equal, len(complete[number]))
                print(f"warning: {sentence}", file=sys.stderr)
            for metric in reference.metrics:
                starts = starts_of(complete[number])
                totals = {
                    which: added(found.get(f"{number} {scored} {metric.name} {which} {start}") for start in starts)
                    for which in (*COMPARED, REPLICATES)
                }
                scores, baseline, bound, *simple = (metric.finished(totals[which]) for which in COMPARED)
                intervals = metric_intervals(metric, totals[REPLICATES])
                for name, value in scores.items():
                    label = name if not request.read else f"{name} of the {scored} read from it"
                    target = scored if not request.read else request.targets[0]
                    others = (baseline.get(name, math.nan), bound.get(name, math.nan))
                    row = EvaluationRow(
                        request.inputs, target, label, metric.better, value, *others, counted, data.made_with
                    )
                    low, high = intervals.get(name, UNKNOWN)
                    compared = {n: one[name] for n, one in zip(NAMES, simple, strict=True) if totals[n] is not None}
                    part = name != metric.name
                    rows.append(replace(row, part=part, low=low, high=high, references=compared))
            measured = [
                joined(found.get(f"{number} {scored} {SETS} {place} {start}") for start in starts_of(complete[number]))
                for place in range(len(judges))
            ]
            for one in (one for judge, some in zip(judges, measured, strict=True) for one in judge.scores(some)):
                row = EvaluationRow(
                    request.inputs,
                    scored,
                    one.name,
                    one.better,
                    one.value,
                    one.chance,
                    one.bound,
                    one.samples,
                    data.made_with,
                )
                rows.append(replace(row, low=one.interval[0], high=one.interval[1]))
    return rows


def starts_of(samples: Samples) -> range:
    """Returns the first sample of each chunk."""
    return range(0, len(samples), CHUNK)


def _sums(
    bundle: Bundle,
    requests: Sequence[EvaluationRequest],
    complete: Sequence[Samples],
    references: Mapping[tuple[int, str], "_References"],
    data: ScoredData,
    jobs: Sequence[_Job],
    judges: Sequence[Judge],
) -> dict[str, torch.Tensor]:
    """Does some jobs. Returns the summed statistics of what is `COMPARED` and of the replicates, by request, modality, metric and chunk, and what judges measured.

    Args:
        complete: the samples of each request.
    """

    @functools.cache
    def simple(number: int, target: str) -> list[Reference]:
        training = data.training if data.references else []
        reads = references[number, target].reads
        return simple_references(data.catalog, bundle.tokenizers, requests[number].inputs, reads, training)

    @functools.cache
    def weights_of(number: int, target: str) -> dict[int, np.ndarray] | None:
        return references[number, target].weights(complete[number])

    sums: dict[str, torch.Tensor] = {}
    chunks = [complete[job.request][job.start :][:CHUNK] for job in jobs]
    work = sum(len(c) * (len(j.targets) + 2 * len(requests[j.request].read)) for c, j in zip(chunks, jobs, strict=True))
    with progress("evaluate", work) as bar:
        for job, chunk in zip(jobs, chunks, strict=True):
            request = replace(requests[job.request], targets=job.targets)
            for scored, outcome in scored_outcomes(bundle, request, chunk, data.seed + job.start, bar.advance):
                reference = references[job.request, scored]
                if outcome.equal:
                    sums[f"{job.request} {scored} {EQUAL} {job.start}"] = torch.tensor(outcome.equal)
                known = [i for i, sample in enumerate(chunk) if sample.get(reference.reads) is not None]
                scaled = weights_of(job.request, scored)
                weights = None if scaled is None else [scaled[job.start + i] for i in known]
                truth = [chunk[i][reference.reads] for i in known]
                for place, judge in enumerate(() if request.read or request.truth else judges):
                    if known and judge.reads(request.inputs, scored):
                        triples = [(outcome.predicted[i], chunk[i][reference.reads], outcome.bound[i]) for i in known]
                        made = judge.measured(request.inputs, scored, triples, [chunk[i] for i in known])
                        sums |= {f"{job.request} {scored} {SETS} {place} {job.start}": torch.from_numpy(made)}
                compared = {"model": outcome.predicted, "bound": outcome.bound}
                for other in () if request.read else simple(job.request, scored):
                    compared[other.name] = other.predict(chunk)
                for metric, constant in zip(reference.metrics, reference.constants, strict=True):
                    compared["constant"] = [] if constant is None else [constant] * len(chunk)
                    for which, values in compared.items():
                        found = [*metric.each([values[i] for i in known] if values else [], truth, weights)]
                        totals = {which: added(found)}
                        if which == "model":
                            numbers = [job.start + i for i in known]
                            totals[REPLICATES] = replicated([*map(np.asarray, found)], numbers, data.seed)
                        for name, total in totals.items():
                            if total is not None:
                                key = f"{job.request} {scored} {metric.name} {name} {job.start}"
                                sums[key] = torch.from_numpy(np.asarray(total))
    return sums


@dataclass(frozen=True)
class _References:
    """What predictions of a modality are scored with."""

    entry: Modality
    """The entry of the values that are compared."""
    metrics: list[Metric]
    constants: list[Any]
    """The best constant prediction by each metric; None without training values."""

    @classmethod
    def of(cls, bundle: Bundle, request: EvaluationRequest, scored: str, data: ScoredData) -> "_References":
        modality = data.catalog[request.truth] if request.truth else bundle.catalog[scored]
        entry = data.catalog[modality.reads]
        trained = [s for s in data.training if entry.name in s]
        weights, seen = scaled_weights_of(trained, entry), [s[entry.name] for s in trained]
        named = modality.value.metrics(data.parse)
        metrics = [named[name] for name in request.metrics] or modality.scores(data.parse)
        return cls(entry, metrics, [metric.best_constant(seen, weights) if seen else None for metric in metrics])

    @property
    def reads(self) -> str:
        return self.entry.name

    def weights(self, samples: Samples) -> dict[int, np.ndarray] | None:
        """Returns the weights of the known truths, scaled together, by the place of the sample; None if the entry has no weight."""
        known = [i for i, sample in enumerate(samples) if sample.get(self.reads) is not None]
        scaled = scaled_weights_of([samples[i] for i in known], self.entry)
        return None if scaled is None else dict(zip(known, scaled, strict=True))


def added(parts: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """Returns the sum of statistics in their order; None if there are none."""
    found = [part for part in parts if part is not None]
    return functools.reduce(np.add, found) if found else None


def write_rows(rows: Sequence[EvaluationRow], path: Path) -> None:
    """Writes rows as JSON; NaN and infinity become null, since JSON has neither."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(one) for key, one in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_json(path, [{key: finite(value) for key, value in asdict(row).items()} for row in rows])


def held_out_samples(bundle: Bundle, recipe: Recipe, scenes_seed: int | None, samples: int) -> Samples:
    check_recipe_allowed(recipe)
    return usable_samples(
        open_source(recipe, bundle.catalog, "validation", scenes_seed, samples), samples, "held-out samples"
    )


def usable_samples(source: Any, count: int, title: str, limit: float = 1.0) -> Samples:
    """Returns the usable samples among a source's first `count`. The others are counted and reported; of a run, tokenizing has already checked their number.

    Raises:
        MaskweaveError: a larger share than `limit` is unusable, or all are.
    """
    samples, skips = [], ErrorBudget(limit)
    with progress(title, min(count, len(source))) as bar:
        for item in read(source, range(min(count, len(source)))):
            if skips.take(item):
                samples.append(item.sample)
            bar.advance()
        if skips.summary():
            bar.say(skips.summary())
    skips.check(finished=True)
    if not samples:
        raise MaskweaveError(f"{title}: no sample could be read; check the recipe's data and the skipped samples above")
    return samples


class ShownRequest(NamedTuple):
    """One of the recipe's `evaluate.sheets` with its first held-out samples, in the form that `sheet_for` takes."""

    number: int
    title: str
    file: str
    """Name of the sheet's file, without ending."""
    samples: list[dict[str, dict[str, Any]]]


def shown_requests(bundle: Bundle, folder: Path, *, shown: int = 4) -> list[ShownRequest]:
    """Predicts what the recipe's `evaluate.sheets` show: the first held-out samples with the inputs of each. Each launched process predicts some of the sheets."""
    recipe = read_recipe(folder)
    held_out = held_out_samples(bundle, recipe, None, shown * len(recipe.data.weights))
    found = []
    mine = list(enumerate(recipe.evaluate.sheets))[ranks.rank() :: ranks.world()]
    with progress("contact sheets", len(mine)) as bar:
        for number, request in mine:
            samples = that_have(bundle, held_out, request.inputs)[:shown]
            inputs = [given_inputs(bundle, s, request.inputs) for s in samples]
            predicted = predict(
                bundle,
                inputs,
                request.targets,
                recipe.evaluate.seed,
                lambda n: None,
                request.via,
                decoding=request.decodings(bundle.catalog),
            )
            truth = [given_inputs(bundle, s, request.targets) for s in samples]
            steps = [" + ".join(request.inputs), *request.via, ", ".join(request.targets)]
            rows = [
                {"inputs": i, "predictions": p, "truth": t} for i, p, t in zip(inputs, predicted, truth, strict=True)
            ]
            name = short_name(f"{number + 1}-" + "+".join(request.inputs))
            found.append(ShownRequest(number, " → ".join(steps), name, rows))
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
    """Formats the rows as a plain-text table, without the scores of single channels, keys and classes. `simple` is the best simple reference."""
    heads = ["inputs", "target", "metric", "better", "model", "95%", "constant", "simple", "tokenizer"]
    return text_table(
        heads,
        [
            [
                " + ".join(r.inputs),
                r.target,
                r.metric,
                r.better,
                short_number(r.value),
                span(r),
                short_number(r.constant),
                best_reference(r.references, r.better),
                short_number(r.tokenizer),
            ]
            for r in rows
            if not r.part
        ],
    )


def span(row: EvaluationRow) -> str:
    """Returns the interval of a row, or a dash."""
    return "–" if math.isnan(row.low) else f"{short_number(row.low)} to {short_number(row.high)}"
