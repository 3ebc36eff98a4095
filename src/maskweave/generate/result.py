"""Results of a request: values in their units, as pictures and as files."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskweave.arguments import check_arguments
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import write_aside, write_json
from maskweave.generate.places import Place, as_geotiff
from maskweave.generate.request import twin
from maskweave.generate.schedule import Schedule
from maskweave.generate.token_state import Tokens
from maskweave.generate.uncertainty import entropies, with_map_entries
from maskweave.modality.catalogs import Catalog
from maskweave.report.figures import with_legend
from maskweave.report.sheets import picture_among, sheet_for
from maskweave.values.distribution import Distribution

LIKELIHOODS = "likelihoods.json"
MOST_TILE = 4096
"""Largest height of a figure of a contact sheet, in pixels."""


@dataclass
class Generated:
    """The result for one sample; `result[NAME]` is a target's value in the Python form of its value type."""

    catalog: Catalog
    inputs: dict[str, Any]
    """After cropping and resizing, as given to the model."""
    values: dict[str, Any] = field(default_factory=dict)
    """By requested target; a target without tokenizer has tokens only."""
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    """Ids of each generated modality; -1 for unknown tokens of an unfinished grid."""
    distributions: dict[str, Distribution] = field(default_factory=dict)
    """By requested target, of values that are tokenized by rules, such as scalars and labels."""
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    """With `return_probs`, by generated modality: float32 (tokens, vocabulary), the probability of each id at each token, after guidance and at the temperature of the
    bundle's calibration, but before that of sampling, top-k and top-p; NaN at tokens that were given. Of ensembles, the mean, for grids."""
    spread: dict[str, np.ndarray] = field(default_factory=dict)
    """Of ensembles, by requested target: how much the members differ at each point; see `ValueType.spread`."""
    equal: set[str] = field(default_factory=set)
    """Of ensembles, the requested targets of which all members are equal, so that merging them changes nothing."""
    likelihoods: dict[str, float] = field(default_factory=dict)
    """Of the best of several results: log-likelihood in nats of each input that decided, given the targets."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Invalid parts of generated sequences, which were skipped; by target."""
    places: dict[str, Place] = field(default_factory=dict)
    """Where the frame of each view is, if an input was a georeferenced TIFF file."""
    schedule: Schedule | None = None
    """The steps that generated it."""

    def __repr__(self) -> str:
        parts = [f"inputs: {', '.join(self.inputs) or 'none'}"]
        parts += [f"{name}: {_described(value)}" for name, value in self.values.items()]
        parts += [f"{name}: {np.size(ids)} tokens" for name, ids in self._without_value().items()]
        parts += [f"problems of {name}: {len(found)}" for name, found in self.problems.items()]
        return f"Generated({', '.join(parts)})"

    def __getitem__(self, name: str) -> Any:
        """Returns the value of a target.

        Raises:
            MaskweaveError: it is no target of this result, or its tokens have no value, because the bundle has no tokenizer for it.
        """
        if name not in self.values:
            self.catalog[name]  # raises: no such modality
            why = "the bundle has no tokenizer for it" if name in self.tokens else "it is no target of this result"
            raise MaskweaveError(f"{name!r} has no value: {why}; found values of {', '.join(self.values) or 'nothing'}")
        return self.values[name]

    def distribution(self, name: str) -> Distribution:
        """Returns the predicted distribution of a target: of a scalar, the mean, standard deviation, quantiles and density; of a label, the
        probability of each class.

        Raises:
            MaskweaveError: the target's values have no distribution.
        """
        if name not in self.distributions:
            self.catalog[name]  # raises: no such modality
            known = ", ".join(self.distributions) or "none of the targets"
            raise MaskweaveError(f"{name!r} has no distribution in this result; {known} has one")
        return self.distributions[name]

    def entropy(self, name: str) -> np.ndarray:
        """Returns the entropy of the distribution of each token in nats, float32: an array of the grid's shape, or (tokens,) of a sequence; NaN at
        tokens that were given. Each is that of the step in which its token was predicted, so that later ones know more.

        Raises:
            MaskweaveError: the result has no probabilities of this target.
        """
        generated = twin(self.catalog, name)
        if generated not in self.probabilities:
            raise MaskweaveError(f"{name!r} has no probabilities in this result; ask for them with return_probs=True")
        modality, found = self.catalog[generated], entropies(self.probabilities[generated])
        return found.reshape(modality.grid) if modality.kind == "grid" else found

    def uncertainty_maps(self) -> dict[str, np.ndarray]:
        """Returns the maps that figures show: NAME-entropy of each grid with several tokens, and NAME-spread of ensembles."""
        grids = [
            name for name in self.probabilities if self.catalog[name].kind == "grid" and self.catalog[name].tokens > 1
        ]
        return {f"{name}-entropy": self.entropy(name) for name in grids} | {
            f"{name}-spread": array for name, array in self.spread.items()
        }

    def prediction(self, name: str) -> Any:
        """Returns the distribution of a target if it has one, otherwise its value: what metrics and figures take."""
        return self.distributions[name] if name in self.distributions else self[name]

    def as_inputs(self, catalog: Catalog | None = None) -> dict[str, Any]:
        """Returns inputs and results together, as the inputs of another request. Sequences without any valid part are omitted.

        Args:
            catalog: of the receiving bundle, for example one for super-resolution; modalities that it lacks are omitted.
        """
        inputs: dict[str, Any] = {**self.inputs}
        inputs |= {name: Tokens(ids) for name, ids in self._without_value().items() if len(ids) and ids.min() >= 0}
        for name, value in self.values.items():
            with contextlib.suppress(BadSample):
                inputs[name] = self.catalog[name].value.check(value, name)
        return {name: value for name, value in inputs.items() if catalog is None or name in catalog}

    def _without_value(self) -> dict[str, np.ndarray]:
        """Tokens of the modalities that have no value under any of their names."""
        valued = {self.catalog[name].reads for name in self.values}
        return {name: ids for name, ids in self.tokens.items() if self.catalog[name].reads not in valued}

    def sheet(self) -> Image.Image:
        """Returns one picture with inputs and targets side by side; for several results, see `sheet_of`."""
        return sheet_of([self])

    def show(self) -> None:
        """Opens the sheet in the system's image viewer."""
        self.sheet().show()

    def _repr_png_(self) -> bytes | None:
        return self.sheet()._repr_png_()

    @check_arguments
    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the result into a folder: values, pictures of them, a contact sheet and the schedule.

        The files are NAME.EXT, GeoTIFF if an input of the same view was one, videos as MP4 and GIF; NAME.picture.png for values that are not images;
        NAME.distribution.json for distributions; NAME-entropy.npy and NAME-spread.npy with pictures, if there are any; likelihoods.json, nats by input, if they chose the result; NAME.tokens.npy for targets without value; sheet.png; and schedule.yaml, which is written last. A sequence without any valid part gets no file and an entry in `problems`.
        """
        folder = Path(folder)
        over = picture_among(
            self.catalog, {k: v for k, v in self.inputs.items() if not isinstance(v, Tokens)}, self.values
        )
        for name, value in self.values.items():
            modality = self.catalog[name]
            try:
                contents, problems = modality.value.result_files(value, name)
                located = as_geotiff(value, modality, self.places)
                contents = contents if located is None else {"tif": located}
            except BadSample as error:
                self.problems.setdefault(name, []).append(f"no file was written: {error}")
                continue
            if problems:
                self.problems.setdefault(name, []).extend(problems)
            for ending, content in contents.items():
                with write_aside(folder / f"{name}.{ending}") as aside:
                    aside.write_bytes(content)
            if not modality.value.is_photograph:
                figure = with_legend(modality, self.prediction(name), (256, 256), over)
                self._save_picture(Image.fromarray(figure), folder / f"{name}.picture.png")
        for name, distribution in self.distributions.items():
            write_json(folder / f"{name}.distribution.json", distribution.to_plain())
        if self.likelihoods:
            write_json(folder / LIKELIHOODS, self.likelihoods)
        for name, ids in self._without_value().items():
            with write_aside(folder / f"{name}.tokens.npy") as aside, open(aside, "wb") as file:
                np.save(file, ids, allow_pickle=False)
        maps = self.uncertainty_maps()
        catalog = with_map_entries(self.catalog, {name: [array] for name, array in maps.items()})
        for name, array in maps.items():
            with write_aside(folder / f"{name}.npy") as aside, open(aside, "wb") as file:
                np.save(file, array, allow_pickle=False)
            self._save_picture(
                Image.fromarray(with_legend(catalog[name], array, (256, 256))), folder / f"{name}.picture.png"
            )
        self._save_picture(self.sheet(), folder / "sheet.png")
        if self.schedule is not None:
            self.schedule.save(folder / "schedule.yaml")
        return folder

    @staticmethod
    def _save_picture(picture: Image.Image, path: Path) -> None:
        with write_aside(path) as aside:
            picture.save(aside, format="PNG")


def _described(value: Any) -> str:
    """Returns a value in a few words; of arrays and lists, their size."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"{len(value)} items" if isinstance(value, (list, dict)) else shown(value)


