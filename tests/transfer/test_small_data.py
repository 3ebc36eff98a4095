"""What few samples need: class weights, focal and dice loss, ignored points, inputs at full resolution, a linear start, missing inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
import yaml
from rasterio.transform import from_origin
from small_transfer import catalog, make_bundle, write_recipe

from maskweave.errors import LackingSample, MaskweaveError
from maskweave.generate.tile_scene import save_tiled
from maskweave.masking.inputs import read_inputs
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoded
from maskweave.models.heads import DenseHead
from maskweave.models.sample_heads import ClassHead
from maskweave.objectives.classes import ClassLoss, dice_loss, median_frequency_weights
from maskweave.synthetic.scenes import Scenes
from maskweave.transfer import linear_start
from maskweave.transfer.build import build_objective, load_transferred
from maskweave.transfer.data import Examples, TransferBatches, open_examples
from maskweave.transfer.linear_start import start_from_linear
from maskweave.transfer.recipe import load_transfer
from maskweave.transfer.run import run_transfer
from maskweave.transfer.shares import answers
from maskweave.transfer.target import Target, make_target
from maskweave.transfer.task import fit_facts


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


LOGITS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))


def test_the_loss_is_torchs_cross_entropy() -> None:
    weights = [0.5, 2.0, 1.0]
    target = TARGET.clone()
    target[0, :2] = -1
    loss, metrics = ClassLoss(weights)(LOGITS, target)
    expected = F.cross_entropy(LOGITS, target, torch.tensor(weights), ignore_index=-1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    known = target >= 0
    assert metrics["accuracy"].item() == pytest.approx((LOGITS.argmax(1) == target)[known].float().mean().item())
    assert ClassLoss()(LOGITS, torch.full_like(target, -1))[0] == 0
    label, _ = ClassLoss()(LOGITS[:, :, 0, 0], TARGET[:, 0, 0])
    assert label.item() == pytest.approx(F.cross_entropy(LOGITS[:, :, 0, 0], TARGET[:, 0, 0]).item(), rel=1e-5)


def test_focal_and_dice_by_hand() -> None:
    p = LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]
    focal, _ = ClassLoss(gamma=2.0)(LOGITS, TARGET)
    assert focal.item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-4)
    p_NK, target_N = torch.tensor([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0]]), torch.tensor([0, 1])
    shares = [2 * 0.8 / (1.2 + 1), 2 * 0.6 / (0.8 + 1)]  # the third class is not in the batch
    assert dice_loss(p_NK, target_N).item() == pytest.approx(1 - np.mean(shares), rel=1e-5)
    both, _ = ClassLoss(dice=0.5)(LOGITS, TARGET)
    plain, _ = ClassLoss()(LOGITS, TARGET)
    flat = LOGITS.movedim(1, -1).flatten(0, -2).softmax(1)
    assert both.item() == pytest.approx(plain.item() + 0.5 * dice_loss(flat, TARGET.flatten()).item(), rel=1e-5)


def test_weights_by_median_frequency() -> None:
    assert median_frequency_weights([100, 50, 10, 0]) == pytest.approx([0.5, 1, 5, 1])
    assert median_frequency_weights([10**6, 1000, 1]) == pytest.approx([0.1, 1, 10])
    assert median_frequency_weights([0, 0]) == [1, 1]


def test_a_head_sees_its_inputs() -> None:
    """A point that differs from its neighbors changes the output at itself, although the features are the same."""
    torch.manual_seed(0)
    head = DenseHead(["x"], 8, 2, (8, 8), 4, 1, 2, {"x": 3})
    tokens = torch.randn(1, 4, 8)
    raw = torch.randn(1, 3, 8, 8)
    other = raw.clone()
    other[0, :, 5, 6] = torch.nan
    encoded = Encoded(tokens, None, {"x": slice(0, 4)}, {"x": (2, 2)}, {"x": raw})
    one, two = head(encoded), head(encoded._replace(raw={"x": other}))
    assert bool(two.isfinite().all()) and one.shape == (1, 2, 8, 8)
    difference = (one - two).abs().sum(dim=1)[0]
    assert difference.argmax() == 5 * 8 + 6


class Speckle:
    """Pictures whose classes follow from the color of each point alone, which no token sees; some points are ignored."""

    names = ("rgb", "speckle")

    def __init__(self, catalog: Catalog | None = None):
        pass

    def __len__(self) -> int:
        return 40

    def key(self, i: int) -> str:
        return f"speckle-{i}"

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(i)
        rgb = rng.integers(0, 256, (64, 64, 3), np.uint8)
        speckle = (rgb[..., 0] > rgb[..., 1]).astype(np.int16)
        speckle[rgb[..., 2] > 250] = 2
        speckle[:5] = -1
        return {"rgb": rgb, "speckle": speckle}


CLASSES = {
    "speckle": {"id": 70, "kind": "grid", "grid": [8, 8], "value": {"type": "classes", "size": [64, 64], "classes": ["green", "red", "rare"], "ignore": 255}}
}  # fmt: skip


def transfer(folder: Path, start: Path, **changes: Any) -> dict[str, float]:
    (folder / "more.yaml").write_text(yaml.safe_dump({"modalities": CLASSES}), encoding="utf-8")
    data = {"source": "python: test_small_data:Speckle", "validation": 8}
    given = {"target": "speckle", "catalog": str(folder / "more.yaml"), "data": data, **changes}
    path = write_recipe(folder, start, **given)
    return {row.metric: row.value for row in run_transfer(load_transfer(path), folder / "run")}


def test_points_are_learned_at_full_resolution(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Logistic regression of each point separates the two common classes before the first step."""
    quick = {"steps": 2, "batch_size": 8, "learning_rate": 1e-4, "checkpoint_every": 0}
    loss = {"class_weights": "auto", "focal": 1.0, "dice": 0.5}
    rows = transfer(tmp_path, start, train=quick, loss=loss)
    assert "the head starts from logistic regression of each point" in capsys.readouterr().out
    assert rows["IoU green"] > 0.85 and rows["IoU red"] > 0.85
    model = load_transferred(tmp_path / "run")
    sample = Speckle()[39]
    (found,) = model.predict([{"rgb": sample["rgb"]}])
    known = sample["speckle"] >= 0
    assert np.mean(found[known] == sample["speckle"][known]) > 0.85
    tiled = model.tiles({"rgb": np.concatenate([sample["rgb"]] * 2)}, overlap=0.0)["speckle"]
    assert tiled.shape == (128, 64) and (tiled[:64] == found).all() and (tiled[64:] == found).all()
    scene = tmp_path / "scene.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", width=64, height=128, count=3, dtype="uint8", crs="EPSG:32632", transform=from_origin(5e5, 5e6, 10, 10)
    ) as file:  # fmt: skip
        file.write(np.moveaxis(np.concatenate([sample["rgb"]] * 2), -1, 0))
    save_tiled(model.tiles({"rgb": str(scene)}, overlap=0.0), tmp_path / "tiles")
    with rasterio.open(tmp_path / "tiles" / "speckle.tif") as file:
        assert file.transform.f == 5e6 and (file.read(1) == tiled).all(), "at the place of the input"


