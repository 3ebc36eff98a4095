"""Runs a transfer: data, encoder and head, training, evaluation, report. Resumes where it stopped."""

import datetime
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.config import plain
from maskweave.data.reading import read
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow, write_rows
from maskweave.files import write_aside
from maskweave.limits import limited_to
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoder
from maskweave.models.sample_heads import NumberHead
from maskweave.nn.layers import count_parameters
from maskweave.objectives.transfer import TransferObjective
from maskweave.ranks import is_main_process, processes_of
from maskweave.report.advice import RunFacts, advise
from maskweave.report.html import Sections, write_report
from maskweave.report.sheets import sheet_for
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.training.checkpoint_files import latest
from maskweave.training.checkpoints import check_split
from maskweave.training.distributed import connect, local_device
from maskweave.training.launch import barrier
from maskweave.training.learned_scaling import learns, with_learned_by_tokenizers, with_values
from maskweave.training.loop import fit
from maskweave.training.optimizer import trained
from maskweave.training.run_folder import claim_folder, writing
from maskweave.transfer.build import Transferred, build_objective, load_transferred, save_transferred
from maskweave.transfer.calibration import calibrate, hold_out
from maskweave.transfer.data import Examples, Parts, TransferBatches, open_examples
from maskweave.transfer.linear_start import start_from_linear
from maskweave.transfer.recipe import TransferRecipe
from maskweave.transfer.scoring import score_transfer
from maskweave.transfer.shares import answers, describe_shares
from maskweave.transfer.task import fit_facts, raw_names
from maskweave.transfer.thinking import FOLDER, open_thinking
from maskweave.values.base import ValueType

SHOWN = 4
"""Examples in the report."""
FITTED = 1000
"""Training examples that the scale of numbers and the weights of classes are fitted to."""


def run_transfer(recipe: TransferRecipe, folder: Path, command: str = "") -> list[EvaluationRow]:
    """Train, evaluate and report into `folder`. Returns the rows of `folder/evaluation.json` (under torchrun, only in the first process).

    Args:
        command: the command that resumes after an interruption.

    Raises:
        MaskweaveError: the recipe, the starting model and the data do not fit together, or the folder holds another run.
    """
    with writing(folder), limited_to(recipe.limits):
        return _run(recipe, folder, command)


def _run(recipe: TransferRecipe, folder: Path, command: str) -> list[EvaluationRow]:
    if recipe.train.processes != 1:
        raise MaskweaveError(
            f"train.processes is {recipe.train.processes}, but a transfer trains in one process, or under torchrun; set it to 1"
        )
    catalog = with_learned_by_tokenizers(recipe.load_catalog(), recipe.start_folder / "tokenizers")
    examples = open_examples(recipe.data, catalog, recipe.inputs, recipe.target, recipe.label)
    if fitted := _learned(recipe, catalog, examples.train):
        catalog = with_values(catalog, fitted)
        examples = open_examples(recipe.data, catalog, recipe.inputs, recipe.target, recipe.label)
    thinking = open_thinking(recipe.start_folder, catalog, recipe.think, recipe.inputs)
    for part in examples:
        part.thinking = thinking
    target = examples.train.target
    facts = fit_facts(target, answers(examples.train, FITTED), recipe.head)
    objective, notes = build_objective(recipe, catalog, target, facts)
    trained_on, calibrated_on, uncalibrated = examples.train, None, ""
    if isinstance(objective.head, NumberHead) and objective.head.form == "gaussian":
        trained_on, calibrated_on, uncalibrated = hold_out(examples.train, recipe.head.calibrate)
    tokenizers = load_tokenizers(recipe.start_folder / "tokenizers", objective.encoder.catalog)
    try:
        recipe.data.augment.check(catalog)
    except MaskweaveError as error:
        raise MaskweaveError(str(error).replace("augment.", "data.", 1)) from error
    if missing := [n for n in objective.encoder.given if catalog[n].has_tokens and n not in tokenizers]:
        raise MaskweaveError(
            f"inputs: {recipe.start} has no tokenizer for {', '.join(missing)}; choose other inputs, or add an entry of kind patches that reads the same values"
        )
    check_split(latest(folder), recipe.train, processes_of(recipe.train.fixed_processes), claimed=True)
    if is_main_process():
        claim_folder(folder, plain(recipe), catalog)
        if thinking and not (folder / FOLDER).exists():
            thinking.bundle.save(folder / FOLDER)
        _copy_tokenizers(recipe.start_folder / "tokenizers", objective.encoder, folder)
        for sentence in notes:
            print(f"start: {sentence}")
        if line := describe_shares(examples):
            print(line)
        if uncalibrated:
            print(f"calibration: {uncalibrated}")
    summary_facts = {
        "parameters": f"{count_parameters(objective) / 1e6:.2f} M",
        "trained": f"{sum(p.numel() for p in trained(objective).values()) / 1e6:.2f} M",
        "examples": len(trained_on),
        "samples per step": recipe.train.samples_per_step,
    }
    raw = raw_names(objective.head)
    names, size, data = objective.encoder.names, recipe.train.batch_size, recipe.data
    if recipe.head.linear_start and not (folder / "checkpoints").is_dir():
        device = connect(recipe.train.device).device
        sentence = start_from_linear(objective.to(device), trained_on, tokenizers, device)
        if sentence and is_main_process():
            print(f"start: {sentence}")
    fit(
        objective,
        TransferBatches(
            trained_on,
            tokenizers,
            names,
            size,
            recipe.seed,
            augment=data.augment,
            raw=raw,
            dropout=data.modality_dropout,
        ),
        recipe.train,
        folder,
        validation=TransferBatches(examples.held_out, tokenizers, names, size, shuffle=False, raw=raw),
        title=f"learn {target.name}",
        resume_command=command,
    )
    if calibrated_on is not None and is_main_process():
        objective.to(local_device(recipe.train.device))  # a divided model is in main memory
        print(f"calibration: {calibrate(objective, calibrated_on, tokenizers)}")
    rows = _finish(objective, catalog, examples, recipe, folder, summary_facts)
    barrier()
    return rows


