"""What tables whose rows are lines of a file share: names of rows, and where they are."""

from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.mirror import version


class LineTable:
    """A table in a file. Subclasses set the number of the first line of each row."""

    place: Path
    _numbers: np.ndarray

    def where(self, i: int) -> str:
        return f"{self.place}: line {self._numbers[i]}"

    def name(self, i: int) -> str:
        return f"row-{i:08d}"

    def state(self) -> list[Any]:
        return [self.place.name, *version(self.place)]
