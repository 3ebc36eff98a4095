"""Augmentation: random crops, flips, colors, noise and shifts along time, the same for all values of a view.

What is drawn for a sample is a pure function of a seed, the sample's name and the number of its copy, so that interrupted runs resume exactly.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from maskweave import limits
from maskweave.data import transforms
from maskweave.data.source import Source, text_labels_of
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.variation import Variation

WEIGHTS = "weights of the modality"
"""Name of weights beside their values; no modality can have it."""
DRAWS = 6
"""Part of the seeds of all draws, as other draws have other numbers."""


@dataclass(frozen=True)
class Augment:
    """Augmentation of training samples."""

    copies: int = 0
    """Augmented versions of each sample in the token store, besides the unchanged one; the store and the time to write it grow accordingly. 0: models are trained on the unchanged samples."""
    crop: float = 1.0
    """Smallest share of a picture's area that a random crop keeps, above 0 to 1; all pictures of a view are cropped alike. 1: no crops."""
    flip: float = 0.0
    """Probability of mirroring a view. Values that cannot be mirrored, such as poses, are then left out."""
    color: float = 0.0
    """Brightness, contrast and saturation of pictures are multiplied by random factors from 1 - color to 1 + color. 0: unchanged."""
    noise: dict[str, float] = field(default_factory=dict)
    """Standard deviation of Gaussian noise that is added to a modality, `{spectrum: 0.05}`, in the scale of a tokenizer's input, where most values are in [-1, 1]."""
    shift: dict[str, float] = field(default_factory=dict)
    """Largest shift of a modality along time, `{speech: 0.1}`, as a share of its length: along the columns of planes and the first axis of all else. Modalities of a view are shifted alike."""

    def __post_init__(self) -> None:
        for key, low, high, holds in (
            ("copies", 0, limits.COPIES, 0 <= self.copies <= limits.COPIES),
            ("crop", "above 0", 1, 0 < self.crop <= 1),
            ("flip", 0, 1, 0 <= self.flip <= 1),
            ("color", 0, "below 1", 0 <= self.color < 1),
        ):
            if not holds:
                raise MaskweaveError(f"{key} must be {low} to {high}, found {getattr(self, key)}")
        for key, most in (("noise", 10.0), ("shift", 1.0)):
            for name, amount in getattr(self, key).items():
                if not 0 <= amount <= most:
                    raise MaskweaveError(f"{key}.{name} must be 0 to {most:g}, found {amount}")
        if self.copies and not self.changes:
            raise MaskweaveError(
                "copies makes augmented versions, but nothing says how they differ; set crop, flip, color, noise or shift"
            )

    @property
    def changes(self) -> bool:
        """Whether anything is augmented."""
        return self.crop < 1 or any((self.flip, self.color, self.noise, self.shift))

    def check(self, catalog: Catalog) -> None:
        """Refuse names that are not in the catalog, and changes that their values do not have.

        Raises:
            MaskweaveError: gives the key.
        """
        for key in ("noise", "shift"):
            for name in getattr(self, key):
                able = [m.name for m in catalog.values() if key in m.value.varied_by]
                if name not in able:
                    why = f"values of type {catalog[name].value.type!r} have none" if name in catalog else "unknown"
                    raise MaskweaveError(
                        f"augment.{key} has {shown(name)}: {why}; expected some of {', '.join(able) or 'no modality'}"
                    )

    def __call__(
        self, sample: Mapping[str, Any], catalog: Mapping[str, Modality], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Returns an augmented sample.

        Args:
            sample: checked values, by modality.
            catalog: entries of all of them.
        """
        views = dict.fromkeys(catalog[name].view for name in sample)
        varied: dict[str, Any] = dict(sample)
        if self.crop < 1 or self.flip:
            crops = {v: transforms.random_geometry(rng, (self.crop, 1.0), flip=self.flip) for v in views}
            varied = transforms.apply(sample, catalog, crops)
        if not (self.color or self.noise or self.shift):
            return varied
        drawn = {view: rng.uniform(-1, 1, 4) for view in views}
        seed = int(rng.integers(2**62))
        return {
            name: self._varied(value, name, catalog[name], drawn[catalog[name].view], seed)
            for name, value in varied.items()
        }

    def _varied(self, value: Any, name: str, modality: Modality, drawn: np.ndarray, seed: int) -> Any:
        brightness, contrast, saturation = (1 + self.color * float(factor) for factor in drawn[:3])
        colors = "color" in modality.value.varied_by
        variation = Variation(
            brightness=brightness if colors else 1.0,
            contrast=contrast if colors else 1.0,
            saturation=saturation if colors else 1.0,
            shift=self.shift.get(name, 0.0) * float(drawn[3]),
            noise=self.noise.get(name, 0.0),
            seed=(seed, *_words(name)),
        )
        return modality.value.vary(value, variation)


class Augmented:
    """A source with augmented versions of each sample after the unchanged ones, under the name `NAME~COPY`.

    Sample i + k · len(source) is version k of sample i.

    Args:
        catalog: entries of the source's samples.
    """

    def __init__(self, source: Source, augment: Augment, catalog: Catalog, seed: int):
        self.source, self.augment, self.catalog, self.seed = source, augment, catalog, seed
        self.text_labels = text_labels_of(source)

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source) * (1 + self.augment.copies)

    def __getitem__(self, i: int) -> dict[str, Any]:
        copy, j = divmod(i, len(self.source))
        sample = self.source[j]
        if not copy:
            return sample
        words = _words(self.source.key(j))
        return self.augment(sample, self.catalog, np.random.default_rng([self.seed, DRAWS, copy, *words]))

    def key(self, i: int) -> str:
        copy, j = divmod(i, len(self.source))
        return f"{self.source.key(j)}~{copy}" if copy else self.source.key(j)


class AugmentedValues:
    """Augmentation of the values of one modality, for training its tokenizer.

    Args:
        modality: its entry. Noise and shifts are those of the modality that it reads.
    """

    def __init__(self, augment: Augment, modality: Modality, seed: int):
        self.modality, self.seed = modality, seed
        shift = augment.shift.get(modality.reads)
        # weights move with their values, and have no noise
        self.augment = augment if shift is None else replace(augment, shift={**augment.shift, WEIGHTS: shift})

    def __call__(
        self, values: np.ndarray, first: int, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the values (B, *size[, C]), each augmented by what is drawn for its number: `first`, `first` + 1 and so on; and their weights, in
        the same shape, which are moved alike."""
        name = self.modality.reads
        entries = {name: self.modality, WEIGHTS: self.modality}
        varied = []
        for b, value in enumerate(values):
            sample = {name: value}
            if weights is not None:  # unknown where the values are, so that both are moved alike
                sample[WEIGHTS] = np.where(self.modality.value.known(value), weights[b], np.float32(np.nan))
            changed = self.augment(sample, entries, np.random.default_rng([self.seed, DRAWS, first + b]))
            varied.append({**sample, **changed})
        moved = None if weights is None else np.stack([sample[WEIGHTS] for sample in varied])
        return np.stack([sample[name] for sample in varied]), moved


def _words(text: str) -> tuple[int, ...]:
    """Hash of a text, as numbers for a seed."""
    return tuple(np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u4").tolist())
