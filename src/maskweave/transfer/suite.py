"""Suites: named tables of probes and of outlier detection. Each is a YAML file in `suites/`, or one of your own."""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.arguments import check_arguments
from maskweave.config import build
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError, shown
from maskweave.evaluate.run import EvaluationRow, write_rows
from maskweave.files import read_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.generate.features import EncodedBatch
from maskweave.modality.catalogs import Catalog
from maskweave.ranks import rank
from maskweave.training.learned_scaling import with_learned_of
from maskweave.transfer.data import Parts, open_examples
from maskweave.transfer.features import gathered_features
from maskweave.transfer.outliers import area_under_curve, outlier_scores
from maskweave.transfer.probe import labeled_features, probe
from maskweave.transfer.recipe import TransferData

FOLDER = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Probe:
    """One label predicted from some inputs."""

    inputs: list[str]
    target: str = ""
    """As in the recipe of a transfer."""
    label: str = ""


@dataclass(frozen=True)
class Outliers(Probe):
    """Features of the inputs against features of changed pictures. The label is for the scores that need one."""

    against: list[str] = field(default_factory=list)
    """Keys of `CHANGES`."""


@dataclass(frozen=True)
class Suite:
    data: TransferData
    probes: list[Probe] = field(default_factory=list)
    outliers: list[Outliers] = field(default_factory=list)


@check_arguments
def load_suite(name_or_path: str | os.PathLike[str]) -> Suite:
    """Loads a suite by its name, or from the path of a YAML file.

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
    suite = build(Suite, read_yaml(path), str(path))
    for item in suite.outliers:
        if unknown := [name for name in item.against if name not in CHANGES] or ([] if item.against else ["nothing"]):
            raise MaskweaveError(
                f"{path}: outliers against {', '.join(unknown)}; expected some of {', '.join(CHANGES)}"
            )
    return suite


def run_suite(
    bundle: Bundle, suite: Suite, name: str, folder: Path | None = None, workers: int = 0
) -> list[EvaluationRow]:
    """Returns all rows of a suite, of launched processes only in the first one. Items with modalities that the bundle lacks are skipped.

    Args:
        folder: where `suite-NAME.json` is written.

    Raises:
        MaskweaveError: the bundle lacks modalities for every item of the suite.
    """
    rows: list[EvaluationRow] = []
    catalog = with_learned_of(bundle.catalog, bundle.tokenizers)
    options: dict[str, Any] = {"workers": workers, "limit": suite.data.limit}
    for item in (*suite.probes, *suite.outliers):
        if any(n not in bundle.catalog for n in (*item.inputs, *filter(None, [item.target]))):
            continue
        parts = open_examples(suite.data, catalog, item.inputs, item.target, item.label)
        if isinstance(item, Outliers):
            rows += _outliers(bundle, item, parts, suite.data.seed, options)
        else:
            rows += probe(bundle.encoder(item.inputs, bulk_precision(bundle.device)), parts, suite.data.seed, **options)
    if rank():
        return []
    if not rows:
        raise MaskweaveError(
            f"suite {name}: every item needs modalities that this model lacks; it has {', '.join(bundle.catalog)}"
        )
    if folder is not None:
        write_rows(rows, folder / f"suite-{name}.json")
    return rows


def _outliers(bundle: Bundle, item: Outliers, parts: Parts, seed: int, options: dict[str, Any]) -> list[EvaluationRow]:
    if parts.train.target.kind != "label":
        raise MaskweaveError(f"outliers need a label with one class, found {parts.train.target.name!r}; set another")
    features = bundle.encoder(item.inputs, bulk_precision(bundle.device))
    train = labeled_features(features, parts.train, title="training features", **options)
    sources: dict[str, Source] = {"held-out features": parts.held_out} | {
        f"features of {change}": Changed(parts.held_out, bundle.catalog, change) for change in item.against
    }
    found = [gathered_features(features, source, _pooled, title=title, **options) for title, source in sources.items()]
    if train is None:
        return []
    sets = [rows["pooled"] for rows in found if rows]
    scores = outlier_scores(train, len(parts.train.target.classes), torch.cat(sets))
    rows = []
    for score, values in scores.items():
        inside, *outside = values.split([len(s) for s in sets])
        for change, found in zip(item.against, outside, strict=True):
            area = area_under_curve(inside, found)
            names = features.encoder.names
            rows.append(
                EvaluationRow(
                    names, f"{change} pictures", f"AUROC, {score}", "higher", area, 0.5, float("nan"), len(found), seed
                )
            )
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
