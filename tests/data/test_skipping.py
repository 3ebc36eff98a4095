import pytest

from maskweave.data.error_budget import ErrorBudget
from maskweave.errors import BadSample, MaskweaveError


def test_nothing_skipped_says_nothing() -> None:
    skips = ErrorBudget()
    skips.good(1000)
    skips.check(finished=True)
    assert skips.summary() == ""


def test_a_share_up_to_the_limit_is_named_at_the_end() -> None:
    skips = ErrorBudget(limit=0.01)
    skips.good(99)
    skips.bad("a/b", BadSample("a/b.png: truncated"))
    skips.check(finished=True)
    assert skips.summary() == "skipped 1 of 100 samples:\n  a/b: a/b.png: truncated"


def test_a_larger_share_stops_the_job_with_names_and_remedy() -> None:
    skips = ErrorBudget(limit=0.01)
    skips.good(98)
    for key in ("a", "b"):
        skips.bad(key, f"{key}.png: broken")
    with pytest.raises(MaskweaveError, match=r"(?s)2 of 100 samples are unusable.*a: a\.png: broken.*raise the limit"):
        skips.check()


def test_few_samples_are_judged_only_at_the_end() -> None:
    skips = ErrorBudget(limit=0.01)
    skips.bad("a", "broken")
    skips.good(98)
    skips.check()
    with pytest.raises(MaskweaveError, match="1 of 99"):
        skips.check(finished=True)


def test_long_lists_are_cut() -> None:
    skips = ErrorBudget(limit=1)
    for i in range(30):
        skips.bad(f"k{i}", "broken")
    skips.check(finished=True)
    assert "k19" in skips.summary() and "k20" not in skips.summary() and "and 10 more" in skips.summary()


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan")])
def test_an_impossible_limit_is_refused(limit: float) -> None:
    with pytest.raises(MaskweaveError, match="share from 0 to 1"):
        ErrorBudget(limit)
