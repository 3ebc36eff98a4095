"""Locks of folders that commands write to: run folders, data sets, indexes.

A lock is the file FOLDER/.lock, JSON with the host, the process, a random id and a counter that the owner raises every few seconds.
A process of this machine holds its lock for as long as it lives. A process of another machine, on a shared folder, holds it for as long as the counter
moves; no clock decides, because clocks differ and jump. A lock whose owner is gone is taken over.
"""

import contextlib
import functools
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from maskweave import system
from maskweave.errors import MaskweaveError, shown
from maskweave.ranks import WHOLE, JobPart

NAME = ".lock"
PART = ".lock-part-"
"""Start of the name of the lock of a part, `.lock-part-0-of-8`."""
BEAT = 5.0
"""Seconds between two beats of an owner."""
BEATS_WAITED = 6
"""Beats without a change after which the owner on another machine counts as gone."""
READ_TRIES = 5
"""Reads of a lock file that is empty: its owner may be about to write it, on file systems without hard links."""


class Locked(MaskweaveError):
    """Another process is writing to the folder."""


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


@functools.cache
def machine() -> str:
    """Returns a name for everything that sees the same processes: the host, its boot and its process namespace."""
    boot = _read_text("/proc/sys/kernel/random/boot_id").strip()[:8]
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c == "-")[:24] or "host"
    return "-".join(filter(None, [host, boot, namespace]))


def is_alive(process: int, start: int) -> bool:
    """Whether a process of this machine still runs. A process of the same number that started at another time is another one."""
    if not system.is_running(process):
        return False
    now = system.start_of(process)
    return not start or not now or now == start


class Writer(NamedTuple):
    """The process that uses a temporary file or folder, which names it."""

    machine: str
    process: int
    start: int

    def is_here(self) -> bool:
        """Whether it is a process of this machine, of which `is_alive` knows."""
        return self.machine == machine()


def signed(name: str) -> str:
    """Returns a new name that starts with `name` and says that this process uses it."""
    return f"{name}.{machine()}.{os.getpid()}.{system.start_of(os.getpid())}.{secrets.token_hex(4)}"


def split_signed(name: str) -> tuple[str, Writer] | None:
    """Returns what `signed` put together, or None if it did not make this name."""
    words = name.rsplit(".", 4)
    if len(words) != 5 or not (words[2].isdecimal() and words[3].isdecimal()):
        return None
    return words[0], Writer(words[1], int(words[2]), int(words[3]))


@dataclass
class _Owner:
    """What a lock file says about its owner."""

    host: str = ""
    machine: str = ""
    process: int = 0
    start: int = 0
    id: str = ""
    command: str = ""
    since: str = ""
    """When it took the lock, by its own clock: for people, nothing depends on it."""
    beat: int = 0

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return (
            f"process {self.process} on {self.host}{since} ({self.command})" if self.process else "an unknown process"
        )

    def content(self) -> bytes:
        """The lock file: a fixed number of digits, so that a beat overwrites the old one in place."""
        return json.dumps({**self.__dict__, "beat": f"{self.beat:012d}"}).encode() + b"\n"


def _owner_in(path: Path) -> _Owner | None:
    """Returns the owner that a lock file names, or None if there is no file. One that cannot be understood has an owner without process."""
    for _ in range(READ_TRIES):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if content:
            break
        time.sleep(BEAT / 50)
    try:
        found = json.loads(content)
        owner = _Owner(**{**found, "beat": int(found["beat"])})
    except (ValueError, TypeError, KeyError):
        return _Owner(id=content.hex()[:16] or "empty")
    texts = (owner.host, owner.machine, owner.id, owner.command, owner.since)
    valid = all(isinstance(text, str) for text in texts) and owner.id.isalnum()
    numbers = all(isinstance(number, int) and number >= 0 for number in (owner.process, owner.start))
    return owner if valid and numbers else _Owner(id=content.hex()[:16])


