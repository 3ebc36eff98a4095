import dataclasses
import json

import numpy as np
import pytest
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.nn.weights import PassthroughTensors
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.vit import PostMLP
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.vector import Vector

SMALL = TokenizerSpec(width=32, heads=2, depth=1, decoder_depth=1, quantizer=Quantizer("fsq", levels=(5, 4)))
VECTOR = dataclasses.replace(SMALL, model="mlp")


DENOISER = Diffusion(widths=(32,), layers=1, attention=1, patch=2, steps=2)


def variant(**changes):
    return dataclasses.replace(SMALL, **changes)


def entry(value, grid, spec=SMALL, **quantizer):
    if quantizer:
        spec = dataclasses.replace(spec, quantizer=Quantizer(**quantizer))
    return Modality(name="probe", id=1, kind="grid", value=value, grid=grid, tokenizer=spec)


ENTRIES = {
    "image": entry(Image((8, 12), 3), (2, 3)),
    "map": entry(Map((8, 8), range=(0, 10), unit="m"), (2, 2)),
    "features": entry(Map((4, 4), 16, range=(-4, 4)), (4, 4)),
    "direction": entry(Direction((8, 8), 3), (2, 2)),
    "classes": entry(Classes((8, 8), classes=("floor", "wall", "cube")), (2, 2)),
    "binary": entry(Binary((8, 8)), (2, 2)),
    "spectrum": entry(Map((40,), range=(0, 1)), (5,)),
    "volume": entry(Image((4, 8, 8), 1), (2, 2, 4)),
    "vq": entry(Image((8, 8), 3), (2, 2), type="vq", codes=16, dim=8),
    "simvq": entry(Image((8, 8), 3), (2, 2), type="vq", codes=16, dim=8, codebook="simvq", rotation=True),
    "residual vq": entry(Image((8, 8), 3), (2, 2), type="residual", codes=8, dim=8, depth=2),
    "residual fsq": entry(Image((8, 8), 3), (2, 2), type="residual", over="fsq", levels=(4, 3), depth=2),
    "lfq": entry(Image((8, 8), 3), (2, 2), type="lfq", codes=16),
    "vector": entry(Vector(channels=20), (4,), VECTOR),
    "memcodes": entry(Vector(channels=20), (6,), VECTOR, type="memcodes", codes=16, dim=12, heads=3),
    "wide decoder": entry(Image((8, 8), 3), (2, 2), variant(decoder_width=48, decoder_heads=3, tail="mlp")),
    "no tail": entry(Classes((8, 8), classes=("a", "b")), (2, 2), variant(tail="none", class_width=3)),
    "resized": entry(Image((8, 12), 3), (2, 3), variant(trained_grid=(4, 4))),
    "image blocks": entry(Map((8, 8), 2, range=(0, 1)), (2, 2), variant(image_blocks=2, image_scale=True)),
    "inner": entry(
        Vector(channels=9), (4,), variant(model="mlp", inner_width=8, decoder_inner_width=12, decoder_width=16)
    ),
    "diffusion": entry(Image((8, 8), 3), (2, 2), variant(diffusion=DENOISER)),
}


def sample(modality, batch=5):
    rng, v = np.random.default_rng(0), modality.value
    match v.type:
        case "image":
            return rng.integers(0, 256, (batch, *v.size, v.channels), dtype=np.uint8)
        case "map":
            return rng.uniform(*v.range, (batch, *v.size, v.channels)).astype(np.float32)
        case "direction":
            x = rng.normal(size=(batch, *v.size, 3))
            return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
        case "classes":
            return rng.integers(0, len(v.classes), (batch, *v.size), dtype=np.uint8)
        case "binary":
            return rng.random((batch, *v.size)) < 0.3
        case _:
            return rng.normal(size=(batch, v.channels)).astype(np.float32)


@pytest.mark.parametrize("name", ENTRIES)
def test_encode_decode_save_load(name, tmp_path):
    torch.manual_seed(0)
    modality = ENTRIES[name]
    tokenizer, values = GridTokenizer(modality), sample(modality)
    assert isinstance(tokenizer, Tokenizer)
    tokens = tokenizer.encode(values)
    assert tokens.shape == (5, *modality.grid) and tokens.dtype == torch.long and not tokens.is_inference()
    assert tokens.min() >= 0 and tokens.max() < tokenizer.vocabulary_size
    decoded = tokenizer.decode(tokens)
    assert decoded.dtype == values.dtype and decoded.reshape(values.shape).shape == values.shape
    assert tokenizer.training  # as it was
    tokenizer.save(tmp_path / "probe")
    loaded = GridTokenizer.load(tmp_path / "probe", modality)
    assert loaded.modality == tokenizer.modality and not loaded.training
    for key, tensor in tokenizer.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert torch.equal(loaded.encode(list(values)), tokens)
    np.testing.assert_array_equal(loaded.decode(tokens.flatten(1).numpy()), decoded)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["probe"]


