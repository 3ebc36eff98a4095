"""What a request gave: values in their units, as pictures and as files."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskweave.errors import BadSample
from maskweave.files import write_aside
from maskweave.generate.schedule import Schedule
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import Catalog
from maskweave.report.figures import with_legend
from maskweave.report.sheets import picture_among, sheet_for


@dataclass
class Generated:
    """The result for one sample; `result[NAME]` is a target's value in the Python form that its entry states."""

    catalog: Catalog = field(repr=False)
    inputs: dict[str, Any]
    """As the model saw them."""
    values: dict[str, Any] = field(default_factory=dict)
    """By target, as it was asked for; a target whose tokenizer is missing has tokens alone."""
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    """Ids of each generated modality; -1 where a grid is not finished."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What of a generated sequence was broken and left out."""
    schedule: Schedule | None = field(default=None, repr=False)
    """The steps that were done."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def as_inputs(self, catalog: Catalog | None = None) -> dict[str, Any]:
        """Inputs and results together, as the inputs of another request. Sequences of which nothing was sound are left out.

        Args:
            catalog: of the bundle that is to take them, another one for super-resolution, say; names that it lacks are left out.
        """
        found: dict[str, Any] = {**self.inputs}
        found |= {name: Tokens(ids) for name, ids in self._without_value().items() if len(ids) and ids.min() >= 0}
        for name, value in self.values.items():
            with contextlib.suppress(BadSample):
                found[name] = self.catalog[name].value.check(value, name)
        return {name: value for name, value in found.items() if catalog is None or name in catalog}

    def _without_value(self) -> dict[str, np.ndarray]:
        """Tokens of the modalities that have no value, under whichever name."""
        valued = {self.catalog[name].reads for name in self.values}
        return {name: ids for name, ids in self.tokens.items() if self.catalog[name].reads not in valued}

    def sheet(self) -> Image.Image:
        """Inputs and targets side by side, as one picture; of several results, see `sheet_of`."""
        return sheet_of([self])

    def show(self) -> None:
        """Open the sheet in the system's picture viewer."""
        self.sheet().show()

    def _repr_png_(self) -> bytes | None:
        return self.sheet()._repr_png_()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write every value as a file, a picture of each that is not one, and what it came from.

        NAME.EXT, NAME.picture.png, NAME.tokens.npy where there is no value, sheet.png, and last schedule.yaml. A sequence of which nothing
        was sound gets no file; `problems` says so.
        """
        folder = Path(folder)
        over = picture_among(
            self.catalog, {k: v for k, v in self.inputs.items() if not isinstance(v, Tokens)}, self.values
        )
        for name, value in self.values.items():
            modality = self.catalog[name]
            try:
                content, ending = modality.value.to_file(value, name)
            except BadSample as error:
                self.problems.setdefault(name, []).append(f"no file was written: {error}")
                continue
            with write_aside(folder / f"{name}.{ending}") as aside:
                aside.write_bytes(content)
            if not modality.value.is_photograph:
                figure = with_legend(modality, value, (256, 256), over)
                self._save_picture(Image.fromarray(figure), folder / f"{name}.picture.png")
        for name, ids in self._without_value().items():
            with write_aside(folder / f"{name}.tokens.npy") as aside, open(aside, "wb") as file:
                np.save(file, ids, allow_pickle=False)
        self._save_picture(self.sheet(), folder / "sheet.png")
        if self.schedule is not None:
            self.schedule.save(folder / "schedule.yaml")
        return folder

    @staticmethod
    def _save_picture(picture: Image.Image, path: Path) -> None:
        with write_aside(path) as aside:
            picture.save(aside, format="PNG")


def sheet_of(results: Sequence[Generated], title: str = "", tile: int = 144) -> Image.Image:
    """One contact sheet of one or several results, a row each: inputs, then targets. Of tokens that have no value it says how many there are.

    Args:
        results: of one bundle, not necessarily of one request.
        tile: height of a figure in pixels.
    """
    rows = []
    for result in results:
        # A grid that is edited stands beside its source: once is enough.
        given = {n: v for n, v in result.inputs.items() if result.catalog[n].source not in result.inputs}
        bare = {name: value.ids for name, value in given.items() if isinstance(value, Tokens)}
        made = result._without_value()
        rows.append(
            {
                "inputs": {name: None if name in bare else value for name, value in given.items()},
                "predictions": {**result.values, **dict.fromkeys(made)},
                "instead": {name: f"{np.sum(np.asarray(ids) >= 0)} tokens" for name, ids in {**bare, **made}.items()},
            }
        )
    return sheet_for(title, rows, results[0].catalog, tile)
