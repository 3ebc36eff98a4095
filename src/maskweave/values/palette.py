"""Palettes: the dominant colors of a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.values import measures
from maskweave.values.base import Size, ValueType, refuse
from maskweave.values.codec import Bins, Codec, TextWriter
from maskweave.values.items import check_bins, check_max_items, is_number

DERIVED_COLORS = 7
"""Colors of a derived palette if the entry has no `max_items`."""


@dataclass(frozen=True)
class Palette(ValueType):
    """A list of colors."""

    type: ClassVar[str] = "palette"
    python: ClassVar[str] = "list of [red, green, blue], 0 to 255"
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {
        "palette": lambda value, picture: measures.palette(picture, value.max_items or DERIVED_COLORS)
    }

    bins: int = 64
    """Bins of each color, 0 to 255."""
    max_items: int = 0
    """Most colors that are written; extra colors at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        check_bins(self.bins)
        check_max_items(self.max_items)
        if self.bins > 256:
            raise MaskweaveError(
                f"value.bins {self.bins} is more than the 256 levels of a color; set it to 256 or less"
            )

    def describe_range(self) -> str:
        return "0 to 255"

    def check(self, value: Any, where: str) -> list[list[int]]:
        if not isinstance(value, (list, tuple)) or not value:
            raise refuse(where, shown(value), "a list of one or more colors [red, green, blue]")
        for i, color in enumerate(value):
            parts = color.tolist() if isinstance(color, np.ndarray) else color
            valid = (
                isinstance(parts, (list, tuple))
                and len(parts) == 3
                and all(is_number(c) and c == int(c) and 0 <= c <= 255 for c in parts)
            )
            if not valid:
                raise refuse(where, f"color {i}: {shown(color)}", "[red, green, blue], whole numbers from 0 to 255")
        return [[int(c) for c in color] for color in value]

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "PaletteCodec":
        return PaletteCodec(name, self, max_tokens, text)

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the colors as stripes."""
        from maskweave.values.lettering import message

        if not len(value):
            return message("none", size)
        colors = np.clip(np.asarray(value, dtype=np.float64).reshape(-1, 3), 0, 255).astype(np.uint8)
        column = np.arange(size[1]) * len(colors) // size[1]
        return np.broadcast_to(colors[column][None], (*size, 3)).copy()


class PaletteCodec(Codec):
    """Encodes colors in the order given, exact to half a bin; with 256 bins exactly."""

    item = "color"

    def __init__(self, name: str, value: Palette, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        self.bins = Bins(0, 256, value.bins, integer=True)
        self.most = self.capacity(3, fixed=2)
        self.require("v0", value.bins, "value.bins")
        self.require("v1", self.most + 1, "value.max_items")
        self.level = text.value("v0", 0)
        self.slots = [self.slot("v0", value.bins)] * 3

    def encode(self, value: list[list[int]], rng: np.random.Generator | None = None) -> list[int]:
        kept = value[: self.most]
        count = self.text.value("v1", len(kept))
        return [count, *self.join([self.level + self.bins.encode(x) for x in color] for color in kept)]

    def parse(self, ids: list[int], problems: list[str]) -> list[list[int]]:
        prefix, count = (self.text.as_value(ids[0]) if ids else None) or ("", 0)
        start = int(prefix == "v1")
        if not start:
            problems.append("no v1= (the number of colors) at the start")
        items = self.parse_items(ids, self.slots, problems, first=start)
        if start and len(items) != count:
            problems.append(f"{len(items)} colors, but v1= gives {count}")
        return [[int(self.bins.centers[b]) for b in item] for item in items]
