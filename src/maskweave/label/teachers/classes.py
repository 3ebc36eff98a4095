"""A teacher's classes as those of an entry."""

from collections.abc import Mapping

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.modality.derivation import TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.values.unknown import UNKNOWN_ID

LISTED = 8


class ClassTable:
    """Class names of an entry by the ids of a teacher.

    Names are equal, or `derive.classes` translates them. A class that the entry lacks is dropped from lists, and unknown in dense labels.

    Args:
        names: the teacher's classes by id.

    Raises:
        MaskweaveError: no class is in the entry, a translated name is unknown, or dense labels lack classes and the entry has no unknown points.
    """

    def __init__(self, names: Mapping[int, str], settings: TeacherDerivation, entry: Modality, where: str):
        classes = entry.value.classes
        names = {id: name.strip() for id, name in names.items()}  # some published lists have stray spaces
        known = set(names.values())
        if strange := sorted(set(settings.classes.values()) - set(classes)):
            raise MaskweaveError(
                f"{where}: derive.classes translates to {_some(strange)}, which the entry lacks; expected some of {_some(classes)}"
            )
        self.needless = sorted(set(settings.classes) - known)
        index = {name: i for i, name in enumerate(classes)}
        self.names = {id: settings.classes.get(name, name) for id, name in names.items()}
        self.index = np.full(max(names, default=-1) + 1, UNKNOWN_ID, np.int64)
        """Class of the entry by the teacher's id, −1 for none."""
        for id, name in self.names.items():
            self.index[id] = index.get(name, UNKNOWN_ID)
        self.others = sorted({names[id] for id, name in self.names.items() if name not in index})
        if len(self.others) == len(known):
            raise MaskweaveError(
                f"{where}: none of the teacher's classes ({_some(self.others)}) is one of the entry's ({_some(classes)}); translate them with "
                "derive.classes"
            )
        if self.others and entry.value.num_classes and not entry.value.has_unknown:
            raise MaskweaveError(
                f"{where}: the entry lacks the teacher's classes {_some(self.others)}; translate them with derive.classes, add them, or set "
                "value.ignore: 255, so that such points are unknown"
            )

    @property
    def notes(self) -> list[str]:
        """What is left out, for the report."""
        notes = [f"classes that the entry lacks are left out: {_some(self.others)}"] if self.others else []
        if self.needless:
            notes.append(f"derive.classes translates {_some(self.needless)}, which the teacher lacks")
        return notes

    def name(self, id: int) -> str | None:
        """Returns the entry's class of a teacher's id; None if it lacks it."""
        return self.names[id] if 0 <= id < len(self.index) and self.index[id] >= 0 else None

    def map(self, ids: np.ndarray) -> np.ndarray:
        """Returns the entry's class ids, −1 for what it lacks or what is no class of the teacher."""
        inside = (ids >= 0) & (ids < len(self.index))
        return np.where(inside, self.index[np.where(inside, ids, 0)], UNKNOWN_ID)


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:LISTED]) + f", … {len(names) - LISTED} more" * (len(names) > LISTED)
