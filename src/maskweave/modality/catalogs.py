"""Catalogs: modality entries by name, with the vocabularies they share, read from YAML.

Conflicts between entries are checked here; `checks` checks each entry by itself. Errors give the file, the entry, the field, what was
found and what to do.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskweave.arguments import check_arguments
from maskweave.config import build, plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.checks import check_vocabulary, checked
from maskweave.modality.derivation import COMPUTED
from maskweave.modality.entry import Modality
from maskweave.modality.pretrained import check_complete
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.axis import CoordinateAxis
from maskweave.values.base import ValueType

SAVED = "modalities.yaml"
"""File with the entries of a run or bundle."""


class Catalog(Mapping[str, Modality]):
    """The modalities of a project by name, in order, with their vocabularies."""

    def __init__(self, modalities: Iterable[Modality], vocabularies: Iterable[Vocabulary] = (), where: str = "catalog"):
        self.where = where
        self.modalities: dict[str, Modality] = {}
        self.vocabularies: dict[str, Vocabulary] = {}
        for vocabulary in vocabularies:
            check_vocabulary(vocabulary, f"{where}: vocabulary {vocabulary.name!r}")
            self.vocabularies[vocabulary.name] = vocabulary
        for modality in modalities:
            self.modalities[modality.name] = self._checked(modality)
        for modality in self.values():
            self._check_source(modality)
            self._check_derive(modality)
            self._check_valid(modality)
            self._check_weight(modality)

    def __getitem__(self, name: str) -> Modality:
        try:
            return self.modalities[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), self.modalities)
            hint = f"did you mean {near[0]!r}? " if near else ""
            known = ", ".join(self.modalities)
            raise MaskweaveError(f"{self.where}: unknown modality {shown(name)}; {hint}known: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.modalities)

    def __len__(self) -> int:
        return len(self.modalities)

    def __contains__(self, name: object) -> bool:
        return name in self.modalities

    def judges(self, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
        """Returns the inputs that can be predicted from results, to judge these: those that are targets of a model, and show something else than `targets`."""
        made = {self[name].reads for name in targets}
        return [name for name in inputs if self[name].reads in {m.reads for m in self.values() if m.is_target} - made]

    @check_arguments
    def subset(self, names: Iterable[str]) -> "Catalog":
        """Returns the named modalities, in this catalog's order, with all vocabularies.

        Raises:
            MaskweaveError: the catalog does not contain a name.
        """
        wanted = {self[name].name for name in names}
        wanted |= {m.source for m in self.values() if m.name in wanted and m.source}
        wanted |= {other for m in self.values() if m.name in wanted for other in m.depends_on if other in self}
        return Catalog([m for m in self.values() if m.name in wanted], self.vocabularies.values(), self.where)

    def vocabulary_size(self, name: str) -> int:
        """Number of ids of a grid's or sequence's tokens."""
        modality = self[name]
        if modality.kind == "sequence":
            return self.vocabularies[modality.vocabulary].size
        try:
            return modality.codes
        except MaskweaveError as error:
            raise MaskweaveError(f"{self.where}: {error}") from error

    def to_plain(self) -> dict[str, Any]:
        """Returns the content of a YAML file that `load_catalog` reads back."""

        def entry(item: Any) -> dict[str, Any]:
            content = {f.name: plain(getattr(item, f.name)) for f in dataclasses.fields(item)}
            content.pop("name")
            return content

        return {
            "vocabularies": {name: entry(v) for name, v in self.vocabularies.items()},
            "modalities": {name: entry(m) for name, m in self.items()},
        }

    def _checked(self, m: Modality) -> Modality:
        where = f"{self.where}: modality {m.name!r}"
        if m.name in self.modalities:
            raise MaskweaveError(f"{where}: appears twice; rename or remove one")
        for other in self.values():
            if other.id == m.id:
                raise MaskweaveError(
                    f"{where}: id {m.id} is already used by {other.name!r}; ids must be unique, choose another"
                )
        return checked(m, self.vocabularies, where)

    def _check_source(self, m: Modality) -> None:
        if not m.source:
            return
        where = f"{self.where}: modality {m.name!r}"
        if m.source not in self:
            raise MaskweaveError(
                f"{where}: source {shown(m.source)} is not a modality of the catalog; known: {', '.join(self)}"
            )
        source = self[m.source].value
        if (source.type, source.channels) != (m.value.type, m.value.channels):
            raise MaskweaveError(
                f"{where}: its value ({m.value.type}, {m.value.channels} channels) differs from its source's ({source.type}, {source.channels} channels)"
            )

    def _check_valid(self, m: Modality) -> None:
        if m.valid is None:
            return
        where = f"{self.where}: modality {m.name!r}: valid.from is {m.valid.source!r}"
        if m.source:
            raise MaskweaveError(f"{where}: valid belongs in the entry of its source {m.source!r}; move it there")
        if not (m.value.has_unknown and m.value.size):
            raise MaskweaveError(
                f"{where}, but its values of type {m.value.type!r} cannot have unknown points; for maps set value.missing: nan, for classes "
                "value.ignore, for pictures value.valid: alpha"
            )
        if m.valid.source not in self:
            return  # the entry of a single tokenizer lacks it
        mask = self[m.valid.source]
        if (
            not mask.value.is_mask
            or mask.value.channels > 1
            or len(mask.value.size) != len(m.value.size)
            or mask.view != m.view
        ):
            raise MaskweaveError(
                f"{where}, of type {mask.value.type!r} with value.size {list(mask.value.size)} and view {mask.view!r}; expected type binary, or a map "
                f"of one channel, with {len(m.value.size)} axes and view {m.view!r}"
            )

    def _check_weight(self, m: Modality) -> None:
        if not m.weight:
            return
        where = f"{self.where}: modality {m.name!r}: weight is {shown(m.weight)}"
        if m.source:
            raise MaskweaveError(f"{where}: weight belongs in the entry of its source {m.source!r}; move it there")
        value = m.value
        if not value.can_be_weighted:
            raise MaskweaveError(
                f"{where}, but values of type {value.type!r} cannot be weighted; expected a map, series, features or vector"
            )
        if value.size and not value.has_unknown:
            raise MaskweaveError(f"{where}, and points of weight 0 are unknown: also set value.missing: nan")
        if m.weight not in self:
            return  # the entry of a single tokenizer lacks it
        weight = self[m.weight]
        axes = len(value.size)
        if (
            not weight.value.can_be_weighted
            or weight.source
            or weight.value.channels not in (1, value.channels)
            or len(weight.value.size) != axes
            or weight.view != m.view
        ):
            shape = f"{axes} axes" if axes else "no axes"
            channels = "1 channel" if value.channels == 1 else f"1 or {value.channels} channels"
            raise MaskweaveError(
                f"{where}, of type {weight.value.type!r} with value.size {list(weight.value.size)}, {weight.value.channels} channels and view {weight.view!r}; "
                f"expected numbers with {shape}, {channels} and view {m.view!r}, in an entry without a source"
            )
        if axes == 1 and _points(weight.value) != _points(value):
            raise MaskweaveError(
                f"{where}, whose values have {_points(weight.value)}; expected {_points(value)}, as weights over one axis belong to the points of the same index; "
                "set value.size, value.fit and value.axis of both alike"
            )

    def _check_derive(self, m: Modality) -> None:
        if m.derive is None or m.derive.source not in self:
            return  # a subset may lack the pictures
        if m.source:
            raise MaskweaveError(
                f"{self.where}: modality {m.name!r}: derive belongs in the entry of its source {m.source!r}; remove it here"
            )
        if m.derive.by not in COMPUTED and not self[m.derive.source].value.is_picture:
            raise MaskweaveError(
                f"{self.where}: modality {m.name!r}: derive.from is {m.derive.source!r}, which does not hold color pictures; give a modality that does"
            )


def _points(value: ValueType) -> str:
    """Returns in words where the points of a value over one axis lie, and whether values of other sizes are stretched to them."""
    axis: CoordinateAxis | None = getattr(value, "axis", None)
    ends = f" from {axis.start:.10g} to {axis.stop:.10g} ({axis.scale})" if axis else ""
    return f"{value.size[0]} points{ends}" + ", resized" * ("resize" in getattr(value, "ways", ()))


@check_arguments
def load_catalog(name_or_path: str | os.PathLike[str], within: tuple[Path, ...] = ()) -> Catalog:
    """Loads a shipped catalog by name, or a YAML file by path.

    Args:
        within: files that include this one.

    Raises:
        MaskweaveError: the catalog is missing or invalid; gives the file, the entry and the field.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in shipped():
            raise MaskweaveError(
                f"no catalog {shown(str(name_or_path))}: give the path of a .yaml file, or one of {', '.join(shipped())}"
            )
        path = shipped_folder() / f"{name_or_path}.yaml"
    if path.resolve() in within:
        raise MaskweaveError(f"{path}: this catalog includes itself through 'include'; remove one of the includes")
    return catalog_from(read_yaml(path), str(path), (*within, path.resolve()))


