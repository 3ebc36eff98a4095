"""Teachers that are Python functions: `model: "python: package.module:function"`.

The function is called with a list of values and the keyword arguments in `options`, and returns a list with one label each: a value, a pair of a
value and its confidence (`TeacherLabel`), None if there is no label, or a BadSample. If `derive.boxes` is set, it gets pairs of a value and its boxes.
"""

import hashlib
import inspect
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.modality.derivation import TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.permission import PYTHON, import_code

EXPECTED = "a function that takes a list of values and returns a list of labels"


class FunctionTeacher(TaskTeacher):
    """A function as a teacher.

    Raises:
        MaskweaveError: it cannot be imported or called.
    """

    def __init__(self, settings: TeacherDerivation, entry: Modality):
        self.settings, self.notes, self.where = settings, [], f"{entry.name!r}: {settings.model}"
        function = import_code(settings.model, self.where, EXPECTED)
        try:
            inspect.signature(function).bind([], **settings.options)
        except (TypeError, ValueError) as error:
            raise MaskweaveError(
                f"{self.where}: cannot be called with derive.options ({error}); expected {EXPECTED}"
            ) from error
        self.function = function
        self.provenance = {
            "model": settings.model,
            "revision": _revision(settings.model.removeprefix(PYTHON).strip().partition(":")[0]),
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


def _revision(module: str) -> str:
    """Returns the version of an imported module's package; otherwise a hash of its file."""
    package = module.partition(".")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        file = getattr(sys.modules[module], "__file__", None)
        path = Path(file) if file else None
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path and path.is_file() else "unknown"
