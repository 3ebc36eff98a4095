"""What a request gave: values in their units, as pictures and as files."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskweave.catalogues import Catalogue
from maskweave.data import codecs
from maskweave.errors import BadSample
from maskweave.files import write_aside
from maskweave.report.figures import draw
from maskweave.report.sheets import picture_among, sheet_for


@dataclass
class Generated:
    """The result for one sample; `result[NAME]` is a target's value in the Python form that its entry states."""

    catalogue: Catalogue = field(repr=False)
    inputs: dict[str, Any]
    """As the model saw them."""
    values: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    """Ids of each generated modality."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What of a generated sequence was broken and left out."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def sheet(self) -> Image.Image:
        """Inputs and targets side by side."""
        return sheet_for("", [{"inputs": self.inputs, "predictions": self.values}], self.catalogue)

    def show(self) -> None:
        """Open the sheet in the system's picture viewer."""
        self.sheet().show()

    def _repr_png_(self) -> bytes | None:
        return self.sheet()._repr_png_()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write every value as a file, and a picture of each that is not one: NAME.EXT, NAME.picture.png, and sheet.png.

        A sequence of which nothing was sound gets no file; `problems` says so.
        """
        folder = Path(folder)
        over = picture_among(self.catalogue, self.inputs, self.values)
        for name, value in self.values.items():
            modality = self.catalogue[name]
            try:
                content, ending = codecs.encode(value, modality)
            except BadSample as error:
                self.problems.setdefault(name, []).append(f"no file was written: {error}")
                continue
            with write_aside(folder / f"{name}.{ending}") as aside:
                aside.write_bytes(content)
            if modality.value.type != "image":
                self._save_picture(
                    Image.fromarray(draw(modality, value, (256, 256), over)), folder / f"{name}.picture.png"
                )
        self._save_picture(self.sheet(), folder / "sheet.png")
        return folder

    @staticmethod
    def _save_picture(picture: Image.Image, path: Path) -> None:
        with write_aside(path) as aside:
            picture.save(aside, format="PNG")
