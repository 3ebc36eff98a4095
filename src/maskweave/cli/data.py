"""Commands for data and catalogs: `maskweave data import`, `data stats`, `label` (also `data label`), `data scenes`, `data emoji`, `values` and `modalities`."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from maskweave.cli.shared import device_argument, part_argument, part_of
from maskweave.config import names
from maskweave.data.export import export
from maskweave.data.import_source import import_data
from maskweave.data.importing import ImportReport
from maskweave.data.publishing import publish
from maskweave.data.remote import is_remote
from maskweave.data.stats import data_stats as stats_of
from maskweave.errors import MaskweaveError
from maskweave.label.derive import LabelReport
from maskweave.label.derive import label as label_data
from maskweave.limits import ImportLimits, limited_to
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.ranks import JobPart
from maskweave.report.data_stats import stats_path, stats_text, write_stats
from maskweave.report.tables import key_table, modality_table
from maskweave.synthetic.emoji import FONT, Emoji
from maskweave.synthetic.scenes import Scenes
from maskweave.training.launch import divide
from maskweave.values import docs, value_type


def catalog_argument(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--catalog",
        metavar="CATALOG",
        type=str,
        default=default,
        help="name of a shipped catalog, or path of a YAML file",
    )


def _limit_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        metavar="SHARE",
        type=float,
        default=0.01,
        help="stop if more than this share of samples has unusable values, 0 to 1",
    )


def _out_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "out",
        metavar="OUT",
        type=str,
        help="output folder; files are OUT/MODALITY/NAME.EXT, the layout that 'maskweave data import' reads",
    )


def data_import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "root",
        metavar="ROOT",
        type=str,
        help="folder with files ROOT/MODALITY/.../NAME.EXT; a csv or parquet table, one npz or HDF5 file with all samples, a folder of WebDataset tars or of Hugging Face datasets; or python: module:function",
    )
    parser.add_argument(
        "out", metavar="OUT", type=str, help="output folder for tar shards, or a URL such as s3://bucket/name"
    )
    catalog_argument(parser, "photos")
    parser.add_argument("--shard-size", metavar="N", type=int, default=1000, help="samples per shard")
    _limit_argument(parser)
    parser.add_argument(
        "--bad",
        type=Literal["part", "sample"],
        default="part",
        help="what an unusable file drops: only this part of its sample, or the whole sample",
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="number of files decoded in parallel")
    parser.add_argument(
        "--single",
        metavar="NAME",
        type=str,
        default="",
        help="the only modality, whose files are in ROOT itself and not in a folder of this name",
    )
    parser.add_argument(
        "--fields",
        metavar="FIELDS",
        type=dict[str, str],
        default={},
        help="columns of a table or fields of tars, '{rgb: image_path, caption: text}'; for tables, 'name' is the column of the samples' names",
    )
    parser.add_argument(
        "--outside-paths", action="store_true", help="allow paths in a table that lead out of its folder"
    )
    parser.add_argument("--window", metavar="N", type=int, default=0, help="frames of a sample of a LeRobot folder")
    parser.add_argument(
        "--pictures",
        metavar="FOLDER",
        type=str,
        default="",
        help="COCO: folder of the pictures; csv and JSON lines: folder that paths are relative to",
    )
    parser.add_argument("--samples", metavar="N", type=int, default=0, help="import only the first N samples")
    parser.add_argument(
        "--max-value-mb",
        metavar="MB",
        type=int,
        help="memory in MB that one picture or array may take while it is read, per job (default: MASKWEAVE_MAX_VALUE_MB, or 1024)",
    )
    part_argument(parser)


def data_import(given: Namespace) -> None:
    catalog = load_catalog(given.catalog)
    try:
        limits = ImportLimits(value_mb=given.get("max_value_mb"))
    except MaskweaveError as error:
        raise MaskweaveError(f"--max-value-mb: {error}") from error
    with limited_to(limits):
        report = divide(lambda part: _imported(given, catalog, part), part_of(given))
    print(report)


def _imported(given: Namespace, catalog: Catalog, part: JobPart) -> ImportReport:
    return import_data(
        given.root,
        given.out,
        catalog,
        shard_size=given.shard_size,
        limit=given.limit,
        jobs=given.jobs,
        bad=given.bad,
        single=given.single,
        part=part,
        fields=given.fields,
        outside_paths=given.outside_paths,
        samples=given.samples,
        window=given.window,
        pictures=given.pictures,
    )


def upload_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", type=str, help="an imported data set, a tokens folder, a bundle or a run"
    )
    parser.add_argument("url", metavar="URL", type=str, help="where it goes, such as s3://bucket/name")


def upload(given: Namespace) -> None:
    if not is_remote(given.url):
        raise MaskweaveError(f"{given.url}: expected a URL such as s3://bucket/name; copy to a folder with cp -r")
    print(f"{given.url}: {publish(Path(given.folder), given.url):,} files")


def data_stats_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "root", metavar="DATA", type=str, help="what 'maskweave data import' reads, or an imported data set"
    )
    catalog_argument(parser, "photos")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=0, help="read at most N samples, evenly spread (default: all)"
    )
    parser.add_argument("--out", metavar="FILE", type=str, help="also write histograms as .png, or all facts as .html")
    parser.add_argument("--fields", metavar="FIELDS", type=dict[str, str], default={}, help="as for 'data import'")
    parser.add_argument("--window", metavar="N", type=int, default=0, help="as for 'data import'")
    parser.add_argument("--pictures", metavar="FOLDER", type=str, default="", help="as for 'data import'")
    parser.add_argument("--samples", metavar="N", type=int, default=0, help="as for 'data import'")


def data_stats(given: Namespace) -> None:
    out = stats_path(given.out) if given.out else None  # before the data are read
    options = {"fields": given.fields, "window": given.window, "pictures": given.pictures, "samples": given.samples}
    stats = stats_of(given.root, load_catalog(given.catalog), given.limit, **options)
    print(stats_text(stats))
    if out:
        write_stats(stats, out)
        print(f"\nwritten: {out}")


def label_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=str, help="folder of an imported data set")
    catalog_argument(parser, "photos")
    parser.add_argument(
        "--only", metavar="NAMES", type=str, default="", help="modalities to label, separated by commas (default: all)"
    )
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="run the Python functions that the catalog names as teachers; the same as MASKWEAVE_ALLOW_CODE=1",
    )
    _limit_argument(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="number of values read in parallel")
    device_argument(parser)
    part_argument(parser)


def label(given: Namespace) -> None:
    catalog = load_catalog(given.catalog)
    only = names("only", given.only) if given.only else []

    def work(part: JobPart) -> LabelReport:
        return label_data(given.root, catalog, given.limit, given.jobs, part, given.device, only, given.allow_code)

    print(divide(work, part_of(given)))


data_label_arguments, data_label = label_arguments, label


def data_scenes_arguments(parser: ArgumentParser) -> None:
    _out_argument(parser)
    parser.add_argument("--count", metavar="N", type=int, default=100, help="number of scenes")
    parser.add_argument("--seed", metavar="SEED", type=int, default=0, help="random seed of the scenes")
    catalog_argument(parser, "scenes")


def data_scenes(given: Namespace) -> None:
    catalog = load_catalog(given.catalog)
    print(f"written to {export(Scenes(catalog, given.count, given.seed), catalog, given.out)}")


def data_emoji_arguments(parser: ArgumentParser) -> None:
    _out_argument(parser)
    parser.add_argument(
        "--font",
        metavar="FILE",
        type=str,
        help="color emoji font (default: the font of the package fonts-noto-color-emoji)",
    )
    catalog_argument(parser, "photos")


def data_emoji(given: Namespace) -> None:
    catalog = load_catalog(given.catalog)
    emoji = Emoji(catalog, given.font or FONT)
    print(f"{len(emoji)} emoji written to {export(emoji, catalog, given.out)}")


def modalities_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "catalog", metavar="CATALOG", type=str, help="name of a shipped catalog, or path of a YAML file"
    )


def modalities(given: Namespace) -> None:
    catalog = load_catalog(given.catalog)
    print("\n\n".join(filter(None, (modality_table(catalog), key_table(catalog)))))


def values_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("type", metavar="TYPE", type=str, nargs="?", help="a value type (default: all)")


def values(given: Namespace) -> None:
    print(docs.section(value_type(given.type)) if given.type else docs.page())
