"""Importing any other data set as tar shards: tables, tars, robot episodes, COCO, and sources made by code."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskweave.arguments import check_arguments
from maskweave.data.folders import import_folders
from maskweave.data.importing import Imported, ImportReport, prepared, write_shards
from maskweave.data.mirror import local_place
from maskweave.data.named import find_source, is_named
from maskweave.data.opening import is_importable, open_data
from maskweave.data.part_source import PartSource, read_entries, version_of
from maskweave.data.parts import OnBad
from maskweave.data.publishing import staging
from maskweave.data.remote import is_remote
from maskweave.data.source import Source, check_key
from maskweave.errors import MaskweaveError, shown, shown_command
from maskweave.modality.catalogs import Catalog
from maskweave.ranks import WHOLE, JobPart


@check_arguments
def import_data(
    place: str | os.PathLike[str],
    out: str | os.PathLike[str],
    catalog: Catalog,
    shard_size: int = 1000,
    limit: float = 0.01,
    jobs: int = 1,
    bad: OnBad = "part",
    single: str = "",
    part: JobPart = WHOLE,
    **options: Any,
) -> ImportReport:
    """Write the tar shards of aligned folders (`import_folders`) or of another data set (`import_source`), depending on what is at `place`. To a URL, they
    are copied when all are written (`maskweave.data.publishing`).

    Raises:
        MaskweaveError: as both; and `options` are given for aligned folders.
    """
    if isinstance(out, str) and is_remote(out):
        if not part.is_whole:
            raise MaskweaveError(
                f"{out}: parts of an import need a folder that all of them see; give one, and copy it with: {shown_command('upload', 'FOLDER', out)}"
            )
        with staging(out) as folder:
            report = import_data(place, folder, catalog, shard_size, limit, jobs, bad, single, **options)
        return replace(report, out=out)
    place = local_place(os.fspath(place))
    if not single and is_importable(place, catalog):
        return import_source(place, out, catalog, shard_size, limit, jobs, bad, part, **options)
    if given := [name for name, value in options.items() if value]:
        raise MaskweaveError(
            f"{place}: {given[0]} is for tables, tars and sources made by code, but this is a folder with one folder of files per modality; remove it, or correct the path"
        )
    return import_folders(place, out, catalog, shard_size, limit, jobs, bad, single, part)


@check_arguments
def import_source(
    place: str | os.PathLike[str],
    out: str | os.PathLike[str],
    catalog: Catalog,
    shard_size: int = 1000,
    limit: float = 0.01,
    jobs: int = 1,
    bad: OnBad = "part",
    part: JobPart = WHOLE,
    **options: Any,
) -> ImportReport:
    """Write the tar shards of a data set that `open_data` opens. Values keep their files' bytes, except for those that code makes.

    Args:
        place: path or name, as for `open_data`.
        out: folder for the shards.
        shard_size, limit, jobs, bad, part: as for `maskweave.data.importing.write_shards`.
        options: further arguments of `open_data`.

    Raises:
        MaskweaveError: the data set cannot be opened, two samples have one name, `out` has other contents, too many samples have unusable
            values, or no sample is left.
    """
    place = os.fspath(place)
    named, count = find_source(place), options.get("samples", 0)
    names = None if named is None else [n for n, m in catalog.items() if not m.source and named.gives(m)]
    if not (named and named.endless):  # `open_data` would hide the parts behind a subset
        options = {**options, "samples": 0}
    source = open_data(place, catalog, names=names, **options)
    samples = SourceSamples(place, source, catalog, count)
    with prepared(Path(out), None if is_named(place) or not Path(place).is_dir() else Path(place), part):
        return write_shards(samples, Path(out), shard_size, limit, jobs, bad, part)


class SourceSamples:
    """The samples of a source, or the first `count` of them if that is not 0."""

    def __init__(self, place: str, source: Source, catalog: Catalog, count: int = 0):
        self.place, self.source, self.catalog = place, source, catalog
        entries = read_entries(catalog)
        self.entries = {name: entries[name] for name in source.names if name in entries}
        self.keys = [check_key(source.key(i), place) for i in range(min(len(source), count or len(source)))]
        self.notes: list[str] = list(getattr(source, "notes", ()))
        name, count = Counter(self.keys).most_common(1)[0] if self.keys else ("", 0)
        if count > 1:
            raise MaskweaveError(f"{place}: {count} samples have the name {shown(name)}; expected each name once")

    def state(self, first: int, last: int) -> list[Any] | None:
        source = self.source
        if not isinstance(source, PartSource):
            return None
        versions = [version_of(path) for i in range(first, min(last, len(self.keys))) for path in source.named_files(i)]
        return [source.state(), self.keys[first:last], versions]

    def read(self, i: int) -> Iterator[Imported]:
        if isinstance(self.source, PartSource):
            for name, part, value in self.source.parts(i):
                yield Imported(name, part.ending, part.content, value)
            return
        sample: Mapping[str, Any] = self.source[i]
        for name, entry in self.entries.items():
            if sample.get(name) is not None:
                where = f"{self.place}: {self.keys[i]} ({name})"
                value = entry.value.check(entry.value.from_python(sample[name], where), where)
                content, ending = entry.value.write(value)
                yield Imported(name, ending, content, value)
