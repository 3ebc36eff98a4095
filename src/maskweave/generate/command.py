"""The words of `maskweave generate`: its arguments, and the request that they make."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from maskweave.catalogues import Catalogue
from maskweave.config import build, pairs, plain
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.generate.folders import generate_files
from maskweave.generate.request import Options, twin
from maskweave.generate.schedule import load_schedule
from maskweave.modality import Decoding

WORDS = (
    (
        "input",
        "NAME=VALUE",
        "modality and file, text, or a folder of files with a result for each name; repeat for several",
    ),
    ("target", "NAMES", "modalities to generate, in order, with commas; repeat or join"),
    ("condition", "NAME=WEIGHT", "guide by this input, or by several: NAME+NAME=WEIGHT; below 0 leads away; repeat"),
    ("decoding", "TARGET.KEY=VALUE", "scheme, steps, temperature, guidance, top_p, ... of one target; repeat"),
    (
        "edit",
        "[NAME=]REGION",
        "make only a part of a given target anew: a mask's file, xmin,ymin,xmax,ymax, a share, or words of a text",
    ),
)
"""Options that may be repeated."""


def add_arguments(parser: Any) -> None:
    parser.usage = f"{parser.prog} RUN --input NAME=VALUE [--input ...] --target NAME[,NAME...] --out FOLDER [...]"
    run = "folder of a finished run, or a bundle's id on the Hugging Face Hub"
    parser.add_argument("run", metavar="RUN", type=str, help=run)
    for name, value, said in WORDS:
        parser.add_argument(f"--{name}", metavar=value, type=str, action="append", help=said)
    parser.add_argument("--out", metavar="FOLDER", type=str, help="where values, pictures and the schedule go")
    parser.add_argument("--schedule", metavar="FILE", type=str, help="do the steps of this schedule.yaml")
    parser.add_argument("--samples", metavar="N", type=int, default=1, help="results for each input")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="fixes the result; further samples count on")
    parser.add_argument("--batch", metavar="N", type=int, default=8, help="samples generated at the same time")
    parser.add_argument("--apart", action="store_true", help="predict every target from the inputs alone")
    parser.add_argument("--grow", action="store_true", help="finished targets join every condition")
    parser.add_argument("--bf16", action="store_true", help="linear layers and attention in bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="compile the model first; worth it on a GPU for many inputs"
    )
    parser.add_argument("--device", metavar="DEVICE", type=str, default="cpu", help="cpu, cuda, ...")


def run_command(given: Mapping[str, Any]) -> str:
    """Do what the words say; returns what to tell.

    Raises:
        MaskweaveError: a word that is not understood, or as `generate_files`.
    """
    for key in ("input", "target", "out"):
        if not given.get(key) and not (key == "target" and given.get("schedule")):
            raise MaskweaveError(f"--{key} is missing; see maskweave generate --help")
    inputs = pairs("input", given["input"])
    targets = [name for word in given.get("target") or [] for name in word.split(",")] or None
    bundle = load(given["run"], given["device"])
    options: Options = {"precision": "bf16" if given.get("bf16") else "float32", "compiled": bool(given.get("compile"))}
    if given.get("schedule"):
        options["schedule"] = load_schedule(given["schedule"])
    if given.get("decoding"):
        options["decoding"] = _decodings(bundle.catalogue, given["decoding"])
    if given.get("condition"):
        options["conditions"] = _conditions(given["condition"])
    if given.get("apart"):
        options["chain"] = False
    if given.get("grow"):
        options["grow"] = True
    if given.get("edit"):
        options["edit"] = _edits(bundle.catalogue, given["edit"], inputs, targets or options["schedule"].targets)  # type: ignore[union-attr]
    return generate_files(
        bundle,
        inputs,
        targets,
        given["out"],
        samples=given["samples"],
        seed=given["seed"],
        batch_size=given["batch"],
        **options,
    )


def _conditions(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            raise MaskweaveError(f"--condition {word!r}: expected NAME=WEIGHT, the weight a number") from None
    return found


def _decodings(catalogue: Catalogue, words: Sequence[str]) -> dict[str, Decoding]:
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        place, equals, text = word.partition("=")
        target, dot, key = place.rpartition(".")
        if not equals or not dot:
            raise MaskweaveError(f"--decoding {word!r}: expected TARGET.KEY=VALUE")
        name = twin(catalogue, target)
        try:
            found.setdefault(name, plain(catalogue[name].decoding))[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise MaskweaveError(
                f"--decoding {word!r}: found the value {text!r}; expected a number or a name"
            ) from None
    return {name: build(Decoding, content, "--decoding", name) for name, content in found.items()}


def _edits(
    catalogue: Catalogue, words: Sequence[str], inputs: Mapping[str, str], targets: Sequence[str]
) -> dict[str, Any]:
    given = {catalogue[name].reads for name in inputs}
    edited = [name for name in targets if catalogue[name].reads in given]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, region = word.partition("=")
        if not equals or name not in catalogue:
            if len(edited) != 1:
                what = ", ".join(edited) or "none of them"
                raise MaskweaveError(f"--edit {word!r}: expected NAME=REGION; of the targets, given are {what}")
            name, region = edited[0], word
        found[name] = _region(region)
    return found


def _region(text: str) -> Any:
    """A share, a box, or else a path or words."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers
