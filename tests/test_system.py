"""The ways of macOS and Windows, with system calls that are replaced: none of them ran on such a machine."""

import ctypes
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskweave import locks, system
from maskweave.data.cache import locked
from maskweave.data.columns import RowFile
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.locks import Locked, lock
from maskweave.training.distributed import local_device
from maskweave.training.metrics import Meter


class Msvcrt(types.ModuleType):
    """Locks of bytes as on Windows, between descriptors."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.taken: dict[tuple[int, int], int] = {}
        """Descriptor by file and byte."""

    def locking(self, file: int, mode: int, size: int) -> None:
        start = os.lseek(file, 0, os.SEEK_CUR)
        places = [(os.fstat(file).st_ino, start + i) for i in range(size)]
        if mode == self.LK_UNLCK:
            assert all(self.taken.pop(place) == file for place in places)
        elif any(place in self.taken for place in places):
            raise PermissionError(13, "Permission denied")
        else:
            self.taken |= dict.fromkeys(places, file)


class Api:
    """The calls of the Windows API that are used. Process 7 runs, 8 has ended, there are no others."""

    def __init__(self) -> None:
        self.opened = 0
        self.OpenProcess = lambda rights, inherit, process: self.open(process)
        self.OpenProcess.restype = None  # type: ignore[attr-defined]

    def open(self, process: int) -> int:
        self.opened += process in (7, 8)
        return process if process in (7, 8) else 0

    def CloseHandle(self, handle: Any) -> None:
        self.opened -= 1

    def GetExitCodeProcess(self, handle: Any, code: Any) -> int:
        code._obj.value = 259 if handle.value == 7 else 3
        return 1

    def GetProcessTimes(self, handle: Any, created: Any, *others: Any) -> int:
        created._obj.value = 10**17 + handle.value
        return 1


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """What is missing there is missing, and its own ways are there."""
    api = Api()
    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=api), raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system, "fcntl", None)
    monkeypatch.setattr(system, "resource", None)
    monkeypatch.setattr(system, "PAUSE", 0.001)
    for name in ("pread", "preadv", "pwrite", "posix_fadvise", "posix_fallocate", "link", "O_CLOEXEC"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill ends processes on Windows"))
    system._own_start.cache_clear()
    yield api
    system._own_start.cache_clear()
    assert api.opened == 0


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "PROC", Path("/nowhere"))
    monkeypatch.delattr(os, "preadv")


def test_positioned_reads_and_writes(windows: Api, tmp_path: Path) -> None:
    path = tmp_path / "a file with bytes"
    path.write_bytes(b"0123456789")
    file = system.open_descriptor(path, os.O_RDWR)
    system.write_at(file, b"xy", 3)
    assert system.read_at(file, 4, 2) == b"2xy5" and system.read_at(file, 9, 8) == b"89"
    content = bytearray(5)
    assert (system.read_into(file, memoryview(content), 7), content) == (3, b"789\0\0")
    os.close(file)
    assert system.peak_memory() == 0


def test_space_is_reserved_only_where_the_system_can(windows: Api, tmp_path: Path) -> None:
    path = tmp_path / "a map"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(7,))
    system.reserve(path)
    array[:] = 5
    array.flush()
    assert np.load(path).tolist() == [5] * 7


@pytest.mark.parametrize(("platform", "most"), [("linux", 7168), ("darwin", 7)])
def test_the_unit_of_memory_differs(platform: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: types.SimpleNamespace(ru_maxrss=7))
    monkeypatch.setattr(system, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert system.peak_memory() == most


@pytest.mark.parametrize("where", ["windows", "mac"])
def test_rows_are_read_and_files_that_are_too_short_are_named(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(where)
    rows = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    path = tmp_path / "rows"
    path.write_bytes(b"head" + rows.tobytes())
    file = pickle.loads(pickle.dumps(RowFile(path, 4, rows.shape, rows.dtype)))  # as in a worker that is not forked
    out = np.empty((2, 4), np.float32)
    file.read(out, np.array([5, 0]))
    assert (out == rows.reshape(-1, 4)[[5, 0]]).all()
    with pytest.raises(MaskweaveError, match="ends before row 6"):
        file.read(out, np.array([0, 6]))


def test_files_become_durable_and_are_renamed_although_a_scanner_has_them_open(
    windows: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, refusals, fsync, replace = [], [PermissionError(13, "in use")] * 3, os.fsync, os.replace

    def note(file: int) -> None:
        modes.append(os.get_blocking(file) and (__import__("fcntl").fcntl(file, 3) & os.O_ACCMODE))
        fsync(file)

    def refuse(*names: Any) -> None:
        if refusals:
            raise refusals.pop()
        replace(*names)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", refuse)
    with write_aside(tmp_path / "a földer" / "file") as aside:
        aside.write_text("content", encoding="utf-8")
    assert (tmp_path / "a földer" / "file").read_text(encoding="utf-8") == "content" and not refusals
    assert modes[0] == os.O_RDWR, "Windows cannot make a file durable that is open for reading only"


def test_locks_of_files(windows: Api, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as held, locked(path, wait=False) as second:
        assert held and not second
    with open(path, "ab") as first, open(path, "ab") as other:
        assert system.lock_file(first, shared=True) and system.lock_file(other, shared=True)
        with locked(path, wait=False) as third:
            assert not third, "shared locks keep away the other kind"


def test_processes(windows: Api) -> None:
    assert [system.is_running(n) for n in (7, 8, 9)] == [True, False, False]
    assert [system.start_of(n) for n in (7, 9)] == [10**17 + 7, 0]
    assert locks.is_alive(7, 10**17 + 7) and not locks.is_alive(7, 5) and not locks.is_alive(8, 0)


def test_a_folder_is_locked(windows: Api, tmp_path: Path) -> None:
    with lock(tmp_path / "run"):
        content = (tmp_path / "run" / locks.NAME).read_bytes()
    assert not (tmp_path / "run").exists()
    own = f'"process": {os.getpid()}'.encode()
    assert own in content
    (tmp_path / locks.NAME).write_bytes(content.replace(own, b'"process": 8').replace(b'"id": "', b'"id": "a'))
    with lock(tmp_path):  # its owner has ended
        pass
    (tmp_path / locks.NAME).write_bytes(content.replace(own, b'"process": 7').replace(b'"id": "', b'"id": "b'))
    with pytest.raises(Locked, match="process 7 on"), lock(tmp_path):
        pass


def test_processes_without_proc(mac: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = {}

    def ps(words: list[str], **_: Any) -> Any:
        assert words[:5] == ["ps", "-o", "stat=", "-o", "lstart="]
        return types.SimpleNamespace(stdout=says.get(int(words[-1]), ""))

    monkeypatch.setattr(subprocess, "run", ps)
    parent = os.getppid()
    says[parent] = "Ss   Fri Nov 27 10:19:01 2026\n"
    start = system.start_of(parent)
    assert start and locks.is_alive(parent, start) and not locks.is_alive(parent, start + 1)
    says[parent] = "Z+   Fri Nov 27 10:19:01 2026\n"
    assert not locks.is_alive(parent, start)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("ps")))
    assert system.start_of(parent) == 0 and locks.is_alive(parent, start), "better taken for alive than robbed"


def test_the_gpu_of_a_mac_is_used_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(MaskweaveError, match="device is mps, but torch finds no GPU of a Mac"):
        local_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert local_device("mps") == torch.device("mps")


def test_sums_on_the_gpu_of_a_mac_need_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskweave.training import metrics

    assert metrics.sums_dtype(torch.device("mps")) == torch.float32
    assert metrics.sums_dtype(torch.device("cpu")) == torch.float64
    monkeypatch.setattr(metrics, "sums_dtype", lambda device: torch.float32)
    meter = Meter()
    meter.add({"loss": torch.tensor(2.0)})
    meter.add({"loss": torch.tensor(4.0)})
    assert meter.state() == [{"names": ["loss"], "sums": [6.0], "weights": [2.0]}]


@pytest.mark.slow
def test_everything_is_imported_where_unix_modules_are_missing() -> None:
    code = (
        "import sys, pkgutil, importlib, maskweave\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "for m in pkgutil.walk_packages(maskweave.__path__, 'maskweave.'):\n"
        "    if m.name != 'maskweave.__main__': importlib.import_module(m.name)\n"
        "print(len(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0 and int(found.stdout) > 300, found.stderr


SPAWNED = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from maskweave.cli.main import main
    sys.exit(main(["run", "tiny.yaml", "--out", "runs/my Läufe", "--data.workers", "1", "--train.workers", "1", "--train.steps", "3"]))
"""


