"""Whether code that a bundle names may run: only if the user said so, by the environment or in Python."""

import pytest

from maskweave.errors import MaskweaveError
from maskweave.permission import check_code_allowed, code_allowed


def is_allowed() -> bool:
    try:
        check_code_allowed("tokenizer 'a'", "python: mine:Own", "allow_code=True")
    except MaskweaveError:
        return False
    return True


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)


@pytest.mark.parametrize(
    ("setting", "allowed"), [("1", True), ("", False), ("0", False), ("true", False), ("11", False)]
)
def test_only_a_1_in_the_environment_allows_it(setting: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", setting)
    assert is_allowed() == allowed


def test_nobody_allowed_it() -> None:
    with pytest.raises(
        MaskweaveError,
        match=r"^tokenizer 'a' is code, python: mine:Own, which .* MASKWEAVE_ALLOW_CODE=1 \(in Python: allow_code=True\)$",
    ):
        check_code_allowed("tokenizer 'a'", "python: mine:Own", "allow_code=True")


def test_what_a_context_allows_ends_with_it_and_is_not_taken_back_inside() -> None:
    with code_allowed():
        assert is_allowed()
        with code_allowed(False):
            assert is_allowed()
        assert is_allowed()
    assert not is_allowed()
    with code_allowed(False):
        assert not is_allowed()
    with pytest.raises(RuntimeError), code_allowed():
        raise RuntimeError
    assert not is_allowed()


def test_a_context_that_allows_nothing_leaves_the_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    with code_allowed(False):
        assert is_allowed()
