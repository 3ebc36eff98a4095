"""Text: captions, transcripts and the like."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values import files
from maskweave.values.base import Size, TextLabels, ValueType, as_labels, refuse
from maskweave.values.codec import EOS, Codec, TextWriter
from maskweave.values.geometry import Geometry
from maskweave.values.metrics import Metric, label_f1

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SIDES = re.compile(r"\b(left|right)(?=(?:most|wards?|hand)?\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Text(ValueType):
    """A text."""

    type: ClassVar[str] = "text"
    python: ClassVar[str] = "str"
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    is_text = True
    default_metrics = ("f1",)

    max_characters: int = 10_000
    """Longer text is refused."""

    def check_settings(self, kind: str) -> None:
        if self.max_characters < 1:
            raise MaskweaveError(f"value.max_characters must be 1 or more, found {self.max_characters}")

    def check(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise refuse(where, shown(value), "text")
        if len(value) > self.max_characters:
            raise refuse(
                where,
                f"a text of {len(value):,} characters",
                f"at most {self.max_characters:,}",
                "shorten it, or raise the entry's value.max_characters",
            )
        if _CONTROL.search(value):
            raise refuse(where, "control characters", "plain text")
        return value

    @property
    def endings(self) -> tuple[str, ...]:
        return ("txt", "json")

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Returns the text of a .txt file, or of a .json file that holds a text or a list of texts (the first is used)."""
        if ending == "txt":
            return files.read_text(content, where)
        value = files.read_json_value(content, where)
        return value[0] if isinstance(value, list) and value else value

    def read(self, content: bytes, ending: str, where: str) -> Any:
        if ending == "txt" and not content:  # an empty file, which other types refuse
            content = b"\n"
        return super().read(content, ending, where)

    def is_missing(self, value: str) -> bool:
        return not value.strip()

    def write(self, value: str) -> tuple[bytes, str]:
        return value.encode(), "txt"

    def transform(self, value: str, geometry: Geometry) -> str:
        """A flip swaps the words left and right."""
        return mirror(value) if geometry.flip else value

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "TextCodec":
        return TextCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`f1`: of the labels in the texts, by default their lower-case words, over the whole set."""
        return {"f1": label_f1(partial(as_labels, parse=parse or (lambda text: text.lower().split())))}

    @property
    def wide(self) -> bool:
        return True

    def draw(
        self, value: str, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.lettering import message, text_panel

        return text_panel(value, size) if value.strip() else message("empty", size)


class TextCodec(Codec):
    """Encodes text as the pieces of its vocabulary, truncated to fit."""

    def encode(self, value: str, rng: np.random.Generator | None = None) -> list[int]:
        return self.encode_batch([value])[0]

    def encode_batch(self, values: Sequence[str], rng: np.random.Generator | None = None) -> list[list[int]]:
        try:
            found = self.text.encode_batch(list(values))
        except BadSample as error:
            raise BadSample(f"modality {self.name!r}: {error}") from None
        return [ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], EOS] for ids in found]

    def parse(self, ids: list[int], problems: list[str]) -> str:
        strange = [self.text.piece(id) for id in ids if not self.text.is_text(id)]
        if strange:
            problems.append(f"{len(strange)} tokens are not text: {' '.join(strange[:8])}")
        return self.text.decode(ids)


def mirror(text: str) -> str:
    """Swap the words left and right in the text of a mirrored picture, also in leftmost, leftward and the like.

    Other meanings of "right" are not distinguished. Mirroring twice restores the text.
    """

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        other = "right" if word.lower() == "left" else "left"
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    return _SIDES.sub(swap, text)
