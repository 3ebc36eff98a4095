"""What lock files and temporary names say, and how a lock file is made; `test_locks.py` has what they are for."""

import dataclasses
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from maskweave import locks, system
from maskweave.locks import Writer, lock, signed, split_signed

OWNER = locks._Owner("a host", "elsewhere-1", 7, 8, "abc123", "maskweave run", "2026-11-28 02:10 +0000", 42)
CONTENT = (
    b'{"host": "a host", "machine": "elsewhere-1", "process": 7, "start": 8, "id": "abc123", '
    b'"command": "maskweave run", "since": "2026-11-28 02:10 +0000", "beat": "000000000042"}\n'
)


def test_the_content_of_a_lock_file(tmp_path: Path) -> None:
    assert OWNER.content() == CONTENT
    assert len(locks._Owner(beat=10**12 - 1).content()) == len(locks._Owner().content()), "a beat fits into its place"
    (tmp_path / "lock").write_bytes(CONTENT)
    assert locks._owner_in(tmp_path / "lock") == OWNER and locks._owner_in(tmp_path / "nothing") is None
    assert str(OWNER) == "process 7 on a host since 2026-11-28 02:10 +0000 (maskweave run)"
    assert str(dataclasses.replace(OWNER, since="")) == "process 7 on a host (maskweave run)", "of an earlier version"
    assert str(locks._Owner()) == "an unknown process"


@pytest.mark.parametrize(
    "changes",
    [{"host": 1}, {"machine": None}, {"id": "a/b"}, {"id": ""}, {"command": 3}, {"since": 5}, {"process": -1}, {"process": "7"}, {"start": 1.5}, {"beat": "x"}, {"other": 1}],
)  # fmt: skip
def test_content_that_cannot_be_understood(changes: dict[str, Any], tmp_path: Path) -> None:
    content = json.dumps({**json.loads(CONTENT), **changes}).encode()
    (tmp_path / "lock").write_bytes(content)
    assert locks._owner_in(tmp_path / "lock") == locks._Owner(id=content.hex()[:16])


def test_a_process_may_be_number_0(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(CONTENT.replace(b"7", b"0").replace(b"8", b"0"))
    found = locks._owner_in(tmp_path / "lock")
    assert found is not None and (found.process, found.start, found.host) == (0, 0, "a host")


def test_an_empty_file_is_read_five_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waits = tmp_path / "lock", []
    path.touch()
    monkeypatch.setattr(time, "sleep", waits.append)
    assert locks._owner_in(path) == locks._Owner(id="empty") and waits == [0.1] * 5

    def write(seconds: float) -> None:
        path.write_bytes(CONTENT)

    monkeypatch.setattr(time, "sleep", write)
    assert locks._owner_in(path) == OWNER


@pytest.mark.parametrize(
    ("host", "boot", "namespace", "name"),
    [
        ("my.host-1_x", "01234567-89ab\n", "pid:[4026531836]", "myhost-1x-01234567-4026531836"),
        ("h" * 30, "", "pid:[5]", "h" * 24 + "-5"),
        ("...", "", None, "host"),
    ],
)
def test_the_name_of_a_machine(
    host: str, boot: str, namespace: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readlink(path: Path) -> Path:
        if namespace is None:
            raise OSError
        return Path(namespace)

    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(locks, "_read_text", lambda path: boot)
    monkeypatch.setattr(Path, "readlink", readlink)
    assert locks.machine.__wrapped__() == name


def test_temporary_names_say_who_uses_them() -> None:
    own = Writer(locks.machine(), os.getpid(), system.start_of(os.getpid()))
    for name in ("a", ".a.b.c"):
        made = [signed(name) for _ in range(2)]
        assert [split_signed(one) for one in made] == [(name, own)] * 2 and made[0] != made[1]
    assert own.is_here() and not Writer("other", own.process, own.start).is_here()
    assert split_signed("a.m.1.2.abcd") == ("a", Writer("m", 1, 2))
    for other in ("a", "m.1.2.abcd", "a.m.1.x.abcd", "a.m.x.1.abcd", "a.m.-1.2.abcd", ""):
        assert split_signed(other) is None


def test_commands_are_cut_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    for words, command in (
        (["run", "x"], "python3 run x"),
        (["a", "b" * 100], "b" * 100),
        (["a", "b" * 98], "a " + "b" * 98),
    ):
        monkeypatch.setattr(sys, "argv", words)
        with lock(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["command"] == command


@pytest.mark.parametrize("number", [PermissionError, FileExistsError])
def test_file_systems_that_cannot_link_or_answer_twice(
    number: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(*names: Any) -> None:
        if number is FileExistsError:
            real(*names)
        raise number

    monkeypatch.setattr(os, "link", link)
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["process"] == os.getpid()
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_that_is_there_is_not_made_again(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / ".lock").write_bytes(CONTENT)
    before = set(os.listdir("/proc/self/fd"))
    assert locks._create(tmp_path / ".lock", locks._Owner()) is None
    assert (tmp_path / ".lock").read_bytes() == CONTENT and os.listdir(tmp_path) == [".lock"]
    assert set(os.listdir("/proc/self/fd")) == before, "no file stays open"


def test_a_lock_is_raised_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with lock(tmp_path):
        until = time.monotonic() + 60
        beats: set[str] = set()
        while len(beats) < 3:
            beats.add(json.loads((tmp_path / ".lock").read_text(encoding="utf-8"))["beat"])
            assert time.monotonic() < until
        assert all(len(beat) == 12 for beat in beats)
    assert not locks._held


def test_starts_that_nobody_knows_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "is_running", lambda process: process == 7)
    for known, start, alive in ((5, 5, True), (5, 6, False), (0, 6, True), (5, 0, True)):
        monkeypatch.setattr(system, "start_of", lambda process, known=known: known)
        assert locks.is_alive(7, start) == alive
        assert not locks.is_alive(8, start)