def test_without_the_inputs_points_are_not_learned(start: Path, tmp_path: Path) -> None:
    quick = {"steps": 2, "batch_size": 8, "learning_rate": 1e-4, "checkpoint_every": 0}
    rows = transfer(tmp_path, start, train=quick, head={"skip": False, "width": 16, "depth": 1, "upsample": 2})
    assert rows["mIoU"] < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"class_weights": [1, 2]}}, "found 2 weights for 3 classes; give one for each of green, red, rare"),
        ({"loss": {"class_weights": [1, -2, 1]}}, "class_weights must be 0 or more"),
        ({"loss": {"class_weights": "some"}}, "class_weights"),
        ({"loss": {"focal": -1}}, "focal must be 0 to 10"),
        ({"inputs": ["caption"], "head": {"skip": True}}, "needs inputs with the same 2-D grid|has no caption"),
        (
            {"data": {"source": "python: test_small_data:Speckle", "modality_dropout": 1.0}},
            "modality_dropout must be 0 to below 1",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, start: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=message):
        transfer(tmp_path, start, **changes)


class Gaps(Scenes):
    """Scenes of which every other lacks its picture."""

    lacked = "rgb"

    def __init__(self, catalog: Catalog, samples: int = 0, seed: int = 0):
        super().__init__(catalog, samples, seed)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = super().__getitem__(i)
        return {name: value for name, value in sample.items() if name != self.lacked or i % 2}


