"""Which files belong to one sample, if their names differ by more than the ending: `tile_001_dem.tif` and `tile_001_rgb.tif`, or `train/` and `val/`."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from maskweave.values.formats import split_ending

SEPARATORS = re.compile(r"[_\-. ]+")
TRAINING = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing", "eval")
"""Names of folders that say which part their samples are in."""
SHARED = 0.5
"""Share of the names that must be common for files to belong together."""
MOST_GROUPS = 32
"""Most modalities among the files of one folder."""

MOST_SINGLE = 2
"""Most files among them that belong to no sample."""

Files = Mapping[str, str]
"""Paths by the sample's name."""


def part_of(folder: str) -> str:
    """Returns the part that a folder's name says, `train` or `validation`; empty if it says none."""
    lower = folder.lower()
    return "train" if lower in TRAINING else "validation" if lower in HELD_OUT else ""


def parts_of(names: Collection[str]) -> dict[str, str]:
    """Returns the part of each sample, by the first folder in its name; nothing unless all names have one and both parts occur."""
    parts = {name: part_of(name.partition("/")[0]) if "/" in name else "" for name in names}
    return parts if {*parts.values()} == {"train", "validation"} else {}


def matched_names(folders: Mapping[str, Files]) -> dict[str, dict[str, str]]:
    """Find names that the files of several folders share once parts that mean nothing are left out of them.

    Args:
        folders: files by folder. Those of some folders may share their names as they are.

    Returns:
        the files of folders whose names have others in common, by folder; nothing if no other names are needed or none were found.
    """
    as_they_are = _overlapping(folders)
    if len(as_they_are) == len(folders):
        return {}
    if as_they_are:
        known = {key for files in as_they_are.values() for key in files}
        found = {name: dict(files) for name, files in as_they_are.items()}
        for name, files in folders.items():
            short = (s for s in _shortened(name, files) if name not in found)
            if match := next((s for s in short if len(s.keys() & known) >= SHARED * len(s)), None):
                found[name] = match
        return found if len(found) > len(as_they_are) else {}
    for variants in zip(*(_shortened(name, files) for name, files in folders.items()), strict=True):
        named = dict(zip(folders, variants, strict=True))
        close = _overlapping({n: f for n, f in named.items() if f})
        if len(close) > 1:
            return {name: named[name] for name in close}
    return {}


def key_counts(folders: Mapping[str, Files]) -> Counter[str]:
    """Returns in how many folders each name occurs."""
    return Counter(key for files in folders.values() for key in files)


def _overlapping(folders: Mapping[str, Files]) -> dict[str, Files]:
    """Returns the folders that share enough names with another. Only those with names that occur twice are compared, which keeps many folders fast."""
    counts = key_counts(folders)
    smallest = min(map(len, folders.values()), default=0)
    places: dict[str, list[str]] = defaultdict(list)
    for name, files in folders.items():
        for key in files:
            if counts[key] > 1:
                places[key].append(name)
    found: dict[str, Files] = {}
    for name, files in folders.items():
        shared = [key for key in files if counts[key] > 1]
        enough = shared and len(shared) >= SHARED * min(len(files), smallest)
        if enough and any(_overlap(files, folders[other]) for other in _others(name, shared, places)):
            found[name] = files
    return found


