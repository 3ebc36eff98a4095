"""Whether a catalog may name code to run. A catalog may come with a bundle that somebody else made, so this is decided by the user alone."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from maskweave.errors import MaskweaveError

SETTING = "MASKWEAVE_ALLOW_CODE"
_allowed: ContextVar[bool] = ContextVar("code allowed", default=False)


@contextlib.contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Context in which code that catalogs name may run, if `allowed`; otherwise only if it may run anyway."""
    before = _allowed.set(allowed or _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(before)


def check_code_allowed(name: str, code: str) -> None:
    """Refuses to run code unless the user allowed it.

    Args:
        name: of the modality.
        code: what would run.

    Raises:
        MaskweaveError: it is not allowed.
    """
    if not (_allowed.get() or os.environ.get(SETTING, "") == "1"):
        raise MaskweaveError(
            f"{name!r}: its tokenizer is code, {code}, which runs only if you allow it: check that the catalog or bundle is yours or that you trust who made it, then set "
            f"the environment variable {SETTING}=1 (in Python: maskweave.load(…, allow_code=True))"
        )
