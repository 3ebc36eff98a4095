"""What the command offers to the page: bundles, runs, data sets and indexes by name. The page sends names, never paths."""

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from maskweave.data.mirror import local_place
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError, shown
from maskweave.generate.bundle import Bundle, load
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.retrieve.index import Index
from maskweave.retrieve.sources import SAMPLES, SEED

LEVELS = 2
"""Levels of folders below a typed one in which bundles, runs and indexes are looked for."""
MOST_FOUND = 200
"""Bundles, runs and indexes that are listed of one typed folder."""
KEPT = 4
"""Bundles, data sets and indexes that stay in memory, of each."""


class Offered:
    """Bundles, runs, data sets and indexes that a page may use.

    Args:
        places: bundles (folders, or ids on the Hub), runs, also unfinished ones, indexes, and folders with any of them.
        data: data sets, as for `open_data`; an endless source gives its first 1,000 samples of seed 1.
        catalog: of the data sets; by default that of the first bundle.
        usual: a folder that is looked through before the others, and may hold none of these.

    Raises:
        MaskweaveError: a folder has none of these, an id cannot be loaded, or there is nothing to offer.
    """

    def __init__(self, places: Sequence[str], data: Sequence[str] = (), catalog: str = "", usual: str = ""):
        self.bundles: dict[str, str] = {}
        self.runs: dict[str, Path] = {}
        self.indexes: dict[str, Path] = {}
        self.data = {place.rstrip("/"): place for place in data}
        self._catalog = catalog
        self._lock = threading.RLock()
        self._bundle = lru_cache(KEPT)(lambda name: load(self.bundles[name]))
        self._index = lru_cache(KEPT)(lambda name: Index(self.indexes[name]))
        self._source = lru_cache(KEPT)(self._open)
        if usual:
            self._add_all(Path(usual))
        for place in places:
            self._add(place)
        if not (self.bundles or self.runs or self.data or self.indexes):
            raise MaskweaveError(
                "there is nothing to show; give a bundle, a run, an index, a folder with some of them, or a data set with --data"
            )

    def _add(self, place: str) -> None:
        folder = Path(place)
        if not folder.is_dir():
            if folder.exists():
                raise MaskweaveError(f"{place}: is a file; expected a bundle, a run, an index, or a folder with some")
            self.bundles[place] = place  # an id on the Hub, or a URL
            self.bundle(place)  # so that a mistyped one is told before the page opens
            return
        if not self._add_folder(folder) and not self._add_all(folder):
            raise MaskweaveError(
                f"{place}: contains no bundle, run or index, also not in the folders below it; for a data set, use --data {place}"
            )

    def _add_all(self, folder: Path) -> int:
        """Adds what the folders below one hold, and returns how many of them hold something."""
        found = 0
        for level in range(1, LEVELS + 1):
            for path in sorted(folder.glob("/".join("*" * level))):
                found += path.is_dir() and found < MOST_FOUND and self._add_folder(path)
        return found

    def _add_folder(self, folder: Path) -> bool:
        name = str(folder)
        is_index = (folder / "index.json").is_file() and (folder / "centers.safetensors").is_file()
        is_bundle = (folder / "model" / "config.json").is_file() and (folder / "modalities.yaml").is_file()
        is_run = (folder / "recipe.yaml").is_file()
        if is_index:
            self.indexes[name] = folder
        if is_bundle:
            self.bundles[name] = str(folder.absolute())  # so that code that names it runs in every folder
        if is_run:
            self.runs[name] = folder
        return is_index or is_bundle or is_run

    def bundle(self, name: Any) -> Bundle:
        """Returns a bundle, loaded at its first use.

        Raises:
            MaskweaveError: it is not offered, or as `load`.
        """
        _check("bundle", name, self.bundles)
        with self._lock:
            return self._bundle(name)

    def index(self, name: Any) -> Index:
        """Returns an index with its bundle; errors as `bundle`."""
        _check("index", name, self.indexes)
        with self._lock:
            return self._index(name)

    def run(self, name: Any) -> Path:
        """Returns the folder of a run; errors as `bundle`."""
        _check("run", name, self.runs)
        return self.runs[name]

    def source(self, name: Any) -> Source:
        """Returns a data set; errors as `bundle`."""
        _check("data set", name, self.data)
        with self._lock:
            return self._source(name)

    def catalog(self) -> Catalog:
        """Returns the catalog of the data sets.

        Raises:
            MaskweaveError: there is none.
        """
        if self._catalog:
            return load_catalog(self._catalog)
        if not self.bundles:
            raise MaskweaveError("the data set needs a catalog; give it with --catalog")
        return self.bundle(next(iter(self.bundles))).catalog

    def _open(self, name: str) -> Source:
        return open_data(self.data[name], self.catalog(), **self.how_read(name))

    def how_read(self, name: str) -> dict[str, Any]:
        """Returns the arguments of `open_data` for a data set."""
        return {"samples": SAMPLES, "seed": SEED} if is_endless(local_place(self.data[name])) else {}


def _check(what: str, name: Any, known: Mapping[str, Any]) -> None:
    if not isinstance(name, str) or name not in known:
        offered = ", ".join([*known][:20]) or "none"
        raise MaskweaveError(f"there is no {what} {shown(name)} here; offered: {offered}")
