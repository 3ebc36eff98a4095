"""Read untrusted text files, and write files and folders so that nothing half-written is ever left behind.

Files larger than `MASKWEAVE_MAX_TEXT_MB` megabytes (default 64) are refused, as is YAML whose aliases expand to far more than
the file contains. Records that this library wrote itself are read without a limit.
"""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from maskweave import locks, system
from maskweave.errors import FullDisk, MaskweaveError, shown
from maskweave.limits import TEXT_SETTING, limits_in_force, setting_in_force

_LIBYAML: Any = getattr(yaml, "cyaml", None)
"""None if PyYAML was built without libyaml."""

MAX_TEXT_MB = 64.0
"""The largest YAML or JSON file that is read, in MB, if neither a recipe nor the environment variable sets another limit."""
MAX_ALIASED_NODES = 100_000
"""Most values that YAML aliases (`*name`) may add to those written in a file."""


@contextlib.contextmanager
def write_aside(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `target` to write a file or folder to; on success it replaces the target.

    On any error (a full disk, Ctrl-C) the temporary file or folder is removed and the old target stays as it was.
    A folder replaces an existing one by two renames, so a reader sees the old one, the new one or, for an instant, neither. The old one is removed
    only when the new one is in place; if the second rename fails, it is put back.

    Raises:
        FullDisk: no space is left on the device.
        MaskweaveError: the folder of the target cannot be made, or a folder is where a file is to be.
        Locked: another process has taken over the folder in the meantime.
    """
    target = Path(target)
    make_folder(target.parent)
    aside = _aside(target, "partial")
    try:
        yield aside
        make_durable(aside)
        locks.check_held(target)
        if aside.is_dir() and target.exists():
            old = _aside(target, "old")
            system.rename(target, old)
            try:
                system.rename(aside, target)
            except OSError:
                system.rename(old, target)
                raise
            remove(old)
        elif target.is_dir():
            raise MaskweaveError(f"{target}: is a folder; expected the name of a file")
        else:
            system.rename(aside, target)
        _sync_names(target.parent)
    except OSError as error:
        if is_full_disk(error):
            raise FullDisk(
                f"no space left while writing {target}; no partial files were left; free some space and run the same command again"
            ) from error
        raise
    finally:
        remove(aside)


def is_full_disk(error: OSError) -> bool:
    """Whether an error means that no space is left. NumPy's error after a part of an array is written has no number."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error))


def make_folder(folder: Path) -> None:
    """Makes a folder, and those around it, if they are missing.

    Raises:
        FullDisk: no space is left on the device.
        MaskweaveError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full_disk(error):
            raise FullDisk(
                f"no space left while making {folder}; free some space and run the same command again"
            ) from error
        raise MaskweaveError(
            f"{folder}: cannot be made ({error.strerror}); check the path and its permissions, or choose another folder"
        ) from error


def make_durable(path: Path) -> None:
    """Make the bytes of a file, or of all files of a folder, durable before a rename makes them visible."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        system.make_file_durable(file)


def _sync_names(folder: Path) -> None:
    """Make a rename durable, so that no later file, such as the index of what was written, survives a power failure without it."""
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def short_name(name: str, limit: int = 120) -> str:
    """Shortens a name to what file systems accept (255 bytes): a longer one is cut and ends in a hash of the full name."""
    if len(name.encode()) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: limit - 9].decode(errors='ignore')}-{digest}"


def _aside(target: Path, ending: str) -> Path:
    """Returns a new temporary name next to `target`. It says which process of which machine uses it."""
    return target.parent / f"{locks.signed(f'.{short_name(target.name)}')}.{ending}"


def sweep(folder: Path) -> None:
    """Remove temporary files and folders that killed processes left under `folder`. Those of living processes stay, and so do those of other
    machines, unless `locks.is_gone`. A folder that was about to be replaced is put back."""
    is_gone = functools.cache(locks.is_gone)
    # All files are listed before the first question: whoever writes one of them has its lock by then.
    for path in [p for p in folder.rglob(".*") if p.suffix in (".partial", ".old")]:
        found = locks.split_signed(path.stem)
        if found is None:
            continue  # not one of `write_aside`
        name, writer = found
        if writer.is_here():
            has_ended = not locks.is_alive(writer.process, writer.start)
        else:
            has_ended = is_gone(path.parent, writer.machine)
        if not has_ended:
            continue
        target = path.with_name(name[1:])
        if path.suffix == ".old" and not target.exists():
            os.rename(path, target)
        else:
            remove(path)


