"""Copies of finished local folders at URLs: data sets, token shards, bundles and runs.

Storage of objects cannot rename a folder, so a copy is made visible in this order: a file that says which upload has begun, all other files, those
without which nothing opens, a manifest, and last the first file is removed. A copy that is not complete is refused by whoever opens it; the same command
resumes it. The manifest has the size and SHA-256 of all files: what storage tells of a file depends on the storage, and on how the file came there.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from maskweave.data.cache import Cache
from maskweave.data.remote import MANIFEST, UNFINISHED, RemoteState, check_writable, delete, find_files, read, upload
from maskweave.data.shards import INDEX, RANGES
from maskweave.data.token_store import STARTS
from maskweave.errors import MaskweaveError
from maskweave.files import remove
from maskweave.locks import NAME as LOCK
from maskweave.locks import lock
from maskweave.progress import progress

THREADS = 8
"""Files that are uploaded at the same time."""
LAST = (INDEX, STARTS, "modalities.yaml", "config.json")
"""Files without which a data set, token shards or a bundle do not open; they are uploaded last, those of inner folders first."""
LEFT_OUT = ("checkpoints", "events")
"""Folders of a run that nobody needs who uses it."""


def publish(folder: Path, url: str) -> int:
    """Copies a finished folder to a URL. An interrupted copy is resumed; one that is there already is compared.

    Returns:
        the number of files.

    Raises:
        MaskweaveError: the folder is missing or not finished, the URL holds other files or another upload to it has begun, or the storage cannot be written.
        Locked: another process writes to the folder.
    """
    url = url.rstrip("/")
    check_writable(url)
    if not folder.is_dir():
        raise MaskweaveError(f"{folder}: no such folder; check the path")
    with lock(folder) if os.access(folder, os.W_OK) else nullcontext():
        files = _files_of(folder)
        manifest = _manifest_of(files)
        mark = _encoded({"files": len(files), "digest": hashlib.sha256(manifest).hexdigest()})
        found = find_files(url)
        has_begun = found.pop(UNFINISHED, None) is not None
        if has_begun and read(f"{url}/{UNFINISHED}") != mark:
            raise MaskweaveError(
                f"{url}: holds an unfinished upload of other files than those in {folder}; wait for it or remove it, or choose another URL"
            )
        has_manifest = found.pop(MANIFEST, None) is not None
        if found and not has_begun:
            if found.keys() == files.keys() and has_manifest and read(f"{url}/{MANIFEST}") == manifest:
                return len(files)
            raise MaskweaveError(
                f"{url}: already holds {len(found)} files, which differ from {folder} or have no {MANIFEST} to compare with; "
                "choose another URL, or remove them"
            )
        if not has_begun:
            _put(mark, f"{url}/{UNFINISHED}")
        _copy(files, url, found, mark)
        _put(manifest, f"{url}/{MANIFEST}")
        delete(f"{url}/{UNFINISHED}")
    return len(files)


def _copy(files: Mapping[str, Path], url: str, found: Mapping[str, RemoteState], mark: bytes) -> None:
    """Uploads the files that are not there yet. Those that are there came from an upload of the same files, so their sizes are compared alone."""
    missing = _missing(files, found)
    early = [name for name in missing if Path(name).name not in LAST]
    late = sorted(set(missing) - set(early), key=lambda name: (-name.count("/"), name))
    with progress("upload", len(files), done=len(files) - len(missing)) as bar, ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(lambda name: upload(files[name], f"{url}/{name}"), early):
                bar.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # files that were not begun
            raise
        _check_alone(files, url, set(late), mark)
        for name in late:
            upload(files[name], f"{url}/{name}")
            bar.advance()


def _check_alone(files: Mapping[str, Path], url: str, late: Set[str], mark: bytes) -> None:
    """Checks, before the last files are uploaded, that the upload is still this one, and that all other files are there and none besides.

    Raises:
        MaskweaveError: another upload began at the same time, or files were added or removed.
    """
    found = find_files(url)
    if found.pop(UNFINISHED, None) is None or read(f"{url}/{UNFINISHED}") != mark:
        raise MaskweaveError(
            f"{url}: another upload to this URL has begun or ended; run the same command again when nothing else writes to it"
        )
    found.pop(MANIFEST, None)
    strange = sorted({*(found.keys() - files.keys()), *(set(_missing(files, found)) - late)})
    if strange:
        raise MaskweaveError(
            f"{url}: something else changed files during this upload ({strange[0]} and {len(strange) - 1} more); remove what is there, or choose another URL"
        )


@contextmanager
def staging(url: str) -> Iterator[Path]:
    """Yields a folder of this machine, the same for the same URL until it was uploaded; when the context ends well, it is copied to the URL and removed.
    The folder is locked.

    Raises:
        MaskweaveError: as `publish`; also at the beginning if the URL holds a complete set.
        Locked: another process copies to the same URL.
    """
    check_writable(url)
    found = find_files(url)
    if found and UNFINISHED not in found:
        found.pop(MANIFEST, None)
        raise MaskweaveError(f"{url}: already holds {len(found)} files; choose another URL, or remove them")
    outgoing = Cache.of_machine().folder / "outgoing"
    outgoing.mkdir(exist_ok=True)
    folder = outgoing / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    with lock(folder):
        yield folder
        publish(folder, url)
        for path in folder.iterdir():
            if path.name != LOCK:
                remove(path)
    with suppress(OSError):  # another process has just begun, or the lock has removed it
        folder.rmdir()


def check_finished(folder: Path) -> None:
    """Checks that a folder is a finished data set, token shards, a bundle or a run, with all its parts.

    Raises:
        MaskweaveError: it is none, or unfinished.
    """
    tokens = [path.parent for path in folder.rglob(INDEX) if (path.parent / "samples").is_dir()]
    if unfinished := [path for path in tokens if not (path / "samples" / STARTS).is_file()]:
        raise MaskweaveError(f"{unfinished[0]}: has unfinished token shards; run 'maskweave tokenize' to the end first")
    is_bundle = (folder / "modalities.yaml").is_file() and (folder / "model" / "config.json").is_file()
    is_data = (folder / RANGES).is_dir() and (folder / INDEX).is_file()
    if not (tokens or is_bundle or is_data):
        raise MaskweaveError(
            f"{folder}: found no finished data set, token shards, bundle or run; finish it first, or give another folder"
        )


def _files_of(folder: Path) -> dict[str, Path]:
    """Returns the files to copy by their path relative to the folder, without temporary files, locks and checkpoints."""
    check_finished(folder)
    is_run = (folder / "modalities.yaml").is_file()
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") and part != RANGES for part in inner.parts)
        in_tokenizer = inner.parts[0] == "tokenizers" and len(inner.parts) > 2
        own = inner.parts[2:] if in_tokenizer else inner.parts  # each tokenizer has a folder like a run's
        if path.is_file() and not hidden and not (is_run and own[0] in LEFT_OUT):
            found[inner.as_posix()] = path
    return found


def _manifest_of(files: Mapping[str, Path]) -> bytes:
    """Returns the size and SHA-256 of files by their name."""

    def facts(path: Path) -> list[int | str]:
        with open(path, "rb") as file:
            return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]

    found = {}
    with progress("checksums", len(files)) as bar, ThreadPoolExecutor(THREADS) as pool:
        for name, fact in zip(files, pool.map(facts, files.values()), strict=True):
            found[name] = fact
            bar.advance()
    return _encoded(found)


def _missing(files: Mapping[str, Path], found: Mapping[str, RemoteState]) -> list[str]:
    return [name for name, path in files.items() if name not in found or found[name].size != path.stat().st_size]


def _put(content: bytes, url: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "content"
        path.write_bytes(content)
        upload(path, url)


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=0, sort_keys=True).encode()
