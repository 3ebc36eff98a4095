"""Named sources: data sets made by code. A recipe uses the name `scenes`, or `python: package.module:function` for the user's own code.

The function or class behind a name is called in one of two ways, depending on its parameters:

| parameters | returns |
| --- | --- |
| `(catalog)` | a `Source` of fixed samples; some are held out by their names |
| `(catalog, samples, seed)` | a `Source` with `samples` samples of a data set without an end; the held-out samples come from the next seed |

The source gives values for the catalog's entries without a `source`, at their entries' sizes (`maskweave.data.transforms.fit` resizes them).
It raises MaskweaveError for an entry that it has no values for. Two attributes are optional. `gives(modality) -> bool` of the function or
class says whether it has values for an entry. `text_labels(text) -> Iterable[str]` of the returned source converts a text to the labels
that scores compare in place of its words.

Names are those of `BUILT_IN` and of the entry points `maskweave.sources` of installed packages. Both are found in any process.
Nothing is imported until a source is opened.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.permission import PYTHON, check_code_allowed, import_code

GROUP = "maskweave.sources"
"""Entry points of other packages, `name = "package.module:function"`."""
OURS = "maskweave.synthetic."
"""Start of the modules whose sources any bundle may name."""
BUILT_IN = {"scenes": "maskweave.synthetic.scenes:Scenes"}
"""Names that work without installed entry points. As with entry points, nothing is imported to look one up."""


@dataclass(frozen=True)
class NamedSource:
    """The code behind a name."""

    name: str
    make: Callable[..., Source]
    endless: bool
    """Whether it makes any number of samples, and other samples with another seed."""

    def gives(self, modality: Modality) -> bool:
        """Whether it has values for an entry; True if it has no attribute `gives`."""
        gives: Callable[[Modality], bool] = getattr(self.make, "gives", lambda _: True)
        return gives(modality)

    def open(self, catalog: Catalog, samples: int = 0, seed: int = 0) -> Source:
        """Returns the source, with values for all entries of the catalog.

        Args:
            samples, seed: only for a source without an end.

        Raises:
            MaskweaveError: the code refuses the catalog, needs a number of samples, or does not return a source.
        """
        if self.endless and samples < 1:
            raise MaskweaveError(f"{self.name} is endless: set samples to 1 or more, found {samples}")
        source = self.make(catalog, samples=samples, seed=seed) if self.endless else self.make(catalog)
        if not isinstance(source, Source):
            raise MaskweaveError(
                f"{self.name} returned {type(source).__name__}; expected a source with names, len, [i] and key(i) (see maskweave.data.source.Source)"
            )
        return source


def is_named(place: str) -> bool:
    """Whether `place` is the name of a source, not a file or folder. Imports nothing."""
    return place.startswith(PYTHON) or bool(_target(place))


def check_source_allowed(place: str, what: str) -> None:
    """Refuses a source that a bundle or index names if opening it would run the code of somebody else, unless the user allowed that.

    The classes of `maskweave.synthetic` and installed entry points are allowed. Imports nothing.

    Args:
        what: the key that names the source, for the message.

    Raises:
        MaskweaveError: it is not allowed.
    """
    module, _, path = place.removeprefix(PYTHON).strip().partition(":")
    if place.startswith(PYTHON) and not (module.startswith(OURS) and "." not in path):
        check_code_allowed(what, place)


def source_names() -> list[str]:
    """All known names, sorted."""
    return sorted({*BUILT_IN, *entry_points(group=GROUP).names})


def find_source(place: str) -> NamedSource | None:
    """Import the source named `place`. Returns None if `place` is a file or folder.

    Raises:
        MaskweaveError: it cannot be imported, or does not take the parameters of a source.
    """
    if not is_named(place):
        return None
    target = place if place.startswith(PYTHON) else _target(place)
    make = import_code(target, place, _CALLS)
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        raise MaskweaveError(f"{place}: {target} cannot be called; expected {_CALLS}") from None
    settings = {"samples", "seed"} & set(parameters)
    required = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    unknown = [n for n in required[1:] if n not in settings]
    if not parameters or len(settings) == 1 or unknown or set(required[:1]) & settings:
        raise MaskweaveError(f"{place}: {target} takes ({', '.join(parameters)}); expected {_CALLS}")
    return NamedSource(place, make, endless=len(settings) == 2)


def is_endless(place: str) -> bool:
    """Whether `place` is a named source without an end. Such a source needs a number of samples and makes others with another seed."""
    named = find_source(place)
    return named is not None and named.endless


_CALLS = "a function or class that takes (catalog), or (catalog, samples, seed) if it is endless"


def _target(name: str) -> str:
    """`module:object` behind a name; empty if the name is unknown."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.replace("_", "").replace("-", "").isalnum():  # a path or an empty name
        return ""
    found = {point.value: point.dist for point in entry_points(group=GROUP, name=name)}
    if len(found) > 1:
        packages = ", ".join(sorted(dist.name for dist in found.values() if dist))
        raise MaskweaveError(f"{name}: several packages have a source of this name ({packages}); uninstall all but one")
    return next(iter(found), "")
