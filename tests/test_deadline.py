"""A time limit holds within its context alone, and the inner one of two."""

import pytest

from maskweave.deadline import OutOfTime, check_time, time_limit


def test_work_gives_up_when_its_time_is_over() -> None:
    check_time()
    with time_limit(-1), pytest.raises(OutOfTime, match="the time is over before there is a result; ask for less"):
        check_time()
    check_time()
    with time_limit(1000):
        check_time()
        with time_limit(-1), pytest.raises(OutOfTime):
            check_time()
        check_time()
