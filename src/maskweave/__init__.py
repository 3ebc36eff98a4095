"""maskweave: one model over all your modalities. Train it, then predict any modality from any others."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Bundle", "MaskweaveError", "Modality", "Tokens", "load", "load_catalogue", "load_recipe"]

if TYPE_CHECKING:
    from maskweave.catalogues import load_catalogue
    from maskweave.errors import MaskweaveError
    from maskweave.generate.bundle import Bundle, load
    from maskweave.generate.known import Tokens
    from maskweave.modality import Modality
    from maskweave.train.recipe import load_recipe

_WHERE = {
    "Bundle": "maskweave.generate.bundle",
    "MaskweaveError": "maskweave.errors",
    "Modality": "maskweave.modality",
    "Tokens": "maskweave.generate.known",
    "load": "maskweave.generate.bundle",
    "load_catalogue": "maskweave.catalogues",
    "load_recipe": "maskweave.train.recipe",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import maskweave` stays light."""
    if name not in _WHERE:
        raise AttributeError(f"module 'maskweave' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
