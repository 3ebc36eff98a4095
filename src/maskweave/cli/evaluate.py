"""Commands on a finished run: `maskweave evaluate`, `calibrate` and `report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from maskweave.bundle.io import write_calibration
from maskweave.cli.shared import device_argument
from maskweave.cli.transfer import evaluate_suite
from maskweave.config import names
from maskweave.data.bundle_place import CALIBRATION
from maskweave.errors import MaskweaveError
from maskweave.evaluate.report import describe_report
from maskweave.evaluate.run import describe, held_out_samples, read_recipe
from maskweave.evaluate.run import evaluate as evaluate_run
from maskweave.generate.bundle import load
from maskweave.label.features import open_encoder
from maskweave.label.judge_networks import open_judge
from maskweave.report.tables import short_number, text_table
from maskweave.retrieve.features import Pooled
from maskweave.training.distributed import local_device
from maskweave.training.run_folder import writing


def _samples_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--samples", metavar="N", type=int, help="number of held-out samples (default: the recipe's evaluate.samples)"
    )


def _samples(given: Namespace) -> int:
    """Returns the number of held-out samples; 0: the recipe's."""
    samples = given.get("samples")
    if samples is not None and samples < 1:
        raise MaskweaveError(f"--samples must be 1 or more, found {samples}")
    return samples or 0


def evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")
    parser.add_argument("--scenes-seed", metavar="SEED", type=int, help="evaluate on scenes generated with this seed")
    _samples_argument(parser)
    parser.add_argument(
        "--features",
        metavar="NETWORK",
        type=str,
        help="network whose features evaluate.sets uses: folder of a run or bundle, or of a vision model of the transformers library, or its Hub id "
        "(default: the run's own encoder)",
    )
    parser.add_argument(
        "--judge",
        metavar="SCORE=NETWORK",
        type=str,
        action="append",
        help="also score generated values with this network: inception=, clip= or lpips=, and a folder or Hub id; can be repeated",
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        type=str,
        help="instead, evaluate with this suite, such as a table of a paper or probes of the features: a shipped name or a YAML file",
    )
    parser.add_argument(
        "--data", metavar="PATH", type=str, default="", help="folder of the suite's data set, as published"
    )
    parser.add_argument(
        "--ensemble", metavar="N", type=int, default=1, help="merge N predictions of each sample, in a suite's requests"
    )
    parser.add_argument(
        "--names",
        metavar="OLD=NEW",
        type=str,
        action="append",
        help="the run's name NEW of a modality that the suite calls OLD; can be repeated",
    )
    device_argument(parser)


OPTIONS_OF_RUNS = ("scenes_seed", "samples", "features", "judge")
"""Options that suites do not use."""


def refuse_options_of_runs(given: Namespace) -> None:
    """Refuses options that a suite would ignore."""
    found = [f"--{name.replace('_', '-')}" for name in OPTIONS_OF_RUNS if given.get(name) is not None]
    if found:
        raise MaskweaveError(
            f"--suite does not use {', '.join(found)}; remove {'it' if len(found) == 1 else 'them'}, or --suite. "
            "For other samples, give a copy of the suite's file with another data.validation or data.seed"
        )


def evaluate(given: Namespace) -> None:
    if given.get("suite"):
        refuse_options_of_runs(given)
        print(
            evaluate_suite(given.run, given.suite, given.device, given.data, given.ensemble, given.get("names") or ())
        )
        return
    if given.data or given.ensemble != 1 or given.get("names"):
        raise MaskweaveError("--data, --ensemble and --names are for suites; add --suite, or remove them")
    folder = Path(given.run)
    samples = _samples(given)
    bundle = load(folder, local_device(given.device))
    judges = [open_judge(one, bundle) for one in given.get("judge") or ()]
    with writing(folder):
        network, readable = None, None
        if given.get("features"):
            network, catalog = open_encoder(given.features, bundle.catalog, given.device)
            readable = network.bundle.model.readable(catalog) if isinstance(network, Pooled) else [*catalog]
        seed = given.get("scenes_seed")
        rows = evaluate_run(
            bundle,
            folder,
            scenes_seed=seed,
            samples=samples,
            features=network,
            readable=readable,
            judges=judges,
        )
    print(describe(rows))
    print(f"written to {folder / 'evaluation.json'}")


def calibrate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")
    for name, said in (
        ("inputs", "modalities that are given, as later in requests, separated by commas; can be repeated"),
        ("targets", "modalities whose distributions get a temperature, separated by commas; can be repeated"),
    ):
        parser.add_argument(f"--{name}", metavar="NAMES", type=str, action="append", help=said)
    _samples_argument(parser)
    device_argument(parser)


def calibrate(given: Namespace) -> None:
    inputs, targets = names("inputs", given.get("inputs")), names("targets", given.get("targets"))
    if not targets:
        raise MaskweaveError("--targets is missing; see maskweave calibrate --help")
    samples = _samples(given)
    folder = Path(given.run)
    recipe = read_recipe(folder)
    bundle = load(folder, local_device(given.device))
    with writing(folder):
        held_out = held_out_samples(bundle, recipe, None, samples or recipe.evaluate.samples)
        found = bundle.calibrate(held_out, inputs, targets)
        write_calibration(bundle.calibration, folder)
    rows = [[n, *map(short_number, one[:3]), str(one.tokens)] for n, one in found.items()]
    print(text_table(["target", "temperature", "NLL before", "NLL after", "tokens"], rows))
    print(f"written to {folder / CALIBRATION}; remove it to undo the calibration")


def report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")


def report(given: Namespace) -> None:
    folder = Path(given.run)
    read_recipe(folder)  # raises: not a run
    with writing(folder):
        print(describe_report(folder))
