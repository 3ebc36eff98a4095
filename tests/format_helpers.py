"""What the tests of file formats share."""

from typing import Any

import pytest

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import catalog_from
from maskweave.values import formats
from maskweave.values.base import ValueType
from maskweave.values.formats.base import Selection, Stored


def stored(content: bytes, ending: str, **selected: Any) -> Stored:
    """The array of a file as a format gives it."""
    return formats.read(content, ending, f"in/x.{ending}", Selection(**selected))


def value(**settings: Any) -> ValueType:
    """A value type as an entry of a catalog declares it."""
    entry = {"id": 1, "kind": "grid", "grid": [1] * len(settings.get("size", [1])), "value": settings}
    return catalog_from({"modalities": {"thing": entry}}, "test")["thing"].value


def lacking(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed."""
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def assert_needs(package: str, extra: str, content: bytes, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the message for a missing package; it is no fault of the sample, so it is no BadSample."""
    lacking(package, monkeypatch)
    with pytest.raises(MaskweaveError) as caught:
        stored(content, ending)
    assert type(caught.value) is MaskweaveError and str(caught.value).count("\n") == 0
    assert f"in/x.{ending}: reading this file needs {package}" in str(caught.value)
    assert f"pip install 'maskweave[{extra}]'" in str(caught.value)
