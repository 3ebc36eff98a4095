"""Right values, stated without the code under test, for faults that tests once did not notice."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_bundle import scenes, small_bundle
from tiny_catalog import tiny

from maskweave.config import build
from maskweave.data.augment import Augment
from maskweave.data.columns import Column
from maskweave.data.split import Split
from maskweave.data.token_store import write_column
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import evaluate
from maskweave.generate.bundle import Bundle, load
from maskweave.generate.sampling import sample
from maskweave.interop.fourm import load_model
from maskweave.interop.fourm.backbone import load_backbone
from maskweave.interop.fourm.model import export_model
from maskweave.interop.m3ae import PublishedM3AEConfig, published_catalog
from maskweave.modality.catalogs import catalog_from, load_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.weights import open_tensors
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.quantizers.vq import VQ
from maskweave.training.settings import TrainSettings
from maskweave.transfer.data import Examples, TransferBatches, open_examples
from maskweave.transfer.probe import Labeled, LinearProbe
from maskweave.transfer.recipe import TransferData
from maskweave.transfer.target import make_target

# Training and held-out samples


def test_evaluation_reads_held_out_samples_only(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of the recipe's seed are training samples; held-out ones are of the next seed."""
    catalog = load_catalog("scenes").subset(["rgb"])
    training = {s["rgb"].tobytes() for s in Scenes(catalog, 48, 0)}
    held_out = {s["rgb"].tobytes() for s in Scenes(catalog, 8, 1)}
    seen: list[bytes] = []
    generate = Bundle.generate_batch

    def record(self: Bundle, inputs: Any, targets: Any, **options: Any) -> Any:
        seen.extend(one["rgb"].tobytes() for one in inputs if targets == ["depth"])  # others may be generated
        return generate(self, inputs, targets, **options)

    monkeypatch.setattr(Bundle, "generate_batch", record)
    evaluate(load(tiny_run), tiny_run, samples=4)
    assert len(seen) == 4 and {*seen} <= held_out and not {*seen} & training


class Ramps:
    """Pictures and maps with one gradient across; the names are numbers."""

    names = ("rgb", "depth", "semseg")

    def __init__(self, count: int = 40):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def key(self, i: int) -> str:
        return f"episode_{i // 4}/{i:03d}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        across = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (64, 64))
        across = across if i % 2 else across.T
        return {
            "rgb": np.round(np.repeat(across[..., None], 3, axis=-1) * 255).astype(np.uint8),
            "depth": (1 + 10 * across).astype(np.float32),
            "semseg": np.floor(across * 5.99).astype(np.uint8),
        }


def ramps(catalog: Any) -> Ramps:
    return Ramps()


@pytest.mark.parametrize(
    "split",
    [Split(), Split(by="order"), Split(group=r"episode_\d+"), Split(fraction=0.3)],
    ids=["hash", "order", "group", "fraction"],
)
@pytest.mark.parametrize("samples", [0, 7])
def test_examples_to_train_on_and_held_out_ones_are_disjoint(
    split: Split, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    data = TransferData(source="python: test_noticed:ramps", samples=samples, validation=12, split=split)
    parts = open_examples(data, load_catalog("scenes"), ["rgb"], "depth", "")
    train, held_out = ({part.key(i) for i in range(len(part))} for part in parts)
    everything = {Ramps().key(i) for i in range(40)}
    assert train and held_out and not train & held_out and train | held_out <= everything
    assert len(train) == (samples or 40 - len(held_out))
    if split.group:
        assert not {key.split("/")[0] for key in train} & {key.split("/")[0] for key in held_out}
    some = parts.train.some(3)
    assert {some.key(i) for i in range(3)} <= train


@pytest.mark.parametrize("target", ["depth", "semseg"])
def test_input_and_target_see_the_same_geometry(target: str) -> None:
    """Both come from one gradient, so after any crop and flip one tells the other."""
    catalog = load_catalog("scenes")
    examples = Examples(Ramps(), catalog, ["rgb"], make_target(catalog, target, ""))
    batches = TransferBatches(
        examples, {}, ["rgb"], 8, seed=3, augment=Augment(crop=0.3, flip=True), raw=["rgb"], dropout=0.0
    )
    ranges, directions = set(), set()
    for number in range(4):
        batch = batches[number]
        across = (batch.raw["rgb"].mean(dim=1) + 1) / 2  # 0 to 1, as in `Ramps`
        expected = 1 + 10 * across if target == "depth" else torch.floor(across * 5.99)
        value = catalog[target].value
        for found, wanted in zip(batch.target, expected, strict=True):
            if target == "depth":
                shown = torch.from_numpy(np.asarray(value.from_network(found[None])))[0].squeeze()
                assert (shown - wanted).abs().mean() < 0.15
            else:
                shown = found.squeeze().argmax(0) if found.squeeze().ndim == 3 else found.squeeze()
                assert (shown - wanted).abs().mean() < 0.15
            ranges.add(round(float(wanted.max() - wanted.min()), 1))
            directions.add(float(torch.sign(wanted[-1, -1] - wanted[0, 0])))
    assert len(ranges) > 2 and directions == {-1.0, 1.0}, "nothing was cropped or flipped"


# State across requests


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [s["rgb"] for s in Scenes(load_catalog("scenes").subset(["rgb"]), 3, 5)]


def test_requests_leave_nothing_behind(tiny_run: Path, pictures: list[np.ndarray]) -> None:
    """Scores of one caption for several pictures: in turn, in other orders, and each by a bundle of its own."""

    def score(bundle: Bundle, picture: np.ndarray) -> float:
        return bundle.score({"rgb": picture}, {"caption": "a red cube"})["caption"].total

    alone = [score(load(tiny_run), picture) for picture in pictures]
    assert min(abs(a - b) for a, b in pairwise(alone)) > 1e-4, "the pictures make no difference"
    used = load(tiny_run)
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0]):
        assert [score(used, pictures[i]) for i in order] == [alone[i] for i in order]


