"""Locks of folders that commands write to: run folders, data sets, indexes.

A lock is the file FOLDER/.lock, JSON with the host, the process, a random id and a counter that the owner raises every few seconds.
A process of this machine holds its lock for as long as it lives. A process of another machine, on a shared folder, holds it for as long as the counter
moves; no clock is read, because clocks differ and jump. A lock whose owner is gone is taken over.
"""

import contextlib
import functools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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


def started(process: int) -> int:
    """Returns when a process started, in clock ticks since the boot of the machine; 0 if the system does not say."""
    words = _status(process)
    return int(words[19]) if len(words) > 19 and words[19].isdecimal() else 0


def _status(process: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on."""
    return _read_text(f"/proc/{process}/stat").rpartition(")")[2].split()


def is_alive(process: int, start: int) -> bool:
    """Whether a process of this machine still runs. A process of the same number that started at another time is another one."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    if _status(process)[:1] in (["Z"], ["X"]):  # it has ended, but its parent has not asked for its result
        return False
    now = started(process)
    return not start or not now or now == start


@dataclass
class _Owner:
    """What a lock file says about its owner."""

    host: str = ""
    machine: str = ""
    process: int = 0
    start: int = 0
    id: str = ""
    command: str = ""
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.command})" if self.process else "an unknown process"

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
    texts = (owner.host, owner.machine, owner.id, owner.command)
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
    times: int = 1
    """How often the thread that holds it has asked for it."""
    lost_to: str = ""
    """Who took it over, because this process did not beat for long."""
    ended: threading.Event = field(default_factory=threading.Event)

    def beat(self) -> None:
        while not self.ended.wait(BEAT):
            self.owner.beat += 1
            with contextlib.suppress(OSError):
                # In place and in this file only: a lock that was taken over is another file.
                os.pwrite(self.file, self.owner.content(), 0)
                os.fsync(self.file)
                now = _owner_in(self.path)
                if now is None or now.id != self.owner.id:
                    self.lost_to = str(now or "a process that has ended")


_held: dict[Path, _Held] = {}
_guard = threading.Lock()
_gone: set[tuple[Path, str]] = set()
"""Folders and the machines of owners whose locks of them this process took over."""


def is_gone(folder: Path, machine: str) -> bool:
    """Whether this process took over the lock of a folder, or of one around it, from a machine."""
    real = Path(os.path.realpath(folder))
    return any(real.is_relative_to(locked) and machine == other for locked, other in _gone)


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
                raise Locked(_message(folder, held.owner))
            held.times += 1
    if held is not None and held.owner.process == os.getpid():
        try:
            yield
        finally:
            held.times -= 1
        return
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _acquire(folder, path)
        try:
            _check_others(folder, part)
        except BaseException:
            _release(held)
            raise
    except OSError as error:
        raise MaskweaveError(
            f"{shown(str(folder), 200)}: cannot be written to ({error.strerror}); check the path and its permissions, or choose another folder"
        ) from error
    with _guard:
        _held[path] = held
    threading.Thread(target=held.beat, daemon=True, name=f"lock of {folder}").start()
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


def _check_others(folder: Path, part: JobPart) -> None:
    """Checks that nobody is at work whose lock has another name: a part keeps away those who do not work in parts, or in another number of them."""
    for path in (folder / NAME, *sorted(folder.glob(f"{PART}*-of-*"))):
        same_job = path.name.endswith(f"-of-{part.count}") or (path.name == NAME and part.count < 2)
        if not same_job and (owner := _owner_in(path)) is not None:
            if _is_active(folder, path, owner):
                raise Locked(_message(folder, owner))
            _take_away(folder, path, owner)


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
    command = " ".join(_read_text("/proc/self/cmdline").replace("\0", " ").split())[-100:]
    while True:
        owner = _Owner(
            socket.gethostname(), machine(), os.getpid(), started(os.getpid()), secrets.token_hex(8), command
        )
        if (file := _create(path, owner)) is not None:
            return _Held(path, owner, file)
        found = _owner_in(path)
        if found is None:
            continue
        if _is_active(folder, path, found):
            raise Locked(_message(folder, found))
        _take_away(folder, path, found)


def _message(folder: Path, owner: _Owner) -> str:
    how = f"; if you are sure that it has ended, remove {folder / NAME}" if owner.machine != machine() else ""
    return f"{folder}: {owner} is writing to this folder; wait until it has ended, or choose another folder{how}"


def _is_active(folder: Path, path: Path, owner: _Owner) -> bool:
    """Whether the owner of a lock is still at work."""
    if owner.machine == machine():
        return is_alive(owner.process, owner.start)
    print(f"{folder}: locked by {owner}; waiting up to {BEAT * BEATS_WAITED:.0f} s to see whether it still runs")
    for _ in range(BEATS_WAITED * 2):
        time.sleep(BEAT / 2)
        now = _owner_in(path)
        if now is None or now.id != owner.id:
            return False  # it has ended, or someone else has it: `_take_away` looks again
        if now.beat != owner.beat:
            return True
    return False


def _take_away(folder: Path, path: Path, owner: _Owner) -> None:
    """Removes the lock of an owner that is gone. Of several processes that try, one does it: the one that gets the lock named after the owner's."""
    guard_path = path.with_name(f"{NAME}.{owner.id}")
    guard = _acquire(folder, guard_path)
    try:
        now = _owner_in(path)
        if now is not None and now.id == owner.id:
            path.unlink(missing_ok=True)
            _gone.add((folder, owner.machine))
    finally:
        _release(guard)


def _release(held: _Held) -> None:
    held.ended.set()
    with contextlib.suppress(OSError):
        now = _owner_in(held.path)
        if now is not None and now.id == held.owner.id:
            held.path.unlink(missing_ok=True)
    os.close(held.file)


def _create(path: Path, owner: _Owner) -> int | None:
    """Creates a lock file with its content in one step, or returns None if there is one."""
    aside = path.with_name(f"{path.name[:100]}.{secrets.token_hex(8)}.new")
    file = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
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
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            except FileExistsError:
                return None
            os.write(file, owner.content())
        return file
    finally:
        aside.unlink(missing_ok=True)
