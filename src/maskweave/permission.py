"""Code that files name, `python: package.module:function`: whether it may run, and its import.

Somebody else may have made a catalog, bundle or index, so the user alone decides. A recipe is the user's own.
"""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from maskweave.errors import MaskweaveError, said

PYTHON = "python:"
"""Start of the name of code."""
SETTING = "MASKWEAVE_ALLOW_CODE"
_allowed: ContextVar[bool] = ContextVar("code allowed", default=False)


@contextlib.contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Context in which code that catalogs, bundles and indexes name may run, if `allowed`; otherwise only if it may run anyway."""
    before = _allowed.set(allowed or _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(before)


def check_code_allowed(what: str, code: str) -> None:
    """Refuses to run code unless the user allowed it.

    Args:
        what: names the code, for the message.
        code: what would run.

    Raises:
        MaskweaveError: it is not allowed.
    """
    if not (_allowed.get() or os.environ.get(SETTING, "") == "1"):
        raise MaskweaveError(
            f"{what} is code, {code}, which runs only if you allow it: check that the catalog, bundle or index is yours or that you trust who made it, then set "
            f"the environment variable {SETTING}=1 (in Python: with maskweave.permission.code_allowed():)"
        )


def import_code(name: str, where: str, expected: str) -> Callable[..., Any]:
    """Imports a function or class. Does not check the permission.

    Args:
        name: `package.module:function`, with or without `python:` before it.
        where: names the code, for messages.
        expected: what the function or class takes and returns, for messages.

    Raises:
        MaskweaveError: the name has another form, the module cannot be imported, or it has no such function or class.
    """
    module, colon, path = name.removeprefix(PYTHON).strip().partition(":")
    if not (module and colon and path):
        raise MaskweaveError(f"{where}: expected {PYTHON} package.module:function, {expected}")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise MaskweaveError(
            f"{where}: module {module} cannot be imported ({error}); install its package, or add its folder to PYTHONPATH"
        ) from error
    except Exception as error:  # the user's code may raise anything
        raise MaskweaveError(
            f"{where}: module {module} cannot be imported ({said(error)}); correct its code"
        ) from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise MaskweaveError(f"{where}: module {module} has no function or class {path}; expected {expected}")
    code: Callable[..., Any] = found
    return code
