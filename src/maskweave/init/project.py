"""Making a project: survey a folder, write its catalog and recipe, import its files."""

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.data.import_source import import_data
from maskweave.data.named import is_named
from maskweave.errors import MaskweaveError, shown_command
from maskweave.files import write_aside
from maskweave.init.data_sets import ValueSet, list_data_set
from maskweave.init.entries import catalog_text, fit_vocabulary
from maskweave.init.finding import Finding
from maskweave.init.joined import joined, joined_metadata, metadata_tables, table_beside
from maskweave.init.listing import NAME, FolderListing, list_folder
from maskweave.init.plan import MOST_EVALUATED, Plan, machine_speed, make_plan
from maskweave.init.recipe_text import recipe_text
from maskweave.init.survey import survey
from maskweave.modality.catalogs import load_catalog
from maskweave.report.tables import text_table
from maskweave.training.recipe import load_recipe

CATALOG, RECIPE, DATA, RUN = "catalog.yaml", "recipe.yaml", "data", "run"
FILES, SPLIT = "files.jsonl", "split.csv"
"""Which files belong to one sample, if their names alone do not say it; which samples are held out, if folders say it."""
LIMIT = 0.5
"""Largest share of samples with unusable files at the import; they are counted and listed."""
FAULTS_SHOWN = 2
RARE = 0.1
"""Modalities that a smaller share of the samples has are in the catalog, but not in the recipe."""


