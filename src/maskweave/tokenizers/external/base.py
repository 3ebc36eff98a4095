"""What a tokenizer that was trained elsewhere must offer.

Dimension letters: B batch, R levels, V codes of a level, C width of a code.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class ExternalTokenizer(ABC):
    """Converts values of one entry to ids and back. It may also be an `nn.Module`; then it is moved to the device of the bundle.

    One of your own is made by a function `f(modality, **options)` that an entry names: `tokenizer: {external: "python: package.module:f", codes: 512}`.
    """

    vocabulary_size: int
    """Number of ids, without the one for unknown points that the entry may add."""
    grid: tuple[int, ...]
    """Shape of the ids of one value."""
    batch: int = 16
    """Most values per call."""

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> Tensor:
        """Encodes values to ids (B, *grid), whole numbers from 0 to `vocabulary_size` - 1.

        Args:
            values: checked values of the entry's size in the Python form of its value type, such as uint8 (H, W, 3) of an image or a `Sound`.
        """

    @abstractmethod
    def decode(self, ids: Tensor) -> Sequence[Any]:
        """Decodes ids (B, *grid), int64 on the CPU, to one value per row, in a form that the value type accepts."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Text that changes whenever the same value could give other ids."""

    def blank(self) -> Tensor | None:
        """Ids (*grid) that stand where nothing is known, such as those of silence; None: 0."""
        return None

    def codebooks(self) -> Tensor | None:
        """Vectors (R, V, C) that the codes of each level stand for; None: not known."""
        return None
