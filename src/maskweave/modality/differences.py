"""In which settings two entries differ, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from maskweave.errors import shown
from maskweave.modality.entry import Modality, training_facts


def entry_differences(
    ours: Modality, theirs: Modality, parts: Sequence[str] = ("value", "grid", "tokenizer")
) -> list[str]:
    """Lists the settings, by dotted key, in which tokens or the training of two entries differ: `value.range is [0, 1] there, [0, 2] here`."""
    here, there = training_facts(ours), training_facts(theirs)
    return _differences({part: here.get(part) for part in parts}, {part: there.get(part) for part in parts})


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> list[str]:
    faults = []
    for key in {**wanted, **found}:
        a, b = wanted.get(key), found.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            faults += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            faults.append(f"{prefix}{key} is {shown(b)} there, {shown(a)} here")
    return faults
