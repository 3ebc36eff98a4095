"""Who waits for whom among launched processes. Here they are threads, and their store is in memory."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from maskweave.ranks import ONLY_FINISH, JobPart
from maskweave.training import launch
from maskweave.training.launch import Launch


class Recorded:
    """A launched process of two that notes what it does."""

    def __init__(self, rank: int):
        self.rank, self.part, self.events = rank, JobPart(rank, 2), list[Any]()

    def barrier(self) -> None:
        self.events.append("waits")


@pytest.mark.parametrize(
    ("rank", "expected"),
    [(0, [JobPart(0, 2), "waits", ONLY_FINISH, "waits"]), (1, [JobPart(1, 2), "waits", "waits"])],
)
def test_the_first_process_finishes_when_all_parts_are_done(
    rank: int, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "launched", lambda: own)
    own = Recorded(rank)
    launch.divide(own.events.append)
    assert own.events == expected
    own = Recorded(rank)
    assert launch.first(lambda: own.events.append("works") or 7) == (None if rank else 7)
    assert own.events == ["waits"] if rank else ["works", "waits"]


def two() -> list[Launch]:
    store, found = HashStore(), [object.__new__(Launch) for _ in range(2)]
    for rank, one in enumerate(found):
        one.rank, one.world, one._store, one._barriers, one._left = rank, 2, store, 0, threading.Event()
    return found


class Waiting:
    """Something that another thread does."""

    def __init__(self, function: Callable[..., Any], *given: Any):
        self.result: Any = None
        self.thread = threading.Thread(target=lambda: setattr(self, "result", function(*given)), daemon=True)
        self.thread.start()

    def ends(self, seconds: float) -> bool:
        self.thread.join(seconds)
        return not self.thread.is_alive()


@pytest.mark.parametrize("early", [0, 1])
def test_none_passes_a_barrier_before_all_are_there(early: int) -> None:
    ranks = two()
    for _ in range(2):  # each time anew
        one = Waiting(ranks[early].barrier)
        assert not one.ends(0.1)
        assert Waiting(ranks[1 - early].barrier).ends(5) and one.ends(5)


def test_the_value_of_the_first_process_is_told() -> None:
    ranks = two()
    for value, order in (([1], (0, 1)), ({"a": 2.5}, (1, 0))):
        waiting = []
        for rank in order:
            assert all(not one.ends(0.05) for one in waiting)
            waiting.append(Waiting(ranks[rank].tell, "mine" if rank else value))
        assert all(one.ends(5) and one.result == value for one in waiting)


def test_the_first_process_which_holds_the_store_leaves_last() -> None:
    ranks = two()
    first = Waiting(ranks[0].leave)
    assert Waiting(ranks[1].barrier).ends(5) and not first.ends(0.2), "the other one may still ask the store"
    ranks[1]._store.add("left", 1)
    assert first.ends(5)


def test_the_first_error_is_told() -> None:
    """Of whichever process: those of others follow from it."""
    ranks = two()
    assert not ranks[0].has_failed(0.1)
    assert ranks[1].is_first_to_fail() and not ranks[0].is_first_to_fail()
    assert ranks[0].has_failed(0.1)