def _others(name: str, keys: Sequence[str], places: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields other folders that have one of the names, each once."""
    seen = {name}
    for key in keys:
        for other in places[key]:
            if other not in seen:
                seen.add(other)
                yield other


def files_of_samples(folders: Mapping[str, Files]) -> dict[str, dict[str, str]]:
    """Returns the files by modality and by the sample's name, if each folder is a sample with files named like modalities: most folders have the same few
    names, each with one ending. The folder's name may be a part of them: `sub-01/anat/sub-01_T1w.png` is `T1w` of `sub-01`. Nothing if they are not.
    """
    found = _common_names(folders)
    if not found:
        found = _common_names({folder: _without_folder(folder, files) for folder, files in folders.items()})
        found = found if all(re.search("[^\\W\\d_]", name.rpartition("/")[2]) for name in found) else {}
    if any("/" in name for name in found):
        if any(part_of(name.partition("/")[0]) for name in found):
            return {}
        last = [name.rpartition("/")[2] for name in found]
        joined = last if len({*last}) == len(last) else [name.replace("/", "_") for name in found]
        found = dict(zip(joined, found.values(), strict=True)) if len({*joined}) == len(joined) else {}
    return found


def _without_folder(folder: str, files: Files) -> Files:
    """Returns files by names without their folder's name at the start or end; as they are if two would have one name."""
    sign = "[_\\-. ]+"
    own = re.compile(f"^{re.escape(folder)}{sign}(?=.)|(?<=.){sign}{re.escape(folder)}$", re.IGNORECASE)
    short = {}
    for key, path in files.items():
        inner, slash, name = key.rpartition("/")
        short[f"{inner}{slash}{own.sub('', name, count=1)}"] = path
    return short if len(short) == len(files) else files


def _common_names(folders: Mapping[str, Files]) -> dict[str, dict[str, str]]:
    counts = key_counts(folders)
    names = [name for name, count in counts.items() if count >= SHARED * len(folders)]
    few = 1 < len(names) < len(folders) and len(names) <= MOST_GROUPS
    if not few or sum(counts[name] for name in names) < SHARED * counts.total():
        return {}
    paths = {name: {f: files[name] for f, files in folders.items() if name in files} for name in names}
    if any(len({split_ending(path)[1] for path in of_name.values()}) > 1 for of_name in paths.values()):
        return {}
    return {name: {f: f"{f}/{path}" for f, path in of_name.items()} for name, of_name in paths.items()}


def grouped_names(paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the files of one folder by modality and by the sample's name, if several of them belong to one sample: their names differ only by the
    ending, or by their last or first part. Nothing if they do not."""
    split = [(*split_ending(path), path) for path in sorted(paths)]
    by_ending: dict[str, dict[str, str]] = defaultdict(dict)
    for stem, ending, path in split:
        by_ending[ending][stem] = path
    if found := _belonging_together(by_ending):
        return found
    for last in (True, False):
        groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for stem, ending, path in split:
            cut = [m.span() for m in SEPARATORS.finditer(stem)]
            if cut and cut[0][0] > 0 and cut[-1][1] < len(stem):
                start, end = cut[-1] if last else cut[0]
                rest, mark = (stem[:start], stem[end:]) if last else (stem[end:], stem[:start])
                groups[mark, ending][rest] = path
        marks = [mark for mark, _ in groups]
        named = {m if marks.count(m) == 1 else f"{m}_{ending}": files for (m, ending), files in groups.items()}
        if found := _belonging_together(named):
            return found
    return {}


def _belonging_together(groups: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Returns groups of files if they are modalities of the same samples, without single files, which may be about all of them."""
    several = {name: files for name, files in groups.items() if len(files) > 1}
    if not 1 < len(several) <= MOST_GROUPS or len(groups) > len(several) + MOST_SINGLE:
        return {}
    whole = all(any(_overlap(files, o) for m, o in several.items() if m != name) for name, files in several.items())
    return several if whole else {}


def _overlap(files: Files, others: Files) -> bool:
    return len(files.keys() & others.keys()) >= SHARED * min(len(files), len(others))


def _shortened(folder: str, files: Files) -> Iterator[dict[str, str]]:
    """Yields files by shorter names, in four ways; empty where two files would have one name.

    Left out are: the folder's own name; the last parts that all names share; the first and last ones; all that are the same in all names.
    """
    split = {key: SEPARATORS.split(key.rpartition("/")[2]) for key in files}
    parts = list(split.values())
    fewest = min(map(len, parts))
    tail = next((n for n in range(fewest) if len({p[-1 - n] for p in parts}) > 1), 0)
    head = next((n for n in range(fewest) if len({p[n] for p in parts}) > 1), 0)
    own = {p.lower() for p in SEPARATORS.split(folder)}
    same = {n for n in range(fewest) if len({p[n] for p in parts}) == 1} if len({*map(len, parts)}) == 1 else set()
    for kept in (
        lambda p: [one for one in p if one.lower() not in own],
        lambda p: p[: len(p) - tail],
        lambda p: p[head : len(p) - tail],
        lambda p: [one for n, one in enumerate(p) if n not in same],
    ):
        short = {}
        for key, names in split.items():
            inner, slash, _ = key.rpartition("/")
            if left := kept(names):
                short[f"{inner}{slash}{'_'.join(left)}"] = files[key]
        yield short if len(short) == len(files) and len(files) > 1 else {}
