"""An untrained bundle over a few modalities of scenes, one of them a vector of the scene as a whole, and as a folder."""

from pathlib import Path

import torch

from maskweave.families.weights import save_model
from maskweave.generate.bundle import Bundle
from maskweave.modality.catalogs import Catalog, load_catalog, save_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

NAMES = ("rgb", "depth", "caption", "global")


def catalog(*names: str) -> Catalog:
    return load_catalog("scenes-global").subset(names or NAMES)


def scenes(count: int, seed: int = 7) -> Scenes:
    return Scenes(catalog("rgb", "depth", "caption"), count, seed)


def small_bundle(seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    chosen = catalog()
    text = TextTokenizer.train(chosen.vocabularies["text"], [sample["caption"] for sample in scenes(8)])
    tokenizers = {
        "depth": GridTokenizer(chosen["depth"]).eval(),
        "global": GridTokenizer(chosen["global"]).eval(),
        "caption": SequenceTokenizer(chosen["caption"], text),
    }
    model = FourM(chosen, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1))
    return Bundle(chosen, tokenizers, model)


def m3ae_bundle(width: int = 32, seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    chosen = load_catalog("scenes").subset(["rgb", "caption"])
    text = TextTokenizer.train(chosen.vocabularies["text"], [sample["caption"] for sample in scenes(8)])
    tokenizers = {"caption": SequenceTokenizer(chosen["caption"], text)}
    config = M3AEConfig(width=width, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return Bundle(chosen, tokenizers, M3AE(chosen, config))


def save(bundle: Bundle, folder: Path) -> Path:
    save_catalog(bundle.catalog, folder)
    save_model(bundle.model, bundle.catalog, folder)
    for name, tokenizer in bundle.tokenizers.items():
        if isinstance(tokenizer, SequenceTokenizer):
            tokenizer.text.save(folder / "tokenizers" / bundle.catalog[name].vocabulary)
        else:
            tokenizer.save(folder / "tokenizers" / name)
    return folder
