"""What is done with data and their entries: `maskweave data import`, `data label`, `data scenes`, `data emoji` and `modalities`."""

from jsonargparse import ArgumentParser, Namespace

from maskweave.catalogues import load_catalogue
from maskweave.data.emoji import FONT, Emoji
from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.data.label import label
from maskweave.data.scenes import Scenes
from maskweave.report.tables import key_table, modality_table


def catalogue_argument(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--catalogue",
        metavar="CATALOGUE",
        type=str,
        default=default,
        help="name of a shipped catalogue, or a YAML file",
    )


def _limit_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--limit", metavar="SHARE", type=float, default=0.01, help="largest share of unusable samples, 0 to 1"
    )


def _out_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=str, help="folder for OUT/MODALITY/NAME.EXT, as 'maskweave data import' reads it"
    )


def data_import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=str, help="folder with ROOT/MODALITY/.../NAME.EXT")
    parser.add_argument("out", metavar="OUT", type=str, help="folder for tar shards")
    catalogue_argument(parser, "photos")
    parser.add_argument("--shard-size", metavar="N", type=int, default=1000, help="samples of a shard")
    _limit_argument(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="files decoded at the same time")


def data_import(given: Namespace) -> None:
    report = import_folders(
        given.root,
        given.out,
        load_catalogue(given.catalogue),
        shard_size=given.shard_size,
        limit=given.limit,
        jobs=given.jobs,
    )
    print(report)


def data_label_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", type=str, help="imported data set")
    catalogue_argument(parser, "photos")
    _limit_argument(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="pictures measured at the same time")


def data_label(given: Namespace) -> None:
    print(label(given.root, load_catalogue(given.catalogue), limit=given.limit, jobs=given.jobs))


def data_scenes_arguments(parser: ArgumentParser) -> None:
    _out_argument(parser)
    parser.add_argument("--count", metavar="N", type=int, default=100, help="how many scenes")
    parser.add_argument("--seed", metavar="SEED", type=int, default=0, help="another seed gives other scenes")
    catalogue_argument(parser, "scenes")


def data_scenes(given: Namespace) -> None:
    catalogue = load_catalogue(given.catalogue)
    print(f"written to {export(Scenes(catalogue, given.count, given.seed), catalogue, given.out)}")


def data_emoji_arguments(parser: ArgumentParser) -> None:
    _out_argument(parser)
    parser.add_argument(
        "--font", metavar="FILE", type=str, help="a colour emoji font (default: that of fonts-noto-color-emoji)"
    )
    catalogue_argument(parser, "photos")


def data_emoji(given: Namespace) -> None:
    catalogue = load_catalogue(given.catalogue)
    emoji = Emoji(catalogue, given.font or FONT)
    print(f"{len(emoji)} emoji written to {export(emoji, catalogue, given.out)}")


def modalities_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("catalogue", metavar="CATALOGUE", type=str, help="name of a shipped catalogue, or a YAML file")


def modalities(given: Namespace) -> None:
    catalogue = load_catalogue(given.catalogue)
    print("\n\n".join(filter(None, (modality_table(catalogue), key_table(catalogue)))))
