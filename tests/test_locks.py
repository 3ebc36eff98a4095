"""Locks of folders: a second process is refused, and a lock whose owner is gone is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from leftovers import NO_PROCESS, left_aside

from maskweave import locks, system
from maskweave.errors import MaskweaveError
from maskweave.files import sweep, write_aside
from maskweave.locks import Locked, lock
from maskweave.ranks import ONLY_FINISH, WHOLE, JobPart

HOLD = """
import sys, time
from maskweave.locks import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), "300"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.02)
    monkeypatch.setattr(locks, "_gone", set())


def owned(folder: Path, name: str = locks.NAME, **changes: Any) -> dict[str, Any]:
    """Writes the lock of another owner; returns its content."""
    owner = locks._Owner("elsewhere", "elsewhere-1", 7, 8, "abc123", "maskweave run")
    content = {**json.loads(owner.content()), **changes}
    aside = folder / "new lock"
    aside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(aside, folder / name)
    return content


def test_a_folder_is_written_to_by_one_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(
            Locked,
            match=rf"process {holder.pid} on .* since 2\d\d\d-\d\d-\d\d \d\d:\d\d .* is writing to this folder; wait until it has ended",
        ),
        lock(tmp_path),
    ):
        pass
    assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["process"] == holder.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_loses_it_at_once(
    tmp_path: Path, holder: subprocess.Popen[str], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", 1000.0)  # nothing is waited for
    holder.send_signal(number)
    until = time.monotonic() + 60
    while (
        Path(f"/proc/{holder.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    ):  # not waited for yet
        assert time.monotonic() < until
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_process_with_a_recycled_number_is_another_one(tmp_path: Path) -> None:
    owned(tmp_path, machine=locks.machine(), process=os.getpid(), start=system.start_of(os.getpid()) + 1)
    with lock(tmp_path):
        pass
    owned(tmp_path, machine=locks.machine(), process=os.getppid(), start=system.start_of(os.getppid()))
    with pytest.raises(Locked), lock(tmp_path):
        pass


def test_another_machine_holds_it_while_its_counter_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()

    def beat() -> None:
        for n in range(10**6):
            if ended.wait(0.02):
                return
            aside = tmp_path.with_name("beat")
            aside.write_text(json.dumps({**content, "beat": str(n)}), encoding="utf-8")
            os.replace(aside, tmp_path / ".lock")

    content = owned(tmp_path)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(Locked, match=r"process 7 on elsewhere \(maskweave run\).*if you are sure.*remove .*\.lock"),
            lock(tmp_path),
        ):
            pass
    finally:
        ended.set()
        thread.join()
    assert "waiting up to" in capsys.readouterr().out
    with lock(tmp_path):  # it beats no more
        assert locks.is_gone(tmp_path / "below", "elsewhere-1") and not locks.is_gone(tmp_path, "elsewhere-2")


def test_times_and_clocks_mean_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    for when in (0, 4e9):
        os.utime(tmp_path / ".lock", (when, when))
        with pytest.raises(Locked), lock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": "x"}', '{"beat": {}}', "\0" * 50])
def test_a_damaged_lock_is_taken_over_after_a_while(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content, encoding="utf-8")
    with lock(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_stale_lock_is_taken_over_by_one(tmp_path: Path) -> None:
    """Also one whose takeover was itself interrupted."""
    inside, most = [0], [0]
    guard = threading.Lock()

    def attempt(_: int) -> bool:
        try:
            with lock(tmp_path):
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                with guard:
                    inside[0] -= 1
                return True
        except Locked:
            return False

    for _ in range(10):
        dead = {"machine": locks.machine(), "process": NO_PROCESS}
        content = owned(tmp_path, **dead)
        (tmp_path / f".lock.{content['id']}").write_text(json.dumps({**content, "id": "def456"}), encoding="utf-8")
        with ThreadPoolExecutor(8) as pool:
            assert any(pool.map(attempt, range(8)))
    assert most == [1] and os.listdir(tmp_path) == []


def test_parts_that_start_together_are_not_refused_because_of_dead_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", 2.0)
    together = threading.Barrier(8, timeout=60)

    def attempt(i: int) -> None:
        together.wait()
        try:
            with lock(tmp_path, JobPart(i, 8)):
                together.wait()
        except Locked:
            together.abort()
            raise

    for _ in range(4):
        for n, name in enumerate((".lock", *(f".lock-part-{i}-of-4" for i in range(4)))):
            owned(tmp_path, name, machine=locks.machine(), process=NO_PROCESS, id=f"dead{n}")
        with ThreadPoolExecutor(8) as pool:
            errors = [future.exception() for future in [pool.submit(attempt, i) for i in range(8)]]
        assert errors == [None] * 8
    assert os.listdir(tmp_path) == []


def test_a_lock_of_a_part_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    aside = left_aside(tmp_path / "lock-part-1-of-2", process=os.getpid())
    owned(tmp_path, aside.name, machine=locks.machine(), process=os.getpid(), start=0)
    with lock(tmp_path, JobPart(0, 2)):
        assert aside.exists()


def test_who_takes_a_lock_away_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEATS_WAITED", 1)
    dead = owned(tmp_path, machine=locks.machine(), process=NO_PROCESS)
    owned(tmp_path, f".lock.{dead['id']}", machine=locks.machine(), process=os.getpid(), start=0, id="def456")
    with pytest.raises(Locked, match=rf"process {os.getpid()} on .* is writing to this folder"), lock(tmp_path):
        pass


def test_locks_of_other_machines_are_watched_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(20):
        owned(tmp_path, f".lock-part-{i}-of-20", id=f"dead{i}")
    create = locks._create

    def and_another(path: Path, owner: Any) -> int | None:
        if path.name == ".lock":
            owned(tmp_path, ".lock-part-0-of-3")
        return create(path, owner)

    monkeypatch.setattr(locks, "_create", and_another)
    with lock(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]
        assert int(json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["beat"]) > 0, (
            "it was held while the last was watched"
        )
    waits = capsys.readouterr().out.splitlines()
    assert len(waits) == 2 and "(maskweave run) and 19 more; waiting up to" in waits[0] and "more" not in waits[1]


def test_one_thread_may_enter_again_and_another_may_not(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, lock(tmp_path), lock(tmp_path / "." / "x" / ".."):
        assert isinstance(pool.submit(lock(tmp_path).__enter__).exception(), Locked)
    assert os.listdir(tmp_path) == []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock(tmp_path).__enter__).exception() is None


def test_parts_of_one_job_share_a_folder(tmp_path: Path) -> None:
    first, second, other = JobPart(0, 2), JobPart(1, 2), JobPart(0, 3)
    with lock(tmp_path, first), lock(tmp_path, second):
        for refused in (WHOLE, ONLY_FINISH, other):
            with pytest.raises(Locked, match="is writing to this folder"), lock(tmp_path, refused):
                pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(Locked):
            pool.submit(lock(tmp_path, first).__enter__).result()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock-part-0-of-2", ".lock-part-1-of-2"]
    with lock(tmp_path), pytest.raises(Locked), lock(tmp_path, first):
        pass
    stale = tmp_path / ".lock-part-1-of-4"
    owned(tmp_path, stale.name, process=NO_PROCESS, machine=locks.machine())
    with lock(tmp_path):
        assert not stale.exists()
    assert not any(tmp_path.iterdir())


def test_the_message_names_the_lock_of_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = owned(tmp_path, ".lock-part-0-of-2")
    monkeypatch.setattr(time, "sleep", lambda _: owned(tmp_path, ".lock-part-0-of-2", beat=content["beat"] + "1"))
    for part in (JobPart(0, 2), WHOLE):
        content = owned(tmp_path, ".lock-part-0-of-2")
        with pytest.raises(Locked, match=r"remove .*/\.lock-part-0-of-2$"), lock(tmp_path, part):
            pass


def test_a_released_lock_beats_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, syncing, ended = os.fsync, threading.Event(), threading.Event()

    def slow(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            syncing.set()
            ended.wait(0.2)
        sync(file)  # fails if the file was closed meanwhile
        ended.set()

    with lock(tmp_path):
        monkeypatch.setattr(os, "fsync", slow)
        assert syncing.wait(60)
        ended.clear()
    assert ended.is_set()


def test_folders_made_for_a_lock_go_with_it_if_they_stay_empty(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path / "a" / "b"):
        raise RuntimeError
    assert not (tmp_path / "a").exists()
    with lock(tmp_path / "a"):
        (tmp_path / "a" / "x").touch()
    assert os.listdir(tmp_path / "a") == ["x"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            MaskweaveError,
            match=r"file.*cannot be written to \(.*\); check the path and its permissions, or choose another folder",
        ),
        lock(tmp_path / "file"),
    ):
        pass


def test_who_lost_a_lock_writes_no_more(tmp_path: Path) -> None:
    with lock(tmp_path):
        owned(tmp_path)
        until = time.monotonic() + 60
        while not locks._held[tmp_path / ".lock"].lost_to:
            assert time.monotonic() < until
            time.sleep(0.01)
        with (
            pytest.raises(Locked, match="process 7 on elsewhere .* took this folder over"),
            write_aside(tmp_path / "model" / "x") as aside,
        ):
            aside.touch()
        with write_aside(tmp_path.with_name("other")) as aside:
            aside.touch()
    assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["id"] == "abc123", "it is the other one's now"


def test_a_living_writers_partial_files_stay(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    start = system.start_of(holder.pid)
    living = [
        left_aside(tmp_path / "a.tar", process=holder.pid, start=start),
        left_aside(tmp_path / "b", machine="far"),
    ]
    dead = [
        left_aside(tmp_path / "a.tar", process=holder.pid, start=start + 1),
        left_aside(tmp_path / "c.d.e"),
    ]
    for path in (*living, *dead):
        path.touch()
    with write_aside(tmp_path / "mine") as mine:
        mine.touch()
        sweep(tmp_path)
        assert mine.exists()
    assert all(path.exists() for path in living) and not any(path.exists() for path in dead)
    locks._gone.add((tmp_path, "far"))
    sweep(tmp_path)
    assert living[0].exists() and not living[1].exists()


def test_other_parts_of_a_machine_keep_their_partial_files(tmp_path: Path) -> None:
    dead, living = (left_aside(tmp_path / "shards" / f"{i}.tar", process=i, machine="elsewhere-1") for i in (1, 2))
    dead.parent.mkdir()
    for path in (dead, living):
        path.touch()
    owned(tmp_path, ".lock-part-0-of-2", process=1, id="a")
    owned(tmp_path, ".lock-part-1-of-2", process=2, id="b")
    with lock(tmp_path, JobPart(0, 2)):
        sweep(tmp_path)
        assert living.exists()
    owned(tmp_path / "shards", process=2)  # the lock of a folder in it counts as well
    with lock(tmp_path):
        sweep(tmp_path)
        assert living.exists()
        (tmp_path / "shards" / ".lock").unlink()
        sweep(tmp_path)
    assert not living.exists() and not dead.exists()


def test_a_folder_that_was_about_to_be_replaced_is_put_back(tmp_path: Path) -> None:
    old = left_aside(tmp_path / "model", "old")
    old.mkdir()
    (old / "weights").touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["weights"]
