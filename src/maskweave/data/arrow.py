"""Tables of Apache Arrow: parquet files, and folders that `save_to_disk` of Hugging Face `datasets` wrote. Needs the extra `[tables]`.

Rows are read at random: of parquet files whole row groups, of which the last two are kept in memory; of arrow files only what is asked
for, because they are mapped into memory. Nothing is unpickled and no code of a data set runs: of columns with types of other packages, only
the stored lists are read.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.data.mirror import version
from maskweave.errors import BadSample, MaskweaveError, reason, shown
from maskweave.files import parse_json, read_json, read_json_object
from maskweave.values.formats.base import needs

PARQUET = "parquet"
MAX_GROUP_BYTES = 2**30
"""Largest part of a row group that is read at once."""
KEPT_GROUPS = 2
DICT_MARK, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
"""Files by which a folder of `datasets` is recognized."""
_SHARD = re.compile(r"^(?P<split>.+?)[-_.]\d+-of-\d+$")
_SPLITS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"})


def parquet_files(place: str) -> list[Path]:
    """Returns the parquet files at a place, sorted: the file itself, those of a pattern with `*`, or those under a folder. Hidden ones are ignored."""
    path = Path(place)
    if path.is_dir():
        found = [p for p in path.rglob(f"*.{PARQUET}") if not any(x.startswith(".") for x in p.relative_to(path).parts)]
    else:
        found = list(path.parent.glob(path.name)) if "*" in path.name else [path]
    return sorted(p for p in found if p.suffix.lower() == f".{PARQUET}" and p.is_file())


def is_datasets_folder(path: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote a folder."""
    return (path / DICT_MARK).is_file() or ((path / STATE).is_file() and (path / INFO).is_file())


