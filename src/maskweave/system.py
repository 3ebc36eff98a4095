"""What operating systems do differently: positioned reads, durable files, renames, locks of files, processes, memory.

Linux is what the tests run on. The ways of macOS and Windows are tested with replaced system calls; they were never run there by the maintainers.
"""

import contextlib
import ctypes
import functools
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WINDOWS = sys.platform == "win32"
PROC = Path("/proc")
LOCK_BYTE = 2**30
"""Where Windows locks a file: far behind its content, because a locked byte cannot be read."""
RETRIES, PAUSE = 20, 0.1
"""Windows refuses to rename what a virus scanner or an indexer has open for a moment."""
_seeking = threading.Lock()

# Files.


def open_descriptor(path: str | os.PathLike[str], flags: int, mode: int = 0o644) -> int:
    """Opens a file for bytes and returns its descriptor, which processes started later do not inherit."""
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), mode)


def read_at(file: int, size: int, offset: int) -> bytes:
    """Returns bytes of an open file; fewer if it ends before."""
    if hasattr(os, "pread"):
        return os.pread(file, size, offset)
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, size)


def read_into(file: int, content: memoryview, offset: int) -> int:
    """Fills `content` with bytes of an open file. Returns their number, which is smaller if the file ends before."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [content], offset)
    found = read_at(file, len(content), offset)
    content[: len(found)] = found
    return len(found)


def write_at(file: int, content: bytes, offset: int) -> None:
    if hasattr(os, "pwrite"):
        os.pwrite(file, content, offset)
        return
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        os.write(file, content)


def expect_scattered_reads(file: int) -> None:
    """Keeps the kernel from reading far around each part of an open file that is read."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)


def reserve(path: Path) -> None:
    """Takes disk space for all bytes of a file, where the system can: without it, a write to a memory map of a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def make_file_durable(path: Path) -> None:
    """Writes a file's bytes to the disk. Windows does so only for files that are open for writing."""
    if not WINDOWS:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(PermissionError), open(path, "r+b") as file:  # a read-only file was there before
        os.fsync(file.fileno())


def rename(source: Path, target: Path) -> None:
    """Renames a file or folder; a file replaces a file."""
    for _ in range(RETRIES if WINDOWS else 0):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(PAUSE)
    os.replace(source, target)


def used_bytes(path: Path) -> int:
    """Returns the bytes that a file takes on the disk; on Windows its size."""
    status = path.stat()
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def lock_file(file: IO[bytes], shared: bool = False, wait: bool = True) -> bool:
    """Locks an open file between processes. Returns whether it could be had. It lasts until the file is closed.

    Args:
        shared: several processes may have a shared lock, and then no process the other kind.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
    take = functools.partial(_windows_lock, file, shared)
    while not (held := take()) and wait:
        time.sleep(PAUSE)
    return held


def unlock_file(file: IO[bytes]) -> None:
    """Releases an exclusive lock. Closing the file releases any lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)
        return
    msvcrt: Any = __import__("msvcrt")
    file.seek(LOCK_BYTE)
    msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, SHARES)


SHARES = 64
"""Processes that may share a lock on Windows, which locks bytes: one byte is a share, all of them are an exclusive lock."""


def _windows_lock(file: IO[bytes], shared: bool) -> bool:
    msvcrt: Any = __import__("msvcrt")
    for offset, size in [(LOCK_BYTE + i, 1) for i in range(SHARES)] if shared else [(LOCK_BYTE, SHARES)]:
        file.seek(offset)
        with contextlib.suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, size)
            return True
    return False


# Processes.


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine. (On Windows, `os.kill(process, 0)` would end it.)"""
    if WINDOWS:
        return bool(_of_windows_process(process, _has_not_ended))
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    # One that has ended, but whose parent has not asked for its result, still has its number.
    return _state_and_start(process)[0][:1] not in ("Z", "X")


def start_of(process: int) -> int:
    """Returns a number that differs between two processes that have the same number one after the other; 0 if the system does not say."""
    if process == os.getpid():
        return _own_start(process)
    return _start_of(process)


def _start_of(process: int) -> int:
    if WINDOWS:
        return _of_windows_process(process, _creation_time) or 0
    return _state_and_start(process)[1]


@functools.cache
def _own_start(process: int) -> int:
    return _start_of(process)


def _state_and_start(process: int) -> tuple[str, int]:
    """Returns the state, a letter first, and a number for the start: clock ticks since the boot from /proc, or of what `ps` says, as on macOS."""
    with contextlib.suppress(OSError):
        words = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return words[0], int(words[19])
    if (PROC / "self").exists():
        return "", 0
    try:
        command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(process)]
        found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    except OSError:
        return "", 0
    state, _, start = found.strip().partition(" ")
    return state, zlib.crc32(start.strip().encode()) if start else 0


QUERY, STILL_ACTIVE = 0x1000, 259
"""Of the Windows API: PROCESS_QUERY_LIMITED_INFORMATION, and the exit code of a process that has not ended."""


def _of_windows_process(process: int, ask: Callable[[Any, Any], int]) -> int | None:
    """Returns what a function says of a process, given the API and a handle; None if there is no such process."""
    kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(QUERY, False, process)
    if not handle:
        return None
    try:
        return ask(kernel, ctypes.c_void_p(handle))
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))


def _has_not_ended(kernel: Any, handle: Any) -> bool:
    code = ctypes.c_ulong()
    return bool(kernel.GetExitCodeProcess(handle, ctypes.byref(code))) and code.value == STILL_ACTIVE


def _creation_time(kernel: Any, handle: Any) -> int:
    created, *others = (ctypes.c_ulonglong() for _ in range(4))
    known = kernel.GetProcessTimes(handle, ctypes.byref(created), *(ctypes.byref(one) for one in others))
    return int(created.value) if known else 0


def peak_memory() -> int:
    """Returns the most bytes of main memory that this process has used; 0 on Windows, where it is not measured."""
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # the unit differs
