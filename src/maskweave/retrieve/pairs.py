"""The samples that the modalities of an index are aligned with, and what is stored of the alignment.

INDEX/alignment.safetensors   NAME.center (D,) mean vector of a modality, and VIEW.NAME.query and VIEW.NAME.view (D, K), the projections
INDEX/alignment.json          the samples, and the recall of each modality and view; written after them, also if there are none, with the reason
"""

from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.data.reading import read
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError, reason
from maskweave.files import read_json, write_aside, write_json
from maskweave.generate.bundle import Bundle
from maskweave.nn.weights import open_tensors, save_tensors
from maskweave.progress import progress
from maskweave.retrieve.alignment import AT, LEAST, SAMPLES, fit_projections, principal
from maskweave.retrieve.features import BATCH, SampleFeatures, given, readable, vectors_of

RECORD, TENSORS = "alignment.json", "alignment.safetensors"


class PairSource(NamedTuple):
    """Where the samples come from."""

    name: str
    """What they are, in words; an index that exists is continued with pairs of the same name only."""
    open: Callable[[], Source]
    required: bool = True
    """Whether the index is an error if they cannot be read; otherwise it is not aligned, and tells why."""


class Aligned(NamedTuple):
    """How well a modality finds a view, before and after both are projected, among pairs that were held out of the fit."""

    query: str
    view: str
    held: int
    """Number of these pairs."""
    before: float
    """Recall at `AT` among them."""
    after: float
    projected: bool
    """Whether the projections are used; they are not if they are not clearly better."""

    def __str__(self) -> str:
        found = f"{self.before:.3f} → {self.after:.3f}" if self.projected else f"{self.before:.3f}, not projected"
        return f"{self.query} → {self.view}: {found} (of {self.held}; chance {min(1, AT / self.held):.3f})"


class Alignment(NamedTuple):
    """What alignment.json says."""

    data: str
    """Name of the pairs."""
    samples: int = 0
    unusable: int = 0
    """Samples that could not be read."""
    rows: tuple[Aligned, ...] = ()
    reason: str = ""
    """Why nothing is aligned."""
    keys: frozenset[str] = frozenset()
    """Names of the samples."""

    def __str__(self) -> str:
        if not self.rows:
            return f"not aligned: {self.reason}; name data with --align for better results across modalities"
        unusable = f" ({self.unusable} more cannot be read)" if self.unusable else ""
        head = f"aligned with {self.samples - self.unusable} samples of {self.data}{unusable}; recall at {AT} among a fifth of them, before and after:"
        return "\n  ".join([head, *map(str, self.rows)])


def read_alignment(folder: Path) -> Alignment | None:
    """Returns what an index was aligned with; None if nothing."""
    if not (folder / RECORD).is_file():
        return None
    found: dict[str, Any] = read_json(folder / RECORD, limit=None)
    rows = tuple(Aligned(**row) for row in found.pop("rows"))
    return Alignment(**{**found, "rows": rows, "keys": frozenset(found["keys"])})


def write_alignment(
    folder: Path, bundle: Bundle, features: SampleFeatures, pairs: PairSource, views: Sequence[str], workers: int
) -> None:
    """Write the projections of the modalities that can be queries, and of the views.

    Raises:
        MaskweaveError: the samples cannot be read, and they are required.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        source = pairs.open()
        made = _align(bundle, features, source, views, workers, tensors)
    except MaskweaveError as error:
        if pairs.required:
            raise
        made = {"reason": f"{pairs.name} cannot be read: {reason(error).partition('; ')[0]}"}
    with write_aside(folder / TENSORS) as aside:
        save_tensors(tensors, aside)
    write_json(folder / RECORD, {**Alignment(pairs.name)._asdict(), "keys": [], **made})


def _align(
    bundle: Bundle,
    features: SampleFeatures,
    source: Source,
    views: Sequence[str],
    workers: int,
    tensors: dict[str, torch.Tensor],
) -> dict[str, Any]:
    names = readable(bundle, source)
    both = [(view, name) for view, name in product(views, names) if view in names and name != view]
    if not both:
        return {"reason": f"the data lacks {' and '.join(views)}, or has no other modality that the model reads"}
    indices = np.linspace(0, len(source) - 1, min(SAMPLES, len(source))).astype(int).tolist()
    found: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
    keys, unusable = [], 0
    with progress("align", len(indices)) as bar:
        stream = enumerate(read(source, indices, workers))
        while batch := list(islice(stream, BATCH)):
            keys += [item.key for _, item in batch]
            unusable += sum(bool(item.error) for _, item in batch)
            usable = [(row, item.sample) for row, item in batch if not item.error]
            for name in names:
                held = [(row, s) for row, sample in usable if (s := given(sample, bundle.catalog, name)) is not None]
                vectors = vectors_of(features, [sample for _, sample in held])
                for (row, _), vector in zip(held, vectors, strict=True):
                    if not isinstance(vector, BadSample):
                        found[name][row] = vector.astype(np.float16)  # as in the index
            bar.advance(len(batch))
    bases = {}
    for name, by_row in found.items():
        if by_row:
            all_ND = np.array([*by_row.values()], np.float32)
            tensors[f"{name}.center"] = torch.from_numpy(all_ND.mean(axis=0))
            bases[name] = principal(all_ND[np.isfinite(all_ND).all(axis=1)])
    rows: list[Aligned] = []
    with progress("fit", len(both)) as bar:
        for view, name in both:
            shared = sorted(found[name].keys() & found[view].keys())
            query, other = (np.array([found[n][row] for row in shared]) for n in (name, view))
            if fitted := fit_projections(query, other, bases.get(name), bases.get(view)):
                used = fitted.projections is not None
                rows.append(Aligned(name, view, fitted.held, fitted.before, fitted.after, used))
                for side, projection in fitted.projections._asdict().items() if fitted.projections else ():
                    tensors[f"{view}.{name}.{side}"] = torch.from_numpy(projection)
            bar.advance()
    why = "" if rows else f"fewer than {LEAST} usable samples have {' or '.join(views)} and another modality"
    told = [row._asdict() for row in rows]
    return {"samples": len(indices), "unusable": unusable, "rows": told, "reason": why, "keys": keys}


class StoredProjections:
    """The projections of an index; each is read when it is used."""

    def __init__(self, folder: Path):
        self.path, self.names = folder / TENSORS, frozenset[str]()
        if self.path.is_file():
            with open_tensors(self.path) as stored:
                self.names = frozenset(stored.keys())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray:
        with open_tensors(self.path) as stored:
            return stored.get_tensor(name).numpy()
