"""The defaults of everything that can be set in a recipe, a catalog, a schedule or a suite: a file that leaves a setting out means the same tomorrow.

A default that changes on purpose changes in settings.yaml, too: `python tests/test_settings.py` writes it.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import yaml

STORED = Path(__file__).with_name("settings.yaml")
MODULES = (
    "data.augment", "data.split", "families.contrastive", "families.fourm", "families.m3ae", "generate.schedule", "limits", "masking.fourm", "masking.m3ae",
    "modality.decoding", "modality.entry", "modality.external", "modality.tokenizer", "modality.vocabulary", "models.contrastive", "models.fourm", "models.m3ae", "objectives.m3ae",
    "training.data_settings", "training.early_stopping", "training.recipe", "training.settings", "transfer.recipe", "transfer.suite",
    "values.array", "values.audio", "values.axis", "values.binary", "values.boxes", "values.classes", "values.direction",
    "values.features", "values.groups", "values.image", "values.instances", "values.label", "values.map", "values.metadata",
    "values.palette", "values.poses", "values.queries", "values.scalar", "values.series", "values.tags", "values.text", "values.vector",
    "values.vectors", "values.video",
)  # fmt: skip


def defaults() -> dict[str, dict[str, Any]]:
    """Plain defaults of the settings, by module and class."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"maskweave.{name}")
        for cls in vars(module).values():
            if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__:
                known = [f for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING]
                found[f"{name}.{cls.__name__}"] = {f.name: repr(f.default) for f in known}
    return {name: fields for name, fields in found.items() if fields}


def test_defaults_are_those_that_are_written_down() -> None:
    stored, found = yaml.safe_load(STORED.read_text(encoding="utf-8")), defaults()
    assert found.keys() == stored.keys()
    for name, fields in stored.items():
        assert found[name] == fields, f"a default of {name} changed; on purpose: python tests/test_settings.py"


if __name__ == "__main__":
    STORED.write_text(yaml.safe_dump(defaults(), sort_keys=True, width=160), encoding="utf-8")
