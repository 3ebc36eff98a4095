"""Teachers that are Python functions: `model: "python: package.module:function"`.

The function is called with a list of values and the keyword arguments in `options`, and returns a list with one label each: a value, a pair of a
value and its confidence (`TeacherLabel`), None if there is no label, or a BadSample. If `derive.boxes` is set, it gets pairs of a value and its boxes.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.modality.derivation import TeacherDerivation
from maskweave.modality.entry import Modality

PREFIX = "python:"
EXPECTED = "python: package.module:function, a function that takes a list of values and returns a list of labels"


class FunctionTeacher(TaskTeacher):
    """A function as a teacher.

    Raises:
        MaskweaveError: it cannot be imported or called.
    """

    def __init__(self, settings: TeacherDerivation, entry: Modality):
        self.settings, self.notes, self.where = settings, [], f"{entry.name!r}: {settings.model}"
        target = settings.model.removeprefix(PREFIX).strip()
        module, colon, name = target.partition(":")
        if not (module and colon and name):
            raise MaskweaveError(f"{self.where}: expected {EXPECTED}")
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise MaskweaveError(
                f"{self.where}: module {module} cannot be imported ({error}); install its package, or add its folder to PYTHONPATH"
            ) from error
        function = getattr(found, name, None)
        if not callable(function):
            raise MaskweaveError(f"{self.where}: module {module} has no function {name}; expected {EXPECTED}")
        try:
            inspect.signature(function).bind([], **settings.options)
        except (TypeError, ValueError) as error:
            raise MaskweaveError(
                f"{self.where}: cannot be called with derive.options ({error}); expected {EXPECTED}"
            ) from error
        self.function: Callable[..., Any] = function
        self.provenance = {
            "model": settings.model,
            "revision": _revision(found),
            "license": settings.license or "unknown",
        }

    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel | BadSample | None]:
        values = [tuple(sample[name] for name in self.settings.sources) for sample in samples]
        labels = self.function([v[0] if len(v) == 1 else v for v in values], **self.settings.options)
        if not isinstance(labels, (list, tuple)):
            raise MaskweaveError(
                f"{self.where}: returned {type(labels).__name__}; expected a list with one label for each value"
            )
        return [
            label if label is None or isinstance(label, (TeacherLabel, BadSample)) else TeacherLabel(label)
            for label in labels
        ]


def _revision(module: Any) -> str:
    """Returns the version of a module's package; otherwise a hash of its file."""
    try:
        return f"{module.__name__.partition('.')[0]} {version(module.__name__.partition('.')[0])}"
    except PackageNotFoundError:
        path = Path(module.__file__) if getattr(module, "__file__", None) else None
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path and path.is_file() else "unknown"
