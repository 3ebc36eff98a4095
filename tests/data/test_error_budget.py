"""Error budgets: what counts as a fault."""

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import Read


def test_a_sample_that_lacks_a_modality_is_told_but_no_fault() -> None:
    budget = ErrorBudget(limit=0)
    assert not budget.take(Read("a", {}, "a: has no depth", lacks=True)) and budget.take(Read("b", {}))
    budget.check(finished=True)
    assert budget.summary() == "1 of 2 samples lack a modality that is needed, and are not used"
    budget.bad("c", "damaged")
    first, *others = budget.summary().splitlines()
    assert first.startswith("1 of 3 samples lack") and others[0].startswith("skipped 1 of 3 samples")
