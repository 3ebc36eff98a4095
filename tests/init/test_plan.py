"""The speed of the machine, from which the number of steps follows."""

import itertools

import pytest
import torch

from maskweave.init import plan


def test_the_speed_of_one_thread_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves on by 1/32 of a second each time someone looks: three products until 0.1 seconds have passed, and the end is seen at 5/32."""
    threads, clock = [], itertools.count(0, 1 / 32)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: next(clock))
    assert plan.machine_speed() == pytest.approx(2 * 256**3 * 3 / (5 / 32) / 1e9)
    assert threads == [1, 2]
