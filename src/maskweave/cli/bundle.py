"""Commands that describe bundles and pass them on: `maskweave card`, `compress` and `export`."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from maskweave.bundle.compress import compress as compress_bundle
from maskweave.config import names
from maskweave.files import write_aside
from maskweave.generate.bundle import load
from maskweave.interop.exported import export as export_parts


def card_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=str, help="folder of a run or bundle, its URL or its Hub id")
    parser.add_argument("--name", metavar="NAME", type=str, default="", help="name in the card (default: the folder's)")
    parser.add_argument(
        "--license",
        metavar="LICENSE",
        type=str,
        default="",
        help="license of the bundle as a whole, such as apache-2.0",
    )
    parser.add_argument("--out", metavar="FILE", type=str, help="write the card to this file instead of printing it")


def card(given: Namespace) -> None:
    text = load(given.bundle).card(given.name, given.license)
    if not given.get("out"):
        print(text, end="")
        return
    with write_aside(Path(given.out)) as aside:
        aside.write_text(text, encoding="utf-8")
    print(given.out)


def compress_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "bundle", metavar="BUNDLE", type=str, help="folder of a finished run or bundle, or of a tokenizer"
    )
    parser.add_argument("out", metavar="OUT", type=str, help="folder of the smaller copy, which must not exist")
    parser.add_argument(
        "--weights", type=Literal["bf16", "int8"], default="int8", help="bf16: half the size; int8: about a quarter"
    )


def compress(given: Namespace) -> None:
    made = compress_bundle(given.bundle, given.out, given.weights)
    print(f"{made.folder}: weights of {made.bytes_after / 1e6:,.1f} MB instead of {made.bytes_before / 1e6:,.1f} MB")


def export_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        f"{parser.prog} BUNDLE OUT [--inputs NAMES [--targets NAMES]] [--tokenizers NAMES] [--format onnx|pt2]"
    )
    parser.add_argument("bundle", metavar="BUNDLE", type=str, help="folder of a run or bundle, its URL or its Hub id")
    parser.add_argument("out", metavar="OUT", type=str, help="folder for the files, which must not exist")
    parser.add_argument(
        "--inputs", metavar="NAMES", type=str, help="modalities that the encoder reads, separated by commas"
    )
    parser.add_argument(
        "--targets", metavar="NAMES", type=str, help="grids, each with a predictor from the inputs, in one step"
    )
    parser.add_argument("--tokenizers", metavar="NAMES", type=str, help="grids whose tokenizers are exported")
    parser.add_argument("--format", type=Literal["onnx", "pt2"], default="onnx", help="onnx, or pt2 for torch.export")


def export(given: Namespace) -> None:
    parts = {key: names(key, given.get(key)) for key in ("inputs", "targets", "tokenizers")}
    made = export_parts(load(given.bundle), given.out, **parts, format=given.format)
    for name, facts in made["files"].items():
        print(f"{Path(given.out) / name}: largest error {facts['largest_error']:.1e}")
    print(f"{Path(given.out) / 'export.json'}: shapes and types; license: {made['license']}")
