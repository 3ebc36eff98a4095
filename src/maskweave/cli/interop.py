"""Commands that convert published checkpoints: `maskweave import 4m`."""

from jsonargparse import ArgumentParser, Namespace

from maskweave.cli.data import catalog_argument
from maskweave.config import pairs
from maskweave.errors import MaskweaveError
from maskweave.interop.fourm.bundle import load_bundle


def import_4m_arguments(parser: ArgumentParser) -> None:
    parser.usage = f"{parser.prog} MODEL --out FOLDER [--tokenizer NAME=FOLDER ...] [--text FILE] [--catalog CATALOG]"
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=str,
        help="folder of a published model, or its id on the Hugging Face Hub, OWNER/NAME or OWNER/NAME@REVISION",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="NAME=FOLDER",
        type=str,
        action="append",
        help="published tokenizer of a grid modality; can be repeated. Modalities without one are available as tokens only",
    )
    parser.add_argument("--text", metavar="FILE", type=str, help="JSON file of the published WordPiece tokenizer")
    parser.add_argument("--out", metavar="FOLDER", type=str, help="output folder for the bundle")
    catalog_argument(parser, "4m")


def import_4m(given: Namespace) -> None:
    if not given.get("out"):
        raise MaskweaveError("--out is missing; see maskweave import 4m --help")
    tokenizers = pairs("tokenizer", given.tokenizer, "FOLDER", empty=False)
    bundle = load_bundle(given.model, tokenizers, given.text, given.catalog)
    print(
        f"{bundle.save(given.out)}: {len(bundle.catalog)} modalities, tokenizers of {', '.join(bundle.tokenizers) or 'none'}; "
        f"license: {bundle.provenance.describe_license()}"
    )