def test_a_preview_changes_no_result(tiny_run: Path, pictures: list[np.ndarray]) -> None:
    bundle, inputs = load(tiny_run), [{"rgb": picture} for picture in pictures]
    plain = bundle.generate_batch(inputs, ["depth", "caption"])
    session = bundle.start(inputs, ["depth", "caption"])
    for _ in session:
        session.results()
        bundle.generate({"caption": "a red cube"}, ["semseg"])  # another request in between
    for one, other in zip(plain, session.results(), strict=True):
        assert (one["depth"] == other["depth"]).all() and one["caption"] == other["caption"]


def test_cells_of_an_index_are_of_its_vectors(tmp_path: Path) -> None:
    """Vectors that are made again, and a data set that has grown."""
    bundle = small_bundle()
    make_index(bundle, scenes(12), tmp_path / "index", views=["rgb"], shard_size=4)
    stale = tmp_path / "index" / "rgb.faiss"
    stale.write_bytes(b"of the old vectors")
    make_index(bundle, scenes(12), tmp_path / "index", views=["rgb"], shard_size=4)
    assert stale.exists(), "nothing was made again"
    (tmp_path / "index" / "shard-00001.json").unlink()
    make_index(bundle, scenes(12), tmp_path / "index", views=["rgb"], shard_size=4)
    assert not stale.exists()
    assert Index(tmp_path / "index", bundle).query({"rgb": scenes(12)[6]["rgb"]}, k=1)[0].number == 6
    with pytest.raises(MaskweaveError, match="samples"):
        make_index(bundle, scenes(13), tmp_path / "index", views=["rgb"], shard_size=4)


# Constants and weights of published models


def test_constants_of_cc12m() -> None:
    config = PublishedM3AEConfig(
        emb_dim=32, depth=1, num_heads=2, dec_emb_dim=32, dec_depth=1, dec_num_heads=2, image_size=32, patch_size=16
    )
    (picture,) = [m.value for m in published_catalog(config).values() if m.grid]
    assert tuple(picture.mean) == (0.5762, 0.5503, 0.5213)
    assert tuple(picture.std) == (0.3207, 0.3169, 0.3307)


