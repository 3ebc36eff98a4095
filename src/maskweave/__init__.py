"""maskweave: one model over all your modalities. Train it, then predict any modality from any others."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Bundle", "MaskweaveError", "Modality", "Tokens", "load", "load_catalog", "load_recipe"]

if TYPE_CHECKING:
    from maskweave.errors import MaskweaveError
    from maskweave.generate.bundle import Bundle, load
    from maskweave.generate.token_state import Tokens
    from maskweave.modality.catalogs import load_catalog
    from maskweave.modality.entry import Modality
    from maskweave.training.recipe import load_recipe

_WHERE = {
    "Bundle": "maskweave.generate.bundle",
    "MaskweaveError": "maskweave.errors",
    "Modality": "maskweave.modality.entry",
    "Tokens": "maskweave.generate.token_state",
    "load": "maskweave.generate.bundle",
    "load_catalog": "maskweave.modality.catalogs",
    "load_recipe": "maskweave.training.recipe",
}
_RENAMED = {"load_catalogue": "load_catalog"}  # codespell:ignore


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import maskweave` stays light."""
    if name in _RENAMED:
        raise AttributeError(f"maskweave.{name} is now maskweave.{_RENAMED[name]}; rename it")
    if name not in _WHERE:
        raise AttributeError(f"module 'maskweave' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
