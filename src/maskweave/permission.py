"""Whether a bundle may name code to run, as tokenizer or as data. Somebody else may have made the bundle, so the user alone decides."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from maskweave.errors import MaskweaveError

SETTING = "MASKWEAVE_ALLOW_CODE"
_allowed: ContextVar[bool] = ContextVar("code allowed", default=False)


@contextlib.contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Context in which code that catalogs and bundles name may run, if `allowed`; otherwise only if it may run anyway."""
    before = _allowed.set(allowed or _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(before)


def check_code_allowed(what: str, code: str, python: str) -> None:
    """Refuses to run code unless the user allowed it.

    Args:
        what: names the code, for the message.
        code: what would run.
        python: how to allow it in Python.

    Raises:
        MaskweaveError: it is not allowed.
    """
    if not (_allowed.get() or os.environ.get(SETTING, "") == "1"):
        raise MaskweaveError(
            f"{what} is code, {code}, which runs only if you allow it: check that the catalog, bundle or index is yours or that you trust who made it, then set "
            f"the environment variable {SETTING}=1 (in Python: {python})"
        )
