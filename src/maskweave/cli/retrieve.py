"""Commands for search by features: `maskweave retrieve index`, `query` and `evaluate`, and `maskweave data features`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from maskweave.cli.shared import device_argument, part_argument, part_of
from maskweave.config import names, pairs
from maskweave.data.opening import absolute
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside, write_json
from maskweave.generate.bundle import load
from maskweave.label.features import extract_features
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import keys_of, make_index
from maskweave.retrieve.recall import describe, recall
from maskweave.retrieve.sheet import sheet_of
from maskweave.retrieve.sources import open_indexed, pairs_of, reopen_indexed
from maskweave.training.distributed import local_device
from maskweave.training.launch import divide
from maskweave.training.recipe import load_recipe
from maskweave.training.run_folder import writing


def retrieve_index_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        type=str,
        help="folder of a finished run, or a bundle's id on the Hub, OWNER/NAME or OWNER/NAME@REVISION",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        type=str,
        nargs="?",
        default="",
        help="folder of an imported data set or of pictures, 'scenes', or 'python: package.module:function'",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="instead of DATA, index the samples that the run's recipe holds out of its own data",
    )
    parser.add_argument("--out", metavar="INDEX", type=str, help="output folder for the index")
    parser.add_argument(
        "--views",
        metavar="NAMES",
        type=str,
        help="modalities to index, separated by commas (default: the first one of the data)",
    )
    parser.add_argument(
        "--feature-modality",
        metavar="NAME",
        type=str,
        default="",
        help="index the predicted vectors of this modality (default: the pooled features of the encoder)",
    )
    parser.add_argument(
        "--align",
        metavar="DATA",
        type=str,
        default="auto",
        help="data whose samples show what belongs together, so that inputs of one modality find samples by another; 'none': no alignment (default: the "
        "training data of the run)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="features of whole pictures, a quarter of the size (default: of each quarter of a picture, better where places count)",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int,
        default=0,
        help="number of samples, from the start (default: all; 1000 for scenes)",
    )
    parser.add_argument("--scenes-seed", metavar="SEED", type=int, help="random seed of the scenes (default: 1)")
    parser.add_argument("--shard-size", metavar="N", type=int, default=1000, help="samples per shard")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="number of processes that read samples")
    parser.add_argument(
        "--limit",
        metavar="SHARE",
        type=float,
        default=0.01,
        help="stop if more than this share of samples is unusable, 0 to 1",
    )
    device_argument(parser)
    part_argument(parser)


def retrieve_index(given: Namespace) -> None:
    if not given.get("out"):
        raise MaskweaveError("--out is missing; see maskweave retrieve index --help")
    if given.shard_size < 1:
        raise MaskweaveError(f"--shard-size must be 1 or more, found {given.shard_size}")
    whole = part_of(given)
    if bool(given.data) == given.held_out:
        raise MaskweaveError("give either DATA or --held-out; see maskweave retrieve index --help")
    bundle = load(given.run, local_device(given.device))
    data: dict[str, Any] = {"samples": given.samples, "seed": given.get("scenes_seed")}
    data |= (
        {"data": "", "run": str(Path(bundle.folder or given.run).resolve())}
        if given.held_out
        else {"data": absolute(given.data)}
    )
    source = open_indexed(**data, catalog=bundle.catalog)
    align = "none" if given.feature_modality and given.align == "auto" else given.align
    made = divide(
        lambda part: make_index(
            bundle,
            source,
            given.out,
            views=names("views", given.get("views")),
            feature_modality=given.feature_modality,
            align=pairs_of(align, bundle),
            quarters=not given.whole,
            data=data,
            shard_size=given.shard_size,
            workers=given.workers,
            limit=given.limit,
            part=part,
        ),
        whole,
    )
    counts = ", ".join(f"{name} {count}" for name, count in made.vectors.items())
    told = str(made.alignment or "")
    print("\n".join(filter(None, (made.unfinished, f"{made.folder}: {counts}", made.skips.summary(), told))))


def _search_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", type=str, help="index folder, written by 'maskweave retrieve index'")
    parser.add_argument(
        "--against",
        metavar="VIEW",
        type=str,
        default="",
        help="indexed modality to compare with (default: the first one)",
    )


def retrieve_query_arguments(parser: ArgumentParser) -> None:
    parser.usage = f"{parser.prog} INDEX --input NAME=VALUE [--input ...] [--weight NAME=NUMBER ...] [--out PICTURE]"
    _search_arguments(parser)
    parser.add_argument(
        "--input",
        metavar="NAME=VALUE",
        type=str,
        action="append",
        help="input modality and its file (or its text, for text modalities); can be repeated",
    )
    parser.add_argument(
        "--weight",
        metavar="NAME=NUMBER",
        type=str,
        action="append",
        help="weight of an input (default: 1); below 0: find samples unlike it",
    )
    parser.add_argument("--count", metavar="K", type=int, default=10, help="number of results")
    parser.add_argument("--out", metavar="PICTURE", type=str, help="PNG file for a contact sheet of the results")


def retrieve_query(given: Namespace) -> None:
    inputs = pairs("input", given.get("input"))
    if not inputs:
        raise MaskweaveError("--input is missing; see maskweave retrieve query --help")
    weights = {name: _number(name, word) for name, word in pairs("weight", given.get("weight")).items()}
    opened = Index(given.index)
    hits = opened.query(inputs, view=given.against, weights=weights, k=given.count)
    for rank, hit in enumerate(hits, 1):
        print(f"{rank:3}  {hit.score:6.3f}  {hit.key}")
    if given.get("out"):
        source = _data_of(opened)
        view = given.against or opened.views[0]
        sheet = sheet_of(opened.bundle.read(inputs), hits, source, opened.bundle.catalog, view)
        with write_aside(given.out) as aside:
            sheet.save(aside, format="PNG")
        print(f"written to {given.out}")


def retrieve_evaluate_arguments(parser: ArgumentParser) -> None:
    _search_arguments(parser)
    parser.add_argument(
        "--query",
        metavar="NAMES",
        type=str,
        action="append",
        help="modality to query with, or several, separated by commas; repeat for several rows",
    )
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="number of processes that read samples")
    device_argument(parser)


def retrieve_evaluate(given: Namespace) -> None:
    if not given.get("query"):
        raise MaskweaveError("--query is missing; see maskweave retrieve evaluate --help")
    opened = Index(given.index, device=local_device(given.device))
    source = _data_of(opened)
    fitted = opened.alignment.keys if opened.alignment else frozenset[str]()
    if known := sum(key in fitted for key in opened.keys.values()):
        told = f"{known} of {len(opened)} samples have the names of samples that the modalities were aligned with; if they are the same, scores are too good"
        print(told, file=sys.stderr)
    path = opened.folder / "recall.json"
    with writing(opened.folder):
        rows = [
            recall(opened, source, names("query", row), given.against, workers=given.workers) for row in given.query
        ]
        write_json(path, [asdict(row) for row in rows])
    print(f"{describe(rows)}\nwritten to {path}")


def _data_of(opened: Index) -> Source:
    """Opens the data that was indexed."""
    source = reopen_indexed(opened.facts, opened.bundle.catalog)
    if keys_of(source) != opened.facts["keys"]:
        place = opened.facts["data"]["data"] or f"the held-out part of {opened.facts['data']['run']}"
        raise MaskweaveError(f"{opened.folder}: {place} has changed since it was indexed; index it again")
    return source


def data_features_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        type=str,
        help="recipe with the data, and with data.sidecar, the folder that the features are written to",
    )
    parser.add_argument(
        "--encoder",
        metavar="ENCODER",
        type=str,
        help="folder of a run, or a vision model of the transformers library (folder or id on the Hub)",
    )
    parser.add_argument(
        "--modality",
        metavar="NAME",
        type=str,
        help="modality that the features are stored as; its value type must be vector",
    )
    parser.add_argument(
        "--from",
        metavar="NAMES",
        type=str,
        help="input modalities of the encoder, separated by commas (default: its pictures)",
    )
    device_argument(parser)
    part_argument(parser)


def data_features(given: Namespace) -> None:
    for key in ("encoder", "modality"):
        if not given.get(key):
            raise MaskweaveError(f"--{key} is missing; see maskweave data features --help")
    inputs = names("from", given.get("from"))
    recipe = load_recipe(given.recipe)
    made = divide(
        lambda part: extract_features(recipe, given.encoder, given.modality, inputs, given.device, part), part_of(given)
    )
    written = made.unfinished or f"written to {made.folder / given.modality}"
    print("\n".join(filter(None, (written, made.skips.summary()))))


def _number(name: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise MaskweaveError(f"--weight {name}={word}: expected a number") from None
