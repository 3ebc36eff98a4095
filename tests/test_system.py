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
    for name in ("pread", "preadv", "pwrite", "link", "O_CLOEXEC"):
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
        aside.write_text("content")
    assert (tmp_path / "a földer" / "file").read_text() == "content" and not refusals
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
    (folder / "tiny.yaml").write_text(tiny_recipe.read_text())
    (folder / "run.py").write_text(SPAWNED, encoding="utf-8")
    found = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert (folder / "runs" / "my Läufe" / "report.html").is_file()
