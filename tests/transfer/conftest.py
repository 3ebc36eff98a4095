"""Shared by the tests of transfers."""

import pytest


@pytest.fixture
def one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight decays of linear probes are chosen on the last fifth of the samples instead of in cross-validation, in a fifth of the time."""
    monkeypatch.setattr("maskweave.transfer.probe.CROSS_VALIDATED", 0)