class DepthGaps(Gaps):
    lacked = "depth"


def test_a_target_may_not_be_missing_even_if_inputs_may() -> None:
    for inputs in (["rgb", "depth"], ["rgb"]):
        examples = Examples(
            DepthGaps(catalog(), 4), catalog(), inputs, make_target(catalog(), "depth", ""), partial=True
        )
        assert {*examples[1]} == {"rgb", "depth"}
        with pytest.raises(LackingSample, match="has no depth"):
            examples[0]
    count = Examples(
        Gaps(catalog(), 4),
        catalog(),
        ["rgb", "caption"],
        make_target(catalog(), "metadata", "object_count"),
        partial=True,
    )
    assert {*count[0]} == {"caption", "metadata"} and {*count[1]} == {"rgb", "caption", "metadata"}
    folders = Examples(Gaps(catalog(), 4), catalog(), ["rgb", "caption"], Target(None, "", ()), partial=True)
    assert folders._is_target("rgb") is False


@pytest.mark.slow
def test_inputs_may_be_missing(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"source": "python: test_small_data:Gaps", "samples": 32, "validation": 8}
    count = {"target": "metadata", "label": "object_count", "inputs": ["rgb", "caption"]}
    rows = run_transfer(load_transfer(write_recipe(tmp_path, start, data=data, **count)), tmp_path / "all")
    assert rows[0].samples == 4, "those with all inputs"
    said = "".join(capsys.readouterr())
    assert "4 of 8 samples lack a modality that is needed, and are not used" in said
    some = {**data, "modality_dropout": 0.3}
    rows = run_transfer(load_transfer(write_recipe(tmp_path, start, data=some, **count)), tmp_path / "run")
    assert rows[0].samples == 8
    model = load_transferred(tmp_path / "run")
    sample = Scenes(catalog(), 1, 5)[0]
    for names in (["rgb"], ["caption"], ["rgb", "caption"]):
        assert len(model.predict([{name: sample[name] for name in names}])) == 1
    with pytest.raises(MaskweaveError, match="has none of the inputs rgb, caption"):
        model.predict([{}])


def test_a_missing_input_counts_as_padding(start: Path) -> None:
    """A batch with gaps gives each sample the features that it has alone."""
    model = load_bundle_encoder(start)
    samples = [Scenes(catalog(), 2, 0)[i] for i in range(2)]
    del samples[0]["rgb"]
    tokenizers = model[1]
    together = model[0](read_inputs(samples, catalog(), tokenizers, model[0].names, partial=True)).pooled
    alone = model[2](read_inputs(samples[:1], catalog(), tokenizers, ["caption"])).pooled
    assert torch.allclose(together[0], alone[0], atol=1e-5)


def load_bundle_encoder(start: Path) -> Any:
    import maskweave

    bundle = maskweave.load(start)
    both, caption = (bundle.encoder(names) for names in (["rgb", "caption"], ["caption"]))
    return both.encoder.eval(), both.tokenizers, caption.encoder.eval()


BANDS = ("blue", "green", "red", "nir")