class ArrowTable:
    """Rows in the batches of several files. Subclasses give `_batch`."""

    place: Path
    columns: Sequence[str]
    texts: frozenset[str]
    """Columns of text."""
    classes: Mapping[str, Sequence[str]]
    """Names of the classes of columns whose whole numbers are classes, as `datasets` stores labels."""
    _files: Sequence[Path]
    _batches: Sequence[tuple[int, int]]
    """File, and number in it, of each batch."""
    _starts: Sequence[int]

    def _batch(self, number: int, columns: Sequence[str]) -> Any:
        """Returns a batch of rows, as a pyarrow table or record batch."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, i: int, columns: Sequence[str]) -> Mapping[str, Any]:
        number = bisect_right(self._starts, i) - 1
        try:
            batch = self._batch(number, columns)
            at = i - self._starts[number]
            return {name: self._cell(batch.column(name)[at], name) for name in columns}
        except MaskweaveError:
            raise
        except Exception as error:  # pyarrow raises many types of errors on damaged files
            raise BadSample(f"{self.where(i)}: damaged ({reason(error)}); replace the file") from error

    def cells(self, start: int, stop: int, column: str) -> Any:
        """Returns the cells of consecutive rows: one array (rows, …) of numbers if they are numbers or lists of them, otherwise a list."""
        parts = []
        while start < stop:
            number = bisect_right(self._starts, start) - 1
            first, last = self._starts[number], min(stop, self._starts[number + 1])
            parts.append(self._column(number, column).slice(start - first, last - start))
            start = last
        try:
            return column_cells(parts)
        except BadSample as error:
            raise BadSample(f"{self.where(stop - 1)}, column {column}: {error}") from error

    def column(self, name: str) -> Iterator[Any]:
        for number in range(len(self._batches)):
            for scalar in self._column(number, name):
                yield self._cell(scalar, name)

    def _column(self, number: int, name: str) -> Any:
        """Returns a column of a batch."""
        try:
            return self._batch(number, [name]).column(name)
        except MaskweaveError:
            raise
        except Exception as error:  # pyarrow raises many types of errors on damaged files
            file = self._files[self._batches[number][0]]
            raise BadSample(f"{file}: column {name}: damaged ({reason(error)}); replace the file") from error

    def is_text(self, name: str) -> bool:
        return name in self.texts

    def where(self, i: int) -> str:
        file, row = self._row_of(i)
        return f"{file}: row {row}"

    def name(self, i: int) -> str:
        file, row = self._row_of(i)
        if len(self._files) == 1:
            return f"row-{row:08d}"
        folder = Path(os.path.commonpath([path.parent for path in self._files]))
        return f"{file.relative_to(folder).with_suffix('').as_posix()}/row-{row:08d}"

    def state(self) -> list[Any]:
        return [[path.name, *version(path)] for path in self._files]

    def _row_of(self, i: int) -> tuple[Path, int]:
        number = bisect_right(self._starts, i) - 1
        file, within = self._batches[number]
        return self._files[file], i - self._starts[number - within]

    def _cell(self, scalar: Any, name: str) -> Any:
        value = plain_cell(scalar)
        if name in self.classes and isinstance(value, int):
            names = self.classes[name]
            return names[value] if 0 <= value < len(names) else None
        return value

    def _describe(self, schema: Any, features: Mapping[str, Any]) -> None:
        import pyarrow.types as types

        self.columns = list(schema.names)
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise MaskweaveError(f"{self.place}: two columns have the name {shown(twice[0])}; expected each once")
        self.texts = frozenset(f.name for f in schema if types.is_string(f.type) or types.is_large_string(f.type))
        labels = {n: f for n, f in features.items() if isinstance(f, Mapping) and f.get("_type") == "ClassLabel"}
        self.classes = {name: [str(x) for x in f["names"]] for name, f in labels.items() if f.get("names")}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


class _Group(NamedTuple):
    process: int
    number: int
    columns: tuple[str, ...]
    table: Any


class ParquetTable(ArrowTable):
    """The rows of parquet files.

    Raises:
        MaskweaveError: there is no such file, one is damaged or has other columns than the first, there are several splits, or pyarrow is not
            installed.
    """

    def __init__(self, place: str):
        with needs("pyarrow", "tables", place):
            import pyarrow.parquet as pq
        self.place = Path(place)
        self._files = parquet_files(place)
        if not self._files:
            raise MaskweaveError(f"{place}: contains no parquet files; expected NAME.{PARQUET}")
        _check_splits(self.place, self._files)
        self._metadata, batches, counts = [], [], [0]
        for number, path in enumerate(self._files):
            try:
                with pq.ParquetFile(path) as file:
                    metadata, schema = file.metadata, file.schema_arrow
            except Exception as error:
                raise MaskweaveError(f"{path}: is not a complete parquet file ({reason(error)}); replace it") from error
            if number == 0:
                self._describe(schema, _features(schema))
            elif set(schema.names) != set(self.columns):
                other = sorted(set(schema.names) ^ set(self.columns))
                raise MaskweaveError(
                    f"{path}: its columns differ from those of {self._files[0]}: {', '.join(other[:10])} are only in one of them; open the files separately"
                )
            self._metadata.append(metadata)
            for group in range(metadata.num_row_groups):
                batches.append((number, group))
                counts.append(metadata.row_group(group).num_rows)
        self._batches, self._starts = batches, list(accumulate(counts))
        if not self._starts[-1]:
            raise MaskweaveError(f"{place}: has no rows; expected at least one")
        self._open: tuple[_Group, ...] | None = None

    def _batch(self, number: int, columns: Sequence[str]) -> Any:
        wanted, kept = tuple(columns), self._open or ()
        for group in kept:
            if (os.getpid(), number, wanted) == group[:3]:
                return group.table
        import pyarrow.parquet as pq

        file, row_group = self._batches[number]
        meta = self._metadata[file].row_group(row_group)
        chunks = (meta.column(k) for k in range(meta.num_columns))
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in wanted)
        if size > MAX_GROUP_BYTES:
            raise MaskweaveError(
                f"{self._files[file]}: row group {row_group} has {size:,} bytes of {', '.join(wanted)}; expected at most {MAX_GROUP_BYTES:,}; write the file again with smaller row groups: pyarrow.parquet.write_table(…, row_group_size=100)"
            )
        # Closed after each read and without threads of its own, so that other processes share no file handle.
        with pq.ParquetFile(self._files[file], metadata=self._metadata[file]) as opened:
            table = opened.read_row_group(row_group, columns=list(wanted), use_threads=False)
        self._open = (_Group(os.getpid(), number, wanted, table), *kept)[:KEPT_GROUPS]
        return table


class DatasetsFolder(ArrowTable):
    """The rows of a folder that `save_to_disk` of Hugging Face `datasets` wrote.

    Raises:
        MaskweaveError: the folder has several splits, a file is missing or damaged, or pyarrow is not installed.
    """

    def __init__(self, place: str):
        with needs("pyarrow", "tables", place):
            import pyarrow  # noqa: F401
        self.place = path = Path(place)
        if (path / DICT_MARK).is_file():
            splits = read_json_object(path / DICT_MARK).get("splits")
            splits = splits if isinstance(splits, list) else []
            raise MaskweaveError(
                f"{place}: contains the splits {', '.join(map(str, splits))}; expected one of them: {path / str(next(iter(splits), 'train'))}"
            )
        try:
            listed = [str(item["filename"]) for item in read_json(path / STATE)["_data_files"]]
        except (KeyError, TypeError) as error:
            raise MaskweaveError(f"{path / STATE}: lists no _data_files; save the data set again") from error
        if bad := [name for name in listed if Path(name).name != name]:
            raise MaskweaveError(f"{path / STATE}: {shown(bad[0])} is no plain file name; refused")
        self._files = [path / name for name in listed]
        self._open: tuple[int, list[list[Any]]] | None = None
        self._sizes: dict[Path, int] = {}
        features = read_json_object(path / INFO).get("features")
        opened = self._all()
        self._batches = [(file, number) for file, batches in enumerate(opened) for number in range(len(batches))]
        self._starts = [0, *accumulate(batch.num_rows for batches in opened for batch in batches)]
        if not self._starts[-1]:
            raise MaskweaveError(f"{place}: has no rows; expected at least one")
        first = next(batches[0] for batches in opened if batches)
        self._describe(first.schema, features if isinstance(features, Mapping) else {})

    def _batch(self, number: int, columns: Sequence[str]) -> Any:
        file, within = self._batches[number]
        found, path = self._all()[file][within], self._files[file]
        if (
            not path.is_file() or path.stat().st_size != self._sizes[path]
        ):  # reading beyond its new end would kill the process
            raise MaskweaveError(f"{path}: was changed while it was read; restore it, or save the data set again")
        return found

    def _all(self) -> list[list[Any]]:
        """The record batches of each file, mapped into memory once per process."""
        if self._open is None or self._open[0] != os.getpid():
            import pyarrow as pa

            files = []
            for path in self._files:
                try:
                    self._sizes[path] = path.stat().st_size
                    mapped = pa.memory_map(str(path))
                    batches = [batch for batch in pa.ipc.open_stream(mapped) if batch.num_rows]
                    for batch in batches:
                        batch.validate()
                    files.append(batches)
                except Exception as error:
                    raise MaskweaveError(
                        f"{path}: is missing or not a complete arrow file ({reason(error)}); save the data set again"
                    ) from error
            self._open = os.getpid(), files
        return self._open[1]


def plain_cell(scalar: Any) -> Any:
    """Returns a cell of an Arrow table as None, text, bytes, a number, a mapping or list of these, or a NumPy array of numbers.

    Raises:
        BadSample: a list has rows of different lengths.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if not scalar.is_valid:
        return None
    kind = scalar.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_cell(scalar.value)
    if types.is_dictionary(kind):
        return plain_cell(scalar.value)
    if _is_list(kind) and _has_numbers(kind):
        return _numbers(scalar.values)
    if types.is_struct(kind):
        return {field.name: plain_cell(scalar[field.name]) for field in kind}
    value = scalar.as_py()
    return value if value is None or isinstance(value, (str, bytes, bool, int, float, list, dict)) else str(value)


