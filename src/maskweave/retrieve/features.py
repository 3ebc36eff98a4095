"""One feature vector per sample, for indexing, retrieval and global modalities.

The vector is either the encoder's output, averaged over the tokens of the inputs, or over those of each quarter of a picture, one after another; or the vector of a modality that the any-to-any model
predicts from the inputs, as in 4M-21 (https://arxiv.org/abs/2406.09406), section on multi-modal retrieval.

Dimension letters: B samples, D width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.generate.request import Sample
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoded
from maskweave.nn import weights

BATCH = 64
"""Samples in one forward pass."""


class SampleFeatures(Protocol):
    """Maps samples to vectors."""

    width: int

    @property
    def fingerprint(self) -> str:
        """Changes if a sample could get a different vector."""
        ...

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Returns (B, D) float32: one vector per sample, from all its values.

        Args:
            samples: values by modality, with the same modalities in each.

        Raises:
            BadSample: a value does not fit its entry; no vectors are returned for the batch.
        """
        ...


class Pooled:
    """The encoder's output, averaged over the tokens of the inputs, or what the model's family makes of it.

    Args:
        quarters: a sample has one input, and the vectors of four parts of its grid, one after another: quarters of a picture or of each frame, fourths of a
            series. What has no grid, or a smaller one, repeats the vector of the whole, so that all have the same width.
    """

    def __init__(self, bundle: Bundle, quarters: bool = False):
        self.bundle, self.repeats = bundle, 4 if quarters else 1
        self.width = self.repeats * bundle.model.config.width

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.bundle)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        encoder = self.bundle.encoder(list(samples[0]), bulk_precision(self.bundle.device))
        encoded = encoder.encode(samples)
        whole_BD = self.bundle.family.vectors(self.bundle.model, encoded)
        ranges = fourths_of(encoded.grids.get(encoder.encoder.names[0], ())) if self.repeats > 1 else []
        parts = [self._of_tokens(encoded, places, whole_BD) for places in ranges] or [whole_BD] * self.repeats
        return torch.cat(parts, dim=1).float().cpu().numpy()

    def _of_tokens(self, encoded: Encoded, places: np.ndarray, whole_BD: torch.Tensor) -> torch.Tensor:
        """Returns (B, D) from the tokens at these places of a single input; that of the whole where none of them is known."""
        at, [name] = torch.from_numpy(places).to(encoded.tokens.device), encoded.slices
        present_BN = None if encoded.present is None else encoded.present[:, at]
        alone = Encoded(encoded.tokens[:, at], present_BN, {name: slice(0, len(places))}, {})
        part_BD = self.bundle.family.vectors(self.bundle.model, alone)
        return part_BD if present_BN is None else part_BD.where(present_BN.any(1, keepdim=True), whole_BD)


def fourths_of(grid: Sequence[int]) -> list[np.ndarray]:
    """Returns the places of the tokens of each fourth of a grid: of an axis, or of halves of the last two; none if they are too short."""
    places = np.arange(math.prod(grid)).reshape(grid)
    if len(grid) == 1:
        return np.array_split(places, 4) if grid[0] >= 4 else []
    if not grid or min(grid[-2:]) < 2:
        return []
    return [half.ravel() for rows in np.array_split(places, 2, -2) for half in np.array_split(rows, 2, -1)]


class Predicted:
    """The vector of one modality, decoded from its tokens: the sample's own tokens if it has them, otherwise those that the model predicts.

    Args:
        name: a modality of kind grid with values of type `vector`.

    Raises:
        MaskweaveError: the modality has other values, or the bundle has no tokenizer for it.
    """

    def __init__(self, bundle: Bundle, name: str):
        modality = bundle.catalog[name]
        if not modality.value.is_embedding or not modality.is_target:
            possible = [m.name for m in bundle.catalog.values() if m.value.is_embedding and m.is_target]
            raise MaskweaveError(
                f"{name!r} is of kind {modality.kind} with values of type {modality.value.type!r}; expected kind grid with values of type 'vector'; "
                f"in {bundle!r} these are: {', '.join(possible) or 'none'}"
            )
        if name not in bundle.tokenizers:
            raise MaskweaveError(
                f"{name!r}: this bundle has no tokenizer for it, so its vectors are not available; choose another modality"
            )
        self.bundle, self.name, self.width = bundle, name, modality.value.channels

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.bundle)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        if self.name in samples[0]:
            tokenizer = self.bundle.tokenizers[self.name]
            return np.asarray(tokenizer.decode(tokenizer.encode([sample[self.name] for sample in samples])))
        # The same seed for all: the vector of a sample must not depend on its index.
        results = self.bundle.generate_batch(
            samples, [self.name], seeds=[0] * len(samples), precision=bulk_precision(self.bundle.device)
        )
        return np.stack([result[self.name] for result in results])


def vectors_of(features: SampleFeatures, samples: Sequence[Sample]) -> list[np.ndarray | BadSample]:
    """Returns the vector (D,) of each sample, or the reason why it has none."""
    vectors: list[np.ndarray | BadSample] = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        try:
            vectors.extend(features(batch))
        except BadSample as error:
            vectors += [error] if len(batch) == 1 else [v for sample in batch for v in vectors_of(features, [sample])]
    return vectors


def features_of(bundle: Bundle, feature_modality: str = "", quarters: bool = False) -> SampleFeatures:
    """Returns the pooled features of the encoder, or those of the modality `feature_modality`."""
    return Predicted(bundle, feature_modality) if feature_modality else Pooled(bundle, quarters)


def fingerprint(bundle: Bundle) -> str:
    """Returns the fingerprint of a bundle's weights and tokenizers."""
    used = (f"{name} {tokenizer.fingerprint}" for name, tokenizer in sorted(bundle.tokenizers.items()))
    return weights.fingerprint(bundle.model.state_dict(), *used)


def readable(bundle: Bundle, source: Source) -> list[str]:
    """Returns the modalities of a data set that the model reads."""
    return [
        name
        for name, m in bundle.catalog.items()
        if m.reads in source.names and (name in bundle.tokenizers or not m.has_tokens)
    ]


def given(sample: Mapping[str, Any], catalog: Catalog, *names: str) -> dict[str, Any] | None:
    """Returns the values of the modalities `names` from a data set's sample; None if one is missing."""
    values = {name: sample.get(catalog[name].reads) for name in names}
    return None if any(value is None for value in values.values()) else values
