"""The public functions of the package with valid arguments, for tests that replace some of them by wrong ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.bundle.compress import compress
from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.data.import_source import import_data, import_source
from maskweave.data.opening import open_data
from maskweave.data.shards import Shards
from maskweave.data.stats import data_stats
from maskweave.evaluate.run import evaluate
from maskweave.generate.bundle import load
from maskweave.generate.folders import generate_files
from maskweave.generate.result import sheet_of
from maskweave.generate.schedule import load_schedule
from maskweave.interop import exported
from maskweave.interop.fourm import (
    export_model,
    export_tokenizer,
    load_backbone,
    load_bundle,
    load_model,
    load_tokenizer,
)
from maskweave.interop.m3ae import load_m3ae
from maskweave.label.derive import label
from maskweave.modality.catalogs import load_catalog
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.synthetic.scenes import Scenes
from maskweave.training.recipe import load_recipe
from maskweave.transfer.build import load_transferred
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.suite import load_suite

WRONG: tuple[Any, ...] = (
    "x", "", "\0", "a\0b", "\ud800", "y" * 5000, "a/" * 3000, b"x", None, 1.5, float("nan"), float("inf"), 10**40, -1, True,
    [], {}, [1], (), object(), 2 + 1j, np.zeros(3), torch.zeros(2), print, {3: 4}, ["\0"], {"\0": "\0"}, [None], {"rgb": None}, Path("a\0b"), Path("/dev/null/x"),
)  # fmt: skip
"""Values of which each argument takes at most a few."""
OBJECTS = ("bundle", "catalog", "source", "results", "model", "tokenizer")
"""Arguments that are objects of this package, whose types type checkers find, unless they are paths."""


class Call(NamedTuple):
    """A function and arguments with which it succeeds, or fails clearly at its end, such as for a file that is missing."""

    function: Callable[..., Any]
    arguments: dict[str, Any]


def calls(run: Path, work: Path) -> dict[str, Call]:
    """Returns the calls over a finished run.

    Args:
        work: an empty folder.
    """
    bundle, catalog = load(run), load_catalog("scenes")
    scenes = Scenes(catalog, 2, 7)
    shards = work / "shards"
    picture = scenes[0]["rgb"]
    inputs, targets = {"rgb": picture}, ["depth"]
    result = bundle.generate(inputs, targets)
    schedule = bundle.schedule(["rgb"], ["depth"])
    schedule.save(work / "schedule.yaml")
    export(Scenes(catalog.subset(["depth"]), 2, 7), catalog.subset(["depth"]), work / "files")
    import_data(str(work / "files"), shards, catalog)
    source = open_data(str(shards), catalog)
    bundle.save(work / "bundle")
    make_index(bundle, Scenes(catalog.subset(["rgb"]), 2, 7), work / "index", views=["rgb"])
    index = Index(work / "index", bundle)
    return {
        "load": Call(load, {"folder_or_hub_id": str(work / "bundle"), "device": "cpu", "revision": None}),
        "Bundle.save": Call(bundle.save, {"place": work / "saved"}),
        "Bundle.push": Call(bundle.push, {"repository": "a/b/c", "license": "mit", "private": True, "revision": "main", "message": "x"}),
        "Bundle.card": Call(bundle.card, {"name": "a/b", "license": "mit"}),
        "compress": Call(compress, {"folder": str(work / "bundle"), "out": work / "small", "weights": "bf16"}),
        "Bundle.to": Call(bundle.to, {"device": "cpu"}),
        "Bundle.generate": Call(bundle.generate, {"inputs": inputs, "targets": targets, "seed": 0, "edit": {"depth": 0.5}, "schedule": None}),
        "Bundle.generate_batch": Call(bundle.generate_batch, {"inputs": [inputs], "targets": targets, "seeds": [0], "batch_size": 2}),
        "Bundle.start": Call(bundle.start, {"inputs": [inputs], "targets": targets, "seeds": [1]}),
        "Bundle.schedule": Call(bundle.schedule, {"inputs": ["rgb"], "targets": targets, "decoding": {}, "conditions": {}}),
        "Bundle.best_of": Call(bundle.best_of, {"inputs": inputs, "targets": targets, "samples": 2, "seed": 0}),
        "Bundle.ensemble": Call(bundle.ensemble, {"inputs": inputs, "targets": targets, "samples": 2, "seed": 0}),
        "Bundle.score": Call(bundle.score, {"inputs": inputs, "values": {"caption": "a red cube"}, "precision": "float32"}),
        "Bundle.score_batch": Call(bundle.score_batch, {"inputs": [inputs], "values": [{"caption": "a red cube"}]}),
        "Bundle.calibrate": Call(bundle.calibrate, {"samples": [scenes[0]], "inputs": ["rgb"], "targets": ["depth"], "batch_size": 2}),
        "Bundle.tiles": Call(bundle.tiles, {"scene": inputs, "targets": targets, "overlap": 0.5, "seed": 0, "batch_size": 2, "folder": work / "tiled"}),
        "Bundle.encoder": Call(bundle.encoder, {"modalities": ["rgb"], "precision": "float32"}),
        "Bundle.read": Call(bundle.read, {"inputs": inputs}),
        "Generated.save": Call(result.save, {"folder": work / "result"}),
        "sheet_of": Call(sheet_of, {"results": [result], "title": "", "tile": 32}),
        "Schedule.save": Call(schedule.save, {"path": work / "s.yaml"}),
        "load_schedule": Call(load_schedule, {"path": work / "schedule.yaml"}),
        "load_catalog": Call(load_catalog, {"name_or_path": "scenes"}),
        "Catalog.subset": Call(catalog.subset, {"names": ["rgb"]}),
        "load_recipe": Call(load_recipe, {"path": run / "recipe.yaml", "overrides": {"train.steps": 3}}),
        "load_transfer": Call(load_transfer, {"path": run / "recipe.yaml", "overrides": None}),
        "load_suite": Call(load_suite, {"name_or_path": "scenes", "names": {"rgb": "picture"}}),
        "open_data": Call(open_data, {"place": str(shards), "catalog": catalog, "names": ["depth"], "samples": 1, "seed": None, "pictures": "", "labeled": False, "fields": None, "outside_paths": False, "window": 0}),
        "import_data": Call(import_data, {"place": str(work / "files"), "out": work / "imported", "catalog": catalog, "shard_size": 2, "limit": 0.1, "jobs": 1, "bad": "part", "single": ""}),
        "import_folders": Call(import_folders, {"root": work / "files", "out": work / "from folders", "catalog": catalog, "shard_size": 2, "limit": 0.1, "jobs": 1, "bad": "part", "single": ""}),
        "import_source": Call(import_source, {"place": str(shards), "out": work / "from a source", "catalog": catalog, "shard_size": 2, "limit": 0.1, "jobs": 1, "bad": "part"}),
        "Shards": Call(Shards, {"root": shards, "catalog": catalog}),
        "data_stats": Call(data_stats, {"place": str(shards), "catalog": catalog, "limit": 1}),
        "label": Call(label, {"root": shards, "catalog": catalog, "limit": 0.1, "jobs": 1, "device": "cpu", "only": [], "allow_code": False}),
        "export": Call(export, {"source": source, "catalog": catalog, "out": work / "exported"}),
        "Scenes": Call(Scenes, {"catalog": catalog, "samples": 2, "seed": 0}),
        "evaluate": Call(evaluate, {"bundle": bundle, "folder": work / "bundle", "scenes_seed": 3, "samples": 1}),
        "generate_files": Call(generate_files, {"bundle": bundle, "inputs": {"caption": "a red cube"}, "targets": targets, "out": work / "generated", "samples": 1, "ensemble": 1, "best_of": 1, "seed": 0, "batch_size": 1}),
        "make_index": Call(make_index, {"bundle": bundle, "source": source, "folder": work / "made", "views": ["depth"], "shard_size": 2, "limit": 0.1}),
        "Index": Call(Index, {"folder": work / "index", "bundle": bundle}),
        "Index.query": Call(index.query, {"inputs": inputs, "k": 1, "view": "rgb"}),
        "exported.export": Call(exported.export, {"bundle": bundle, "out": work / "programs", "inputs": [], "targets": [], "tokenizers": ["caption"], "format": "onnx"}),
        "export_model": Call(export_model, {"model": bundle.model, "catalog": catalog, "folder": work / "published"}),
        "export_tokenizer": Call(export_tokenizer, {"tokenizer": bundle.tokenizers["depth"], "folder": work / "published tokenizer"}),
        "load_transferred": Call(load_transferred, {"folder": run, "device": "cpu"}),
        "load_bundle": Call(load_bundle, {"model": str(run), "tokenizers": {}, "text_tokenizer": None}),
        **{
            f.__name__: Call(f, {"folder_or_hub_id": str(run)})
            for f in (load_backbone, load_model, load_tokenizer, load_m3ae)
        },
    }  # fmt: skip