def column_cells(parts: Sequence[Any]) -> Any:
    """Returns the cells of parts of a column: one array (rows, …) of numbers if they are numbers or lists of them, otherwise a list.

    Raises:
        BadSample: rows have different lengths.
    """
    import pyarrow as pa

    chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    joined = pa.concat_arrays([getattr(chunk, "storage", chunk) for chunk in chunks])
    return _numbers(joined) if _has_numbers(joined.type) else [plain_cell(scalar) for scalar in joined]


def _has_numbers(kind: Any) -> bool:
    import pyarrow.types as types

    while _is_list(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _numbers(values: Any) -> np.ndarray:
    """Returns the array of a list of numbers, of any depth; NaN at nulls."""
    shape = [len(values)]
    while _is_list(values.type):
        inner = values.flatten()
        lengths = np.asarray(values.value_lengths().fill_null(0))
        if len(set(lengths.tolist())) > 1:
            raise BadSample(f"found a list with rows of {lengths.min()} to {lengths.max()} items; expected one length")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = inner
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _features(schema: Any) -> Mapping[str, Any]:
    """The types of `datasets` in a schema's metadata."""
    try:
        return parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}


def _check_splits(place: Path, files: Sequence[Path]) -> None:
    """Raise MaskweaveError if files are of several splits, such as train and test."""
    found: dict[str, Path] = {}
    for path in files:
        match = _SHARD.match(path.stem)
        for name in (match["split"] if match else path.stem, path.parent.name):
            if name.lower() in _SPLITS:
                found.setdefault(name, path)
                break
    if len(found) > 1:
        name, path = next(iter(found.items()))
        one = path.parent if path.parent.name == name else path.parent / f"{name}*.{PARQUET}"
        raise MaskweaveError(
            f"{place}: contains parquet files of several splits ({', '.join(found)}); expected one; open it by a pattern or folder: {one}"
        )
