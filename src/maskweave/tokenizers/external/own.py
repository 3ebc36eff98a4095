"""Tokenizers that are the user's code: `external: "python: package.module:function"`."""

import importlib
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.external import PYTHON, ExternalSpec
from maskweave.permission import check_code_allowed
from maskweave.tokenizers.external.base import ExternalTokenizer

EXPECTED = (
    f"{PYTHON} package.module:function, a function that takes (modality, **options) and returns an ExternalTokenizer"
)


def said(error: Exception) -> str:
    """Returns an error of the user's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def make_own(modality: Modality, spec: ExternalSpec) -> ExternalTokenizer:
    """Calls the function that an entry names.

    Raises:
        MaskweaveError: code is not allowed, or the function cannot be imported or called, or returns something else.
    """
    check_code_allowed(f"{modality.name!r}: its tokenizer", spec.external, "maskweave.load(…, allow_code=True)")
    where = f"{modality.name!r}: {spec.external}"
    module, colon, name = spec.external.removeprefix(PYTHON).strip().partition(":")
    if not (module and colon and name):
        raise MaskweaveError(f"{where}: expected {EXPECTED}")
    try:
        function: Any = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise MaskweaveError(
            f"{where}: module {module} cannot be imported ({error}); install its package, or add its folder to PYTHONPATH"
        ) from error
    except Exception as error:  # the user's code may raise anything
        raise MaskweaveError(
            f"{where}: module {module} cannot be imported ({said(error)}); correct its code"
        ) from error
    if not callable(function):
        raise MaskweaveError(f"{where}: module {module} has no function {name}; expected {EXPECTED}")
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
    for name in ("vocabulary_size", "grid"):
        if not hasattr(made, name):
            raise MaskweaveError(
                f"{where}: the {type(made).__name__} that it returned has no {name}; set it in its code"
            )
    return made
