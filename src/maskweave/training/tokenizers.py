"""Trains a recipe's tokenizers: text tokenizers on the texts, networks one after another or in parallel; and fits the rules of scalars and labels."""

import contextlib
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.config import build, plain
from maskweave.data.augment import AugmentedValues
from maskweave.data.batches import ValueBatches
from maskweave.data.error_budget import ErrorBudget
from maskweave.data.named import is_endless
from maskweave.data.reading import read
from maskweave.data.split import group_of, hash_names, put_last
from maskweave.data.weights import weights_of
from maskweave.errors import MaskweaveError, died
from maskweave.files import read_json, remove, write_aside, write_json
from maskweave.interruption import Interrupted, StopSignal
from maskweave.modality.catalogs import Catalog
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.progress import progress
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.pretrained import taken_tokenizer
from maskweave.tokenizers.rules import RuleTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.tokenizers.text_losses import text_losses
from maskweave.training import processes
from maskweave.training.distributed import alone
from maskweave.training.launch import first, launched, tell
from maskweave.training.loop import fit
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import Recipe
from maskweave.training.run_folder import CACHE
from maskweave.training.sources import open_source
from maskweave.values.formats.numpy_rows import NpyRows
from maskweave.values.weights import Weighting

WEIGHTS = ".weights.npy"
"""Ending of a file with the raw weights of a grid's cached values."""
ONE_IN = 10
"""One in so many values validates a tokenizer: the last ones in the cache."""


def train_tokenizers(
    recipe: Recipe, catalog: Catalog, folder: Path, command: str = "", only: list[str] | None = None
) -> None:
    """Trains the tokenizers that the run folder does not have yet. Launched processes share the networks among them.

    Args:
        only: names of grids and vocabularies; all if None.
    """
    wanted = [m.name for m in catalog.values() if m.kind == "grid"]
    wanted += sorted({m.vocabulary for m in catalog.values() if m.kind == "sequence"})
    unknown = [name for name in only or [] if name not in wanted]
    if unknown:
        raise MaskweaveError(f"no tokenizer to train for {', '.join(unknown)}; expected any of {', '.join(wanted)}")
    networks: list[str] = tell(first(lambda: _prepare(recipe, catalog, folder, wanted, only)))
    networks.sort(key=lambda name: -_steps(recipe, name))
    if (launch := launched()) is not None:
        with alone():
            for name in networks[launch.rank :: launch.world]:
                train_tokenizer(recipe, catalog, folder, name, command)
        launch.barrier()
    elif recipe.tokenizers.jobs == 1 or len(networks) < 2:
        for name in networks:
            train_tokenizer(recipe, catalog, folder, name, command)
    else:
        _train_in_parallel(recipe, catalog, folder, networks, command)
    first(lambda: remove(folder / CACHE))


def _prepare(recipe: Recipe, catalog: Catalog, folder: Path, wanted: list[str], only: list[str] | None) -> list[str]:
    """Makes all tokenizers that the run folder lacks and that are no networks, and caches the values for the networks. Returns the networks' names."""
    root = folder / "tokenizers"
    todo = [name for name in wanted if (only is None or name in only) and not (root / name / "config.json").exists()]
    reuse = recipe.tokenizers.reuse
    for name in todo.copy():
        ready = Path(reuse) / name
        if reuse and (ready / "config.json").exists():
            with write_aside(root / name) as aside:
                shutil.copytree(ready, aside, ignore=shutil.ignore_patterns("checkpoints"))
            todo.remove(name)
    for modality in [catalog[name] for name in todo if name in catalog]:
        if (ready_made := taken_tokenizer(modality)) is not None:
            ready_made.save(root / modality.name)
            todo.remove(modality.name)
    cache = folder / CACHE
    if not todo:
        return []
    _cache_values(recipe, catalog, todo, root, cache)
    for name in [name for name in todo if name in catalog.vocabularies]:
        texts: dict[str, list[str]] = read_json(cache / f"{name}.json", limit=None)
        text = TextTokenizer.train(catalog.vocabularies[name], [t for some in texts.values() for t in some])
        for m in catalog.values():
            if m.vocabulary == name:  # fails now, before networks are trained, if the vocabulary lacks tokens
                tokenizer = SequenceTokenizer(m, text)
                for line in text_losses(tokenizer, texts.get(m.name, [])):
                    print(line)
        text.save(root / name)
    return [name for name in todo if name in catalog and catalog[name].value.tokenized_by == "network"]


