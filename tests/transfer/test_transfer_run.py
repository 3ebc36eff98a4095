"""A transfer from recipe to report: every task, exactly resumed, saved as trained, refused where it does not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from small_transfer import MODEL, catalog, make_bundle, write_recipe
from timeless import numbers

import maskweave
from maskweave.data import transforms
from maskweave.data.augment import Augment
from maskweave.errors import MaskweaveError
from maskweave.families.weights import load_model
from maskweave.modality.catalogs import Catalog, load_catalog, load_saved_catalog, save_catalog
from maskweave.models.fourm import FourM
from maskweave.synthetic.scenes import Scenes
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import load_recipe
from maskweave.transfer.build import build_objective, load_transferred, save_transferred
from maskweave.transfer.data import Examples, TransferBatches, open_examples
from maskweave.transfer.recipe import TransferData, joined, load_transfer
from maskweave.transfer.run import run_transfer
from maskweave.transfer.target import make_target
from maskweave.transfer.task import TargetFacts
from maskweave.values.geometry import Geometry

pytestmark = pytest.mark.usefixtures("one_fold")

RECIPES = Path(__file__).parents[2] / "recipes"
COUNT = {"target": "metadata", "label": "object_count"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("masked"), masked=True)


def run(folder: Path, begin: Path, **changes: Any) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return run_transfer(load_transfer(write_recipe(folder, begin, **changes)), folder / "run")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("transfer-*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_ask_for_what_their_start_has(path: Path) -> None:
    recipe = load_transfer(path)
    assert Path(recipe.start).parent.name == "runs"
    theirs = load_recipe(RECIPES / f"{Path(recipe.start).name}.yaml").load_catalog()
    if recipe.catalog:
        theirs = joined(theirs, load_catalog(recipe.catalog))
    assert {*recipe.inputs, *filter(None, [recipe.target])} <= {*theirs}
    if recipe.target:
        assert make_target(theirs, recipe.target, recipe.label).kind


@pytest.mark.parametrize(
    ("target", "metrics"),
    [
        (
            {"target": "semseg"},
            ["mIoU", *(f"IoU {name}" for name in ("floor", "wall", "cube", "sphere", "cylinder", "cone"))],
        ),
        pytest.param({"target": "depth"}, ["AbsRel", "delta1"], marks=pytest.mark.slow),
        pytest.param({"target": "normal"}, ["angle"], marks=pytest.mark.slow),
        ({"target": "boxes"}, ["AP", "AP50"]),
        (
            {"target": "boxes3d", "catalog": "scenes-3d", "head": {"width": 16, "depth": 2, "queries": 0}},
            ["AP3D", "AP3D@25", "AP3D@50"],
        ),
        ({"target": "boxes", "label": "first"}, ["accuracy", "top-5 accuracy"]),
        pytest.param(COUNT, ["accuracy"], marks=pytest.mark.slow),
    ],
)
def test_every_task_runs_from_recipe_to_report(
    target: dict[str, Any], metrics: list[str], start: Path, tmp_path: Path
) -> None:
    rows = run(
        tmp_path,
        start,
        **target,
        inputs=["rgb", "caption"],
        data={"samples": 32, "validation": 8, "crop": 0.6, "flip": 0.5},
    )
    assert [row.metric for row in rows] == metrics and all(row.samples == 8 for row in rows)
    assert all(row.low <= row.value <= row.high for row in rows if row.metric.startswith("AP"))
    assert {row.seed for row in rows} == {1}, "scenes of the next seed are held out"
    stored = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert [row["value"] for row in stored] == [row.value for row in rows]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "predicted from rgb + caption" in page and metrics[0].split(" ")[0] in page
    model = load_transferred(tmp_path / "run")
    sample = Scenes(catalog(), 1, 5)[0]
    (found,) = model.predict([sample])
    match model.target.kind:
        case "label":
            assert found in model.target.classes
        case "boxes":
            boxes = found["boxes"] if target["target"] == "boxes3d" else found
            assert isinstance(boxes, list) and all(item["score"] >= 0.5 for item in boxes)
        case _:
            assert found.shape == np.shape(sample[target["target"]])


def test_a_transfer_goes_on_exactly(start: Path, tmp_path: Path) -> None:
    changes = {**COUNT, "tuning": {"stochastic_depth": 0.4}, "data": {"samples": 32, "validation": 8, "crop": 0.5}}
    run(tmp_path, start, **changes)
    again = tmp_path / "again" / "run"
    shutil.copytree(tmp_path / "run", again)
    for step in (8, 12):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    run(tmp_path / "again", start, **changes)
    assert numbers(again) == numbers(tmp_path / "run")
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "run", again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(
        MaskweaveError, match=r"contains a run of another recipe \(label, target differ\)|target, label differ"
    ):
        run(tmp_path, start, **{**changes, "target": "boxes", "label": "first"})


@pytest.mark.parametrize("parameters", ["head", "lora"])
def test_the_encoder_stays_or_gets_its_corrections(parameters: str, start: Path, tmp_path: Path) -> None:
    run(tmp_path, start, **COUNT, tuning={"parameters": parameters, "rank": 2, "mlp": True, "stochastic_depth": 0.2})
    before = load_model(start, load_saved_catalog(start)).state_dict()
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert not [name for name in after if "lora" in name or "decoder" in name]
    changed = {
        name.removeprefix("encoder.model.")
        for name, value in after.items()
        if name.startswith("encoder.") and not torch.equal(value, before[name.removeprefix("encoder.model.")])
    }
    linear = {
        name
        for name in before
        if name.startswith("encoder.") and name.split(".")[-2] in ("q", "k", "v", "out", "fc1", "fc2", "fc3")
    }
    assert changed == (set() if parameters == "head" else {name for name in linear if name.endswith("weight")})


def test_a_saved_transfer_answers_as_the_trained_one(start: Path, tmp_path: Path) -> None:
    """With corrections of low rank, which saving merges: the last validation must come out again."""
    run(tmp_path, start, **COUNT, tuning={"parameters": "lora"})
    lines = [line for line in read_metrics(tmp_path / "run") if line["split"] == "validation"]
    model = load_transferred(tmp_path / "run")
    held_out = Scenes(catalog(), 8, 1)
    right = [
        answer == str(held_out[i]["metadata"]["object_count"]) for i, answer in enumerate(model.predict(list(held_out)))
    ]
    assert np.mean(right) == pytest.approx(lines[-1]["accuracy"])
    with pytest.raises(MaskweaveError, match="has no 'rgb'"):
        model.predict([{"caption": "a cube"}])


def test_a_transfer_with_other_features_is_refused(start: Path, tmp_path: Path) -> None:
    for statistics in (True, False):
        recipe = load_transfer(write_recipe(tmp_path, start, **COUNT, head={"statistics": statistics}))
        folder, entries = tmp_path / str(statistics), recipe.load_catalog()
        target = make_target(entries, recipe.target, recipe.label)
        save_catalog(entries, folder)
        shutil.copytree(start / "tokenizers", folder / "tokenizers")
        save_transferred(
            build_objective(recipe, entries, target, TargetFacts()).objective, entries, target, recipe, folder
        )
        path = folder / "model" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        load_transferred(folder)
        found = config["transfer"].pop("features")
        path.write_text(json.dumps(config), encoding="utf-8")
        if statistics:
            assert [*found] == ["encoder", "channels", "rows", "parts"]
            with pytest.raises(
                MaskweaveError, match="a transfer of an earlier version, with other heads; run it again"
            ):
                load_transferred(folder)
        else:
            load_transferred(folder)


@pytest.mark.slow
def test_m3ae_and_scratch(masked: Path, start: Path, tmp_path: Path) -> None:
    picture = {"data": {"source": "scenes", "samples": 32, "validation": 8}, "catalog": str(targets(tmp_path))}
    run(tmp_path / "m3ae", masked, inputs=["rgb", "caption"], target="masks", **picture)
    assert load_transferred(tmp_path / "m3ae" / "run").encoder.names == ["rgb", "caption"]
    with pytest.raises(MaskweaveError, match=r"a model of family 'm3ae' cannot learn new inputs \(depth_points\)"):
        run(tmp_path / "new", masked, inputs=["rgb", "depth_points"], target="masks", **picture)
    before = load_model(start, catalog()).state_dict()["encoder.0.attention.q.weight"]
    run(tmp_path / "scratch", start, scratch=True, seed=5, tuning={"parameters": "head"}, **COUNT)
    after = load_file(tmp_path / "scratch" / "run" / "model" / "model.safetensors")[
        "encoder.model.encoder.0.attention.q.weight"
    ]
    assert not torch.allclose(before, after, atol=1e-3)


def targets(folder: Path) -> Path:
    """A catalog with a new target, a new input, and what they read."""
    path = folder / "more.yaml"
    size = [64, 64]
    entries = {
        "masks": {"id": 50, "kind": "grid", "grid": [8, 8], "value": {"type": "classes", "size": size, "classes": ["floor", "wall", "cube", "sphere", "cylinder", "cone"]}},
        "depth_points": {"id": 51, "kind": "patches", "grid": [8, 8], "value": {"type": "map", "size": size, "range": [0, 16], "unit": "m"}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"modalities": entries}), encoding="utf-8")
    return path


@pytest.mark.parametrize("parameters", ["all", pytest.param("head", marks=pytest.mark.slow)])
def test_an_unknown_input_joins_at_fine_tuning(
    parameters: str, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        tmp_path,
        start,
        inputs=["rgb", "depth_points"],
        target="masks",
        catalog=str(targets(tmp_path)),
        tuning={"parameters": parameters},
    )
    assert "depth_points: not in" in capsys.readouterr().out
    model = load_transferred(tmp_path / "run")
    assert model.encoder.names == ["rgb", "depth_points"]
    before = load_model(start, catalog()).state_dict()
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    old, new = "token_embedding.rows.for_rgb.weight", "encoder.model.token_embedding.rows.for_depth_points.weight"
    assert torch.equal(after[f"encoder.model.{old}"], before[old]) == (parameters == "head")
    torch.manual_seed(0)
    fresh = FourM(model.encoder.catalog, MODEL).token_embedding.rows["depth_points"].weight
    assert not torch.equal(after[new], fresh), "the new embedding learns even where the rest is frozen"
    sample = Scenes(model.catalog, 1, 3)[0]
    assert model.predict([{"rgb": sample["rgb"], "depth_points": sample["depth_points"]}])[0].shape == (64, 64)


def test_folders_of_classes(start: Path, tmp_path: Path) -> None:
    for label in range(2):
        for part, count in (("train", 12), ("val", 4)):
            for i in range(count):
                path = tmp_path / part / f"class{label}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((40, 40, 3), 40 + 160 * label + i, np.uint8)).save(path)
    data = {"source": str(tmp_path / "train"), "held_out": str(tmp_path / "val"), "validation": 0}
    (row,) = run(tmp_path / "a", start, data=data, train={"steps": 30, "batch_size": 8, "learning_rate": 5e-3})
    assert (row.target, row.metric, row.value, row.constant, row.samples) == ("class", "accuracy", 1.0, 0.5, 8)
    found = load_transferred(tmp_path / "a" / "run").predict([{"rgb": np.full((64, 64, 3), 203, np.uint8)}])
    assert found == ["class1"]
    (row,) = run(tmp_path / "b", start, data={"source": str(tmp_path / "train"), "validation": 6})
    assert row.samples == 6
    with pytest.raises(MaskweaveError, match="class folders allow only the class as target, found 'metadata'"):
        run(tmp_path / "c", start, data={"source": str(tmp_path / "train"), "validation": 6}, **COUNT)
    shutil.rmtree(tmp_path / "val" / "class0")
    shutil.copytree(tmp_path / "val" / "class1", tmp_path / "val" / "class2")
    with pytest.raises(
        MaskweaveError, match="val: its 2 classes differ from the 2 of .*train: class0, class2 are only in one of them"
    ):
        run(tmp_path / "d", start, data=data)


def test_classes_called_like_modalities(tmp_path: Path) -> None:
    for n, name in enumerate(("normal", "pneumonia")):
        for i in range(4):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 40, 3), 100 * n + i, np.uint8)).save(path)
    parts = open_examples(TransferData(source=str(tmp_path), validation=2), catalog(), ["rgb"], "", "")
    assert parts.train.target.classes == ("normal", "pneumonia") and (len(parts.train), len(parts.held_out)) == (6, 2)
    assert [parts.train.answer(i, parts.train[i]) for i in range(6)] == [
        int(parts.train[i]["rgb"].max() >= 100) for i in range(6)
    ]


def test_examples_of_own_code() -> None:
    own = {"source": "python: own_sources:Endless", "samples": 8, "validation": 4, "seed": 1}
    parts = open_examples(TransferData(**own), catalog(), ["rgb"], "depth", "")
    assert (parts.train.key(0), parts.held_out.key(3), parts.train.names) == (
        "seed-1-100",
        "seed-2-203",
        ("rgb", "depth"),
    )
    with pytest.raises(
        MaskweaveError, match="own_sources:Endless is endless: set data.samples and data.validation to 1 or more"
    ):
        open_examples(TransferData(**{**own, "samples": 0}), catalog(), ["rgb"], "depth", "")


def test_coco_boxes(start: Path, tmp_path: Path) -> None:
    scenes = Scenes(catalog(), 12, 4)
    names = list(catalog()["boxes"].value.classes)
    content: dict[str, list[Any]] = {
        "images": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate(names)],
        "annotations": [],
    }
    (tmp_path / "pictures").mkdir()
    for i, scene in enumerate(scenes):
        Image.fromarray(scene["rgb"]).save(tmp_path / "pictures" / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        for item in scene["boxes"]:
            x0, y0, x1, y1 = (64 * x for x in item["box"])
            content["annotations"].append(
                {"image_id": i, "category_id": names.index(item["class"]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            )
    (tmp_path / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    data = {"source": str(tmp_path / "instances.json"), "pictures": str(tmp_path / "pictures"), "validation": 4}
    rows = run(tmp_path / "a", start, data=data, target="boxes")
    assert [row.metric for row in rows] == ["AP", "AP50"] and rows[0].samples == 4
    examples = open_examples(TransferData(**data), catalog(), ["rgb"], "boxes", "").train
    scene = scenes[int(examples.key(3).removesuffix(".png"))]
    assert examples[3]["boxes"][0]["box"] == pytest.approx(scene["boxes"][0]["box"])
    with pytest.raises(MaskweaveError, match="the data has no depth; it has rgb"):
        run(tmp_path / "b", start, data=data, target="depth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "target is empty, .*; set target to one of the possible targets: depth, normal, semseg, boxes, boxes with label first, metadata with label object_count"),
        ({"target": "caption"}, "target 'caption': complete values of type 'text' cannot be learned"),
        ({"target": "metadata", "label": "brightnes"}, "has no label 'brightnes'"),
        ({"target": "semseg", "inputs": ["caption"]}, "needs inputs with the same 2-D grid, found none"),
        ({"target": "semseg", "inputs": ["rbg"]}, "unknown modality 'rbg'; did you mean 'rgb'"),
        ({"target": "semseg", "inputs": []}, "inputs is empty"),
        ({"target": "semseg", "start": ""}, "start is empty"),
        ({"target": "semseg", "start": "nowhere"}, "nowhere: no such folder"),
        ({"target": "semseg", "inputs": ["rgb", "depth"]}, "has no tokenizer for depth; choose other inputs"),
        ({"target": "semseg", "data": {"validation": 8}}, "set data.samples and data.validation to 1 or more"),
        ({"target": "semseg", "data": {"source": "nowhere", "validation": 8}}, "nowhere"),
        ({"target": "semseg", "data": {"crop": 2}}, "'data': crop must be above 0 to 1"),
        ({"target": "semseg", "tuning": {"parameters": "some"}}, "'tuning.parameters' expects one of all, lora, head"),
        ({"target": "semseg", "tuning": {"layer_decay": 0}}, "layer_decay must be above 0"),
        ({"target": "semseg", "tuning": {"rank": 0}}, "rank must be 1 or more"),
        ({"target": "semseg", "head": {"depth": 0}}, "width, depth, upsample, queries, heads, skip_width must be 1 or more"),
        ({"target": "boxes", "inputs": ["caption"], "head": {"queries": 0}}, "head.queries 0 needs an input on a 2-D grid, found caption"),
        ({"target": "semseg", "train": {"processes": 2}}, "a transfer trains in one process"),
        ({"targets": "semseg"}, "unknown key 'targets'; did you mean 'target'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(start: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MaskweaveError, match=words):
        run(tmp_path, changes.pop("start", start), **changes)
    assert not (tmp_path / "run").exists(), "nothing is begun"


def test_batches_skip_what_cannot_be_used() -> None:
    entries = catalog(["rgb", "metadata"])

    class Holey(Scenes):
        def __getitem__(self, i: int) -> dict[str, Any]:
            sample = super().__getitem__(i)
            if i % 3 == 1:
                del sample["metadata"]
            return sample

    target = make_target(entries, "metadata", "object_count")
    batches = TransferBatches(Examples(Holey(entries, 9, 0), entries, ["rgb"], target), {}, ["rgb"], 3, shuffle=False)
    truth = [Scenes(entries, 9, 0)[i]["metadata"]["object_count"] for i in (0, 2, 2)]
    assert batches[0].target.tolist() == truth and len(batches) == 3
    assert torch.equal(batches[1].inputs.content["rgb"], batches[1].inputs.content["rgb"])
    flipped = TransferBatches(batches.examples, {}, ["rgb"], 3, seed=1, augment=Augment(crop=0.5, flip=0.5))
    assert torch.equal(flipped[5].inputs.content["rgb"], flipped[5].inputs.content["rgb"])
    assert not torch.equal(flipped[5].inputs.content["rgb"], flipped[6].inputs.content["rgb"])


def test_views_are_cropped_independently(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = catalog(["rgb", "depth", "semseg"])
    wrist = replace(entries["depth"], view="wrist")
    entries = Catalog([entries["rgb"], wrist, entries["semseg"]])
    examples = Examples(Scenes(entries, 4, 0), entries, ["rgb", "depth"], make_target(entries, "semseg", ""))
    batches = TransferBatches(examples, {}, ["rgb", "depth"], 4, seed=1, augment=Augment(crop=0.3, flip=0.5))
    seen: list[dict[str, Geometry]] = []
    apply = transforms.apply

    def recorded(sample: Any, entries: Catalog, crops: dict[str, Geometry]) -> dict[str, Any]:
        seen.append(crops)
        return apply(sample, entries, crops)

    monkeypatch.setattr(transforms, "apply", recorded)
    samples = [batches._usable(i, np.random.default_rng(i))[0] for i in range(4)]
    assert all(list(crops) == ["", "wrist"] and crops[""] != crops["wrist"] for crops in seen) and len(seen) == 4
    assert all(sample["rgb"].shape[:2] == sample["depth"].shape for sample in samples)


def test_a_bundles_encoder_takes_values(start: Path, masked: Path) -> None:
    scenes = list(Scenes(catalog(), 3, 0))
    for folder in (start, masked):
        features = maskweave.load(folder).encoder(["caption", "rgb"])
        encoded = features(scenes)
        assert encoded.feature_map("rgb").shape == (3, 32, 8, 8) and encoded.pooled.shape == (3, 32)
        numbers, pooled = features.pooled(Scenes(catalog(), 5, 0), batch_size=2)
        assert numbers == [0, 1, 2, 3, 4] and torch.allclose(pooled[:3], encoded.pooled, atol=1e-5)
        with pytest.raises(MaskweaveError, match="has no 'caption'"):
            features([{"rgb": scenes[0]["rgb"]}])
    assert repr(features) == "FeatureExtractor(inputs: rgb, caption; width: 32)"
