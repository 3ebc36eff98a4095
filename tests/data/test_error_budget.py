def test_a_sample_that_lacks_a_modality_is_told_but_no_fault() -> None:
    budget = ErrorBudget(limit=0)
    assert not budget.take(Read("a", {}, "a: has no depth", lacks=True)) and budget.take(Read("b", {}))
    budget.check(finished=True)
    assert budget.summary() == "1 of 2 samples lack a modality that is needed, and are not used"
    budget.bad("c", "damaged")
    assert budget.summary().splitlines()[0].startswith("1 of 3 samples lack")
    assert "skipped 1 of 3 samples" in budget.summary()