def _steps(recipe: Recipe, name: str) -> int:
    return recipe.tokenizers.steps.get(name, recipe.tokenizers.train.steps)


def _cache_values(recipe: Recipe, catalog: Catalog, todo: list[str], root: Path, cache: Path) -> None:
    """Reads the samples once and writes each network's values to a file from which its training reads batches; fits and saves tokenizers by rules."""
    grids = {name: catalog[name] for name in todo if name in catalog}
    texts = {
        v: [m for m in catalog.values() if m.vocabulary == v and m.value.is_text]
        for v in todo
        if v in catalog.vocabularies
    }
    ruled = [name for name, m in grids.items() if m.value.tokenized_by == "rules"]
    weighted = {name: catalog[m.reads] for name, m in grids.items() if catalog[m.reads].weight}
    files = [
        *(f"{name}.npy" for name in grids if name not in ruled),
        *(f"{name}{WEIGHTS}" for name in weighted),
        *(f"{name}.json" for name in texts),
    ]
    if not ruled and all((cache / file).exists() for file in files):
        return
    source = open_source(recipe, catalog, "train", samples=recipe.tokenizers.samples, spread=True)
    values: dict[str, list[Any]] = {name: [] for name in grids}
    keys: dict[str, list[str]] = {name: [] for name in grids}
    weights: dict[str, list[np.ndarray]] = {name: [] for name in weighted}
    found_texts: dict[str, dict[str, list[str]]] = {v: {m.name: [] for m in members} for v, members in texts.items()}
    skips = ErrorBudget(recipe.data.limit)
    with progress("read samples", len(source)) as bar:
        for item in read(source, range(len(source)), recipe.data.workers, recipe.data.bad):
            skips.take(item)
            for name, modality in grids.items():
                if (value := item.sample.get(modality.reads)) is not None:
                    # what the network reads takes less memory than a sound
                    checked = [value] if name in ruled else modality.value.check_batch([value], name)
                    values[name] += checked
                    keys[name].append(item.key)
                    if name in weighted:
                        weights[name].append(weights_of(item.sample, weighted[name]))
            for name, members in texts.items():
                for m in members:
                    if m.name in item.sample:
                        found_texts[name][m.name].append(item.sample[m.name])
            skips.check()
            bar.advance()
        if skips.summary():
            bar.say(skips.summary())
    skips.check(finished=True)
    for name, items in values.items():
        if not items:
            raise MaskweaveError(
                f"no sample has {grids[name].reads!r}, so the tokenizer of {name!r} cannot be trained; remove the modality from the recipe"
            )
        if name in ruled:
            RuleTokenizer.fit(grids[name], items).save(root / name)
            continue
        order = order_by_split(recipe, keys[name])
        _write_stack(cache / f"{name}.npy", [items[i] for i in order])
        if name in weighted:
            _write_stack(cache / f"{name}{WEIGHTS}", [weights[name][i] for i in order])
    for name, texts_of in found_texts.items():
        write_json(cache / f"{name}.json", texts_of)


def _write_stack(path: Path, arrays: list[np.ndarray]) -> None:
    with write_aside(path) as aside, open(aside, "wb") as file:
        np.save(file, np.stack(arrays), allow_pickle=False)


def order_by_split(recipe: Recipe, keys: list[str]) -> list[int]:
    """Returns the order of the values in the cache: samples of data sets are validated on by the hashes of their names, or by their groups'."""
    sets = recipe.data.sets().values()
    if all(is_endless(data.source) or data.split.by == "order" for data in sets):
        return list(range(len(keys)))
    group = group_of(recipe.data.split.group)
    return put_last(hash_names(map(group, keys)), 1 / ONE_IN).tolist()


