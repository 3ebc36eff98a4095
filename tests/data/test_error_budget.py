"""Error budgets: what counts as a fault."""

from pathlib import Path

import pytest

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import Read
from maskweave.errors import MaskweaveError
from maskweave.files import write_json


def test_a_sample_that_lacks_a_modality_is_told_but_no_fault() -> None:
    budget = ErrorBudget(limit=0)
    assert not budget.take(Read("a", {}, "a: has no depth", lacks=True)) and budget.take(Read("b", {}))
    budget.check(finished=True)
    assert budget.summary() == "1 of 2 samples lack a modality that is needed, and are not used"
    budget.bad("c", "damaged")
    first, *others = budget.summary().splitlines()
    assert first.startswith("1 of 3 samples lack") and others[0].startswith("skipped 1 of 3 samples")


def test_too_many_faults_mark_their_shards_as_unfinished(tmp_path: Path) -> None:
    records = [tmp_path / f"{name}.json" for name in ("faulty", "good", "missing")]
    index = tmp_path / "index"
    index.touch()
    write_json(records[0], {"skipped": 0, "dropped": 1})
    write_json(records[1], {"skipped": 0})
    skips = ErrorBudget(0.5)
    skips.good(2)
    skips.drop("a", {"rgb": "bad"})
    skips.check_shards(records, finished=True, index=index)
    assert len([*tmp_path.iterdir()]) == 3
    skips.drop("b", {"rgb": "bad"})
    with pytest.raises(MaskweaveError, match="2 of 2 samples have unusable values"):
        skips.check_shards(records, finished=True, index=index)
    assert [*tmp_path.iterdir()] == [records[1]]