def test_every_tensor_of_a_published_model_counts(tmp_path: Path) -> None:
    """One number of one tensor is changed: the model that is loaded has the change, or the file is refused."""
    torch.manual_seed(0)
    biases = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "norm_bias": True}
    config = FourMConfig(width=32, heads=4, encoder_depth=1, decoder_depth=1, separate=True, gated=False, **biases)
    export_model(FourM(tiny(), config).eval(), tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    before, _ = load_model(tmp_path, tiny())
    assert not before.training
    state = {name: t.clone() for name, t in before.state_dict().items()}
    for name, tensor in whole.items():
        changed = tensor.clone()
        changed.view(-1)[len(changed.view(-1)) // 2] += 0.5
        save_file({**whole, name: changed}, file)
        try:
            after, _ = load_model(tmp_path, tiny())
        except MaskweaveError as error:
            assert name.rpartition(".")[0].split(".")[-1] in str(error) or name in str(error)
            continue
        differing = [n for n, t in after.state_dict().items() if not torch.equal(t, state[n])]
        kept = after.passthrough is not None and name in after.passthrough.tensors
        assert differing or kept, name


def test_a_codebook_that_is_there_stays_when_training_begins() -> None:
    torch.manual_seed(0)
    vq = VQ(codes=8, dim=4, cosine=False)
    codebook = torch.randn(8, 4)
    vq.codebook.copy_(codebook)
    vq.sums.copy_(codebook)
    vq.initialized.fill_(True)
    vq.train()
    vq(torch.randn(2, 16, 4))
    assert (vq.codebook - codebook).abs().max() < 0.2, "0.02 of the way to the latents in one step"


def test_the_commitment_loss_is_the_squared_distance() -> None:
    """0.25 times the squared length of z - code, summed over the D = 4 channels, not their mean."""
    vq = VQ(codes=2, dim=4, cosine=False, commitment=0.25)
    for buffer in (vq.codebook, vq.sums):
        buffer.zero_()
    vq.initialized.fill_(True)
    vq.train()
    assert float(vq(torch.full((1, 3, 4), 2.0)).loss) == pytest.approx(0.25 * 4 * 2.0**2)


# Sampling


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "drawn"),
    [
        (1.0, 0, 0.6, {0, 1}),  # 0.5 + 0.3 reaches 0.6
        (0.5, 0, 0.6, {0}),  # of 0.658, 0.237, 0.105
        (3.0, 0, 0.42, {0, 1}),  # of 0.388, 0.327, 0.285
        (1.0, 0, 0.42, {0}),
        (3.0, 2, 0.6, {0, 1}),  # of 0.543, 0.457 after top-k
        (3.0, 2, 0.5, {0}),
    ],
)
def test_temperature_comes_before_the_cuts(temperature: float, top_k: int, top_p: float, drawn: set[int]) -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(4000, 3)
    noise = -torch.empty(4000, 3).exponential_(generator=torch.Generator().manual_seed(0)).log()
    assert {*sample(logits, noise, temperature, top_k, top_p).tolist()} == drawn


# Probes


def test_the_final_probe_is_fitted_to_all_samples() -> None:
    torch.manual_seed(0)
    features = torch.randn(60, 5)
    labels = (features[:, 0] > 0).long()
    features[48:] += 3  # the last fifth is elsewhere
    whole = Labeled(features, labels)
    probe = LinearProbe.tuned(whole, 2)
    again = LinearProbe.fit(whole, 2, probe.weight_decay)
    assert torch.equal(probe.mean, features.mean(dim=0)) and torch.allclose(probe.weight, again.weight, atol=1e-5)


# Ids and types


@pytest.mark.parametrize("largest", [65_534, 65_535, 65_536, 65_537, 2**20 - 1])
def test_ids_beyond_16_bits(largest: int, tmp_path: Path) -> None:
    ids = np.array([[0, 1, largest, 65_535], [largest, largest - 1, 2, 0]], np.int64)
    (tmp_path / "codes").mkdir()
    write_column(tmp_path, "codes", 0, Column(np.array([True, True]), ids=ids))
    (path,) = (tmp_path / "codes").glob("*.safetensors")
    with open_tensors(path) as stored:
        assert stored.get_tensor("ids").numpy().astype(np.int64).tolist() == ids.tolist()


@pytest.mark.parametrize("value", [True, False])
def test_true_is_no_number(value: bool) -> None:
    for key in ("steps", "batch_size", "learning_rate", "keep"):
        with pytest.raises(MaskweaveError, match=f"'{key}' expects a .*number, found {value}"):
            build(TrainSettings, {key: value}, "here")
    entry = {"id": value, "kind": "sequence", "value": {"type": "text"}, "max_tokens": 16, "vocabulary": "text"}
    with pytest.raises(
        MaskweaveError, match=f"'modalities.words.id' expects a whole number, found {value}|found {value}"
    ):
        catalog_from({"vocabularies": {"text": {"size": 1000}}, "modalities": {"words": entry}}, "here")


@pytest.mark.parametrize(
    "change", [lambda t: t + 0.1, lambda t: t.repeat(2, 1, 1), lambda t: t[:, :-1], lambda t: t[0]]
)
def test_fixed_positions_of_a_published_encoder_are_compared(change: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_model(
        FourM(tiny(), FourMConfig(width=32, heads=4, encoder_depth=1, decoder_depth=1, separate=True)), tiny(), tmp_path
    )
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    key = "encoder_embeddings.photo.pos_emb"
    right = load_backbone(tmp_path, tiny()).positions[None].contiguous()
    save_file({**tensors, key: right}, file)
    load_backbone(tmp_path, tiny())
    save_file({**tensors, key: change(right).contiguous()}, file)
    with pytest.raises(MaskweaveError, match="pos_emb"):
        load_backbone(tmp_path, tiny())
