"""Suites: named tables of requests, probes and outlier detection. Each is a YAML file in `suites/`, or one of your own.

A suite of a paper's table also holds its protocol and its published figures.
"""

import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.arguments import check_arguments
from maskweave.config import build, plain
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data, reading_options
from maskweave.data.source import Source, text_labels_of
from maskweave.errors import MaskweaveError, shown
from maskweave.evaluate.run import EvaluationRow, ScoredData, score_requests, usable_samples, write_rows
from maskweave.files import read_yaml, write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.generate.features import EncodedBatch
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.ranks import rank
from maskweave.report.tables import short_number, text_table
from maskweave.training.launch import barrier
from maskweave.training.learned_scaling import with_learned_of
from maskweave.training.recipe import EvaluationRequest, check_evaluation
from maskweave.transfer.data import Parts, open_examples
from maskweave.transfer.features import gathered_features
from maskweave.transfer.outliers import area_interval, area_under_curve, outlier_scores
from maskweave.transfer.probe import labeled_features, probe
from maskweave.transfer.recipe import TransferData, TransferRecipe
from maskweave.transfer.run import run_transfer

FOLDER = Path(__file__).parent / "suites"
PATH = "PATH"
"""Stands for the folder of the data."""


@dataclass(frozen=True)
class Probe:
    """One label predicted from some inputs."""

    inputs: list[str]
    target: str = ""
    """As in the recipe of a transfer."""
    label: str = ""


@dataclass(frozen=True)
class Outliers(Probe):
    """Features of the inputs against features of changed pictures, or of other data. The label is for the scores that need one."""

    against: list[str] = field(default_factory=list)
    """Keys of `CHANGES`."""
    sources: dict[str, str] = field(default_factory=dict)
    """Other data by name, with the fields of the suite's; `PATH` as there."""


@dataclass(frozen=True)
class Truth:
    """Values that predictions are compared with, whose entry is that of a modality with some changes."""

    like: str
    """The modality."""
    value: dict[str, Any] = field(default_factory=dict)
    """Settings of its values that differ; null removes one."""


@dataclass(frozen=True)
class PublishedFigures:
    """Figures of a paper, and our own."""

    paper: str
    """With table."""
    score: str
    """What the figures are, with unit."""
    figures: dict[str, float] = field(default_factory=dict)
    """By model."""
    here: dict[str, float] = field(default_factory=dict)
    """What we measured, by model; empty until then."""


