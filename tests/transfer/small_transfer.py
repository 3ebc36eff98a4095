"""A bundle of procedural scenes that nobody trained, and quick recipes over it."""

from pathlib import Path
from typing import Any

import torch
import yaml

from maskweave.families.weights import save_model
from maskweave.modality.catalogs import Catalog, load_catalog, save_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.text import TextTokenizer

MODALITIES = ["rgb", "depth", "normal", "semseg", "caption", "boxes", "metadata"]
MODEL = FourMConfig(width=32, heads=2, encoder_depth=2, decoder_depth=1)
MASKED = M3AEConfig(width=32, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2)


def catalog(names: list[str] = MODALITIES) -> Catalog:
    return load_catalog("scenes").subset(names)


def make_bundle(folder: Path, masked: bool = False) -> Path:
    """Write a bundle of random weights, 4M or M3AE, with a text tokenizer and none of grids."""
    torch.manual_seed(0)
    entries = catalog(["rgb", "caption"] if masked else MODALITIES)
    model = M3AE(entries, MASKED) if masked else FourM(entries, MODEL)
    save_catalog(entries, folder)
    save_model(model, entries, folder)
    captions = [sample["caption"] for sample in Scenes(catalog(["caption"]), 20, 0)]
    TextTokenizer.train(entries.vocabularies["text"], captions).save(folder / "tokenizers" / "text")
    return folder


def write_recipe(folder: Path, start: Path, **changes: Any) -> Path:
    """A recipe of a dozen steps."""
    content = {
        "start": str(start),
        "inputs": ["rgb"],
        "data": {"samples": 32, "validation": 8},
        "head": {"width": 16, "depth": 2, "upsample": 2, "queries": 6, "heads": 2},
        "train": {
            "steps": 12,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "log_every": 1,
            "checkpoint_every": 4,
            "keep": 5,
        },
        **changes,
    }
    path = folder / "transfer.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