@dataclass
class Project:
    """A folder with catalog, recipe and data, and what was found out on the way."""

    folder: Path
    listing: FolderListing
    findings: list[Finding]
    plan: Plan
    minutes: float
    imported: str = ""
    """Report of the import; empty: not imported."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_imported(self) -> bool:
        """Whether the data are tar shards already."""
        return self.listing.layout == "shards"

    @property
    def import_command(self) -> str:
        listing = self.listing
        more = ["--single", listing.sets[0].name] if listing.layout in ("classes", "flat") else []
        more += ["--fields", json.dumps(self.fields)] * bool(self.fields)
        more += ["--window", str(listing.window)] * bool(listing.window)
        more += ["--pictures", str(self.listing.root.resolve())] * (listing.layout == "named")
        out, catalog = self.folder / DATA, self.folder / CATALOG
        return shown_command("data", "import", self.place, out, "--catalog", catalog, *more)

    @property
    def place(self) -> Path:
        """What is imported."""
        return self.folder / FILES if self.listing.layout == "named" else self.listing.root

    @property
    def fields(self) -> dict[str, str]:
        """`data.fields` of the import."""
        return self.listing.fields | ({NAME: NAME} if self.listing.layout == "named" else {})

    @property
    def run_command(self) -> str:
        return shown_command("run", self.folder / RECIPE, "--out", self.folder / RUN)

    def survey_text(self) -> str:
        """Returns the table of what was found, and what could not be decided."""
        samples = len(self.listing.names)
        rows = [
            [
                f.name,
                f.type or "undecided",
                str(f.files),
                _share(1 - f.files / samples),
                str(len(f.faults)),
                _size(f),
                f.found,
            ]
            for f in self.findings
        ]
        lines = [
            f"{self.listing.root}: {samples} samples, {LAYOUTS[self.listing.layout]}",
            "",
            text_table(["modality", "type", "files", "lacking", "unreadable", "size", "values"], rows),
        ]
        doubts = [(f.name, doubt) for f in self.findings for doubt in f.doubts]
        if doubts or self.listing.left_out:
            lines += ["", f"To decide yourself (the entries are in {self.folder / CATALOG}):"]
            lines += [f"  {name}: {doubt}" for name, doubt in doubts]
            lines += [f"  not used: {left}" for left in self.listing.left_out]
        faults = [fault for f in self.findings for fault in f.faults[:FAULTS_SHOWN]]
        lines += ["", "Unreadable, for instance:", *(f"  {fault}" for fault in faults)] if faults else []
        return "\n".join(lines)

    def next_text(self) -> str:
        """Returns what to do next."""
        first = [] if self.imported or self.is_imported else [f"  {self.import_command}"]
        return "\n".join(
            [
                f"written: {self.folder / CATALOG} and {self.folder / RECIPE}, planned for about {self.minutes:g} minutes",
                *self.notes,
                "Next:",
                *first,
                f"  {self.run_command}",
            ]
        )


LAYOUTS = {
    "aligned": "one folder per modality",
    "classes": "one folder of pictures per class",
    "flat": "files in one folder",
    "named": "brought together by their names",
    "table": "rows of a table",
    "robot": "episodes of a LeRobot folder",
    "arkit": "frames of scans of ARKitScenes",
    "coco": "pictures with COCO's annotations",
    "tars": "WebDataset tars",
    "shards": "tar shards",
}


def make_project(
    root: Path,
    out: Path,
    minutes: float = 10,
    arrays: Mapping[str, str] | None = None,
    texts: Collection[str] = (),
    classes: bool = False,
    axes: Mapping[str, str] | None = None,
) -> Project:
    """Survey a folder and write the catalog and the recipe of a project.

    Args:
        root: folder of files, see `listing`.
        out: folder of the project; it may hold an earlier import.
        minutes: about how long the run should take.
        arrays: by modality, which array to read from files that hold several.
        texts: modalities that are free text, even if few texts differ.
        classes: the folders are classes of pictures, even though they hold files of the same names.
        axes: by modality, which array holds the coordinates of its points, such as wavelengths.

    Raises:
        MaskweaveError: the folder holds nothing usable, or the project's folder has other contents.
    """
    if not 0 < minutes < 1e6:
        raise MaskweaveError(f"--minutes must be above 0, found {minutes:g}")
    if is_named(str(root)):
        raise MaskweaveError(
            f"{root}: is a source made by code, which gives values for the entries of a catalog, so there are no files to look at; write the catalog, then set data.source in a recipe"
        )
    listing = None if classes else list_data_set(root)
    if listing is None:
        table, inside = table_beside(root), metadata_tables(root)
        listing = list_folder(root, classes, [*([table] if table else []), *inside])
        if table:
            listing = joined(listing, table)
        if inside:
            listing = joined_metadata(listing, inside)
    _check_out(root, out)
    findings = survey(listing, minutes, arrays or {}, texts, axes)
    usable = [f for f in findings if f.type]
    if not usable:
        reasons = "; ".join(f"{f.name}: {doubt}" for f in findings for doubt in f.doubts)
        raise MaskweaveError(
            f"{root}: nothing usable ({reasons}); usable are pictures, GeoTIFF, arrays (.npy, .npz, FITS, HDF5, Zarr), videos, texts, and JSON of numbers or tags, "
            "in one folder per modality with the same names"
        )
    vocabulary = fit_vocabulary(usable)
    samples = len(set().union(*(s.files for s in listing.sets if any(f.place == s.name for f in usable))))
    common = [f for f in usable if f.files >= RARE * samples] or usable
    rare = [f for f in usable if f not in common]
    for f in rare:
        f.doubts.append(
            f"only {f.files} of {samples} samples have it, so the recipe leaves it out; to use it, add it to the recipe's modalities"
        )
    plan = make_plan(common, samples, minutes, machine_speed(), torch.get_num_threads())
    parts = _usable_parts(listing, common)
    if parts:
        held_out = sum(part == "validation" for part in parts.values())
        plan = replace(plan, validation=held_out, evaluated=min(held_out, MOST_EVALUATED))
    project = Project(out, listing, findings, plan, minutes)
    command = shown_command("init", root, "--out", out)
    catalog = catalog_text(
        usable,
        vocabulary,
        samples,
        [f"The modalities of {root}, found by: {command}", "docs/modalities.md says what each key means."],
    )
    recipe = recipe_text(
        common,
        plan,
        CATALOG,
        str((root if listing.layout == "shards" else out / DATA).resolve()),
        [
            f"Trains one model on {samples} samples of {root}. Written by: {command}",
            f"Command: {project.run_command}",
            f"Cost: planned for about {minutes:g} minutes on {plan.cores} core{'s' * (plan.cores > 1)} of this machine; not measured.",
        ],
        _held(listing, common),
        listing.group,
        rare,
        str((out / SPLIT).resolve()) if parts else "",
    )
    if listing.layout == "named":
        out.mkdir(parents=True, exist_ok=True)
        _write(out / FILES, _files_text(listing))
    path = out / CATALOG
    if path.exists() and path.read_text(encoding="utf-8") != catalog:
        raise MaskweaveError(
            f"{path}: exists already and differs from what was found now; to keep it, continue with: {project.import_command}; to make it again, remove it"
        )
    out.mkdir(parents=True, exist_ok=True)
    if parts:
        _write(out / SPLIT, _csv([["name", "part"], *map(list, parts.items())]))
    _write(path, catalog)
    if not (out / RECIPE).exists():
        _write(out / RECIPE, recipe)
    elif (out / RECIPE).read_text(encoding="utf-8") != recipe:
        project.notes.append(f"{out / RECIPE}: kept as it is; to make it again, remove it")
    load_recipe(out / RECIPE)
    return project


def import_files(project: Project) -> None:
    """Import the files of a project; an interrupted import resumes."""
    listing = project.listing
    if project.is_imported:
        return
    options: dict[str, Any] = {}
    if listing.is_data_set:
        root = str(listing.root.resolve()) if listing.layout == "named" else ""
        options = {"fields": project.fields, "window": listing.window, "pictures": root}
    report = import_data(
        str(project.place),
        project.folder / DATA,
        load_catalog(project.folder / CATALOG),
        limit=LIMIT,
        single=listing.sets[0].name if listing.layout in ("classes", "flat") else "",
        **options,
    )
    project.imported = str(report)


def _usable_parts(listing: FolderListing, findings: Sequence[Finding]) -> dict[str, str]:
    """Returns the part of each sample that folders say; none, with a note, if held-out samples lack a modality that others have: it could not be scored."""
    parts = listing.parts
    held_out = {name for name, part in parts.items() if part == "validation"}
    files = {s.name: s.files for s in listing.sets}
    for one in findings if parts else ():
        if one.place in files and not held_out & files[one.place].keys():
            folders = ", ".join(sorted({f"{name.partition('/')[0]}/" for name in held_out}))
            listing.left_out.append(
                f"{folders} as held-out samples: none of them has {one.name}, so samples are held out by their names instead"
            )
            return {}
    return parts


def _files_text(listing: FolderListing) -> str:
    """Returns the JSON lines of a `named` layout: one for each sample, with the paths of its files in the folder, cells of a table beside them, and its class."""
    columns: dict[str, Mapping[str, Any]] = {}
    for one in listing.sets:
        cells = one.values if isinstance(one, ValueSet) else {}
        paths = {key: (one.folder / path).relative_to(listing.root).as_posix() for key, path in one.files.items()}
        columns[one.name] = cells or paths
    if listing.class_name:
        found = {key: re.match(listing.class_pattern, key) for key in listing.names}
        columns[listing.class_name] = {key: match[1] for key, match in found.items() if match}
    rows = (
        {NAME: key} | {name: cells[key] for name, cells in columns.items() if key in cells} for key in listing.names
    )
    return "".join(f"{json.dumps(row, ensure_ascii=False, default=lambda one: one.tolist())}\n" for row in rows)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _held(listing: FolderListing, findings: Sequence[Finding]) -> dict[str, np.ndarray]:
    """Returns which samples have a file of each modality, bool (samples,); all have the class that their folder is."""
    names, files = listing.names, {s.name: s.files for s in listing.sets}
    return {f.name: np.array([f.place not in files or name in files[f.place] for name in names]) for f in findings}


def _check_out(root: Path, out: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise MaskweaveError(
            f"{out}: is inside {root}, so it would be read as a modality; choose a folder outside with --out"
        )
    if out.exists() and not out.is_dir():
        raise MaskweaveError(f"{out}: is a file; expected a folder for the project")
    others = (
        sorted({p.name for p in out.iterdir()} - {CATALOG, RECIPE, DATA, RUN, FILES, SPLIT}) if out.exists() else []
    )
    if others:
        raise MaskweaveError(
            f"{out}: already contains {', '.join(others[:5])}; choose an empty or new folder with --out"
        )


def _write(path: Path, text: str) -> None:
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "–"


def _size(finding: Finding) -> str:
    if "max_seconds" in finding.value:
        return f"{finding.value['max_seconds']:.3g} s"
    size = "×".join(map(str, finding.value.get("size", ())))
    channels = finding.value.get("channels", 1)
    return (
        f"{size}, {channels} channels"
        if size and channels > 1
        else size or (f"≤ {finding.max_tokens} tokens" if finding.is_sequence else "–")
    )
