"""Tokenizers that are the user's code: `external: "python: package.module:function"`."""

import numbers

from maskweave.errors import MaskweaveError, said, shown
from maskweave.modality.entry import Modality
from maskweave.modality.external import ExternalSpec
from maskweave.permission import check_code_allowed, import_code
from maskweave.tokenizers.external.base import ExternalTokenizer

EXPECTED = "a function that takes (modality, **options) and returns an ExternalTokenizer"


def make_own(modality: Modality, spec: ExternalSpec) -> ExternalTokenizer:
    """Calls the function that an entry names.

    Raises:
        MaskweaveError: code is not allowed, or the function cannot be imported or called, or returns something else.
    """
    check_code_allowed(f"{modality.name!r}: its tokenizer", spec.external)
    where = f"{modality.name!r}: {spec.external}"
    function = import_code(spec.external, where, EXPECTED)
    try:
        made = function(modality, **spec.options)
    except MaskweaveError:
        raise
    except Exception as error:
        given = ", ".join(["modality", *spec.options])
        raise MaskweaveError(
            f"{where}: called with ({given}), it raised {said(error)}; correct its code, or tokenizer.options"
        ) from error
    if not isinstance(made, ExternalTokenizer):
        raise MaskweaveError(f"{where}: returned {type(made).__name__}; expected {EXPECTED}")
    for name, expected, fits in (
        ("vocabulary_size", "a whole number of 1 or more", _is_count),
        ("grid", "a tuple of whole numbers of 1 or more", lambda found: isinstance(found, (tuple, list)) and all(map(_is_count, found))),
        ("batch", "a whole number of 1 or more", _is_count),
    ):  # fmt: skip
        if not hasattr(made, name):
            raise MaskweaveError(
                f"{where}: the {type(made).__name__} that it returned has no {name}; set it in its code"
            )
        if not fits(found := getattr(made, name)):
            raise MaskweaveError(f"{where}: its {name} is {shown(found)}; expected {expected}; correct its code")
    return made


def _is_count(found: object) -> bool:
    """Also of NumPy's whole numbers."""
    return isinstance(found, numbers.Integral) and not isinstance(found, bool) and int(found) >= 1