def train_tokenizer(recipe: Recipe, catalog: Catalog, folder: Path, name: str, command: str = "") -> None:
    """Trains the tokenizer of one grid on its cached values, and saves it."""
    settings = build(
        type(recipe.train), {**plain(recipe.tokenizers.train), "steps": _steps(recipe, name)}, "tokenizers.train"
    )
    modality = catalog[name]
    path = folder / CACHE / f"{name}.npy"
    values = NpyRows(path)
    held_out = len(values) - max(1, len(values) // ONE_IN)  # the first of them
    training = values.part(0, held_out or len(values))
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # only while scales are learned
    modality = dataclasses.replace(modality, value=modality.value.fit_to(mapped[: len(training)]))
    del mapped
    weights: tuple[NpyRows, Weighting] | None = None
    held_out_weights = weights
    if catalog[modality.reads].weight:
        raw = NpyRows(folder / CACHE / f"{name}{WEIGHTS}")
        known = raw.part(0, len(training))
        weights = known, Weighting.fit(known, modality.value.channels)
        held_out_weights = raw.part(held_out, len(raw)), weights[1]
    augment = recipe.data.augment
    torch.manual_seed(recipe.seed)
    tokenizer = GridTokenizer(modality)
    target = folder / "tokenizers" / name
    fit(
        TokenizerObjective(tokenizer),
        ValueBatches(
            modality,
            training,
            settings.batch_size,
            recipe.seed,
            augment=AugmentedValues(augment, modality, recipe.seed)
            if augment is not None and augment.changes
            else None,
            weights=weights,
        ),
        settings,
        target,
        validation=ValueBatches(
            modality, values.part(held_out, len(values)), settings.batch_size, shuffle=False, weights=held_out_weights
        ),
        title=f"tokenizer {name}",
        resume_command=command,
    )
    tokenizer.save(target)


def _train_in_parallel(recipe: Recipe, catalog: Catalog, folder: Path, names: list[str], command: str) -> None:
    """Trains several tokenizers at once, each in its own process with one thread; this process shows their progress."""
    waiting, failed = list(names), dict[str, int]()
    running: dict[str, Any] = {}
    steps = {name: _steps(recipe, name) for name in names}
    stopping = False
    with StopSignal() as stop, progress("train tokenizers", sum(steps.values())) as bar:
        while waiting or running:
            if stop.asked and not stopping:
                stopping = True
                for process in running.values():
                    process.terminate()  # it writes a checkpoint before it exits
            if failed or stopping:
                waiting.clear()
            while waiting and len(running) < recipe.tokenizers.jobs:
                name = waiting.pop(0)
                running[name] = processes.start(_train_in_child, recipe, catalog, folder, name, command)
            time.sleep(0.3)
            for name, process in list(running.items()):
                if not process.is_alive():
                    del running[name]
                    if process.exitcode:
                        failed[name] = process.exitcode
                    else:
                        bar.say((folder / "tokenizers" / name / "log.txt").read_text(encoding="utf-8").strip())
            reached = sum(_last_step(folder / "tokenizers" / name) for name in names)
            bar.advance(reached - bar.done, running=" ".join(running))
    if stopping:
        how = f"resume with: {command}" if command else "run the same command again to resume"
        raise Interrupted(
            f"stopped while training the tokenizers; their checkpoints are in {folder / 'tokenizers'}; {how}"
        )
    if failed:
        errors = {name: _error(folder / "tokenizers" / name, code) for name, code in failed.items()}
        stopped = all(text.startswith("stopped after") for text in errors.values())
        raise (Interrupted if stopped else MaskweaveError)(
            "; ".join(f"tokenizer {name}: {text}" for name, text in errors.items())
        )


def _error(folder: Path, code: int) -> str:
    if code < 0:
        return str(died("its process", code))
    path = folder / "error.txt"
    if path.exists():
        return path.read_text(encoding="utf-8")
    log = folder / "log.txt"
    seen = f"the messages above{f' and {log}' * log.exists()}"
    return f"its process failed; see {seen}, then run the same command again to resume"


def _train_in_child(recipe: Recipe, catalog: Catalog, folder: Path, name: str, command: str) -> None:
    """Body of a child process. Writes its output to log.txt and its error to error.txt, for the parent to show."""
    target = folder / "tokenizers" / name
    target.mkdir(parents=True, exist_ok=True)
    remove(target / "error.txt")
    with open(target / "log.txt", "w", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            train_tokenizer(recipe, catalog, folder, name, command)
        except MaskweaveError as error:
            (target / "error.txt").write_text(str(error), encoding="utf-8")
            raise SystemExit(1) from error


def _last_step(folder: Path) -> int:
    return max((line["step"] for line in read_metrics(folder)), default=0)