def band_entries(names: tuple[str, ...], named: bool = True) -> dict[str, Any]:
    value = {"type": "map", "size": [8, 8], "channels": len(names), "range": [0, 1]}
    named_value = {**value, "channel_names": list(names)} if named else value
    entries = {
        "bands": {"id": 1, "kind": "patches", "grid": [2, 2], "value": named_value},
        "height": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 1]}},
    }
    return {"modalities": entries}


def test_too_few_examples_still_standardize(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"target": "metadata", "label": "object_count", "data": {"samples": 64, "validation": 8}}
    recipe = load_transfer(write_recipe(tmp_path, start, **count))
    entries = recipe.load_catalog()
    parts = open_examples(recipe.data, entries, recipe.inputs, recipe.target, recipe.label)
    target = parts.train.target
    objective = build_objective(
        recipe, entries, target, fit_facts(target, answers(parts.train, 24), recipe.head)
    ).objective
    head = objective.head
    assert isinstance(head, ClassHead)
    before = head.out.weight.clone()
    few = parts.train.some(9)
    said = start_from_linear(objective, few, {})
    needed = max(10, 5 * len(target.classes))
    assert said.endswith(f"at random, with features standardized by 9 examples; a linear model needs {needed} examples")
    assert torch.equal(head.out.weight, before) and bool((head.feature_mean[head.blocks["encoder"] :] != 0).any())
    batch = TransferBatches(few, {}, ["rgb"], 9, shuffle=False, raw=["rgb"])[0]
    encoded = objective.encoder(batch.inputs)._replace(raw=batch.raw)
    standardized = (head.features(encoded) - head.feature_mean) / head.feature_std * head.width**0.5
    assert standardized.mean(dim=0).abs().max() < 1e-3 and standardized.std(dim=0, correction=0).max() < 1 + 1e-3
    monkeypatch.setattr(linear_start, "MOST_WORK", 9 * head.width * len(target.classes))
    said = start_from_linear(objective, parts.train.some(needed), {})
    assert f"needs {needed} examples, but takes at most 9 for {head.width} features" in said


@pytest.mark.parametrize("named", [True, False])
def test_other_bands_keep_their_weights(named: bool, tmp_path: Path) -> None:
    from maskweave.families.base import family_named
    from maskweave.modality.catalogs import load_catalog
    from maskweave.models.fourm import FourM, FourMConfig
    from maskweave.transfer.recipe import joined

    for name, bands in (("theirs", BANDS), ("ours", ("nir", "swir", "green"))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(band_entries(bands, named)), encoding="utf-8")
    theirs, ours = (load_catalog(str(tmp_path / f"{name}.yaml")) for name in ("theirs", "ours"))
    both = joined(theirs, ours)
    assert both["bands"] == ours["bands"] and [*both] == ["bands", "height"]
    config = FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1)
    donor, model = FourM(theirs, config), FourM(both, config)
    fresh = model.token_embedding.rows["bands"].weight.detach().clone().view(16, 16, 3)
    said = family_named("fourm").warm_start(model, both, donor, theirs, tmp_path)
    there = donor.token_embedding.rows["bands"].weight.view(16, 16, 4)
    here = model.token_embedding.rows["bands"].weight.view(16, 16, 3)
    if named:
        assert said[0].startswith(
            "bands: 3 channels, 4 in the start; the weights of 2 are kept, matched by name, and 1 are"
        )
        assert torch.equal(here[..., 0], there[..., 3]) and torch.equal(here[..., 2], there[..., 1])
        assert torch.equal(here[..., 1], fresh[..., 1])
    else:
        assert "the weights of 3 are kept, matched by position, and 0 are new" in said[0]
        assert torch.equal(here, there[..., :3])
    assert torch.equal(model.encoder[0].attention.q.weight, donor.encoder[0].attention.q.weight)
    other = band_entries(BANDS, named)
    other["modalities"]["height"]["value"]["range"] = [0, 2]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="the entry 'height' differs from that of"):
        joined(theirs, load_catalog(str(tmp_path / "other.yaml")))
