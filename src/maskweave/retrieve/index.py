"""Queries an index: finds the samples most similar to the inputs, by the cosine of centered vectors.

With pooled features, each input is compared separately with every vector of a view, and the weighted scores are added. The mean of its
modality is subtracted from each vector first: without that, all pictures look the same and no text is similar to any of them. An index with an
alignment then projects both (`maskweave.retrieve.alignment`).
With a predicted modality, all inputs together predict one vector, unless they have weights.

Dimension letters: B queries, N vectors, D width, W width of what is compared, K results.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.arguments import check_arguments
from maskweave.data.token_store import shard_name
from maskweave.deadline import check_time
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json, short_name
from maskweave.generate.bundle import Bundle, load
from maskweave.generate.request import Sample
from maskweave.nn.weights import open_tensors
from maskweave.retrieve.alignment import unit
from maskweave.retrieve.features import BATCH, features_of
from maskweave.retrieve.indexing import FORMAT
from maskweave.retrieve.pairs import StoredProjections, read_alignment
from maskweave.retrieve.search import Backend, Searcher


class Hit(NamedTuple):
    """One result of a query."""

    number: int
    """Index of the sample in the indexed data set."""
    key: str
    score: float
    """Weighted mean of the cosines, -1 to 1."""


class View(NamedTuple):
    """The indexed vectors of one view."""

    vectors: np.ndarray
    """(N, W) float32: centered, projected and normalized to length 1; one after another for inputs that are compared in different projections."""
    numbers: np.ndarray
    """(N,) indices of the samples in the data set."""


class Index:
    """An index folder written by `make_index`, opened for queries.

    Args:
        bundle: the bundle whose features were indexed; by default it is loaded from the path in the index.
        backend: of the search.
        device: of the bundle that is loaded.

    Raises:
        MaskweaveError: the index is missing, unfinished, or was made with a different model.
    """

    @check_arguments
    def __init__(
        self,
        folder: str | os.PathLike[str],
        bundle: Bundle | None = None,
        backend: Backend = "auto",
        device: torch.device | str = "cpu",
    ):
        self.folder, self.backend = Path(folder), backend
        if not (self.folder / "index.json").is_file():
            raise MaskweaveError(f"{folder}: has no index.json; create an index with 'maskweave retrieve index'")
        self.facts: dict[str, Any] = read_json(self.folder / "index.json", limit=None)
        if self.facts.get("format") != FORMAT:
            raise MaskweaveError(
                f"{folder}: has format {shown(self.facts.get('format'))}, expected {FORMAT}; index the data again"
            )
        if bundle is None and not self.facts["bundle"]:
            raise MaskweaveError(
                f"{folder}: does not contain the path of its bundle; load that bundle and pass it as bundle"
            )
        self.bundle = self._load(device) if bundle is None else bundle
        self.features = features_of(self.bundle, self.facts["feature_modality"], self.facts["quarters"])
        if self.features.fingerprint != self.facts["model"]:
            raise MaskweaveError(
                f"{folder}: does not match its model: it was created with fingerprint {self.facts['model']}, but {self.bundle.folder} has "
                f"{self.features.fingerprint}; delete the index and create it again, or restore the old model"
            )
        self.keys: dict[int, str] = {}
        shards = -(-self.facts["samples"] // self.facts["shard_size"])
        self._shards = [self.folder / shard_name(shard) for shard in range(shards)]
        for path in self._shards:
            if not path.with_suffix(".json").is_file():
                raise MaskweaveError(f"{folder}: is not finished; run the same 'maskweave retrieve index' again")
            facts = read_json(path.with_suffix(".json"), limit=None)
            self.keys |= dict(zip(facts["numbers"], facts["keys"], strict=True))
        with open_tensors(self.folder / "centers.safetensors") as stored:
            self._centers = {name: stored.get_tensor(name).numpy() for name in stored.keys()}  # noqa: SIM118
        self.alignment = read_alignment(self.folder)
        self._projections = StoredProjections(self.folder)
        self._views: dict[tuple[str, str], View] = {}
        self._searchers: dict[tuple[str, ...], Searcher] = {}

    def _load(self, device: torch.device | str) -> Bundle:
        try:
            return load(self.facts["bundle"], device)
        except MaskweaveError as error:
            raise MaskweaveError(
                f"{self.folder}: the bundle of the index cannot be loaded; if it has moved, move it back or index the data again: {error}"
            ) from error

    @property
    def views(self) -> list[str]:
        return self.facts["views"]

    def __len__(self) -> int:
        return len(self.keys)

    def view(self, name: str, inputs: Iterable[str] = ()) -> View:
        """Returns the vectors of a view.

        Args:
            inputs: modalities of the queries that they are compared with, as those of `vectors`.

        Raises:
            MaskweaveError: the view was not indexed.
        """
        if name not in self.views:
            raise MaskweaveError(f"{self.folder}: view {name!r} is not indexed; choose one of {', '.join(self.views)}")
        found = [self._view(name, space) for space in self._spaces(name, inputs)]
        return found[0] if len(found) == 1 else View(np.concatenate([v for v, _ in found], axis=1), found[0].numbers)

    def _view(self, name: str, space: str) -> View:
        """The vectors of a view as they are compared in one space."""
        if (name, space) not in self._views:
            projection = self._projections[f"{name}.{space}.view"] if space else None
            records = [read_json(path.with_suffix(".json"), limit=None) for path in self._shards]
            width = self.features.width if projection is None else projection.shape[1]
            vectors = np.empty((sum(record["vectors"][name] for record in records), width), np.float32)
            numbers, at = [np.zeros(0, np.int64)], 0
            for path, record in zip(self._shards, records, strict=True):
                check_time()
                with open_tensors(path.with_suffix(".safetensors")) as stored:
                    centered = stored.get_tensor(name).float().numpy() - self._center(name, name)
                    numbers.append(np.array(record["numbers"], np.int64)[stored.get_tensor(f"{name}.rows").numpy()])
                vectors[at : at + len(centered)] = unit(centered if projection is None else centered @ projection)
                at += len(centered)
            self._views[name, space] = View(vectors, np.concatenate(numbers))
        return self._views[name, space]

    def _spaces(self, view: str, inputs: Iterable[str]) -> list[str]:
        """Returns the modalities whose projections these inputs are compared in with the view; an empty name: only centered."""
        return sorted({name if f"{view}.{name}.view" in self._projections else "" for name in inputs} or {""})

    @check_arguments
    def query(
        self, inputs: Sample, *, view: str = "", weights: Mapping[str, float] | None = None, k: int = 10
    ) -> list[Hit]:
        """Returns the `k` samples most similar to the inputs, best first.

        Args:
            inputs: values by modality, in any form that `Bundle.generate` accepts.
            view: the view to compare with; by default the first of the index.
            weights: weight of each input, 1 by default; negative: dissimilar to it.

        Raises:
            MaskweaveError: an unknown modality or view, a value that does not fit, or a weight without an input.
        """
        if k < 1:
            raise MaskweaveError(f"k must be 1 or more, found {k}")
        view = view or self.views[0]
        read = self.bundle.read(inputs)
        compared = check_weights(read, weights)
        numbers = self.view(view, list(compared)[:1]).numbers
        if not len(numbers):
            raise MaskweaveError(f"{self.folder}: no indexed sample has {view!r}; choose another view")
        query_1W = self.vectors([read], view, weights)
        key = (view, *self._spaces(view, compared))
        if key not in self._searchers:
            # Of those of several spaces, which hold a copy of the vectors, only the last one is kept.
            self._searchers = {other: found for other, found in self._searchers.items() if len(other) <= 2}
            saved = self.folder / f"{short_name('+'.join(space or '=' for space in key))}.faiss"
            self._searchers[key] = Searcher(self.view(view, compared).vectors, saved, self.backend)
        scores, rows = self._searchers[key](query_1W, k)
        return [
            Hit(number, self.keys[number], float(score))
            for number, score in zip(numbers[rows[0]].tolist(), scores[0], strict=True)
        ]

    def vectors(self, samples: Sequence[Sample], view: str, weights: Mapping[str, float] | None = None) -> np.ndarray:
        """Returns the query vectors (B, W); their products with the vectors of a view for these inputs are the scores.

        Args:
            samples: checked values, with the same modalities in each.
        """
        weighted = check_weights(samples[0], weights)
        together = self.facts["feature_modality"] and not weights
        terms = [(list(weighted), 1.0)] if together else [([name], weight) for name, weight in weighted.items()]
        totals: dict[str, np.ndarray | float] = {}
        for names, weight in terms:
            parts = [{name: sample[name] for name in names} for sample in samples]
            found = [self.features(parts[at : at + BATCH]) for at in range(0, len(parts), BATCH)]
            centered_BD = np.concatenate(found) - self._center(names[0], view)
            [space] = self._spaces(view, names[:1])
            projected = centered_BD @ self._projections[f"{view}.{space}.query"] if space else centered_BD
            totals[space] = totals.get(space, 0.0) + weight * unit(projected)
        total = sum(abs(weight) for _, weight in terms)
        return np.concatenate([totals[space] for space in sorted(totals)], axis=1) / total

    def _center(self, name: str, view: str) -> np.ndarray:
        """Mean vector of a modality: of the indexed data, or of the pairs if these lack the modality. That of the view if both do, or if all vectors are of one predicted modality."""
        if self.facts["feature_modality"] or name in self._centers:
            return self._centers[view if self.facts["feature_modality"] else name]
        key = f"{name}.center"
        return self._projections[key] if key in self._projections else self._centers[view]


def check_weights(inputs: Sample, weights: Mapping[str, float] | None) -> dict[str, float]:
    """Returns the weight of every input.

    Raises:
        MaskweaveError: no inputs, a weight without an input, or only weights of 0.
    """
    if not inputs:
        raise MaskweaveError("a query needs one input or more")
    if missing := [name for name in weights or {} if name not in inputs]:
        raise MaskweaveError(
            f"weight of {missing[0]!r}: not among the inputs {', '.join(inputs)}; remove the weight or add the input"
        )
    found = {name: (weights or {}).get(name, 1.0) for name in inputs}
    found = {name: weight for name, weight in found.items() if weight}
    if not found or not np.isfinite(list(found.values())).all():
        raise MaskweaveError(f"weights must be finite and at least one of them not 0, found {dict(weights or {})}")
    return found