def save_catalog(catalog: Catalog, folder: Path) -> None:
    """Write the modality entries of a run or bundle, `folder/modalities.yaml`."""
    write_yaml(folder / SAVED, catalog.to_plain())


def load_saved_catalog(folder: Path) -> Catalog:
    """Loads the modality entries of a run or bundle.

    Raises:
        MaskweaveError: no such folder, or it is not a run or bundle.
    """
    path = folder / SAVED
    if not path.is_file():
        fault = f"has no {SAVED}, so it is not a run or bundle" if folder.is_dir() else "no such folder"
        raise MaskweaveError(f"{folder}: {fault}; give the folder that 'maskweave run' made")
    return catalog_from(read_yaml(path), str(path), saved=True)


def catalog_from(content: Mapping[str, Any], where: str, within: tuple[Path, ...] = (), saved: bool = False) -> Catalog:
    """Validates the content of a catalog file.

    In addition to its own entries it may `include` another catalog: a shipped one by name, or a file by its path relative to this file.
    `only` lists the modalities to take from that catalog.

    Args:
        saved: the entries are those of a run or bundle, which may lack the pictures that `derive` names.
    """
    for key in content:
        if key not in ("include", "only", "vocabularies", "modalities"):
            raise MaskweaveError(
                f"{where}: unknown key {shown(key)}; expected 'vocabularies' and 'modalities', and optionally 'include' and 'only'"
            )
        if saved and key in ("include", "only"):
            raise MaskweaveError(
                f"{where}: {key!r} is not for the entries of a run or bundle, which are complete; get the complete folder again"
            )
    included = _included(content, where, within)
    items: dict[str, list[Any]] = {"vocabularies": [], "modalities": []}
    for section, cls in (("vocabularies", Vocabulary), ("modalities", Modality)):
        entries = content.get(section) or {}
        if not isinstance(entries, Mapping):
            raise MaskweaveError(f"{where}: {section!r} must map names to entries, found {type(entries).__name__}")
        for name, entry in entries.items():
            label = f"{where}: {'vocabulary' if cls is Vocabulary else 'modality'} {shown(str(name))}"
            if not isinstance(entry, Mapping):
                raise MaskweaveError(f"{label}: expected keys and values, found {shown(entry)}")
            if "name" in entry:
                raise MaskweaveError(f"{label}: its key is its name; remove 'name'")
            if cls is Vocabulary and Path(where).name == SAVED and {"size", "sentinels", "values", "words"} == {*entry}:
                entry = {**entry, "type": "wordpiece"}  # saved by a version that had only WordPiece
            if saved:
                check_complete(entry, label)
            items[section].append(build(cls, {"name": str(name), **entry}, label))
    for vocabulary in items["vocabularies"]:
        if vocabulary.name in included.vocabularies:
            raise MaskweaveError(
                f"{where}: vocabulary {vocabulary.name!r} is also in {included.where}, which is included; give yours another name"
            )
    if not items["modalities"] and not included:
        raise MaskweaveError(f"{where}: has no modalities")
    catalog = Catalog(
        [*included.values(), *items["modalities"]], [*included.vocabularies.values(), *items["vocabularies"]], where
    )
    for modality in items["modalities"]:
        lacking = [name for name in (modality.derive.sources if modality.derive else ()) if name not in catalog]
        if modality.derive is not None and lacking and not saved:
            raise MaskweaveError(
                f"{where}: modality {modality.name!r}: derive.{'from is' if lacking[0] == modality.derive.source else 'also reads'} {shown(lacking[0])}, which is not a modality of the catalog; "
                f"correct the name, or remove 'derive'; known: {', '.join(catalog)}"
            )
        if modality.valid is not None and modality.valid.source not in catalog and not saved:
            raise MaskweaveError(
                f"{where}: modality {modality.name!r}: valid.from is {shown(modality.valid.source)}, which is not a modality of the catalog; "
                f"correct the name, or remove 'valid'; known: {', '.join(catalog)}"
            )
        if modality.weight and modality.weight not in catalog and not saved:
            raise MaskweaveError(
                f"{where}: modality {modality.name!r}: weight is {shown(modality.weight)}, which is not a modality of the catalog; "
                f"correct the name, or remove 'weight'; known: {', '.join(catalog)}"
            )
    return catalog


def _included(content: Mapping[str, Any], where: str, within: tuple[Path, ...]) -> Catalog:
    """The catalog that a catalog file includes; empty if there is none."""
    name, only = content.get("include"), content.get("only")
    if name is None and only is None:
        return Catalog([])
    if name not in shipped() and not (isinstance(name, str) and name.endswith((".yaml", ".yml"))):
        raise MaskweaveError(
            f"{where}: 'include' must be a shipped catalog ({', '.join(shipped())}) or a .yaml file, found {shown(name)}"
        )
    if only is not None and not (isinstance(only, list) and all(isinstance(n, str) for n in only)):
        raise MaskweaveError(f"{where}: 'only' must be a list of modalities of {shown(name)}, found {shown(only)}")
    catalog = load_catalog(name if name in shipped() else Path(where).parent / name, within)
    return catalog if only is None else catalog.subset(only)


def shipped_folder() -> Path:
    return Path(__file__).parent / "catalog"


def shipped() -> list[str]:
    """Names of the catalogs that come with the package."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))