PARAMETERS = {
    "image": (14402, 14448), "map": (13378, 13392), "features": (13378, 13392), "direction": (14402, 14448), "classes": (16986, 14448),
    "binary": (13378, 13392), "spectrum": (13122, 13128), "volume": (13378, 13392), "vq": (14600, 14640), "simvq": (14600, 14640),
    "residual vq": (14600, 14640), "residual fsq": (14402, 14448), "lfq": (14468, 14512), "vector": (9352, 9364), "memcodes": (9880, 9876),
    "wide decoder": (22754, 49536), "no tail": (14344, 13856), "resized": (14402, 14448), "image blocks": (13890, 14216), "inner": (9072, 2629),
    "diffusion": (14402, 181964),
}  # fmt: skip
"""Numbers of parameters of the encoder and of the decoder. Bundles on disk have them, so they never change."""


def test_networks_have_their_sizes():
    found = {
        name: tuple(sum(p.numel() for p in part.parameters()) for part in (tokenizer.encoder, tokenizer.decoder))
        for name, tokenizer in ((name, GridTokenizer(modality)) for name, modality in ENTRIES.items())
    }
    assert found == PARAMETERS


def test_batches_inside_change_nothing(monkeypatch):
    tokenizer, values = GridTokenizer(ENTRIES["image"]), sample(ENTRIES["image"])
    whole = tokenizer.encode(values)
    monkeypatch.setattr("maskweave.tokenizers.grid.BATCH", 2)
    assert torch.equal(tokenizer.encode(values), whole)
    values = list(values)
    values[3] = values[3][:4]
    with pytest.raises(BadSample, match="probe: value 3 of the batch"):
        tokenizer.encode(values)


def test_empty_batch():
    tokenizer = GridTokenizer(ENTRIES["map"])
    assert tokenizer.encode([]).shape == (0, 2, 2)
    assert tokenizer.decode(tokenizer.encode([])).shape == (0, 8, 8)


def test_saving_again_replaces_the_folder(tmp_path):
    first, second = GridTokenizer(ENTRIES["map"]), GridTokenizer(ENTRIES["map"])
    first.save(tmp_path / "t")
    second.save(tmp_path / "t")
    assert torch.equal(GridTokenizer.load(tmp_path / "t").encoder.patches.weight, second.encoder.patches.weight)


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    tokenizer = GridTokenizer(ENTRIES["map"])
    tokenizer.save(tmp_path / "t")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MaskweaveError, match="no space left"):
        GridTokenizer(ENTRIES["map"]).save(tmp_path / "t")
    monkeypatch.undo()
    assert torch.equal(GridTokenizer.load(tmp_path / "t").encoder.patches.weight, tokenizer.encoder.patches.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    "tokens, words",
    [
        (torch.full((1, 2, 2), 20), ["0 to 19", "found 20"]),
        (torch.full((1, 2, 2), -1), ["-1"]),
        (torch.zeros(1, 3, 2, dtype=torch.long), ["(B, 2, 2)", "(1, 3, 2)"]),
        (torch.zeros(2, 2, dtype=torch.long), ["(B, 2, 2)", "(2, 2)"]),
        (torch.zeros(1, 2, 2), ["float32"]),
    ],
)
def test_decode_refuses(tokens, words):
    with pytest.raises(MaskweaveError) as caught:
        GridTokenizer(ENTRIES["map"]).decode(tokens)
    assert all(word in str(caught.value) for word in ["probe", *words])


def test_only_grids_have_one(scenes_catalog):
    with pytest.raises(MaskweaveError, match=r"caption.*'grid'.*'sequence'"):
        GridTokenizer(scenes_catalog["caption"])


def test_an_entry_with_a_source_loads(scenes_catalog, tmp_path):
    GridTokenizer(scenes_catalog["tok_rgb"]).save(tmp_path / "t")
    assert GridTokenizer.load(tmp_path / "t", scenes_catalog["tok_rgb"]).modality == scenes_catalog["tok_rgb"]


