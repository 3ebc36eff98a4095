"""What the environment says about launched processes, and parts of jobs."""

import pytest

from maskweave.errors import MaskweaveError
from maskweave.ranks import ONLY_FINISH, JobPart, forget_launcher


def test_a_launcher_is_forgotten() -> None:
    own = {"PATH": "/bin", "HOME": "/", "RANKS": "3"}
    launcher = dict.fromkeys(
        ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "GROUP_RANK", "TORCHELASTIC_RUN_ID"], "1"
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
