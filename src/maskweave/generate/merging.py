"""Several results for one sample made into one: averages, majorities, and instances found in many passes.

4M-21 (https://arxiv.org/abs/2406.09406) averages ten samples for its normals and merges many passes for dense instances.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.generate.result import Generated
from maskweave.modality.entry import Modality

OVERLAP = 0.5
"""Two instances of one class whose intersection is at least this share of their union are the same."""


def merge(modality: Modality, values: Sequence[Any], overlap: float = OVERLAP) -> Any:
    """One value out of several of the same modality.

    Images, maps, features and vectors are averaged; directions too, and brought to length 1; of classes and binary points the most
    frequent is taken, the lower index or False where several are. Instances and boxes are pooled, see `without_duplicates`.

    Args:
        overlap: of instances and boxes.

    Raises:
        MaskweaveError: values that cannot be merged, such as texts.
    """
    check_mergeable(modality)
    return MERGERS.get(modality.value.type, lambda pool: without_duplicates(modality, pool, overlap))(values)


def merge_results(members: Sequence[Generated], overlap: float = OVERLAP) -> Generated:
    """One result without tokens out of several of the same request."""
    first = members[0]
    merged = Generated(first.catalog, first.inputs, schedule=first.schedule)
    for name in dict.fromkeys(name for member in members for name in member.values):
        found = [member.values[name] for member in members if name in member.values]
        merged.values[name] = merge(first.catalog[name], found, overlap)
    return merged


def member_seeds(seed: int, samples: int) -> list[int]:
    """Seeds of an ensemble's members: their own, so that ensembles of neighboring seeds share no member."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(samples)]


def check_ensemble(targets: Iterable[Modality], tokenizers: Container[str], samples: int) -> None:
    """See that an ensemble can be merged, before any work.

    Raises:
        MaskweaveError: no samples, or a target whose values cannot be merged or for which there is no tokenizer.
    """
    if samples < 1:
        raise MaskweaveError(f"an ensemble needs 1 sample or more, found {samples}")
    for modality in targets:
        check_mergeable(modality)
        if modality.name not in tokenizers:
            raise MaskweaveError(
                f"{modality.name!r}: this bundle has no tokenizer of it, so there are no values to merge; generate single samples of it"
            )


def check_mergeable(modality: Modality) -> None:
    if modality.value.type not in (*MERGERS, *OVERLAPS):
        raise MaskweaveError(
            f"{modality.name!r}: values of type {modality.value.type!r} cannot be merged; "
            f"only {', '.join((*MERGERS, *OVERLAPS))} can. Generate single samples of it"
        )


def without_duplicates(modality: Modality, values: Sequence[Sequence[Any]], overlap: float = OVERLAP) -> list[Any]:
    """All instances, or boxes, of several lists, each once: those found most often first, and the first found of each."""
    pool = [item for value in values for item in value]
    if not pool:
        return []
    same = OVERLAPS[modality.value.type](pool) >= overlap
    names = np.array([item["class"] for item in pool])
    same &= names[:, None] == names
    free, kept = np.ones(len(pool), bool), []
    for i in np.argsort(-same.sum(axis=1), kind="stable"):
        if free[i]:
            kept.append(pool[i])
            free &= ~same[i]
    return kept


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(values), axis=0, dtype=np.float64).astype(values[0].dtype)


def _rounded_mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.rint(np.mean(np.stack(values), axis=0)).astype(values[0].dtype)


def _direction(values: Sequence[np.ndarray]) -> np.ndarray:
    mean = _mean(values)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    return np.where(length > 1e-6, mean / np.maximum(length, 1e-6), values[0]).astype(values[0].dtype)


def _majority(values: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(values)
    labels = np.unique(stack)
    votes = np.stack([(stack == label).sum(axis=0) for label in labels])
    return labels[votes.argmax(axis=0)].astype(stack.dtype)


def _mask_overlaps(pool: Sequence[Mapping[str, Any]]) -> np.ndarray:
    masks = np.stack([item["mask"].ravel() for item in pool]).astype(np.float32)
    common = masks @ masks.T
    area = masks.sum(axis=1)
    return common / np.maximum(area[:, None] + area - common, 1)


def _box_overlaps(pool: Sequence[Mapping[str, Any]]) -> np.ndarray:
    boxes = np.array([item["box"] for item in pool], np.float64)
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    common = (high - low).clip(min=0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / np.maximum(area[:, None] + area - common, 1e-12)


MERGERS: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "image": _rounded_mean,
    "map": _mean,
    "features": _mean,
    "vector": _mean,
    "direction": _direction,
    "classes": _majority,
    "binary": _majority,
}
OVERLAPS: dict[str, Callable[[Sequence[Mapping[str, Any]]], np.ndarray]] = {
    "instances": _mask_overlaps,
    "boxes": _box_overlaps,
}
"""Of value types that are lists of things: how much each two of them overlap, (n, n), from 0 to 1."""
