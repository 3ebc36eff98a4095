"""Files at URLs: `s3://`, `gs://`, `hf://`, `http://` and what else fsspec (https://filesystem-spec.readthedocs.io) has a file system for.

Storage may fail for a while: every call is tried several times, with growing pauses, and what is read is checked against its size. Addresses,
credentials and timeouts are fsspec's own settings (`~/.config/fsspec/*.json`, environment variables such as `FSSPEC_S3_ENDPOINT_URL`).
"""

import errno
import json
import os
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from maskweave.errors import FullDisk, MaskweaveError, shown

T = TypeVar("T")

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
"""Seconds between attempts: each pause is twice as long as the one before, times a random factor from 0.5 to 1.5."""
THREADS = 16
"""Requests for sizes at the same time."""
STALL = 60.0
"""Seconds without an answer, or any byte of it, after which an HTTP request fails. A download may take longer in all."""
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII)
EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http", "gs": "gs", "gcs": "gs"}
"""Extra of this package that has the file system of a scheme."""
VERSION_KEYS = (
    "ETag",
    "etag",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "mtime",
    "updated",
    "created",
    "generation",
    "blob_id",
)
"""Keys of a file system's facts about a file that change with its content."""
CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
"""Names of the errors of botocore and google-auth for missing credentials."""
DENIED = (401, 403)
"""Answers of web servers that refuse access."""
READ_ONLY = ("http", "https", "hf")
"""Schemes that files are only read from."""
UNFINISHED = ".unfinished.json"
"""File in a folder at a URL whose upload has begun and not ended."""
MANIFEST = ".manifest.json"
"""File in an uploaded folder with the sizes and SHA-256 of the others."""
_random = random.Random()  # of its own: seeds of a run are not touched


class NoSuchFile(MaskweaveError):
    """There is no file at a URL."""


