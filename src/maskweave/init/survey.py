"""A survey of a folder: what the files of each modality hold, from a spread of them."""

import re
from collections.abc import Collection, Mapping

from maskweave.errors import BadSample, MaskweaveError
from maskweave.init.axes import set_axis
from maskweave.init.contents import FileContent
from maskweave.init.data_sets import ValueSet
from maskweave.init.dense import decide_dense
from maskweave.init.finding import Finding
from maskweave.init.listing import RESERVED, FileSet, FolderListing, spread
from maskweave.init.media import decide_sound, decide_video, is_color_video
from maskweave.init.objects import plane_of
from maskweave.init.words import (
    as_text,
    class_ids,
    decide_class_ids,
    decide_ids,
    decide_json,
    decide_text,
    split_numbers,
)
from maskweave.progress import Progress, progress

LOOKED_AT = 64
"""Files that are read of each modality."""
TEXTS_LOOKED_AT = 20_000
"""The same of texts, which are small, because labels need all classes."""
SAME_FRAME = 0.02
"""Planes of one frame differ in aspect ratio by at most this, and by one point."""


def survey(
    listing: FolderListing,
    minutes: float,
    arrays: Mapping[str, str],
    texts: Collection[str],
    axes: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Read a spread of files of each modality.

    Args:
        minutes: time for the run; pictures are larger in long runs.
        arrays: by modality, which array to read from files that hold several.
        texts: modalities that are free text, even if few texts differ.
        axes: by modality, which array holds the coordinates of its points.

    Raises:
        MaskweaveError: an option names no modality.
    """
    known, axes = [s.name for s in listing.sets], axes or {}
    for option, names in (("--array", arrays), ("--text", texts), ("--axis", axes)):
        if unknown := [name for name in names if name not in known]:
            raise MaskweaveError(
                f"{option} names {unknown[0]!r}, which is no folder of {listing.root}; found {', '.join(known)}"
            )
    names = listing.names
    total = sum(min(len(s.files), _most(s)) for s in listing.sets)
    with progress("look", total) as bar:
        looked = [
            _look(s, names, minutes, arrays.get(s.name, ""), s.name in texts, bar, axes.get(s.name, ""))
            for s in listing.sets
        ]
    findings = [one for f in looked for one in ([f] if listing.layout == "shards" else _split(f, known))]
    for f in findings:
        if f.folder and listing.is_data_set:
            listing.fields[f.name] = listing.fields.get(f.folder, f.folder)
    for place in {f.folder for f in findings if f.folder}:
        listing.fields.pop(place, None)
    if listing.class_pattern:
        classes = sorted({str(match[1]) for key in names if (match := re.match(listing.class_pattern, key))})
        label = Finding(_free("class", known), len(names), len(names), f"{len(classes)} folders")
        label.type, label.value = "label", {"classes": classes}
        if listing.layout == "named":
            label.why["classes"] = "names of the folders"
        else:
            label.value["name_pattern"] = listing.class_pattern
            label.why["name_pattern"] = "the class is the name of the folder"
        listing.class_name = label.name
        findings.append(label)
    _set_views(findings)
    return findings


def _split(finding: Finding, known: list[str]) -> list[Finding]:
    """Returns a scalar for each number of objects with few of them."""
    if not finding.numbers:
        return [finding]
    names: list[str] = []
    taken = [name for name in known if name != finding.name]
    for key in finding.numbers:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", key).strip("_-")
        name = _free(name if name and name not in RESERVED else f"{finding.name}_{name}", [*taken, *names])
        names.append(name)
    return split_numbers(finding, finding.looked, names)


def _most(files: FileSet) -> int:
    if files.most_looked:
        return files.most_looked
    return TEXTS_LOOKED_AT if set(files.endings) <= {"txt", "json"} else LOOKED_AT


def _look(
    files: FileSet, names: list[str], minutes: float, array: str, free: bool, bar: Progress, axis: str
) -> Finding:
    finding = Finding(files.name, len(files.files))
    read: dict[str, FileContent] = {}
    faults: dict[str, str] = {}
    missing = 0
    for key in spread([name for name in names if name in files.files], _most(files)):
        try:
            content = files.content(key, array)
            if content is None:
                missing += 1
            else:
                read[key] = content
        except BadSample as error:
            faults[key] = str(error)
        except MaskweaveError as error:  # a missing package: the same for all files
            return finding.undecided(str(error))
        bar.advance(1)
    if missing:
        finding.files -= round(len(files.files) * missing / (missing + len(read) + len(faults)))
    _drop_deep(finding, read, faults)
    finding.looked, finding.faults = len(read), list(faults.values())
    if not read:
        finding.faults.clear()
        return finding.undecided(_why_nothing(next(iter(faults.values()), "no files"), files.name))
    try:
        is_column = isinstance(files, ValueSet) and not free and {c.holds for c in read.values()} <= {"text", "json"}
        ids = class_ids(files.name, [c.data for c in read.values()]) if is_column else []
        finding = decide_class_ids(finding, ids) if ids else _decide(finding, read, minutes, array, free)
        if finding.type and isinstance(files, ValueSet) and files.stated:
            finding.value |= files.stated
            finding.why |= dict.fromkeys(files.stated, "as the data set's documentation says")
        if axis and finding.type:
            found = {key: content.data for key in read if (content := files.content(key, axis)) is not None}
            finding = set_axis(finding, axis, list(found.values()), [read[key].data for key in found])
        return finding
    except BadSample as error:
        return finding.undecided(str(error))


def _drop_deep(finding: Finding, read: dict[str, FileContent], faults: dict[str, str]) -> None:
    """Count the pictures of 16 bits a channel among pictures of 8 bits as unreadable."""
    deep = [key for key, c in read.items() if c.holds == "array" and c.data.dtype not in ("uint8", "bool")]
    if any(c.holds == "picture" for c in read.values()) and len(deep) < len(read) / 2:
        for key in deep:
            faults[key] = f"{finding.name}: {key}: {read.pop(key).data.dtype} among pictures of 8 bits a channel"


def _decide(finding: Finding, read: dict[str, FileContent], minutes: float, array: str, free: bool) -> Finding:
    kinds = {c.holds for c in read.values()}
    values = [c.data for c in read.values()]
    if kinds == {"text"}:
        return as_text(finding, values) if free else decide_text(finding, values)
    if kinds == {"json"}:
        if free and all(isinstance(v, str) for v in values):
            return as_text(finding, values)
        finding = decide_json(finding, values, minutes)
        if finding.type == "instances":
            first = {key: plane_of(c.data[0]["mask"]) for key, c in read.items() if c.data}
            finding.extents = {key: plane for key, plane in first.items() if plane}
        return finding
    if kinds == {"sound"}:
        return decide_sound(finding, read)
    if kinds == {"video"} or (kinds == {"array"} and all(is_color_video(c) for c in read.values())):
        return _with_array(decide_video(finding, read), array)
    if kinds <= {"array", "picture"}:
        if all(c.data.size == 1 for c in read.values()):
            numbers = [c.data.reshape(()).item() for c in read.values()]
            is_whole = all(c.data.dtype.kind in "iu" for c in read.values())
            return decide_ids(finding, numbers) if is_whole else decide_json(finding, numbers, minutes)
        return _with_array(decide_dense(finding, read, minutes), array)
    return finding.undecided(
        f"the files hold different things: {', '.join(sorted(kinds))}; keep one kind in each folder"
    )


def _with_array(finding: Finding, array: str) -> Finding:
    if array and finding.type:
        finding.value["array"] = array
    return finding


def _why_nothing(fault: str, name: str) -> str:
    if "value: {array:" in fault:
        arrays = fault.partition("arrays: ")[2].partition("; expected one")[0]
        return (
            f"each file holds several arrays ({arrays}); choose one: run again with --array {name}=NAME, and with --axis {name}=NAME "
            "if another holds the coordinates of its points"
        )
    return fault


def _set_views(findings: list[Finding]) -> None:
    """Give planes, videos and volumes that do not show the frame of the first one a view of their own."""
    shown = [f for f in findings if f.type and f.extents]
    planes = [f for f in shown if isinstance(f.value.get("fit", ""), str)]
    first = next((f for f in planes if f.type == "image"), next(iter(planes), None))
    for other in shown:
        alone = len(shown) == 1 or (other not in planes and len(other.value["size"]) == 2)
        if other is not first and not alone and not (other in planes and first and _same_frame(first, other)):
            other.view = other.name


def _same_frame(a: Finding, b: Finding) -> bool:
    def ratio(extent: tuple[int, ...]) -> float:
        return extent[1] / extent[0]

    if "resize" in (a.value.get("fit"), b.value.get("fit")):
        return False
    shared = [key for key in a.extents if key in b.extents]
    fits = all(
        abs(ratio(a.extents[k]) / ratio(b.extents[k]) - 1) <= SAME_FRAME + 1 / min(*a.extents[k], *b.extents[k])
        for k in shared
    )
    sizes = [f.value["size"][-2:] for f in (a, b)]
    return bool(shared) and fits and sizes[0][0] * sizes[1][1] == sizes[0][1] * sizes[1][0]


def _free(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name
