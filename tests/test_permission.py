"""One permission for code that files name, one import, and the same messages for teachers, tokenizers and data."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskweave.config import build
from maskweave.data.named import check_source_allowed, find_source
from maskweave.errors import MaskweaveError
from maskweave.label.teachers.opening import open_teacher
from maskweave.modality.catalogs import catalog_from
from maskweave.modality.external import ExternalSpec
from maskweave.permission import check_code_allowed, code_allowed, import_code
from maskweave.tokenizers.external.opening import open_external

PHOTO = {"id": 1, "kind": "grid", "grid": [2, 2], "value": {"type": "image", "size": [16, 16]}}


def teacher(code: str) -> None:
    level = {**PHOTO, "id": 2, "derive": {"from": "photo", "by": "teacher", "model": code}}
    catalog = catalog_from({"modalities": {"photo": PHOTO, "level": level}}, "mine.yaml")
    open_teacher(catalog, catalog["level"], "cpu")


def tokenizer(code: str) -> None:
    spec = {"external": code, "codes": 8}
    catalog = catalog_from({"modalities": {"photo": {**PHOTO, "tokenizer": spec}}}, "mine.yaml")
    open_external(catalog["photo"], build(ExternalSpec, spec, "tokenizer"))


def data(code: str) -> None:
    check_source_allowed(code, "the data of the index")
    find_source(code)


USES = (teacher, tokenizer, data)


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code_of_others.py").write_text("class Group:\n    member = dict\nnumber = 3\n", encoding="utf-8")
    (tmp_path / "code_that_raises.py").write_text("raise KeyError('gone')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "code_of_others", raising=False)
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)


@pytest.mark.parametrize("use", USES)
def test_one_message_asks_for_the_permission(use: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    code = "python: code_of_others:number"
    ask = r" is code, python: code_of_others:number, which runs only if .* MASKWEAVE_ALLOW_CODE=1 \(in Python: with maskweave\.permission\.code_allowed\(\):\)$"
    with pytest.raises(MaskweaveError, match=ask):
        use(code)
    with code_allowed(False), pytest.raises(MaskweaveError, match=ask):
        use(code)
    assert "code_of_others" not in sys.modules
    allowed = r"module code_of_others has no function or class number; expected a function"
    with code_allowed(), pytest.raises(MaskweaveError, match=allowed):
        use(code)
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    with pytest.raises(MaskweaveError, match=allowed):
        use(code)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("python: code_of_others", r"expected python: package\.module:function, a function"),
        ("python: :f", r"expected python: package\.module:function, a function"),
        ("python: not_there:f", r"module not_there cannot be imported \(No module .*add its folder to PYTHONPATH"),
        ("python: code_that_raises:f", r"cannot be imported \(KeyError: 'gone'\); correct its code"),
        ("python: code_of_others:Group.other", r"has no function or class Group\.other; expected a function"),
    ],
)
def test_faults_of_names_are_told_alike(use: Callable[[str], Any], code: str, message: str) -> None:
    with code_allowed(), pytest.raises(MaskweaveError, match=message):
        use(code)


def test_members_of_classes_can_be_named() -> None:
    assert import_code("python: code_of_others:Group.member", "here", "a function") is dict
    assert import_code("code_of_others:Group.member", "here", "a function") is dict


def is_allowed() -> bool:
    try:
        check_code_allowed("tokenizer 'a'", "python: mine:Own")
    except MaskweaveError:
        return False
    return True


@pytest.mark.parametrize(
    ("setting", "allowed"), [("1", True), ("", False), ("0", False), ("true", False), ("11", False)]
)
def test_only_a_1_in_the_environment_allows_it(setting: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", setting)
    assert is_allowed() == allowed
    with code_allowed(False):
        assert is_allowed() == allowed


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


def test_the_permission_needs_no_torch() -> None:
    script = "import sys, maskweave.permission; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
