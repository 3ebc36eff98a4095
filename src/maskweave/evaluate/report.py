"""The report of a run: what the training wrote, and contact sheets made now."""

import datetime
from pathlib import Path

from PIL import Image

from maskweave.evaluate.run import contact_sheets, held_out_samples, read_recipe
from maskweave.files import read_json
from maskweave.generate.bundle import Bundle, load
from maskweave.models.m3ae import M3AE
from maskweave.nn.layers import count_parameters
from maskweave.report.html import Sections, write_report
from maskweave.report.masked import attention_sheet, restored_sheet
from maskweave.training.recipe import Recipe


def make_report(folder: Path) -> Path:
    """Write `folder/report.html` and return its path.

    Raises:
        MaskweaveError: the folder is no run, or its model is not finished.
    """
    recipe = read_recipe(folder)
    bundle = load(folder)
    masked = isinstance(bundle.model, M3AE)
    sheets = masked_sheets(bundle, folder, recipe) if masked else contact_sheets(bundle, folder)
    facts = {
        "modalities": len(bundle.catalog),
        "parameters": f"{count_parameters(bundle.model) / 1e6:.1f} M",
        "samples": _samples(recipe, folder),
        "samples a step": recipe.train.samples_per_step,
        "precision": recipe.train.precision,
    }
    summary = ""
    if masked:
        ratio = recipe.m3ae.mask_ratio
        summary = "A masked autoencoder: it restores what is hidden, and serves through its features."
        facts["hidden"] = f"{ratio.patches:.0%} of patches, {ratio.sequence:.0%} of sequences"
    else:
        facts["tokens drawn"] = f"{recipe.drawing.input_tokens} + {recipe.drawing.target_tokens}"
    return write_report(
        folder, Sections(date=datetime.date.today().isoformat(), summary=summary, facts=facts, sheets=sheets)
    )


def _samples(recipe: Recipe, folder: Path) -> str:
    """How many samples the run trained on, as far as its folder tells; of a mix those of each data set, and their share."""
    told = []
    for name, data in recipe.data.sets().items():
        index = folder / "tokens" / "train" / name / "index.json"
        count = f"{read_json(index, limit=None)['samples']:,}" if index.is_file() else str(data.samples or "all")
        told.append(recipe.data.headings[name] + count)
    return "; ".join(told)


def masked_sheets(bundle: Bundle, folder: Path, recipe: Recipe, *, shown: int = 4) -> list[tuple[str, Image.Image]]:
    """What a masked autoencoder restores of the first held-out samples, and where their words look; also written to `folder/sheets`."""
    assert isinstance(bundle.model, M3AE)
    samples = held_out_samples(bundle, recipe, None, shown)
    given = (bundle.model, bundle.catalog, bundle.tokenizers, samples)
    found = {
        "restored": restored_sheet(*given, normalized=recipe.m3ae.normalized_patches),
        "attention": attention_sheet(*given),
    }
    sheets = []
    (folder / "sheets").mkdir(parents=True, exist_ok=True)
    for name, sheet in found.items():
        if sheet is not None:
            sheet.save(folder / "sheets" / f"{name}.png")
            sheets.append((name, sheet))
    return sheets


def is_reported(folder: Path) -> bool:
    """Whether the report there is newer than the recipe and the model that it tells of."""
    report = folder / "report.html"
    sources = (folder / "recipe.yaml", folder / "model" / "config.json")
    return report.exists() and all(path.stat().st_mtime_ns <= report.stat().st_mtime_ns for path in sources)