@pytest.mark.slow
def test_a_run_whose_workers_are_spawned(tiny_recipe: Path, tmp_path: Path) -> None:
    """Worker processes are forked on Linux only. The folder has a space and a letter of another language."""
    folder = tmp_path / "with späce s"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(tiny_recipe.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "run.py").write_text(SPAWNED, encoding="utf-8")
    found = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert (folder / "runs" / "my Läufe" / "report.html").is_file()


def test_a_rename_is_tried_20_times_and_once_more(
    windows: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    replace, tries, waits = os.replace, [0], []

    def refuse(*names: Any) -> None:
        tries[0] += 1
        if tries[0] <= refusals:
            raise PermissionError(13, "in use")
        replace(*names)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(system.time, "sleep", waits.append)
    refusals = 21
    with pytest.raises(PermissionError):
        system.rename(tmp_path / "a", tmp_path / "b")
    assert tries == [21] and waits == [0.001] * 20
    tries[0], refusals = 0, 20
    system.rename(tmp_path / "a", tmp_path / "b")
    assert tries == [21] and os.listdir(tmp_path) == ["b"]


def test_on_linux_a_rename_is_tried_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        system.rename(tmp_path / "a", tmp_path / "b")


def test_bytes_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 5000)
    assert system.used_bytes(path) == path.stat().st_blocks * 512 >= 5000
    status = types.SimpleNamespace(st_size=5000)
    assert system.used_bytes(types.SimpleNamespace(stat=lambda: status)) == 5000  # type: ignore[arg-type]


