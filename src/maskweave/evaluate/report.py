"""The report of a run: what the training wrote, and contact sheets made now."""

import datetime
from pathlib import Path

from maskweave.evaluate.run import contact_sheets, read_recipe
from maskweave.generate.bundle import load
from maskweave.layers import count_parameters
from maskweave.report.html import Sections, write_report


def make_report(folder: Path) -> Path:
    """Write `folder/report.html` and return its path.

    Raises:
        MaskweaveError: the folder is no run, or its model is not finished.
    """
    recipe = read_recipe(folder)
    bundle = load(folder)
    sheets = contact_sheets(bundle, folder)
    facts = {
        "modalities": len(bundle.catalogue),
        "parameters": f"{count_parameters(bundle.model) / 1e6:.1f} M",
        "samples": recipe.data.samples or "all",
        "samples a step": recipe.train.batch_size * recipe.train.accumulate,
        "tokens drawn": f"{recipe.drawing.input_tokens} + {recipe.drawing.target_tokens}",
        "precision": recipe.train.precision,
    }
    return write_report(folder, Sections(date=datetime.date.today().isoformat(), facts=facts, sheets=sheets))


def is_reported(folder: Path) -> bool:
    """Whether the report there is newer than the recipe and the model that it tells of."""
    report = folder / "report.html"
    sources = (folder / "recipe.yaml", folder / "model" / "config.json")
    return report.exists() and all(path.stat().st_mtime_ns <= report.stat().st_mtime_ns for path in sources)
