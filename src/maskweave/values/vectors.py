"""Several vectors per sample, input only and unscaled: text embeddings of T5 in 4M-21."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from maskweave.values.array import finite
from maskweave.values.base import Size, refuse
from maskweave.values.formats.base import Selection
from maskweave.values.vector import Vector


@dataclass(frozen=True)
class Vectors(Vector):
    """A set of vectors, at most `max_tokens` of the entry."""

    type: ClassVar[str] = "vectors"
    python: ClassVar[str] = "float32 (vectors, channels)"
    kinds: ClassVar[tuple[str, ...]] = ("vectors",)
    is_embedding = False
    can_be_weighted = False
    head = ""
    mergeable: ClassVar[bool] = False

    storage: Literal["float32", "float16"] = "float32"
    """Precision in token shards. float16 takes half the space, has three digits, and refuses numbers beyond 65,504."""

    @property
    def row_dtype(self) -> Any:
        return np.dtype(self.storage)

    @property
    def selection(self) -> Selection:
        return replace(super().selection, axes=1)

    def check(self, value: Any, where: str) -> np.ndarray:
        array = self.as_array(value, where)
        if array.ndim != 2 or not len(array) or array.shape[1] != self.channels:
            raise refuse(where, f"shape {array.shape}", f"(vectors, {self.channels}) with one vector or more")
        array = finite(array, where)
        largest = float(np.abs(array).max())
        if self.storage == "float16" and largest > float(np.finfo(np.float16).max):
            raise refuse(
                where, f"numbers up to {largest:.6g}", "at most 65,504 for float16", "set value.storage: float32"
            )
        return array

    @property
    def curve(self) -> bool:
        return False

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draw each vector as a row of colors."""
        from maskweave.values.drawing import centered, color_mapped

        low, high = span or self.span([value]) or (-1.0, 1.0)
        return centered(color_mapped(np.asarray(value), low, high), size, smooth=False, stretch=True)[0]

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import color_bar

        low, high = span or (values and self.span(values)) or (-1.0, 1.0)
        return color_bar(low, high, self.unit, min(width, 220))
