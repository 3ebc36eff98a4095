"""The report of a run: training metrics and evaluation from its folder, and new contact sheets."""

import datetime
from pathlib import Path

from PIL import Image

from maskweave.evaluate.predicting import untrained_requests
from maskweave.evaluate.run import contact_sheets, held_out_samples, read_recipe, shown_requests
from maskweave.files import read_json
from maskweave.generate.bundle import Bundle, load
from maskweave.modality.catalogs import load_saved_catalog
from maskweave.nn.layers import count_parameters
from maskweave.ranks import rank
from maskweave.report.advice import RunFacts, advise
from maskweave.report.clips import clips_of, packed, unpacked
from maskweave.report.html import PAGE, Sections, write_report
from maskweave.report.sheets import contact_sheet
from maskweave.training.checkpoints import precision_used
from maskweave.training.distributed import local_device
from maskweave.training.gathering import gather
from maskweave.training.recipe import Recipe


def make_report(folder: Path) -> Path:
    """Writes `folder/report.html` and returns its path. Launched processes share the predictions; the first one writes the report.

    Raises:
        MaskweaveError: the folder is not a run, or its model is not finished.
    """
    recipe = read_recipe(folder)
    bundle = load(folder, local_device("cpu" if recipe.train.device == "cpu" else "auto"))
    family = bundle.family
    requests = shown_requests(bundle, folder) if family.generates else []
    contact_sheets(bundle, folder, requests)
    mine = [[r.number, r.title, r.file, packed(clips_of(r.title, r.samples, bundle.catalog))] for r in requests]
    made = sorted((row for one in gather(bundle.device, mine, {}) for row in one.facts), key=lambda row: row[0])
    if rank():
        return folder / PAGE
    sheets = [(title, _picture(folder, file)) for _, title, file, _ in made]
    sheets += family_sheets(bundle, folder, recipe)
    facts = {
        "modalities": len(bundle.catalog),
        "parameters": f"{count_parameters(bundle.model) / 1e6:.1f} M",
        "samples": _samples(recipe, folder),
        "samples per step": recipe.train.samples_per_step,
        "precision": precision_used(folder) or recipe.train.precision,
    }
    facts |= family.facts(recipe.model)
    sections = Sections(
        date=datetime.date.today().isoformat(),
        summary=family.summary,
        advice=advice(folder),
        facts=facts,
        sheets=sheets,
        clips=[unpacked(clips) for *_, clips in made if clips is not None],
    )
    return write_report(folder, sections)


def _picture(folder: Path, file: str) -> Image.Image:
    """Returns a sheet that one of the launched processes has written."""
    with Image.open(folder / "sheets" / f"{file}.png") as picture:
        return picture.copy()


def describe_report(folder: Path) -> str:
    """Writes the report and returns lines for the user: the advice, and the report's path."""
    path = make_report(folder)
    if rank():
        return ""
    return "\n".join([*(f"advice: {text}" for text in advice(folder)), f"report: {path}"])


def advice(folder: Path) -> list[str]:
    """Returns what the scores and metrics of a finished run say about what to do next."""
    recipe = read_recipe(folder)
    catalog = load_saved_catalog(folder)
    paths = recipe.family.trained_paths(recipe.model, catalog) if recipe.evaluate.requests else None
    return advise(
        folder,
        RunFacts(
            codes={m.name: m.network.quantizer.entries for m in catalog.values() if m.network is not None},
            grids={m.name: (m.tokens, m.decoding.steps) for m in catalog.values() if m.kind == "grid"},
            target_tokens=recipe.family.target_tokens(recipe.model),
            untrained=untrained_requests(paths, catalog, recipe.evaluate.requests),
        ),
    )


def _samples(recipe: Recipe, folder: Path) -> str:
    """Returns the number of training samples, as far as the run folder records it; for a mix, the number and share of each dataset."""
    counts = []
    for name, data in recipe.data.sets().items():
        index = folder / "tokens" / "train" / name / "index.json"
        count = f"{read_json(index, limit=None)['samples']:,}" if index.is_file() else str(data.samples or "all")
        counts.append(recipe.data.headings[name] + count)
    return "; ".join(counts)


def family_sheets(bundle: Bundle, folder: Path, recipe: Recipe) -> list[tuple[str, Image.Image]]:
    """Makes the sheets that the model's family shows of the first held-out samples; also writes them to `folder/sheets`."""
    family = bundle.family
    if not family.shown_samples:
        return []
    samples = held_out_samples(bundle, recipe, None, family.shown_samples)
    sheets = []
    for sheet in family.sheets(bundle.model, recipe.model, bundle.catalog, bundle.tokenizers, samples):
        picture = contact_sheet(sheet.rows, sheet.catalog, sheet.title, sheet.headings, tile=sheet.tile)
        (folder / "sheets").mkdir(parents=True, exist_ok=True)
        picture.save(folder / "sheets" / f"{sheet.name}.png")
        sheets.append((sheet.name, picture))
    return sheets