def test_what_is_locked_is_unlocked(windows: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are bytes, 64 of them; a lock without others takes them all, far behind the content."""
    path, msvcrt = tmp_path / "lock", sys.modules["msvcrt"]
    with open(path, "ab") as first, open(path, "ab") as second:
        assert system.lock_file(first)
        assert {place for _, place in msvcrt.taken} == {*range(2**30, 2**30 + 64)}  # type: ignore[attr-defined]
        assert not system.lock_file(second, wait=False) and not system.lock_file(second, shared=True, wait=False)
        waits = [0]

        def end(seconds: float) -> None:
            waits[0] += 1
            if waits[0] == 3:
                system.unlock_file(first)

        monkeypatch.setattr(system.time, "sleep", end)
        assert system.lock_file(second) and waits == [3]
        system.unlock_file(second)
        assert not msvcrt.taken  # type: ignore[attr-defined]
        for n in range(64):
            assert system.lock_file(first, shared=True, wait=False)
            assert {place for _, place in msvcrt.taken} == {*range(2**30, 2**30 + n + 1)}  # type: ignore[attr-defined]
        assert not system.lock_file(first, shared=True, wait=False)


def test_locks_of_linux(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "ab") as first, open(path, "ab") as second:
        assert system.lock_file(first, shared=True) and system.lock_file(second, shared=True)
        assert not system.lock_file(second, wait=False)
        system.unlock_file(first)
        assert system.lock_file(second, wait=False) and not system.lock_file(first, shared=True, wait=False)
        system.unlock_file(second)
        assert system.lock_file(first)


def stat_line(state: str, start: int) -> str:
    """Of the manual page proc(5): the state is the third field, the start the 22nd; the name may have spaces and brackets."""  # codespell:ignore
    return f"7 (a (b) c) {state} {' '.join(map(str, range(4, 22)))} {start} {' '.join(map(str, range(23, 53)))}\n"


@pytest.mark.parametrize(("state", "runs"), [("S", True), ("R", True), ("D", True), ("Z", False), ("X", False)])
def test_processes_of_linux(state: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "PROC", tmp_path)
    asked = []
    monkeypatch.setattr(os, "kill", lambda *given: asked.append(given))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat_line(state, 1234), encoding="utf-8")
    assert system.start_of(7) == 1234 and system.is_running(7) == runs and asked == [(7, 0)]
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("/proc is there, so it is not asked otherwise"))
    assert system.start_of(8) == 0


@pytest.mark.parametrize(
    ("error", "runs"), [(ProcessLookupError, False), (OverflowError, False), (PermissionError, True), (None, True)]
)
def test_processes_that_may_not_be_asked(
    error: type[Exception] | None, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(system, "_state_and_start", lambda process: ("S", 5))
    assert system.is_running(7) == runs


def test_the_own_start_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(system, "_state_and_start", lambda process: (asked.append(process), ("S", 5))[1])
    system._own_start.cache_clear()
    assert [system.start_of(os.getpid()) for _ in range(3)] == [5] * 3 and asked == [os.getpid()]
    assert [system.start_of(1) for _ in range(2)] == [5] * 2 and asked == [os.getpid(), 1, 1]
    system._own_start.cache_clear()


def test_what_ps_says(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["S Fri Nov 27 10:19:01 2026\n", "S Fri Nov 27 10:19:02 2026\n", "S\n", ""]
    environments = []

    def ps(words: list[str], **options: Any) -> Any:
        environments.append(options["env"]["LC_ALL"])
        return types.SimpleNamespace(stdout=said[int(words[-1]) - 10**6])

    monkeypatch.setattr(subprocess, "run", ps)
    starts = [system.start_of(10**6 + n) for n in range(4)]
    assert len({*starts[:2]}) == 2 and all(starts[:2]) and starts[2:] == [0, 0]
    assert environments == ["C"] * 4, "dates in one language"


def test_handles_of_windows_processes(windows: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool, int]] = []
    monkeypatch.setattr(
        windows, "OpenProcess", lambda *given: (asked.append(given), windows.open(given[-1]))[1], raising=False
    )
    windows.OpenProcess.restype = None  # type: ignore[attr-defined]
    assert system.is_running(7) and asked == [(0x1000, False, 7)] and windows.OpenProcess.restype is ctypes.c_void_p  # type: ignore[attr-defined]
    monkeypatch.setattr(windows, "GetExitCodeProcess", lambda handle, code: 0)
    monkeypatch.setattr(windows, "GetProcessTimes", lambda *_: 0)
    assert not system.is_running(7) and system.start_of(7) == 0, "the system does not say"
