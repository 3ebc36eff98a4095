"""Writing so that nothing half-written is ever left behind: write aside, then rename."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from maskweave.errors import FullDisk, MaskweaveError

MAX_TEXT_BYTES = 64 * 2**20


@contextlib.contextmanager
def write_aside(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or folder to; on success it takes the target's place.

    On any error (a full disk, Ctrl-C) what was written aside is removed and the old target stays as it was.
    A folder replaces an existing one only by two renames, so a reader sees the old one, the new one, or for an instant none.

    Raises:
        FullDisk: no space is left on the device.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{target.name}.{os.getpid()}.partial"
    remove(aside)
    try:
        yield aside
        _sync(aside)
        if aside.is_dir() and target.exists():
            old = target.parent / f".{target.name}.{os.getpid()}.old"
            remove(old)
            os.rename(target, old)
            os.rename(aside, target)
            remove(old)
        else:
            os.replace(aside, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FullDisk(
                f"no space left while writing {target}; nothing half-written was kept: free some space and start the same command again"
            ) from error
        raise
    finally:
        remove(aside)


def _sync(path: Path) -> None:
    """Make the bytes durable before the rename makes them visible."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed had written aside under `folder`."""
    for path in [p for p in folder.rglob(".*") if p.suffix in (".partial", ".old")]:
        number = path.stem.rpartition(".")[2]
        if number.isdecimal() and not _is_alive(int(number)):
            remove(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice; remove one", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        MaskweaveError: the file is missing, too large, not UTF-8, not YAML, not a mapping, or has a key twice.
    """
    content = _parse(Path(path), _parse_yaml, yaml.YAMLError, "YAML")
    if not isinstance(content, dict):
        raise MaskweaveError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    return content


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON document; same errors as `read_yaml`."""
    return _parse(Path(path), json.loads, json.JSONDecodeError, "JSON")


def _parse(path: Path, parse: Any, failure: type[Exception], language: str) -> Any:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise MaskweaveError(
                f"{path}: larger than {MAX_TEXT_BYTES // 2**20} MB, which no {language} file here should be"
            )
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MaskweaveError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise MaskweaveError(f"{path}: is a folder, expected a {language} file") from error
    except UnicodeDecodeError as error:
        raise MaskweaveError(f"{path}: not UTF-8 text") from error
    except (failure, RecursionError) as error:
        raise MaskweaveError(f"{path}: not valid {language}: {' '.join(str(error).split())}") from error


def write_yaml(path: str | os.PathLike[str], content: Any) -> None:
    with write_aside(path) as aside:
        aside.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
