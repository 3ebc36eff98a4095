"""`maskweave generate`: its arguments, and how they become a request."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from maskweave.config import build, names, pairs
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.generate.folders import generate_files
from maskweave.generate.request import Options, twin
from maskweave.generate.schedule import load_schedule
from maskweave.generate.tile_scene import save_tiled
from maskweave.generate.tiles import OVERLAP
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding, Ramp
from maskweave.modality.entry import Modality

REPEATED = (
    (
        "input",
        "NAME=VALUE",
        "input modality and its file, or its text for text modalities. Also a folder of files, for one result per file "
        "name; write a / after a folder of texts. Can be repeated",
    ),
    ("target", "NAMES", "modalities to generate, in this order, separated by commas; can be repeated"),
    (
        "think",
        "NAMES",
        "modalities to generate first, which join the inputs of all targets, separated by commas; can be repeated",
    ),
    (
        "condition",
        "NAME=WEIGHT",
        "guidance by an input or an earlier target, or by several (NAME+NAME=WEIGHT): above 1 towards it, below 0 away from it; can be repeated",
    ),
    (
        "decoding",
        "TARGET.KEY=VALUE",
        "decoding setting of a target: scheme, steps, temperature, guidance, top_p, ...; can be repeated",
    ),
    (
        "edit",
        "[NAME=]REGION",
        "regenerate only a part of a target that is also an input: the white area of a mask (a file or a folder), "
        "a box xmin,ymin,xmax,ymax from 0 to 1, a share such as 0.3, or words of a text; can be repeated, once per target",
    ),
)
"""Options that may be repeated."""
OF_GRIDS = ("preset", "remask", "scheme", "steps", "token_schedule", "temperature_schedule", "choice_temperature")
"""Decoding keys that do not apply to sequences, which are generated token by token."""


def generate_arguments(parser: ArgumentParser) -> None:
    parser.usage = f"{parser.prog} RUN --input NAME=VALUE [--input ...] --target NAME[,NAME...] --out FOLDER [...]"
    run = "folder of a finished run, or a bundle's id on the Hugging Face Hub, OWNER/NAME or OWNER/NAME@REVISION"
    parser.add_argument("run", metavar="RUN", type=str, help=run)
    for name, value, said in REPEATED:
        parser.add_argument(f"--{name}", metavar=value, type=str, action="append", help=said)
    parser.add_argument("--out", metavar="FOLDER", type=str, help="output folder for values, pictures and the schedule")
    parser.add_argument(
        "--schedule", metavar="FILE", type=str, help="run the steps of this schedule.yaml; it contains the targets too"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=1, help="number of results per input, in folders 0, 1, ..."
    )
    parser.add_argument(
        "--ensemble",
        metavar="N",
        type=int,
        default=1,
        help="merge N samples into each result: the mean of continuous values, the most frequent class, all boxes and instances "
        "without duplicates; --samples M gives M merged results",
    )
    parser.add_argument(
        "--best-of",
        metavar="N",
        type=int,
        default=1,
        help="generate N samples for each result and keep the one from which the model finds the inputs likeliest; it takes N times as long",
    )
    parser.add_argument(
        "--best-of-by",
        metavar="NAMES",
        type=str,
        action="append",
        help="inputs whose likelihood decides with --best-of, separated by commas; by default all that the model can predict",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="random seed; further samples use the next seeds"
    )
    parser.add_argument("--batch", metavar="N", type=int, default=8, help="samples per batch")
    parser.add_argument(
        "--no-chain", action="store_true", help="predict every target from the inputs only, not from earlier targets"
    )
    parser.add_argument(
        "--guide-with-finished",
        action="store_true",
        help="guide by finished targets too: they are added to every condition",
    )
    parser.add_argument(
        "--on-untrained",
        metavar="warn|refuse|ignore",
        type=str,
        default="warn",
        help="what to do if the training never or hardly saw these inputs together with a target",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="also write the entropy of each token of a grid, NAME-entropy.npy, and its picture",
    )
    parser.add_argument("--bf16", action="store_true", help="run linear layers and attention in bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="compile the model first; pays off on a GPU with many inputs"
    )
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="inputs are scenes of any size; predict overlapping tiles of the entries' sizes and blend them",
    )
    parser.add_argument(
        "--overlap",
        metavar="SHARE",
        type=float,
        default=OVERLAP,
        help="share of a tile that neighbors share, with --tiles",
    )
    parser.add_argument("--device", metavar="DEVICE", type=str, default="cpu", help="cpu, cuda, ...")


def generate(given: Namespace) -> None:
    """Runs the request that the arguments describe.

    Raises:
        MaskweaveError: an argument is invalid, or as `generate_files`.
    """
    keys = ("decoding", "condition", "think", "no_chain", "guide_with_finished")
    steps = [f"--{key.replace('_', '-')}" for key in keys if given.get(key)]
    if given.get("schedule") and steps:
        raise MaskweaveError(f"a schedule fixes all steps; remove --schedule, or remove {' and '.join(steps)}")
    for key in ("target", "out"):
        if not given.get(key) and not (key == "target" and given.get("schedule")):
            raise MaskweaveError(f"--{key} is missing; see maskweave generate --help")
    inputs = pairs("input", given.get("input"))
    targets = names("target", given.get("target")) or None
    options: Options = {
        "precision": "bf16" if given.bf16 else "float32",
        "compiled": given.compile,
        "on_untrained": given.on_untrained,
    }
    if given.get("schedule"):
        options["schedule"] = load_schedule(given.schedule)
    if given.get("condition"):
        options["conditions"] = _conditions(given.condition)
    if given.no_chain:
        options["chain"] = False
    if given.get("think"):
        options["think"] = names("think", given.think)
    if given.uncertainty:
        options["return_probs"] = True
    if given.guide_with_finished:
        options["guide_with_finished"] = True
    bundle = load(given.run, given.device)
    for name, value in inputs.items():
        if not value and not bundle.catalog[name].value.is_text:
            raise MaskweaveError(f"input {name!r}: '': no such file; expected a file or a folder after the =")
    if given.get("decoding"):
        options["decoding"] = _decodings(bundle.catalog, given.decoding)
    if given.get("edit"):
        options["edit"] = _edits(bundle.catalog, given.edit, inputs, targets or options["schedule"].targets)  # type: ignore[union-attr]
    if given.tiles:
        for key, ordinary in (("samples", 1), ("ensemble", 1), ("best_of", 1), ("best_of_by", None), ("edit", None)):
            if given.get(key) not in (ordinary, []):
                raise MaskweaveError(f"--tiles cannot be combined with --{key.replace('_', '-')}; remove one of them")
        scene: dict[str, Any] = {
            name: value if bundle.catalog[name].value.is_text else Path(value) for name, value in inputs.items()
        }
        wanted = targets or options["schedule"].targets  # type: ignore[union-attr]
        tiled = bundle.tiles(scene, wanted, overlap=given.overlap, seed=given.seed, batch_size=given.batch, **options)
        print(f"{tiled.tiles} tiles blended; written to {save_tiled(tiled, given.out)}")
        return
    said = generate_files(
        bundle,
        inputs,
        targets,
        given.out,
        samples=given.samples,
        ensemble=given.ensemble,
        best_of=given.best_of,
        by=names("best-of-by", given.get("best_of_by")),
        seed=given.seed,
        batch_size=given.batch,
        **options,
    )
    print(said)


def _conditions(words: Sequence[str]) -> dict[str, float | Ramp]:
    return {name: _weight(name, text) for name, text in pairs("condition", words, "WEIGHT").items()}


def _weight(name: str, text: str) -> float | Ramp:
    """Parses a weight, or one as a function of the step: {from: 0, to: 3}."""
    try:
        found = yaml.safe_load(text) if "{" in text else float(text)
    except (ValueError, yaml.YAMLError):
        found = None
    if isinstance(found, Mapping):
        return build(Ramp, found, "--condition", name)
    if not isinstance(found, float) or not math.isfinite(found):
        raise MaskweaveError(
            f"--condition '{name}={text}': expected NAME=WEIGHT with a number as weight, or with {{from: 0, to: 3}}"
        )
    return found


def _decodings(catalog: Catalog, words: Sequence[str]) -> dict[str, Decoding]:
    found: dict[str, dict[str, Any]] = {}
    for place, text in pairs("decoding", words).items():
        target, dot, key = place.rpartition(".")
        if not dot:
            raise MaskweaveError(f"--decoding '{place}={text}': expected TARGET.KEY=VALUE")
        name = twin(catalog, target)
        if catalog[name].kind == "sequence" and key in OF_GRIDS:
            raise MaskweaveError(
                f"--decoding '{place}={text}': {name} is a sequence and is generated token by token; {key} is for grids only"
            )
        if key == "preset" and name in found:
            raise MaskweaveError(
                f"--decoding '{place}={text}': a preset replaces all settings; give it before the others of {name}"
            )
        try:
            found.setdefault(name, {})[key] = text if key == "preset" else yaml.safe_load(text)
        except yaml.YAMLError:
            raise MaskweaveError(
                f"--decoding '{place}={text}': found the value {text!r}; expected a number or a name"
            ) from None
    return {name: catalog[name].decoding.changed(settings, "--decoding", name) for name, settings in found.items()}


def _edits(catalog: Catalog, words: Sequence[str], inputs: Mapping[str, str], targets: Sequence[str]) -> dict[str, Any]:
    given = {catalog[name].reads for name in inputs}
    edited = [name for name in targets if catalog[name].reads in given]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, region = word.partition("=")
        if not equals or name not in catalog:
            if len(edited) != 1:
                what = ", ".join(edited) or "none"
                raise MaskweaveError(f"--edit {word!r}: expected NAME=REGION; targets that are also inputs: {what}")
            if equals and not catalog[edited[0]].value.is_text and not Path(word).exists():
                catalog[name]  # raises: no such modality
            name, region = edited[0], word
        if name in found:
            raise MaskweaveError(f"--edit {word!r}: {name} already has a region; give one region per target")
        found[name] = _region(region, catalog[name], word)
    return found


def _region(text: str, modality: Modality, word: str) -> Any:
    """Parses a share, a box, a path or words. For text, integers count as words."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if modality.kind == "sequence":
        return numbers[0] if len(numbers) == 1 and ("." in text or not modality.value.is_text) else text
    if not text or len(numbers) not in (0, 1, 4):
        raise MaskweaveError(f"--edit {word!r}: expected a mask file, a box xmin,ymin,xmax,ymax or a share such as 0.3")
    return numbers[0] if len(numbers) == 1 else numbers or text