@dataclass(frozen=True)
class Suite:
    data: TransferData
    """Source and held-out source may begin with `PATH`, or name a layout at `PATH`: the folder that the user gives."""
    truths: dict[str, Truth] = field(default_factory=dict)
    """By name."""
    requests: list[EvaluationRequest] = field(default_factory=list)
    """Predictions of the held-out samples, as they come out of the model."""
    ensemble_decoding: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By target of the requests, settings of its `decoding` for ensembles, whose members are to differ."""
    probes: list[Probe] = field(default_factory=list)
    outliers: list[Outliers] = field(default_factory=list)
    entries: dict[str, Any] = field(default_factory=dict)
    """Entries of modalities that the model lacks, as in a catalog: targets of `transfers`."""
    vocabularies: dict[str, Any] = field(default_factory=dict)
    """Vocabularies of these entries, as in a catalog."""
    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fine-tunings by name: recipes of a transfer, without their start, catalog and data. Each runs in its own folder and resumes there."""
    protocol: str = ""
    """How the figures were made, as far as it is known, and what is not known."""
    published: list[PublishedFigures] = field(default_factory=list)

    @property
    def needs_path(self) -> bool:
        places = [*_places(self.data), *(place for one in self.outliers for place in one.sources.values())]
        return any(PATH in place.split() or place.startswith(f"{PATH}/") for place in places)

    @property
    def items(self) -> dict[str, list[str]]:
        """The modalities that the model must have for each item, by the item's key."""
        of_truth = {name: truth.like for name, truth in self.truths.items()}
        items = {
            f"requests.{k}": [*r.inputs, *r.via, *r.targets, *r.read, of_truth.get(r.truth, r.truth)]
            for k, r in enumerate(self.requests)
        }
        for key in ("probes", "outliers"):
            items |= {f"{key}.{k}": [*one.inputs, one.target] for k, one in enumerate(getattr(self, key))}
        items |= {f"transfers.{title}": content.get("inputs") or [] for title, content in self.transfers.items()}
        return {key: list(dict.fromkeys(filter(None, names))) for key, names in items.items()}

    @property
    def modalities(self) -> set[str]:
        """The names of all modalities that the suite uses."""
        targets = {transfer["target"] for transfer in self.transfers.values() if "target" in transfer}
        return {name for item in self.items.values() for name in item} | targets | {*self.entries}

    def at(self, path: str) -> "Suite":
        """Returns the suite for the data in a folder.

        Raises:
            MaskweaveError: a folder is missing, or there is one too many.
        """
        if bool(path) != self.needs_path:
            fault = (
                "needs the folder of its data; give it with --data"
                if self.needs_path
                else "makes its own data; remove --data"
            )
            raise MaskweaveError(f"this suite {fault}")
        at = lambda place: re.sub(rf"\b{PATH}\b", lambda _: path, place)  # noqa: E731
        source, held_out = map(at, _places(self.data))
        outliers = [replace(o, sources={name: at(place) for name, place in o.sources.items()}) for o in self.outliers]
        return replace(self, data=replace(self.data, source=source, held_out=held_out), outliers=outliers)

    def merging(self, ensemble: int) -> "Suite":
        """Returns the suite with requests that merge this number of predictions; 1: none are merged."""
        if ensemble == 1:
            return self
        merged = [
            replace(
                request,
                ensemble=ensemble,
                decoding={
                    **request.decoding,
                    **{n: s for n, s in self.ensemble_decoding.items() if n in request.targets},
                },
            )
            for request in self.requests
        ]
        return replace(self, requests=merged)


def _places(data: TransferData) -> tuple[str, str]:
    return data.source, data.held_out