@dataclass
class _Held:
    """A lock of this process."""

    path: Path
    owner: _Owner
    file: int
    thread: int = field(default_factory=threading.get_ident)
    lost_to: str = ""
    """Who took it over, because this process did not beat for long."""
    ended: threading.Event = field(default_factory=threading.Event)
    beating: threading.Thread | None = None

    def start_to_beat(self) -> None:
        self.beating = threading.Thread(target=self.beat, daemon=True, name=f"lock {self.path}")
        self.beating.start()

    def beat(self) -> None:
        while not self.ended.wait(BEAT):
            self.owner.beat += 1
            with contextlib.suppress(OSError):
                # In place and in this file only: a lock that was taken over is another file.
                system.write_at(self.file, self.owner.content(), 0)
                os.fsync(self.file)
                now = _owner_in(self.path)
                if now is None or now.id != self.owner.id:
                    self.lost_to = str(now or "a process that has ended")


_held: dict[Path, _Held] = {}
_guard = threading.Lock()
_gone: set[tuple[Path, str]] = set()
"""Folders and the machines of owners whose locks of them this process took over."""


def is_gone(folder: Path, machine: str) -> bool:
    """Whether no process of a machine writes to a folder any more: this process took over a lock of the folder, or of one around it, from the machine,
    and no lock there names the machine now, as that of another part would."""
    real = Path(os.path.realpath(folder))
    around = [locked for locked, other in _gone if machine == other and real.is_relative_to(locked)]
    if not around:
        return False
    folders = [real, *real.parents]
    between = folders[: folders.index(min(around, key=lambda locked: len(locked.parts))) + 1]
    return all(owner.machine != machine for place in between for owner in _owners(_locks_in(place)).values())


@contextlib.contextmanager
def lock(folder: str | os.PathLike[str], part: JobPart = WHOLE) -> Iterator[None]:
    """Context in which no other process, and no other thread of this one, is in a context of the same folder.

    A thread may enter it repeatedly. The folder is made if it is missing, and removed again if it stays empty.

    Args:
        part: of a job; other parts of the same job may be in the context at the same time.

    Raises:
        Locked: another process holds the folder; the message names it.
        MaskweaveError: the folder cannot be written to.
    """
    folder = Path(os.path.realpath(folder))
    path = folder / (NAME if part.count < 2 else f"{PART}{part.index}-of-{part.count}")
    with _guard:
        held = _held.get(path)
    if held is not None and held.owner.process == os.getpid():
        if held.thread != threading.get_ident():
            raise Locked(_message(folder, path, held.owner))
        yield
        return
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder, [path, *_others(folder, part)])
        held = _acquire(folder, path)
        try:
            held.start_to_beat()
            # Again: of two that come at the same time, one at least sees the other's lock.
            _clear(folder, _others(folder, part))
        except BaseException:
            _release(held)
            raise
    except OSError as error:
        raise MaskweaveError(
            f"{shown(str(folder), 200)}: cannot be written to ({error.strerror}); check the path and its permissions, or choose another folder"
        ) from error
    with _guard:
        _held[path] = held
    try:
        yield
    finally:
        if held.owner.process == os.getpid():  # not in a fork
            with _guard:
                _held.pop(path, None)
            _release(held)
            for parent in made:
                with contextlib.suppress(OSError):  # not empty: the usual case
                    parent.rmdir()


def _locks_in(folder: Path) -> list[Path]:
    parts = [path for path in folder.glob(f"{PART}*") if re.fullmatch(r"\d+-of-\d+", path.name.removeprefix(PART))]
    return [folder / NAME, *sorted(parts)]


def _others(folder: Path, part: JobPart) -> list[Path]:
    """Returns the locks of those that a part keeps away: who works on the whole, or on parts of another number."""
    own = NAME if part.count < 2 else f"-of-{part.count}"
    return [path for path in _locks_in(folder) if not path.name.endswith(own)]


def check_held(path: Path) -> None:
    """Checks, before something is renamed to `path`, that no lock of a folder around it was lost.

    A process that was stopped for long, such as on a laptop that slept, may find that another one has taken over.

    Raises:
        Locked: a lock was lost; the message names the new owner.
    """
    if not _held:
        return
    real = Path(os.path.realpath(path))
    for held in list(_held.values()):
        if held.lost_to and real.is_relative_to(held.path.parent):
            raise Locked(f"{held.path.parent}: {held.lost_to} took this folder over while this process was stopped")


def _acquire(folder: Path, path: Path) -> _Held:
    command = " ".join([Path(sys.executable).name, *sys.argv])[-100:]
    process, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M %z")
    owner = _Owner(
        socket.gethostname(), machine(), process, system.start_of(process), secrets.token_hex(8), command, since
    )
    while (file := _create(path, owner)) is None:
        _clear(folder, [path])
    return _Held(path, owner, file)


