"""The command `maskweave init`: from a folder of files to a catalog, a recipe and imported data."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from maskweave.config import names, pairs
from maskweave.data.remote import is_remote
from maskweave.errors import MaskweaveError
from maskweave.init.project import import_files, make_project


def init_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=str,
        help="folder with files FOLDER/MODALITY/.../NAME.EXT, or of pictures; a csv or parquet table, one npz or HDF5 file with all samples, tars, a LeRobot, COCO or datasets folder",
    )
    parser.add_argument(
        "--out", metavar="PROJECT", type=str, help="folder of the project (default: NAME-model for a folder NAME)"
    )
    parser.add_argument("--minutes", metavar="M", type=float, default=10.0, help="about how long the run should take")
    parser.add_argument(
        "--array",
        metavar="MODALITY=ARRAY",
        type=str,
        nargs="+",
        default=[],
        help="array to read from files that hold several",
    )
    parser.add_argument(
        "--axis",
        metavar="MODALITY=ARRAY",
        type=str,
        nargs="+",
        default=[],
        help="array with the coordinates of its points, such as wavelengths: files are resampled onto one axis",
    )
    parser.add_argument(
        "--text",
        metavar="NAMES",
        type=str,
        help="modalities that are free text, separated by commas, although few differ",
    )
    parser.add_argument(
        "--classes", action="store_true", help="the folders are classes of pictures, although they hold the same names"
    )
    parser.add_argument("--no-import", action="store_true", help="only write the catalog and the recipe")


def init(given: Namespace) -> None:
    if is_remote(given.folder):
        raise MaskweaveError(
            f"{given.folder}: init looks at folders of this machine; copy some hundred samples here, run init on them, then set data.source of the recipe to this place"
        )
    if given.out and is_remote(given.out):
        raise MaskweaveError(
            f"--out {given.out}: a project is a folder of this machine; give one, with --no-import, and import to this place with maskweave data import"
        )
    root = Path(given.folder)
    out = Path(given.out or f"{root.resolve().name}-model")
    project = make_project(
        root,
        out,
        given.minutes,
        pairs("array", given.array, "ARRAY", empty=False),
        names("text", given.text),
        given.classes,
        pairs("axis", given.axis, "ARRAY", empty=False),
    )
    print(project.survey_text())
    if not given.no_import:
        print()
        import_files(project)
        print(project.imported or f"{root}: imported already; the recipe reads it")
    print(f"\n{project.next_text()}")
