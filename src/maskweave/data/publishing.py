"""Copies of finished local folders at URLs: data sets, token shards, bundles and runs.

Storage of objects cannot rename a folder, so a copy is made visible in this order: a file that says that the upload has begun, all other files, those
without which nothing opens, and last the first file is removed. A copy that is not complete is refused by whoever opens it; the same command resumes it.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from maskweave.data.cache import Cache
from maskweave.data.remote import UNFINISHED, RemoteState, check_writable, delete, find_files, upload
from maskweave.data.shards import INDEX, RANGES
from maskweave.data.token_store import STARTS
from maskweave.errors import MaskweaveError
from maskweave.files import remove
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
        MaskweaveError: the folder is not finished, the URL holds other files, or the storage cannot be written.
    """
    url = url.rstrip("/")
    check_writable(url)
    files = _files_of(folder)
    found = find_files(url)
    has_begun = found.pop(UNFINISHED, None) is not None
    others = sorted(found.keys() - files.keys())
    missing = [name for name, path in files.items() if not _is_same(path, found.get(name))]
    if found and not has_begun and (others or missing):
        raise MaskweaveError(
            f"{url}: already holds {len(found)} files, which differ from {folder}; choose another URL, or remove them"
        )
    if others:
        raise MaskweaveError(
            f"{url}: holds an unfinished upload of another folder ({others[0]} and {len(others) - 1} more); remove it, or choose another URL"
        )
    if not missing and not has_begun:
        return len(files)
    with tempfile.TemporaryDirectory() as temporary:
        mark = Path(temporary) / "mark"
        mark.write_text(json.dumps({"files": len(files)}))
        upload(mark, f"{url}/{UNFINISHED}")
    early = [name for name in missing if Path(name).name not in LAST]
    late = sorted(set(missing) - set(early), key=lambda name: (-name.count("/"), name))
    with progress("upload", len(files), done=len(files) - len(missing)) as bar, ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(lambda name: upload(files[name], f"{url}/{name}"), early):
                bar.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # files that were not begun
            raise
        for name in late:
            upload(files[name], f"{url}/{name}")
            bar.advance()
    delete(f"{url}/{UNFINISHED}")
    return len(files)


@contextmanager
def staging(url: str) -> Iterator[Path]:
    """Yields a folder of this machine, the same for the same URL until it was uploaded; when the context ends well, it is copied to the URL and removed.

    Raises:
        MaskweaveError: as `publish`; also at the beginning if the URL holds a complete set.
    """
    check_writable(url)
    found = find_files(url)
    if found and UNFINISHED not in found:
        raise MaskweaveError(f"{url}: already holds {len(found)} files; choose another URL, or remove them")
    folder = Cache.of_machine().folder / "outgoing" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    yield folder
    publish(folder, url)
    remove(folder)


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
        own = (
            inner.parts[2:] if inner.parts[0] == "tokenizers" else inner.parts
        )  # each tokenizer has a folder like a run's
        if path.is_file() and not hidden and not (is_run and own[0] in LEFT_OUT):
            found[inner.as_posix()] = path
    return found


def _is_same(path: Path, state: RemoteState | None) -> bool:
    """Whether a file was uploaded: its size, and its MD5, which storage has as the tag of files that came in one piece. Others are uploaded again."""
    if state is None or state.size != path.stat().st_size:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() in state.version
