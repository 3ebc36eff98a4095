"""What the environment says about launched processes, and parts of jobs."""

import pytest

from maskweave.errors import MaskweaveError
from maskweave.ranks import ONLY_FINISH, JobPart, forget_launcher, is_main_process, own_part, processes_of, rank, world


def test_a_launcher_is_forgotten() -> None:
    own = {"PATH": "/bin", "HOME": "/", "RANKS": "3"}
    launcher = dict.fromkeys(
        [
            "RANK",
            "LOCAL_RANK",
            "WORLD_SIZE",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
            "GROUP_RANK",
            "ROLE_RANK",
            "TORCHELASTIC_RUN_ID",
        ],
        "1",
    )
    environment = {**own, **launcher}
    forget_launcher(environment)
    assert environment == own


def test_without_parts_one_job_has_all_shards() -> None:
    assert [*JobPart().mine(range(5))] == [0, 1, 2, 3, 4]


def test_parts_have_each_shard_once() -> None:
    for count in (1, 3, 20):
        parts = [JobPart.parse(f"{i}/{count}").mine(range(13)) for i in range(count)]
        assert sorted(shard for part in parts for shard in part) == list(range(13))
    assert JobPart.parse("finish") == ONLY_FINISH and not ONLY_FINISH.mine(range(13))


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "1/0", "0/0", "a/b", "1/3/4", ""])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(MaskweaveError, match=r"expected I/N with I from 0 to N - 1"):
        JobPart.parse(text)


@pytest.mark.parametrize(
    ("part", "left", "together", "line"),
    [
        (JobPart(0, 1), 0, 1, ""),
        (JobPart(2, 4), 0, 1, ""),
        (JobPart(2, 4), 1234, 2, ""),
        (JobPart(2, 4), 1234, 1, "label: part 2/4 is done; 1,234 of 2,000 shards are left to other parts, the last of which finishes"),
        (ONLY_FINISH, 0, 1, ""),
    ],
)  # fmt: skip
def test_what_a_part_says_at_its_end(
    part: JobPart, left: int, together: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(together))
    assert part.left(left, 2000, "label") == line


def test_a_part_that_only_finishes_needs_all_shards() -> None:
    with pytest.raises(
        MaskweaveError, match=r"label: 1 of 2,000 shards are not finished; run the parts that are missing"
    ):
        ONLY_FINISH.left(1, 2000, "label")


def test_launched_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (rank(), world(), is_main_process(), processes_of(3), own_part()) == (0, 1, True, 3, JobPart(0, 1))
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert (rank(), world(), is_main_process(), processes_of(3), own_part()) == (2, 5, False, 5, JobPart(2, 5))
    assert not JobPart(0, 2).is_whole and JobPart().is_whole