@check_arguments
def sheet_of(results: Sequence[Generated], title: str = "", tile: int = 144) -> Image.Image:
    """Returns a contact sheet with one row per result: inputs, then targets. Tokens without value are shown as their number.

    Args:
        results: of one bundle, not necessarily of one request.
        tile: height of a figure in pixels, 8 to 4,096.

    Raises:
        MaskweaveError: there are no results, or the height is out of range.
    """
    if not results or not 8 <= tile <= MOST_TILE:
        raise MaskweaveError(
            f"found {len(results)} results and a height of {shown(tile)}; expected results, and 8 to {MOST_TILE:,}"
        )
    rows = []
    for result in results:
        # Show an edited grid and its source only once.
        given = {n: v for n, v in result.inputs.items() if result.catalog[n].source not in result.inputs}
        bare = {name: value.ids for name, value in given.items() if isinstance(value, Tokens)}
        made = result._without_value()
        rows.append(
            {
                "inputs": {name: None if name in bare else value for name, value in given.items()},
                "predictions": {
                    **result.values,
                    **result.distributions,
                    **dict.fromkeys(made),
                    **result.uncertainty_maps(),
                },
                "instead": {name: f"{np.sum(np.asarray(ids) >= 0)} tokens" for name, ids in {**bare, **made}.items()},
            }
        )
    maps = [result.uncertainty_maps() for result in results]
    names = dict.fromkeys(name for of_one in maps for name in of_one)
    every = {name: [of_one[name] for of_one in maps if name in of_one] for name in names}
    return sheet_for(title, rows, with_map_entries(results[0].catalog, every), tile)