def _message(folder: Path, path: Path, owner: _Owner) -> str:
    how = f"; if you are sure that it has ended, remove {path}" if owner.machine != machine() else ""
    return f"{folder}: {owner} is writing to this folder; wait until it has ended, or choose another folder{how}"


def _owners(paths: Iterable[Path]) -> dict[Path, _Owner]:
    """Returns the owners that lock files name, without files that are not there."""
    return {path: owner for path in paths if (owner := _owner_in(path)) is not None}


def _clear(folder: Path, paths: list[Path]) -> None:
    """Removes those locks whose owners are gone.

    Raises:
        Locked: the owner of one of them is at work.
    """
    while owners := _owners(paths):
        _check_inactive(folder, owners)
        for path, owner in owners.items():
            _take_away(folder, path, owner)


def _check_inactive(folder: Path, owners: dict[Path, _Owner]) -> None:
    """Raises Locked if the owner of a lock is at work. Locks of other machines are watched together, until each has changed or stood still for long enough."""
    for path, owner in owners.items():
        if owner.machine == machine() and is_alive(owner.process, owner.start):
            raise Locked(_message(folder, path, owner))
    watched = {path: owner for path, owner in owners.items() if owner.machine != machine()}
    if not watched:
        return
    more = f" and {len(watched) - 1} more" if len(watched) > 1 else ""
    print(
        f"{folder}: locked by {next(iter(watched.values()))}{more}; waiting up to {BEAT * BEATS_WAITED:.0f} s to see whether {'they still run' if more else 'it still runs'}"
    )
    for _ in range(BEATS_WAITED * 2):
        time.sleep(BEAT / 2)
        for path, owner in list(watched.items()):
            now = _owner_in(path)
            if now is None or now.id != owner.id:
                del watched[path]  # it has ended, or someone else has it: `_clear` looks again
            elif now.beat != owner.beat:
                raise Locked(_message(folder, path, owner))
        if not watched:
            return


def _take_away(folder: Path, path: Path, owner: _Owner) -> None:
    """Removes the lock of an owner that is gone. Of several processes that try, one does it: the one that gets the lock named after the owner's. The
    others wait until it is done.

    Raises:
        Locked: it is not done after as long as a silent owner is waited for.
    """
    waits = 0
    while (now := _owner_in(path)) is not None and now.id == owner.id:
        try:
            guard = _acquire(folder, path.with_name(f"{NAME}.{owner.id}"))
        except Locked:
            if (waits := waits + 1) > 50 * BEATS_WAITED:
                raise
            time.sleep(BEAT / 50)
            continue
        try:
            now = _owner_in(path)
            if now is not None and now.id == owner.id:
                path.unlink(missing_ok=True)
                _gone.add((folder, owner.machine))
        finally:
            _release(guard)


def _release(held: _Held) -> None:
    held.ended.set()
    if held.beating is not None and held.beating.is_alive():
        held.beating.join()  # it must not write to a closed file, whose number may be another file's by then
    with contextlib.suppress(OSError):
        now = _owner_in(held.path)
        os.close(held.file)  # first: Windows does not remove a file that is open
        if now is not None and now.id == held.owner.id:
            held.path.unlink(missing_ok=True)


def _create(path: Path, owner: _Owner) -> int | None:
    """Creates a lock file with its content in one step, or returns None if there is one."""
    if system.WINDOWS:  # a file that is open can get no second name there and lose the first
        return _create_empty(path, owner)
    aside = path.with_name(f"{signed(path.name)}.partial")  # `files.sweep` removes it if this process is killed here
    file = system.open_descriptor(aside, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    try:
        os.write(file, owner.content())
        os.fsync(file)
        try:
            os.link(aside, path)
        except FileExistsError:
            if os.fstat(file).st_nlink == 2:  # a network file system answered twice
                return file
            os.close(file)
            return None
        except OSError:  # a file system without hard links
            os.close(file)
            return _create_empty(path, owner)
        return file
    finally:
        aside.unlink(missing_ok=True)


def _create_empty(path: Path, owner: _Owner) -> int | None:
    """Creates a lock file, which is empty for an instant."""
    try:
        file = system.open_descriptor(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    except FileExistsError:
        return None
    os.write(file, owner.content())
    return file
