"""From texts and JSON to scalars, labels, tags, metadata and texts."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.init.finding import Finding
from maskweave.init.numbers import rounded_out
from maskweave.init.objects import (
    are_boxes_in_space,
    are_objects,
    decide_boxes,
    decide_boxes_in_space,
    decide_masks,
)
from maskweave.values.items import is_number
from maskweave.values.single import says_nothing

DECADES = 2.0
"""Numbers above 0 over more powers of ten than this are on a logarithmic scale."""
WITHOUT_ENDS = 1.5
"""The same for all but the lowest and highest 5%."""
REPEATS = 4
"""Texts are labels if each occurs this many times on average."""
MOST_LABELS = 200
MOST_SCALARS = 8
"""Objects of at most so many numbers become scalars, of more numbers metadata."""
DENSE_IDS = 1.5
"""Whole numbers are ids of classes if they span less than this many times their number."""
LONGEST_LABEL = 64
"""Characters of a label, at most."""
CLASS_COLUMN = re.compile("(label|class|category|target)(_id)?", re.IGNORECASE)
"""Names of columns whose whole numbers are ids of classes, if few differ."""
MOST_CLASS_IDS, FEWEST_OF_CLASS = 50, 2
"""Most of them that differ, and fewest samples of each on average."""
FEWEST_PER_BIN = 10
MOST_BINS = 64


def decide_text(finding: Finding, texts: Sequence[str]) -> Finding:
    """Fill in the entry for files that hold one text each."""
    given = [t.strip() for t in texts if not says_nothing(t.strip())]
    if not given:
        return finding.undecided("all files are empty")
    numbers = [n for t in given if (n := _number(t)) is not None]
    if len(numbers) == len(given):
        return _labels(finding, given) if len(set(given)) == 2 else _scalar(finding, numbers)
    if all(_is_row(t) for t in given):
        return finding.undecided("rows of numbers as text; save them as .npy or .csv")
    distinct = Counter(given)
    if (
        len(distinct) <= min(MOST_LABELS, len(given) // REPEATS)
        and max(map(len, distinct)) <= LONGEST_LABEL
        and not any("\n" in t for t in distinct)
    ):
        finding = _labels(finding, given)
        if any(" " in t for t in distinct):
            finding.doubts.append(
                f"few different texts ({len(distinct)}) are taken as classes of one token; to write them freely, run again with --text {finding.name}"
            )
        return finding
    return as_text(finding, texts)


def as_text(finding: Finding, texts: Sequence[str]) -> Finding:
    """Fill in the entry for free text."""
    finding.type, finding.texts = "text", [t for t in texts if t.strip()]
    finding.max_tokens = 1  # counted when the vocabulary is known
    longest = max(map(len, finding.texts), default=0)
    finding.found = f"{len(set(finding.texts))} different texts of up to {longest} characters"
    if longest > 10_000:
        finding.value["max_characters"] = longest
    return finding


def decide_json(finding: Finding, values: Sequence[Any], minutes: float) -> Finding:
    """Fill in the entry for JSON files; `minutes` of training decide about the size of masks."""
    given = [v for v in values if v is not None]
    if not given:
        return finding.undecided("all files hold null")
    if all(isinstance(v, Mapping) for v in given):
        if are_boxes_in_space(given):
            return decide_boxes_in_space(finding, given)
        return _object(finding, given)
    if all(isinstance(v, str) for v in given):
        return decide_text(finding, given)
    if all(is_number(v) for v in given):
        return _scalar(finding, given)
    if all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in given):
        names = sorted({x for v in given for x in v})
        if not names:
            return finding.undecided("all lists are empty")
        finding.type, finding.value, finding.found = "tags", {"classes": names}, f"lists of {len(names)} different tags"
        return finding
    if are_objects(given, "box"):
        return decide_boxes(finding, given)
    if are_objects(given, "mask"):
        return decide_masks(finding, given, minutes)
    return finding.undecided(
        "JSON of another form; expected a text, a number, a list of texts, or an object of numbers; for lists of boxes and masks see the value types in docs/values.md"
    )


def decide_ids(finding: Finding, numbers: Sequence[int]) -> Finding:
    """Fill in the entry for arrays of one whole number each: classes if the numbers count from 0 or 1 and repeat, or only two differ; otherwise a scalar."""
    ids = sorted(set(numbers))
    counts = ids[0] in (0, 1) and ids[-1] - ids[0] < DENSE_IDS * len(ids)
    if len(ids) == 2 or (counts and 2 < len(ids) <= min(MOST_LABELS, len(numbers) // REPEATS)):
        finding = _labels(finding, [str(n) for n in numbers])
        finding.value["classes"] = [str(n) for n in (ids if len(ids) == 2 else range(ids[0], ids[-1] + 1))]
        finding.doubts.append(
            f"whole numbers from {ids[0]} to {ids[-1]} are taken as classes; if they are quantities, set value: {{type: scalar}}"
        )
        return finding
    return _scalar(finding, numbers)


def class_ids(column: str, cells: Sequence[Any]) -> list[int]:
    """Returns the whole numbers in a column if its name says that they are classes, and few differ; otherwise nothing."""
    given = [text for cell in cells if not says_nothing(text := str(cell).strip())]
    ids = [int(text) for text in given if re.fullmatch("-?[0-9]{1,9}", text) and str(int(text)) == text]
    few = 2 <= len(set(ids)) <= min(MOST_CLASS_IDS, len(ids) // FEWEST_OF_CLASS)
    return ids if few and len(ids) == len(given) and CLASS_COLUMN.fullmatch(column) else []


def decide_class_ids(finding: Finding, ids: Sequence[int]) -> Finding:
    """Fill in the entry for a column of `class_ids`."""
    finding = _labels(finding, [str(n) for n in ids])
    finding.value["classes"] = [str(n) for n in sorted(set(ids))]
    finding.doubts.append(
        f"{len(set(ids))} different whole numbers in a column of this name are taken as classes; if they are quantities, set value: {{type: scalar}} and import again"
    )
    return finding


def _object(finding: Finding, objects: Sequence[Mapping[str, Any]]) -> Finding:
    keys = list(dict.fromkeys(key for o in objects for key in o))
    numbers = {k: [o[k] for o in objects if is_number(o.get(k))] for k in keys}
    usable = [k for k in keys if numbers[k] and all(o.get(k) is None or is_number(o[k]) for o in objects)]
    other = [k for k in keys if k not in usable]
    if not usable and len(keys) == 1 and all(isinstance(o.get(keys[0]), str) for o in objects):
        finding = decide_text(finding, [o[keys[0]] for o in objects])
        if finding.type == "text":
            finding.type, finding.max_tokens = "", 0
            return finding.undecided(f"free text under the key {keys[0]!r}; save only the text, as .txt")
        finding.value["key"] = keys[0]
        return finding
    if not usable:
        return finding.undecided(f"objects without numbers (keys {', '.join(keys[:10])})")
    if other:
        finding.doubts.append(f"the keys {', '.join(other[:10])} hold no numbers and are not read")
    if len(usable) == 1 and usable[0] != "":
        finding = _scalar(finding, numbers[usable[0]])
        finding.value["key"] = usable[0]
        return finding
    finding.numbers = {k: numbers[k] for k in usable} if 1 < len(usable) <= MOST_SCALARS else {}
    finding.type, finding.chunk, finding.max_tokens = "metadata", 2, 2 * len(usable) + 2
    finding.found = f"objects with {len(usable)} numbers"
    finding.value["keys"] = {key: _key(i, numbers[key]) for i, key in enumerate(usable)}
    finding.special = {"v0": max(k["bins"] for k in finding.value["keys"].values()), "v1": len(usable)}
    rare = [key for key in usable if len(numbers[key]) < len(objects)]
    if rare:
        finding.found += f", some without {', '.join(rare[:4])}"
    return finding


def _key(number: int, values: Sequence[float]) -> dict[str, Any]:
    """Returns the settings of a metadata key."""
    bins = _bins(len(values))
    whole = all(float(v).is_integer() for v in values)
    low, high = min(values), max(values)
    if low == high:
        return {"id": number, "range": [low - 0.5, high + 0.5], "bins": 1}
    if whole and high - low < MOST_BINS:
        return {"id": number, "range": [int(low), int(high)], "bins": int(high - low) + 1, "integer": True}
    low, high = rounded_out(low, high)
    key: dict[str, Any] = {"id": number, "range": [low, high], "bins": bins}
    if _is_logarithmic(values):
        cuts = np.unique([float(f"{x:.4g}") for x in np.geomspace(min(values), max(values), bins + 1)[1:-1]])
        cuts = cuts[(cuts > low) & (cuts < high)].tolist()
        key |= {"bins": len(cuts) + 1, "splits": cuts}
    return key | ({"integer": True} if whole else {})


def _scalar(finding: Finding, numbers: Sequence[float]) -> Finding:
    low, high = min(numbers), max(numbers)
    finding.type, finding.found = "scalar", f"numbers, {low:.4g} to {high:.4g}"
    finding.value["bins"] = MOST_BINS
    finding.why["bins"] = "of equal shares of the training values; fewer if there are few values"
    if _is_logarithmic(numbers):
        finding.value["scale"] = "log"
        finding.why["scale"] = f"the numbers span {math.log10(high / low):.1f} powers of ten"
    return finding


def split_numbers(finding: Finding, files: int, names: Sequence[str]) -> list[Finding]:
    """Returns a scalar for each number of an object, in place of its metadata.

    Args:
        files: number of objects that were read.
        names: the names of the new modalities.
    """
    found = []
    for (key, numbers), name in zip(finding.numbers.items(), names, strict=True):
        one = Finding(name, round(finding.files * len(numbers) / files), folder=finding.place, looked=len(numbers))
        one = _scalar(one, numbers)
        one.value["key"] = key
        found.append(one)
    found[0].doubts, found[0].faults = finding.doubts, finding.faults
    return found


def _labels(finding: Finding, given: Sequence[str]) -> Finding:
    classes = sorted(set(given))
    counts = Counter(given).most_common()
    finding.type, finding.value = "label", {"classes": classes}
    finding.found = f"{len(classes)} different labels, most often {counts[0][0]!r} ({counts[0][1] / len(given):.0%})"
    return finding


def _bins(count: int) -> int:
    return int(min(MOST_BINS, max(8, count // FEWEST_PER_BIN)))


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    low, high = np.quantile(numbers, (0.05, 0.95))  # evenly spread numbers from 0.01 to 10 are not
    return (
        min(numbers) > 0 and math.log10(max(numbers) / min(numbers)) > DECADES and math.log10(high / low) > WITHOUT_ENDS
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _is_row(text: str) -> bool:
    cells = text.replace(",", " ").replace(";", " ").split()
    return len(cells) > 1 and all(_number(c) is not None for c in cells)
