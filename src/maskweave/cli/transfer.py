"""Commands that reuse a trained encoder: `maskweave transfer`, `probe` and `evaluate --suite`."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from maskweave import limits
from maskweave.cli.shared import device_argument
from maskweave.cli.train import recipe_arguments, typed_recipe
from maskweave.config import names, pairs
from maskweave.data.named import is_endless
from maskweave.data.split import Split
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow, span, write_rows
from maskweave.generate.bundle import load
from maskweave.generate.engine import bulk_precision
from maskweave.modality.catalogs import load_catalog
from maskweave.ranks import rank
from maskweave.report.tables import short_number, text_table
from maskweave.training.distributed import local_device
from maskweave.training.learned_scaling import with_learned_of
from maskweave.training.run_folder import writing
from maskweave.transfer.data import open_examples
from maskweave.transfer.fractions import curve_table, parse_fractions, probe_curve, transfer_curve
from maskweave.transfer.probe import probe as probe_features
from maskweave.transfer.recipe import TransferData, TransferRecipe, joined, load_transfer
from maskweave.transfer.run import run_transfer
from maskweave.transfer.suite import load_suite, published_table, run_suite

RECIPE = TransferRecipe
"""Type of the recipe that `maskweave transfer` reads."""


FRACTIONS = "label efficiency: train with each of these shares of the training examples, '0.01,0.1,1' for instance; gives a table and a figure"
GROUP = r"samples whose names match this regular expression with the same text, 'episode_\d+' for instance, are all held out or none"


def transfer_arguments(parser: ArgumentParser) -> None:
    recipe_arguments(parser, RECIPE)
    parser.add_argument("--fractions", metavar="SHARES", type=str, default="", help=FRACTIONS)


def transfer(given: Namespace) -> None:
    recipe, folder, again = typed_recipe(given, load_transfer, "transfer")
    if given.get("fractions"):
        shares = parse_fractions(given.fractions)
        points = transfer_curve(recipe, shares, folder, again)
        print(f"{text_table(*curve_table(points))}\nwritten to {folder / 'fractions.json'} and fractions.png")
        return
    print(table(run_transfer(recipe, folder, again)))
    print(f"written to {folder / 'evaluation.json'}; report: {folder / 'report.html'}")


def probe_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a finished run or of a bundle")
    parser.add_argument(
        "data",
        metavar="DATA",
        type=str,
        help="folder of an imported data set, a folder with files ROOT/CLASS/NAME.EXT, 'scenes', or 'python: package.module:function'",
    )
    parser.add_argument(
        "--inputs", metavar="NAMES", type=str, help="input modalities, separated by commas (default: the first one)"
    )
    parser.add_argument("--target", metavar="NAME", type=str, default="", help="modality that contains the label")
    parser.add_argument(
        "--label",
        metavar="LABEL",
        type=str,
        default="",
        help="metadata key, or 'first' for the class of the first box or instance",
    )
    parser.add_argument(
        "--catalog",
        metavar="CATALOG",
        type=str,
        default="",
        help="catalog with the entry of the target, if the bundle does not have it",
    )
    parser.add_argument(
        "--statistics",
        metavar="true|false",
        type=bool,
        default=None,
        help="use simple features of the inputs too: means and deviations of channels and rows, means of parts (default: for numbers)",
    )
    parser.add_argument(
        "--held-out",
        metavar="DATA",
        type=str,
        default="",
        help="data of the held-out samples, in the same form as DATA",
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=0, help="number of training samples (default: all; 4000 for scenes)"
    )
    parser.add_argument(
        "--validation",
        metavar="N",
        type=int,
        default=0,
        help="number of held-out samples (default: all of --held-out; otherwise a fifth, at most 1000; 1000 for scenes)",
    )
    parser.add_argument("--group", metavar="REGEX", type=str, default="", help=GROUP)
    parser.add_argument("--fractions", metavar="SHARES", type=str, default="", help=FRACTIONS)
    parser.add_argument("--seed", metavar="SEED", type=int, default=1000, help="random seed of the scenes")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="number of processes that read samples")
    device_argument(parser)


def probe(given: Namespace) -> None:
    if given.workers < 0:
        raise MaskweaveError(f"--workers must be 0 or more, found {given.workers}")
    bundle = load(given.run, local_device(given.device))
    inputs = names("inputs", given.get("inputs")) or [next(iter(bundle.catalog))]
    data = TransferData(
        source=given.data,
        held_out=given.held_out,
        samples=given.samples or (4000 if is_endless(given.data) else 0),
        validation=given.validation or (1000 if is_endless(given.data) else 0),
        split=Split(group=given.group),
        seed=given.seed,
    )
    features = bundle.encoder(inputs, bulk_precision(bundle.device))
    catalog = joined(bundle.catalog, load_catalog(given.catalog)) if given.catalog else bundle.catalog
    catalog = with_learned_of(catalog, bundle.tokenizers)
    examples = open_examples(data, catalog, inputs, given.target, given.label)
    folder = Path(given.run)
    if given.fractions:
        shares = parse_fractions(given.fractions)
        with writing(folder):
            points = probe_curve(features, examples, shares, folder, data.seed, given.statistics, workers=given.workers)
        if rank():
            return
        print(f"{text_table(*curve_table(points))}\nwritten to {folder / 'fractions.json'} and fractions.png")
        return
    with writing(folder):
        rows = probe_features(features, examples, data.seed, given.statistics, workers=given.workers)
        if rank():
            return
        write_rows(rows, folder / "probe.json")
    print(f"{table(rows)}\nwritten to {folder / 'probe.json'}")


def evaluate_suite(
    run: str, name: str, device: str = "auto", data: str = "", ensemble: int = 1, names: Sequence[str] = ()
) -> str:
    """Runs a suite on RUN; returns the text to print.

    Args:
        data: folder of the suite's data, if it needs one.
        ensemble: number of predictions that are merged, for its requests.
        names: `OLD=NEW`, the model's name of a modality.

    Raises:
        MaskweaveError: the suite cannot use an argument.
    """
    new_names, used = pairs("names", names), load_suite(name).modalities
    if unused := [old for old in new_names if old not in used]:
        raise MaskweaveError(
            f"suite {name}: --names {', '.join(unused)}: the suite has no modality of this name; it uses {', '.join(sorted(used))}"
        )
    suite, folder, stem = load_suite(name, new_names).at(data), Path(run), Path(name).stem
    if not 1 <= ensemble <= limits.ENSEMBLE:
        raise MaskweaveError(f"--ensemble must be from 1 to {limits.ENSEMBLE}, found {ensemble}")
    if ensemble > 1 and not suite.requests:
        raise MaskweaveError(
            f"suite {stem}: it has no requests, whose predictions --ensemble merges; remove --ensemble"
        )
    bundle = load(run, local_device(device))
    with writing(folder):
        rows = run_suite(bundle, suite.merging(ensemble), stem, folder)
    lines = [table(rows), published_table(suite), f"written to {folder / f'suite-{stem}.json'}"]
    return "\n".join(line for line in lines if line)


def table(rows: Sequence[EvaluationRow]) -> str:
    """Formats the rows as a plain-text table, without the scores of single channels, keys and classes."""
    heads = ["inputs", "target", "metric", "better", "value", "95%", "constant"]
    numbers = lambda r: [short_number(r.value), span(r), short_number(r.constant)]  # noqa: E731
    return text_table(
        heads, [[" + ".join(r.inputs), r.target, r.metric, r.better, *numbers(r)] for r in rows if not r.part]
    )
