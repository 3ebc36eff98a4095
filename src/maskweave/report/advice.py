"""Advice: what a run's scores and metrics say about what to do next, in words.

Each rule looks at one thing and returns sentences, most often none. `advise` applies all rules to a run folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.objectives.tokenizer import COLLAPSED, WARM_UP
from maskweave.report.curves import Lines, series
from maskweave.training.early_stopping import SPLIT
from maskweave.training.metrics import read_metrics

RECENT = 1 / 3
"""Last part of a training that shows whether the loss still falls."""
FEWEST = 5
"""Points of a loss that a trend needs."""
NOTABLE = 0.02
"""Change of a loss, as a share of it, that is worth a sentence."""
CERTAIN = 4.0
"""Standard errors by which a trend must differ from none."""
NEAR = 0.9
"""Share of the way from the best constant to the tokenizer's reconstruction from which on the tokenizer is the limit."""
FAR = 0.5
"""Share of this way below which decoding in one step is worth a try."""


@dataclass(frozen=True)
class RunFacts:
    """What the rules need to know about a run besides its metrics."""

    codes: Mapping[str, int] = field(default_factory=dict)
    """Codes of each tokenizer with a codebook."""
    grids: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Tokens of each grid, and steps in which it is generated."""
    target_tokens: int = 0
    """Most target tokens of a training sample; 0: unknown."""
    untrained: Sequence[str] = ()
    """Sentences about requests of the evaluation that were never or hardly trained."""


def advise(run: Path, facts: RunFacts) -> list[str]:
    """Returns all advice for a run folder, the most important first."""
    rows = _rows(run / "evaluation.json")
    lines = read_metrics(run)
    folders = sorted(p for p in (run / "tokenizers").glob("*") if p.is_dir())
    histories = {path.name: found for path in folders if (found := read_metrics(path))}
    advice = [f"{sentence}: add a mixture to model.masking, or remove the request" for sentence in facts.untrained]
    advice += below_constant(rows, facts) + below_reference(rows) + limited(rows, facts) + one_step(rows, facts)
    for name, history in histories.items():
        advice += [f"tokenizer {name}: {text}" for text in collapsed(history, facts.codes.get(name, 0))]
    for heading, history in (("", lines), *((f"tokenizer {name}: ", found) for name, found in histories.items())):
        texts = ended_early(history) or overfits(history) or still_falling(history)
        advice += [heading + text for text in texts]
    return advice


DIRECTIONS = ("higher", "lower")
"""Metrics with another best value, such as a coverage, are compared with nothing."""


def below_constant(rows: Sequence[Mapping[str, Any]], facts: RunFacts) -> list[str]:
    """Predictions that are not better than the best constant. A tokenizer without network, as of labels, is never the limit."""
    texts = []
    for row in rows:
        value, constant, tokenizer = (_number(row.get(key)) for key in ("value", "constant", "tokenizer"))
        if value is None or constant is None or row.get("better") not in DIRECTIONS or _better(row, value, constant):
            continue
        if tokenizer is None or row.get("target") not in facts.codes:
            todo = "train longer, or add inputs that tell it"
        elif not _better(row, tokenizer, constant):
            todo = f"the tokenizer is the limit (reconstruction {tokenizer:.3g}): train it longer, or give it more codes or a finer grid"
        else:
            todo = f"its tokenizer is not the limit (reconstruction {tokenizer:.3g}): train longer, or add inputs that tell it"
        texts.append(f"{_named(row)} is {value:.3g}, not better than the best constant ({constant:.3g}): {todo}")
    return texts


def below_reference(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Predictions that a simple method, fitted in seconds, equals; those that are not better than the best constant are told already."""
    texts = []
    for row in rows:
        value, constant = _number(row.get("value")), _number(row.get("constant"))
        found = row.get("references")
        if value is None or row.get("better") not in DIRECTIONS or not isinstance(found, dict):
            continue
        scores = {str(name): score for name, one in found.items() if (score := _number(one)) is not None}
        above = {name: score for name, score in scores.items() if not _better(row, value, score)}
        if not above or (constant is not None and not _better(row, value, constant)):
            continue
        name = (max if row["better"] == "higher" else min)(above, key=lambda one: above[one])
        texts.append(
            f"{_named(row)} is {value:.3g}, not better than the simple reference {name} ({above[name]:.3g}): train longer or with more data, or use that method"
        )
    return texts


def limited(rows: Sequence[Mapping[str, Any]], facts: RunFacts) -> list[str]:
    """Predictions that are almost as good as their tokenizer's network."""
    texts = {}
    for row in rows:
        share = _share(row)
        if share is not None and share >= NEAR and row.get("target") in facts.codes:
            texts[row.get("target"), row.get("metric")] = (
                f"{_named(row)} is {row['value']:.3g}, close to the tokenizer's own reconstruction ({row['tokenizer']:.3g}): "
                "the tokenizer is the limit now; train it longer, or give it more codes or a finer grid"
            )
    return list(texts.values())