def _finish(
    objective: TransferObjective,
    catalog: Catalog,
    examples: Parts,
    recipe: TransferRecipe,
    folder: Path,
    facts: dict[str, Any],
) -> list[EvaluationRow]:
    """Save, evaluate and report a transfer that is trained. Launched processes share the evaluation; the first one does the rest."""
    target, names, data = examples.train.target, objective.encoder.names, recipe.data
    if is_main_process():
        save_transferred(objective, catalog, target, recipe, folder)
    barrier()
    model = load_transferred(folder, local_device(recipe.train.device))
    rows = score_transfer(model, *examples, seed=data.seed + 1, limit=data.limit, workers=recipe.train.workers)
    if not is_main_process():
        return []
    write_rows(rows, folder / "evaluation.json")
    summary = f"{target.name} predicted from {' + '.join(names)}, {'trained from scratch' if recipe.scratch else f'fine-tuned from {recipe.start}'}."
    sheets = _sheets(model, examples)
    advice = advise(folder, RunFacts())
    for text in advice:
        print(f"advice: {text}")
    date = datetime.date.today().isoformat()
    write_report(folder, Sections(date=date, summary=summary, advice=advice, facts=facts, sheets=sheets))
    return rows


def _learned(recipe: TransferRecipe, catalog: Catalog, examples: Examples) -> dict[str, ValueType]:
    """Returns the value types of the target and of new raw inputs with their scaling, where it is to be learned from the training examples."""
    whole = examples.target.modality if not recipe.label else None
    wanted = [catalog[name] for name in recipe.inputs if catalog[name].kind == "patches"] + ([whole] if whole else [])
    wanted = [m for m in wanted if learns(m)]
    samples = examples.some(FITTED)
    found = [item.sample for item in read(samples, range(len(samples))) if not item.error] if wanted else []
    fitted = {}
    for m in wanted:
        values = [sample[m.reads] for sample in found if m.reads in sample]
        if not values:
            raise MaskweaveError(
                f"no usable training example has {m.reads!r}, so the value.scaling of {m.name!r} cannot be learned; leave it out, or check the data"
            )
        fitted[m.name] = m.value.fit_to(np.stack(m.value.check_batch(values, m.name)))
    return fitted


def _copy_tokenizers(source: Path, encoder: Encoder, folder: Path) -> None:
    """Copy the tokenizers of the inputs and all vocabularies, so that the run is self-contained."""
    vocabularies = {m.vocabulary for m in encoder.catalog.values() if m.kind == "sequence"}
    for name in (*vocabularies, *(n for n in encoder.given if encoder.catalog[n].kind == "grid")):
        if not (folder / "tokenizers" / name).exists():
            with write_aside(folder / "tokenizers" / name) as aside:
                shutil.copytree(source / name, aside, ignore=shutil.ignore_patterns("checkpoints", "events"))


def _sheets(model: Transferred, examples: Parts) -> list[tuple[str, Any]]:
    """Predictions for the first held-out examples, for targets that can be drawn."""
    target = model.target.modality
    if target is None or model.target.kind == "label" or model.target.label:
        return []
    samples = _first(examples.held_out, SHOWN)
    reads = {name: model.catalog[name].reads for name in model.encoder.given}
    given = [{name: sample[reads[name]] for name in reads if reads[name] in sample} for sample in samples]
    rows = [
        {"inputs": inputs, "predictions": {target.name: answer}, "truth": {target.name: sample[target.reads]}}
        for inputs, answer, sample in zip(given, model.predict(given), samples, strict=True)
    ]
    title = f"{' + '.join(model.encoder.names)} → {target.name}"
    return [(title, sheet_for(title, rows, model.catalog))]


def _first(examples: Examples, count: int) -> list[dict[str, Any]]:
    samples = (item.sample for item in read(examples, range(len(examples))) if not item.error)
    return [sample for sample, _ in zip(samples, range(count), strict=False)]