class RemoteState(NamedTuple):
    """What is known of a file at a URL."""

    size: int | None
    """Bytes; None if the server does not say."""
    version: str
    """Changes with the file's content, as far as the storage says."""
    url: str


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL."""
    return isinstance(place, str) and SCHEME.match(place) is not None


def is_web(url: str) -> bool:
    """Whether a URL is read over HTTP, where characters other than letters and digits are quoted, as `%20`."""
    return url.partition("://")[0] in ("http", "https")


def unquoted(name: str) -> str:
    """Returns the name of a file on this machine from that in a web address, without a query."""
    return unquote(re.split("[?#]", name)[0])


def state_of(url: str) -> RemoteState:
    """Returns the size and version of a file.

    Raises:
        NoSuchFile: there is no such file.
        MaskweaveError: the storage cannot be reached.
    """
    return _state(attempt(url, lambda: _info(url)), url)


def list_files(url: str) -> dict[str, RemoteState]:
    """Returns all files under a URL, by their path relative to it, sorted, without the manifest of an upload. A single file has the path "".

    Raises:
        MaskweaveError: there are none, the storage cannot be reached, or an upload to this URL has not ended.
    """
    files = find_files(url)
    if not files:
        raise MaskweaveError(f"{url}: no such file or folder; check the address")
    if any(name.rpartition("/")[2] == UNFINISHED for name in files):
        raise MaskweaveError(f"{url}: is not complete; run the command that uploads it again, until it has finished")
    files.pop(MANIFEST, None)
    unknown = [name for name, state in files.items() if state.size is None]  # HTTP lists have names only
    with ThreadPoolExecutor(THREADS) as pool:
        files.update(zip(unknown, pool.map(lambda name: state_of(files[name].url), unknown), strict=True))
    return files


def find_files(url: str) -> dict[str, RemoteState]:
    """Returns all files under a URL as `list_files` does, also those of an unfinished upload; empty if there are none. Some servers do not tell the sizes."""

    def find() -> dict[str, RemoteState]:
        fs, path = _open(url)
        fs.invalidate_cache()
        found = {name: facts for name, facts in fs.find(path, detail=True).items() if facts.get("type") != "directory"}
        files: dict[str, RemoteState] = {}
        for listed, facts in found.items():
            inner = listed.removeprefix(path.rstrip("/")).lstrip("/")
            if is_web(url):
                name = unquoted(inner)
                if inner and not name.rpartition("/")[2]:  # a query alone: the same list in another order
                    continue
                files[_checked(name, listed)] = _state(facts, listed)
            else:
                files[_checked(inner, listed)] = _state(facts, f"{url.rstrip('/')}/{inner}".rstrip("/"))
        return {name: files[name] for name in sorted(files)}

    return attempt(url, find)


def upload(source: Path, url: str) -> None:
    """Write a local file to a URL. It appears there when it is complete.

    Raises:
        MaskweaveError: the storage cannot be written, or not completely, in any attempt.
    """

    def put() -> None:
        fs, path = _open(url)
        fs.put_file(str(source), path)
        fs.invalidate_cache()
        found = fs.info(path)["size"]
        if found != source.stat().st_size:
            raise OSError(f"wrote {found:,} of {source.stat().st_size:,} bytes")

    attempt(url, put)


def read(url: str) -> bytes:
    """Returns the content of a small file.

    Raises:
        NoSuchFile: there is no such file.
        MaskweaveError: it cannot be read in any attempt.
    """

    def get() -> bytes:
        fs, path = _open(url)
        content: bytes = fs.cat_file(path)
        return content

    return attempt(url, get)


def delete(url: str) -> None:
    """Remove a file at a URL, if it is there."""

    def remove() -> None:
        fs, path = _open(url)
        fs.invalidate_cache()
        if fs.exists(path):
            fs.rm_file(path)

    attempt(url, remove)


def check_writable(url: str) -> None:
    """Raises:
    MaskweaveError: files at this URL can only be read.
    """
    scheme = url.partition("://")[0]
    if scheme in READ_ONLY:
        raise MaskweaveError(
            f"{url}: files at {scheme}:// can only be read; give a folder, or a URL such as s3://bucket/folder"
        )


def download(url: str, target: Path, size: int | None) -> None:
    """Write a whole file to `target`.

    Raises:
        MaskweaveError: it cannot be read, or not completely, in any attempt.
        FullDisk: no space is left.
    """

    def get() -> None:
        fs, path = _open(url)
        fs.get_file(path, str(target))
        found = target.stat().st_size
        if size is not None and found != size:
            raise OSError(f"read {found:,} of {size:,} bytes")

    attempt(url, get)


def attempt(url: str, call: Callable[[], T]) -> T:
    """Returns what a call to the storage returns, in one of several attempts.

    Raises:
        MaskweaveError: it fails in every attempt, or in a way that no attempt will change.
        FullDisk: no space is left on this machine.
    """
    pause, reason = FIRST_PAUSE, ""
    for number in range(ATTEMPTS):
        if number:
            time.sleep(pause * _random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)
        try:
            return call()
        except MaskweaveError:
            raise
        except Exception as error:  # each file system has its own kinds of errors
            cause = (
                error.__cause__ if isinstance(error, FileNotFoundError) else error
            )  # over HTTP, all is a missing file
            status = getattr(cause, "status", None)
            if isinstance(error, PermissionError) or type(error).__name__ in CREDENTIALS or status in DENIED:
                raise MaskweaveError(f"{url}: access is denied ({_reason(cause)}); check the credentials") from error
            if isinstance(error, FileNotFoundError) and not _is_passing(cause):
                raise NoSuchFile(f"{url}: no such file; check the address") from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FullDisk(
                    f"no space left while reading {url} into the cache; free some space, or set MASKWEAVE_CACHE to a folder with more"
                ) from error
            reason = _reason(cause)
    raise MaskweaveError(
        f"{url}: cannot be reached, in {ATTEMPTS} attempts ({reason}); check the network and the address, then run the same command again"
    )


def _open(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL and the path in it."""
    import fsspec

    scheme = url.partition("://")[0]
    if "::" in url or scheme in ("file", "local"):
        raise MaskweaveError(f"{url}: expected a plain URL such as s3://bucket/folder, or a path of this machine")
    try:
        options: dict[str, Any] = {}
        if is_web(url) and "client_kwargs" not in fsspec.config.conf.get(scheme, {}):
            import aiohttp

            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, connect=STALL, sock_read=STALL)}
        return fsspec.core.url_to_fs(url, **options)  # after a fork it makes a new one
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'maskweave[{extra}]'" if extra else "install the package that it names"
        raise MaskweaveError(f"{url}: {scheme}:// needs a package that is missing ({error}); {how}") from error
    except ValueError as error:
        raise MaskweaveError(f"{shown(url, 200)}: not a URL that can be read ({_reason(error)})") from error


def _info(url: str) -> dict[str, Any]:
    fs, path = _open(url)
    facts: dict[str, Any] = fs.info(path)
    if facts.get("type") == "directory":
        raise FileNotFoundError(url)
    return facts


def _state(facts: dict[str, Any], url: str) -> RemoteState:
    version = json.dumps([str(facts[key]) for key in VERSION_KEYS if facts.get(key) is not None])
    size = facts.get("size")
    return RemoteState(None if size is None else int(size), version, url)


def _is_passing(cause: BaseException | None) -> bool:
    """Whether a file is missing only because the server could not be asked: over HTTP, fsspec reports this as a missing file, too."""
    status = getattr(cause, "status", None)
    failed = isinstance(cause, (TimeoutError, ConnectionError)) or type(cause).__module__.startswith("aiohttp.")
    return failed and (status is None or status == 429 or status >= 500)


def _checked(name: str, listed: str) -> str:
    """Returns the path of a file relative to its folder.

    Raises:
        MaskweaveError: it leads out of the folder.
    """
    if {*name.split("/")} & {"..", "."} or PureWindowsPath(name).anchor or "\\" in name or "\0" in name:
        raise MaskweaveError(f"{listed}: leads out of its folder; rename it")
    return name


def _reason(error: BaseException | None) -> str:
    return shown(" ".join(f"{type(error).__name__}: {error}".split()), 300).strip("'\"")
