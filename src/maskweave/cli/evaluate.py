"""Commands that describe a finished run: `maskweave evaluate` and `report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from maskweave.cli.shared import device_argument
from maskweave.cli.transfer import evaluate_suite
from maskweave.errors import MaskweaveError
from maskweave.evaluate.report import describe_report
from maskweave.evaluate.run import describe, read_recipe
from maskweave.evaluate.run import evaluate as evaluate_run
from maskweave.generate.bundle import load
from maskweave.training.distributed import local_device
from maskweave.training.run_folder import writing


def evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")
    parser.add_argument("--scenes-seed", metavar="SEED", type=int, help="evaluate on scenes generated with this seed")
    parser.add_argument(
        "--samples", metavar="N", type=int, help="number of held-out samples (default: the recipe's evaluate.samples)"
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        type=str,
        help="instead, evaluate the features with this suite of probes: a shipped name or a YAML file",
    )
    device_argument(parser)


def evaluate(given: Namespace) -> None:
    if given.get("suite"):
        print(evaluate_suite(given.run, given.suite, given.device))
        return
    folder = Path(given.run)
    samples = given.get("samples")
    if samples is not None and samples < 1:
        raise MaskweaveError(f"--samples must be 1 or more, found {samples}")
    bundle = load(folder, local_device(given.device))
    with writing(folder):
        rows = evaluate_run(bundle, folder, scenes_seed=given.get("scenes_seed"), samples=samples or 0)
    print(describe(rows))
    print(f"written to {folder / 'evaluation.json'}")


def report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run")


def report(given: Namespace) -> None:
    folder = Path(given.run)
    read_recipe(folder)  # raises: not a run
    with writing(folder):
        print(describe_report(folder))