def one_step(rows: Sequence[Mapping[str, Any]], facts: RunFacts) -> list[str]:
    """Small grids that are generated in several steps, though training has seen all of their tokens as targets at once."""
    texts = {}
    for row in rows:
        name, share = str(row.get("target")), _share(row)
        tokens, steps = facts.grids.get(name, (0, 1))
        if share is not None and share < FAR and steps > 1 and 1 < tokens <= facts.target_tokens:
            texts[name] = (
                f"{name} has {tokens} tokens, which fit into target_tokens ({facts.target_tokens}), but is generated in {steps} steps: "
                "for values that the inputs determine, try decoding: {steps: 1} with a low temperature"
            )
    return list(texts.values())


def collapsed(lines: Lines, codes: int) -> list[str]:
    """A codebook of which few codes are used."""
    steps, use = series(lines, "codebook_use", "train")
    if not codes or not len(use) or use[-1] >= COLLAPSED or steps[-1] < WARM_UP:
        return []
    return [
        f"codebook collapsed ({round(use[-1] * codes):,} of {codes:,} codes used): try another quantizer, such as fsq, fewer codes, or a lower learning rate"
    ]


def ended_early(lines: Lines) -> list[str]:
    """A training that early stopping ended, or whose best weights are not its last."""
    ends = [line for line in lines if line.get("split") == SPLIT]
    if not ends:
        return []
    end = ends[-1]
    step, steps, best, loss = (
        end["step"],
        end.get("last_step", 0),
        end.get("best_step", 0),
        _number(end.get("best_loss")),
    )
    if not best or loss is None or (best == step and step == steps):
        return []
    stopped = f"stopped early at step {step:,} of {steps:,}: " if step < steps else ""
    return [f"{stopped}the validation loss was lowest ({loss:.3g}) at step {best:,}, and the weights are from there"]


def overfits(lines: Lines) -> list[str]:
    """A validation loss that rises while the training loss falls."""
    steps, held_out = series(lines, "loss", "validation")
    seen, training = series(lines, "loss", "train")
    if len(held_out) < FEWEST or not len(training):
        return []
    best = int(held_out.argmin())
    rise = float(held_out[best + 1 :].mean() - held_out[best]) if best + 2 < len(held_out) else 0.0
    if rise <= NOTABLE * abs(held_out[best]) or held_out[-1] <= held_out[best] + rise / 2:
        return []
    if training[seen >= steps[best]].min() >= training[seen <= steps[best]].min():
        return []
    return [
        f"overfits since step {int(steps[best]):,}: the validation loss rose from {held_out[best]:.3g} to {held_out[-1]:.3g}; "
        "set early_stopping, or use more data, data.augment or a smaller model"
    ]


def still_falling(lines: Lines) -> list[str]:
    """A loss that still falls at the end: of validation if there are enough points, else of training."""
    for split in ("validation", "train"):
        steps, losses = series(lines, "loss", split)
        recent = steps >= steps[-1] * (1 - RECENT) if len(steps) else np.zeros(0, bool)
        steps, losses = steps[recent], losses[recent]
        if len(steps) < FEWEST:
            continue
        slope, error = trend(steps, losses)
        if -slope > CERTAIN * error and -slope * (steps[-1] - steps[0]) > NOTABLE * abs(losses[-1]):
            name = "validation" if split == "validation" else "training"
            return [f"train longer: the {name} loss ({losses[-1]:.3g}) still falls by {-slope * 100:.2g} per 100 steps"]
        return []
    return []


def trend(steps: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Returns the slope of a straight line through the points, by least squares, and its standard error."""
    x = steps - steps.mean()
    slope = float((x * losses).sum() / (x * x).sum())
    rest = losses - losses.mean() - slope * x
    return slope, float(np.sqrt((rest**2).sum() / (len(x) - 2) / (x * x).sum()))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of all channels, keys and classes together; none if the file is missing or damaged, which the report tells."""
    try:
        rows = read_json(path, limit=None) if path.exists() else []
    except (MaskweaveError, OSError):
        return []
    return [r for r in rows if isinstance(r, dict) and not r.get("part")] if isinstance(rows, list) else []


def _better(row: Mapping[str, Any], value: float, than: float) -> bool:
    return value > than if row.get("better") == "higher" else value < than


def _share(row: Mapping[str, Any]) -> float | None:
    """How far the value is on the way from the best constant to the tokenizer; None if the tokenizer is not better than the constant."""
    value, constant, tokenizer = (_number(row.get(key)) for key in ("value", "constant", "tokenizer"))
    if value is None or constant is None or tokenizer is None or not _better(row, tokenizer, constant):
        return None
    return (value - constant) / (tokenizer - constant)


def _named(row: Mapping[str, Any]) -> str:
    inputs = row.get("inputs")
    given = " + ".join(map(str, inputs)) if isinstance(inputs, list) and inputs else "nothing"
    return f"{row.get('target')} from {given}: {row.get('metric')}"


def _number(value: Any) -> float | None:
    """Returns a finite number as float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        return None
    return float(value)
