"""One vector of a sample as a whole: what is indexed, compared, and what a global modality is made from.

Either the encoder's output, averaged over the tokens that are given; or the vector of a modality that the any-to-any model predicts from
what is given, as in 4M-21 (https://arxiv.org/abs/2406.09406), section on multi-modal retrieval.

Dimension letters: B samples, D width.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.request import Sample
from maskweave.nn import weights

BATCH = 64
"""Samples that go through a model at once."""


class SampleFeatures(Protocol):
    """Samples to vectors."""

    width: int

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same sample could give another vector."""
        ...

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """(B, D) float32, one vector a sample, from all that it gives.

        Args:
            samples: values by modality, the same modalities in all of them.

        Raises:
            BadSample: a value does not fit its entry; then there are no vectors for any of them.
        """
        ...


class Pooled:
    """The encoder's output, averaged over the tokens of what is given."""

    def __init__(self, bundle: Bundle):
        self.bundle, self.width = bundle, bundle.model.config.width

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.bundle)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        return self.bundle.encoder(list(samples[0])).encode(samples).pooled.float().cpu().numpy()


class Predicted:
    """The vector of one modality, as its tokens have it: of a sample that gives it, its own; of others, what the model predicts.

    Args:
        name: a grid of values of type `vector`.

    Raises:
        MaskweaveError: the modality has other values, or the bundle has no tokenizer of it.
    """

    def __init__(self, bundle: Bundle, name: str):
        modality = bundle.catalog[name]
        if not modality.value.is_embedding or not modality.is_target:
            possible = [m.name for m in bundle.catalog.values() if m.value.is_embedding and m.is_target]
            raise MaskweaveError(
                f"{name!r} is a {modality.kind} of values of type {modality.value.type!r}; expected a grid of values of type 'vector', of which "
                f"{bundle!r} has {', '.join(possible) or 'none'}"
            )
        if name not in bundle.tokenizers:
            raise MaskweaveError(f"{name!r}: this bundle has no tokenizer of it, so its tokens cannot be compared")
        self.bundle, self.name, self.width = bundle, name, modality.value.channels

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.bundle)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        if self.name in samples[0]:
            tokenizer = self.bundle.tokenizers[self.name]
            return np.asarray(tokenizer.decode(tokenizer.encode([sample[self.name] for sample in samples])))
        # The same seed for all: what a sample gives must not depend on its place.
        results = self.bundle.generate_batch(samples, [self.name], seeds=[0] * len(samples))
        return np.stack([result[self.name] for result in results])


def vectors_of(features: SampleFeatures, samples: Sequence[Sample]) -> list[np.ndarray | BadSample]:
    """The vector (D,) of each sample, however many there are, or why it has none."""
    found: list[np.ndarray | BadSample] = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        try:
            found.extend(features(batch))
        except BadSample as error:
            found += [error] if len(batch) == 1 else [v for sample in batch for v in vectors_of(features, [sample])]
    return found


def features_of(bundle: Bundle, feature_modality: str = "") -> SampleFeatures:
    """Pooled features of the encoder, or those of the modality `feature_modality`."""
    return Predicted(bundle, feature_modality) if feature_modality else Pooled(bundle)


def fingerprint(bundle: Bundle) -> str:
    """Of a bundle's weights and tokenizers."""
    used = (f"{name} {tokenizer.fingerprint}" for name, tokenizer in sorted(bundle.tokenizers.items()))
    return weights.fingerprint(bundle.model.state_dict(), *used)