def renamed(content: Any, names: Mapping[str, str]) -> Any:
    """Returns a suite's content with other names for modalities."""
    if isinstance(content, dict):
        return {names.get(key, key): renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


@check_arguments
def load_suite(name_or_path: str | os.PathLike[str], names: Mapping[str, str] | None = None) -> Suite:
    """Loads a suite by its name, or from the path of a YAML file.

    Args:
        names: the model's name of modalities that it calls otherwise than the suite. Others than the suite has change nothing.

    Raises:
        MaskweaveError: no such suite, or an invalid one.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name_or_path}.yaml"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
            raise MaskweaveError(
                f"no suite {shown(str(name_or_path))}: give the path of a .yaml file, or one of {known}"
            )
    suite = build(Suite, renamed(read_yaml(path), names or {}), str(path))
    for item in suite.outliers:
        given = item.against or item.sources
        if unknown := [name for name in item.against if name not in CHANGES] or ([] if given else ["nothing"]):
            raise MaskweaveError(
                f"{path}: outliers against {', '.join(unknown)}; expected some of {', '.join(CHANGES)}"
            )
    if not suite.items:
        raise MaskweaveError(f"{path}: no requests, probes, outliers or transfers; give at least one")
    return suite


def run_suite(
    bundle: Bundle, suite: Suite, name: str, folder: Path | None = None, workers: int = 0
) -> list[EvaluationRow]:
    """Returns all rows of a suite, of launched processes only in the first one. Items with modalities that the bundle lacks are skipped, which
    a note says.

    Args:
        folder: where `suite-NAME.json` is written.

    Raises:
        MaskweaveError: the bundle lacks modalities for every item of the suite.
    """
    catalog = with_learned_of(bundle.catalog, bundle.tokenizers)
    possible = _possible(suite, catalog, name)
    rows = _requested(bundle, suite, catalog, name, possible)
    options: dict[str, Any] = {"workers": workers, "limit": suite.data.limit}
    for key in ("probes", "outliers"):
        for number, item in enumerate(getattr(suite, key)):
            if f"{key}.{number}" not in possible:
                continue
            parts = open_examples(suite.data, catalog, item.inputs, item.target, item.label)
            if isinstance(item, Outliers):
                rows += _outliers(bundle, item, parts, suite.data, options)
            else:
                encoder = bundle.encoder(item.inputs, bulk_precision(bundle.device))
                rows += probe(encoder, parts, suite.data.seed, **options)
    rows += _transferred(bundle, suite, name, folder, possible)
    if rank():
        return []
    if folder is not None:
        write_rows(rows, folder / f"suite-{name}.json")
    return rows


def _possible(suite: Suite, catalog: Catalog, name: str) -> set[str]:
    """Returns the keys of the items whose modalities the model has, and tells which others are skipped.

    Raises:
        MaskweaveError: there are none.
    """
    lacks = {key: [n for n in names if n not in catalog] for key, names in suite.items.items()}
    if all(lacks.values()):
        used = ", ".join(sorted({n for names in suite.items.values() for n in names}))
        first = next(iter(lacks.values()))[0]
        raise MaskweaveError(
            f"suite {name}: every item needs modalities that this model lacks. The suite uses {used}; the model has {', '.join(catalog)}. "
            f"If it has them by other names, map the names in the suite's file to them with --names OLD=NEW, such as --names {first}=NAME"
        )
    for key, names in lacks.items():
        if names and not rank():
            print(
                f"note: suite {name}: {key} is skipped, as the model lacks {', '.join(names)}; if it has them by other names, map them with --names OLD=NEW",
                file=sys.stderr,
            )
    return {key for key, names in lacks.items() if not names}


def _requested(
    bundle: Bundle, suite: Suite, catalog: Catalog, name: str, possible: Collection[str]
) -> list[EvaluationRow]:
    """The rows of the suite's requests."""
    truths = {n: truth for n, truth in suite.truths.items() if truth.like in catalog}
    requests = [request for k, request in enumerate(suite.requests) if f"requests.{k}" in possible]
    if not requests:
        return []
    joint = with_truths(catalog, truths, f"suite {name}")
    for number, request in enumerate(requests):
        check_evaluation(request, joint, bundle.unconditional, f"suite {name}: requests.{number}")
    wanted = [n for r in requests for n in (*r.inputs, *([r.truth] if r.truth else r.read or r.targets))]
    data = suite.data
    place = data.held_out or data.source
    made: dict[str, Any] = {"samples": data.validation, "seed": data.seed + 1} if is_endless(place) else {}
    source = open_data(place, joint, names=list(dict.fromkeys(wanted)), **reading_options(data), **made)
    held_out = usable_samples(source, data.validation or len(source), "held-out samples", data.limit)
    return score_requests(
        bundle, requests, ScoredData(joint, held_out, [], text_labels_of(source), data.seed, data.seed)
    )


def _transferred(
    bundle: Bundle, suite: Suite, name: str, folder: Path | None, possible: Collection[str]
) -> list[EvaluationRow]:
    """Fine-tunes the model by the suite's recipes; the rows of all of them."""
    rows = []
    for title, content in suite.transfers.items():
        if f"transfers.{title}" not in possible:
            continue
        if folder is None or bundle.folder is None:
            raise MaskweaveError(f"suite {name}: fine-tuning needs a folder, and a bundle that was loaded from one")
        given = {"start": str(bundle.folder), "data": plain(suite.data)}
        if suite.entries:
            given["catalog"] = str(folder / f"suite-{name}-entries.yaml")
            if not rank():
                write_yaml(Path(given["catalog"]), {"vocabularies": suite.vocabularies, "modalities": suite.entries})
            barrier()
        recipe = build(TransferRecipe, {**content, **given}, f"suite {name}", f"transfers.{title}")
        rows += run_transfer(recipe, folder / f"suite-{name}-{title}")
    return rows


def with_truths(catalog: Catalog, truths: Mapping[str, Truth], where: str) -> Catalog:
    """Returns a catalog with the entries of truths, too."""
    entries = dict(catalog)
    for name, truth in truths.items():
        known = plain(catalog[truth.like])
        value = {key: one for key, one in {**known["value"], **truth.value}.items() if one is not None}
        changed = {"name": name, "id": max(m.id for m in entries.values()) + 1, "source": None, "derive": None}
        content = {key: one for key, one in {**known, **changed, "value": value}.items() if one is not None}
        entries[name] = build(Modality, content, f"{where}: truths.{name}")
    return Catalog(entries.values(), catalog.vocabularies.values(), where)


def published_table(suite: Suite) -> str:
    """Returns the suite's published figures as a plain-text table; empty if it has none."""
    rows = [
        [one.score, model, short_number(figure), short_number(one.here[model]) if model in one.here else "–", one.paper]
        for one in suite.published
        for model, figure in one.figures.items()
    ]
    return text_table(["published", "model", "paper", "here", "source"], rows) if rows else ""


def _outliers(
    bundle: Bundle, item: Outliers, parts: Parts, data: TransferData, options: dict[str, Any]
) -> list[EvaluationRow]:
    if parts.train.target.kind != "label":
        raise MaskweaveError(f"outliers need a label with one class, found {parts.train.target.name!r}; set another")
    features = bundle.encoder(item.inputs, bulk_precision(bundle.device))
    train = labeled_features(features, parts.train, title="training features", **options)
    others: dict[str, Source] = {
        f"{change} pictures": Changed(parts.held_out, bundle.catalog, change) for change in item.against
    }
    for name, place in item.sources.items():
        others[name] = open_data(
            place, bundle.catalog, names=item.inputs, samples=data.validation, **reading_options(data)
        )
    found = [
        gathered_features(features, source, _pooled, title=f"features of {name}", **options)
        for name, source in {"held-out samples": parts.held_out, **others}.items()
    ]
    if train is None:
        return []
    sets = [rows["pooled"] for rows in found if rows]
    scores = outlier_scores(train, len(parts.train.target.classes), torch.cat(sets))
    rows = []
    for score, values in scores.items():
        inside, *outside = values.split([len(s) for s in sets])
        for name, some in zip(others, outside, strict=True):
            area, (low, high) = area_under_curve(inside, some), area_interval(inside, some, data.seed)
            row = EvaluationRow(
                features.encoder.names, name, f"AUROC, {score}", "higher", area, 0.5, math.nan, len(some), data.seed
            )
            rows.append(replace(row, low=low, high=high))
    return rows


def _pooled(batch: EncodedBatch) -> dict[str, torch.Tensor]:
    return {"pooled": batch.encoded.pooled.float().cpu()}


class Changed:
    """A source with changed pictures."""

    def __init__(self, source: Source, catalog: Catalog, change: str):
        self.source, self.change = source, CHANGES[change]
        self.pictures = [catalog[name].name for name in source.names if catalog[name].value.is_picture]
        if not self.pictures:
            raise MaskweaveError(
                f"outliers against {change} need an input of type image, found {', '.join(source.names)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def key(self, i: int) -> str:
        return self.source.key(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = dict(self.source[i])
        rng = np.random.default_rng(zlib.crc32(self.key(i).encode()))
        return {name: self.change(v, rng) if name in self.pictures else v for name, v in sample.items()}


def _gray(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(picture.mean(axis=-1, keepdims=True), picture.shape).astype(np.uint8)


def _noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, picture.shape, np.uint8)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "gray": _gray,
    "noise": _noise,
    "upside_down": lambda picture, rng: np.ascontiguousarray(picture[::-1]),
}
"""Changes that make a picture an outlier."""