@pytest.fixture
def saved(tmp_path):
    GridTokenizer(ENTRIES["map"]).save(tmp_path / "t")
    return tmp_path / "t"


def refusal(folder, modality=None):
    with pytest.raises(MaskweaveError) as caught:
        GridTokenizer.load(folder, modality)
    return str(caught.value)


def test_load_refuses_what_is_not_there(saved):
    assert "no such folder" in refusal(saved / "elsewhere")
    (saved / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(saved)
    (saved / "config.json").unlink()
    assert "config.json is missing" in refusal(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_load_refuses_a_truncated_file(saved, keep):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "truncated" in refusal(saved)


def test_load_refuses_other_weights(saved):
    from safetensors.torch import load_file, save_file

    state = load_file(saved / "model.safetensors")
    state["stranger"] = state.pop("encoder.norm.weight")
    state["encoder.norm.bias"] = torch.zeros(5)
    save_file(state, saved / "model.safetensors")
    message = refusal(saved)
    for word in (
        "model.safetensors",
        "missing in the file: encoder.norm.weight",
        "not in the model: stranger",
        "encoder.norm.bias (5,), expected (32,)",
    ):
        assert word in message


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.update(format=99), ["format 99", "reads format 2", "Train the tokenizer again"]),
        (lambda c: c.pop("modality"), ["'format' and 'modality'"]),
        (lambda c: c["modality"].update(color=1), ["modality.color"]),
        (lambda c: c["modality"].update(grid=[3, 3]), ["must divide"]),
    ],
)
def test_load_refuses_other_configurations(saved, change, words):
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    change(config)
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    message = refusal(saved)
    assert all(word in message for word in words) and "config.json" in message


def test_load_refuses_another_entry(saved):
    other = dataclasses.replace(ENTRIES["map"], value=dataclasses.replace(ENTRIES["map"].value, range=(0.0, 20.0)))
    message = refusal(saved, other)
    assert "value.range is [0.0, 10.0] there, [0.0, 20.0] here" in message and "train the tokenizer again" in message
    wider = dataclasses.replace(ENTRIES["map"], tokenizer=dataclasses.replace(SMALL, width=64))
    assert "tokenizer.width is 32 there, 64 here" in refusal(saved, wider)
    GridTokenizer.load(saved, dataclasses.replace(ENTRIES["map"], name="other", id=7))  # the name decides nothing


def test_what_a_published_checkpoint_held_is_saved_too(tmp_path):
    tokenizer = GridTokenizer(ENTRIES["map"])
    tokenizer.passthrough = PassthroughTensors({"key": 1}, {"counts": torch.arange(3)}, ("counts",))
    tokenizer.save(tmp_path / "t")
    loaded = GridTokenizer.load(tmp_path / "t")
    assert (
        loaded.passthrough is not None
        and loaded.passthrough.config == {"key": 1}
        and loaded.passthrough.names == ("counts",)
    )
    assert torch.equal(loaded.passthrough.tensors["counts"], torch.arange(3))
    assert "counts" not in "".join(loaded.state_dict())
    GridTokenizer(ENTRIES["map"]).save(tmp_path / "t")
    assert GridTokenizer.load(tmp_path / "t").passthrough is None


@pytest.mark.parametrize(
    "value, grid, changes, words",
    [
        (Image((8, 8), 3), (2, 2), {"decoder_width": 30, "decoder_heads": 4}, ["decoder_width 30", "heads 4"]),
        (Image((8, 8), 3), (2, 2), {"trained_grid": (0, 4)}, ["trained_grid must be positive"]),
        (Map((8,), range=(0, 1)), (2,), {"image_blocks": 1}, ["image_blocks", "two axes", "(2,)"]),
        (Image((8, 8), 3), (2, 2), {"class_width": 0}, ["class_width must be 1 or more"]),
    ],
)
def test_impossible_architectures_are_refused(value, grid, changes, words):
    with pytest.raises(MaskweaveError) as caught:
        GridTokenizer(entry(value, grid, variant(**changes)))
    assert all(word in str(caught.value) for word in ["probe", *words])


def test_large_networks_take_fewer_values_at_once():
    small, large = GridTokenizer(ENTRIES["image"]), entry(Image((224, 224), 3), (14, 14), variant(width=768))
    assert small.batch == 256 and 8 <= GridTokenizer.without_weights(large).batch <= 64


def test_post_mlp_is_float32_in_any_precision():
    tail = PostMLP(8)
    x = torch.randn(1, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tail(x), tail.float()(x)) and tail(x.bfloat16()).dtype == torch.float32
