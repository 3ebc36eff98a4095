"""Sources as a user or another package writes them: a fixed one, one without an end, and some that cannot be used."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality


class Plain:
    """Pictures, maps and texts of one level each."""

    def __init__(self, catalog: Catalog, levels: list[int], kind: str):
        self.entries = [m for m in catalog.values() if not m.source]
        self.levels, self.kind = levels, kind

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.entries)

    def __len__(self) -> int:
        return len(self.levels)

    def key(self, i: int) -> str:
        return f"{self.kind}-{self.levels[i]:03d}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {m.name: self.value(m, self.levels[i]) for m in self.entries}

    def value(self, modality: Modality, level: int) -> Any:
        match modality.value.type:
            case "text":
                return f"level {level}"
            case "image":
                return np.full((*modality.value.size, 3), level, np.uint8)
            case _:
                return np.full(modality.value.size, level / 256, np.float32)


def fixed(catalog: Catalog) -> Plain:
    """Ten samples, always the same."""
    return Plain(catalog, list(range(10)), "fixed")


class Unpaired(Plain):
    """Samples with their text and one more modality, in turn."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = super().__getitem__(i)
        others = [m.name for m in self.entries if m.value.type != "text"]
        return {name: value for name, value in sample.items() if name not in others or name == others[i % len(others)]}


def unpaired(catalog: Catalog) -> Unpaired:
    """Twenty samples, of which each lacks all but one of the modalities that are no text."""
    return Unpaired(catalog, list(range(20)), "unpaired")


class Endless(Plain):
    """As many samples as are asked for."""

    def __init__(self, catalog: Catalog, samples: int, seed: int):
        super().__init__(catalog, [(100 * seed + i) % 256 for i in range(samples)], f"seed-{seed}")

    @staticmethod
    def gives(modality: Modality) -> bool:
        return modality.value.type in ("image", "map", "text")

    @staticmethod
    def text_labels(text: str) -> Iterable[str]:
        return text.split()[1:]


def half(catalog: Catalog, samples: int) -> Plain:
    return Plain(catalog, list(range(samples)), "half")


def needs_more(catalog: Catalog, root: str) -> Plain:
    return Plain(catalog, [], root)


def not_a_source(catalog: Catalog) -> dict[str, Any]:
    return {}


number = 3


class Repeated(Plain):
    def key(self, i: int) -> str:
        return "twice"


def repeated(catalog: Catalog) -> Plain:
    return Repeated(catalog, [1, 2], "")