MAX_NUMBER_BITS = 4096
"""Largest whole number in YAML, in bits; Python cannot print much larger ones."""


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, and aliases and merges that expand a small file to gigabytes."""

    def __init__(self, text: str):
        super().__init__(text)
        self.written = 0
        """Nodes so far, each alias counted as one."""
        self.sizes: dict[int, int] = {}
        """Number of nodes of each finished collection, aliases expanded; by `id`, since nodes live as long as the loader's document."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.written += 1
        return super().compose_node(parent, index)

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        self._measure(node, node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self._refuse(f"the key {shown(key.value)} appears twice; remove one", key)
                seen.add(key.value)
        self._measure(node, [part for pair in node.value for part in pair])
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > MAX_NUMBER_BITS:
            self._refuse(f"a whole number of {number.bit_length():,} bits", node)
        return number

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        text = super().construct_yaml_str(node)
        if "\0" in text:
            self._refuse("a text with a NUL character", node)
        return text

    def _measure(self, node: yaml.CollectionNode, parts: list[yaml.Node]) -> None:
        size = 1
        for part in parts:
            if isinstance(part, yaml.CollectionNode) and id(part) not in self.sizes:  # still being read
                self._refuse("an alias (*) refers to a value that contains it; write the value out", part)
            size += self.sizes.get(id(part), 1)
        if size > self.written + MAX_ALIASED_NODES:
            self._refuse(
                f"aliases (*) and merges (<<) repeat more than {MAX_ALIASED_NODES:,} values; write out what is needed",
                node,
            )
        self.sizes[id(node)] = size

    def _refuse(self, fault: str, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)


class _QuickLoader(_Loader):
    """The same with libyaml's parser, which is five times faster; its errors do not show the line."""

    def __init__(self, text: str):
        super().__init__("")
        events = _LIBYAML.CParser(text)
        for name in ("check_event", "peek_event", "get_event"):
            setattr(self, name, getattr(events, name))


def _parse_yaml(text: str) -> Any:
    if _LIBYAML is not None:
        with contextlib.suppress(yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
            return _QuickLoader(text).get_single_data()
    try:
        return _Loader(text).get_single_data()
    except (LookupError, AttributeError, TypeError) as error:  # a value that does not fit its tag, such as !!int ""
        raise ValueError(f"a value does not fit its tag ({error!r})") from error


def read_yaml(path: str | os.PathLike[str], limit: float | None = MAX_TEXT_MB) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        limit: as for `read_json`.

    Raises:
        MaskweaveError: the file is missing, too large, not UTF-8, not YAML, not a mapping, or has a duplicate key.
    """
    content = _parse(Path(path), _parse_yaml, "YAML", limit)
    if not isinstance(content, dict):
        raise MaskweaveError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    return content


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Returns the YAML mapping that a text is.

    Args:
        where: name of the text in errors.

    Raises:
        MaskweaveError: the text is not YAML, not a mapping, or has a duplicate key.
    """
    try:
        content = _parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MaskweaveError(f"{where}: not valid YAML: {' '.join(str(error).split())[:1000]}") from error
    if not isinstance(content, dict):
        raise MaskweaveError(f"{where}: expected a mapping of keys to values, found {type(content).__name__}")
    return content


def read_json(path: str | os.PathLike[str], limit: float | None = MAX_TEXT_MB) -> Any:
    """Read a JSON document; same errors as `read_yaml`.

    Args:
        limit: largest size in MB; `MASKWEAVE_MAX_TEXT_MB` replaces the default and can raise a larger limit. None: any size, for
            records that this library wrote itself.
    """
    return _parse(Path(path), parse_json, "JSON", limit)


def parse_json(text: str | bytes) -> Any:
    """Returns the document that a text is.

    Raises:
        ValueError: the text is not JSON, or an object has a key twice: which value is meant is not known.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common()[0]
            raise ValueError(f"the key {shown(twice)} appears twice; remove one")
        return found

    return json.loads(text, object_pairs_hook=unique)


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON document that is an object; same errors as `read_yaml`, also for other documents."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise MaskweaveError(f"{path}: found {shown(content)}; expected a JSON object {{…}}; restore the file")
    return content


def max_text_mb(limit: float = MAX_TEXT_MB) -> float:
    """Returns the limit in MB, after `MASKWEAVE_MAX_TEXT_MB`, or `limits.text_mb` of a recipe, is applied.

    Raises:
        MaskweaveError: the variable is not a number above 0.
    """
    setting = os.environ.get(TEXT_SETTING, "").strip()
    number: float | None = limits_in_force().text_mb
    if number is None and not setting:
        return limit
    if number is None:
        try:
            number = float(setting)
        except ValueError:
            number = math.nan
        if not number > 0:
            raise MaskweaveError(f"{TEXT_SETTING} is {shown(setting)}; expected a number of megabytes above 0")
    return number if limit == MAX_TEXT_MB else max(limit, number)


def _parse(path: Path, parse: Any, language: str, limit: float | None) -> Any:
    try:
        size = path.stat().st_size / 2**20
        if limit is not None and size > max_text_mb(limit):
            raise MaskweaveError(
                f"{path}: a {language} file of {size:,.0f} MB, expected at most {max_text_mb(limit):g} MB; "
                f"if you trust it, set {setting_in_force('text_mb')} to {math.ceil(size)}"
            )
        return parse(path.read_text(encoding="utf-8"))
    except MaskweaveError:
        raise
    except FileNotFoundError as error:
        raise MaskweaveError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise MaskweaveError(f"{path}: is a folder, expected a {language} file") from error
    except UnicodeDecodeError as error:
        raise MaskweaveError(f"{path}: not UTF-8 text") from error
    except OSError as error:  # for instance a name that is too long, or a file of another user
        raise MaskweaveError(f"{shown(str(path), 200)}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MaskweaveError(f"{path}: not valid {language}: {' '.join(str(error).split())[:1000]}") from error


def digest(*paths: Path) -> str:
    """Returns a hash of the bytes of files; a missing file counts as empty. Records keep it to know later whether what was made from them is current,
    because times of files and clocks cannot be trusted."""
    content = hashlib.sha256()
    for path in paths:
        parts = hashlib.sha256()
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            parts = hashlib.file_digest(file, "sha256")
        content.update(parts.digest())
    return content.hexdigest()[:16]


def stamp(path: Path) -> list[int]:
    """Returns numbers that differ whenever a file's content was changed: its size, and its times of change and of status change, which are compared
    for equality only. Programs can set the first time, but not the second."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def claim_record(path: Path, facts: dict[str, Any], what: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write a folder's record, or check that an existing record has the same facts, so that results of two jobs never mix.

    Args:
        path: the record, JSON or YAML by its ending.
        facts: what must be equal.
        what: content of the folder, for the message.
        more: further content of a new record.

    Returns:
        the new or existing record.

    Raises:
        MaskweaveError: the existing record differs; lists the keys.
    """
    is_yaml = path.suffix == ".yaml"
    if not path.exists():
        record = {**facts, **(more or {})}
        path.parent.mkdir(parents=True, exist_ok=True)
        (write_yaml if is_yaml else write_json)(path, record)
        return record
    found = read_yaml(path, limit=None) if is_yaml else read_json(path, limit=None)
    differing = [key for key in facts if found.get(key) != facts[key]] if isinstance(found, dict) else ["all"]
    if differing:
        raise MaskweaveError(
            f"{path.parent}: holds {what} made with other settings ({', '.join(differing)} differ); remove the folder, or choose another"
        )
    return found


def write_yaml(path: str | os.PathLike[str], content: Any) -> None:
    with write_aside(path) as aside:
        aside.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_json_lines(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Write one JSON document per line."""
    with write_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yields the documents that `write_json_lines` wrote, line by line; the file may have any size.

    Raises:
        MaskweaveError: a line is not JSON, or has a duplicate key.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_json(line)
            except (ValueError, RecursionError) as error:
                raise MaskweaveError(f"{path}: line {number} is not valid JSON: {error}") from error
