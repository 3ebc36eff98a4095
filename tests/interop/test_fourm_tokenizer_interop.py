"""Published tokenizers of every architecture, written here in small: what is loaded works, is told where it does not fit, and comes out equal."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskweave.errors import MaskweaveError
from maskweave.interop.fourm import tokenizer_config
from maskweave.interop.fourm.tokenizer_names import _unet, correspondence
from maskweave.interop.fourm.tokenizers import export_tokenizer, load_tokenizer
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.tokenizers.diffusion import DiffusionDecoder
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.vector import Vector

WIDTH, DEPTH, GRID, PATCH, LATENT, CODES = 16, 2, 4, 8, 6, 32
VIT = {
    "enc_type": "vit_s_enc",
    "dec_type": "vit_s_dec",
    "image_size": GRID * PATCH,
    "patch_size": PATCH,
    "quant_type": "lucid",
    "norm_codes": True,
    "codebook_size": CODES,
    "latent_dim": LATENT,
    "sync_codebook": False,
}
CONFIGS = {
    "map": {**VIT, "n_channels": 1, "post_mlp": True},
    "image": {**VIT, "n_channels": 3, "out_conv": True, "undo_std": False, "image_size_enc": GRID * PATCH},
    "classes": {**VIT, "n_channels": 5, "n_labels": 7, "post_mlp": True},
    "features": {**VIT, "n_channels": 12, "patch_proj": False},
    "vector": {
        "enc_type": "BottleneckMLP/B_2-Wi_16",
        "dec_type": "BottleneckMLP/B_1-Wi_24",
        "quant_type": "memcodes",
        "num_codebooks": 2,
        "codebook_size": CODES,
        "latent_dim": LATENT,
        "n_channels": 10,
    },
    "diffusion": {
        **VIT,
        "dec_type": "unet_patched",
        "n_channels": 2,
        "post_mlp": True,
        "scheduler": "ddpm",
        "prediction_type": "v_prediction",
        "beta_schedule": "shifted_cosine:0.5",
        "num_train_timesteps": 50,
        "zero_terminal_snr": True,
        "clip_sample": True,
        "ddim_steps": 3,
        "conditioning": "concat",
    },
}
UNET = Diffusion(widths=(32, 64), layers=1, attention=1)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    monkeypatch.setitem(tokenizer_config.VIT, "vit_s", tokenizer_config.ViTSize(WIDTH, 2, DEPTH))
    monkeypatch.setattr(tokenizer_config, "UNET_SIZE", UNET)


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def vit(side, has_tail):
    shapes = {f"{side}.pos_emb": (1, WIDTH, GRID, GRID)}
    for block in (f"{side}.blocks.{i}" for i in range(DEPTH)):
        shapes |= layer(f"{block}.norm1", WIDTH) | layer(f"{block}.norm2", WIDTH)
        shapes |= layer(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | layer(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= layer(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH) | layer(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    if has_tail:
        shapes |= layer(f"{side}.norm_mlp", WIDTH)
        shapes |= layer(f"{side}.post_mlp.fc1", 4 * WIDTH, WIDTH) | layer(f"{side}.post_mlp.fc2", WIDTH, 4 * WIDTH)
    return shapes


def mlp(side, into, width, depth, out):
    shapes = layer(f"{side}.linear_in", width, into) | layer(f"{side}.linear_out", out, width)
    for i in range(depth):
        shapes |= layer(f"{side}.layernorms.{i}", width)
        shapes |= layer(f"{side}.blocks.{i}.block.0", 4 * width, width)
        shapes |= layer(f"{side}.blocks.{i}.block.2", width, 4 * width)
    return shapes


def residual(name, into, out):
    shapes = layer(f"{name}.in_layers.0", into) | layer(f"{name}.in_layers.2", out, into, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", out, 128)
    shapes |= layer(f"{name}.out_layers.0", out) | layer(f"{name}.out_layers.3", out, out, 3, 3)
    return shapes | (layer(f"{name}.skip_connection", out, into, 1, 1) if into != out else {})


def attention(name, width):
    return layer(f"{name}.norm", width) | layer(f"{name}.qkv", 3 * width, width, 1) | layer(f"{name}.proj_out", width, width, 1)  # fmt: skip


def unet(channels):
    """Of `UNET`, written out."""
    d, patched = "decoder", channels * UNET.patch**2
    shapes = layer(f"{d}.time_embed.0", 128, 32) | layer(f"{d}.time_embed.2", 128, 128)
    shapes |= layer(f"{d}.input_blocks.0.0", 32, patched + LATENT, 3, 3) | residual(f"{d}.input_blocks.1.0", 32, 32)
    shapes |= layer(f"{d}.input_blocks.2.0.op", 32, 32, 3, 3)
    shapes |= residual(f"{d}.input_blocks.3.0", 32, 64) | attention(f"{d}.input_blocks.3.1", 64)
    shapes |= residual(f"{d}.middle_block.0", 64, 64) | attention(f"{d}.middle_block.1", 64)
    shapes |= residual(f"{d}.middle_block.2", 64, 64)
    shapes |= residual(f"{d}.output_blocks.0.0", 64 + 64, 64) | attention(f"{d}.output_blocks.0.1", 64)
    shapes |= residual(f"{d}.output_blocks.1.0", 64 + 32, 64) | attention(f"{d}.output_blocks.1.1", 64)
    shapes |= layer(f"{d}.output_blocks.1.2.conv", 64, 64, 3, 3)
    shapes |= residual(f"{d}.output_blocks.2.0", 64 + 32, 32) | residual(f"{d}.output_blocks.3.0", 32 + 32, 32)
    return shapes | layer(f"{d}.out.0", 32) | layer(f"{d}.out.2", patched, 32, 3, 3)


def shapes_of(config):
    if config["enc_type"].startswith("Bottleneck"):
        shapes = mlp("encoder", 10, 16, 2, 14) | layer("quant_proj", LATENT, 14, 1, 1)
        shapes |= layer("post_quant_proj", 18, LATENT, 1, 1) | mlp("decoder", 18, 24, 1, 10)
        d = LATENT // 2
        return shapes | {"quantize.codes": (2, CODES, d), "quantize.to_k.weight": (2, d, d), "quantize.to_v.weight": (2, d, d)}  # fmt: skip
    channels, has_tail = config["n_channels"], config.get("post_mlp", False)
    patch = PATCH if config.get("patch_proj", True) else 1
    shapes = vit("encoder", has_tail) | layer("encoder.proj", WIDTH, channels, patch, patch)
    shapes |= layer("quant_proj", LATENT, WIDTH, 1, 1)
    codebook = "quantize._codebook"
    shapes |= {f"{codebook}.embed": (CODES, LATENT), f"{codebook}.cluster_size": (CODES,), f"{codebook}.initted": (1,)}
    if config["dec_type"] == "unet_patched":
        return shapes | unet(channels)
    out = config.get("n_labels", channels)
    shapes |= layer("post_quant_proj", WIDTH, LATENT, 1, 1) | vit("decoder", has_tail)
    shapes |= layer("decoder.out_proj", out * patch**2, WIDTH)
    if "n_labels" in config:
        shapes["cls_emb.weight"] = (out, channels)
    if config.get("out_conv"):
        for block in ("decoder.out_conv.0", "decoder.out_conv.1"):
            shapes |= layer(f"{block}.dwconv", out, 1, 7, 7) | layer(f"{block}.norm", out) | {f"{block}.gamma": (out,)}
            shapes |= layer(f"{block}.pwconv1", 4 * out, out) | layer(f"{block}.pwconv2", out, 4 * out)
    return shapes


def sine_cosine_table():
    """(1, W, rows, columns): a quarter each of sines and cosines of the row, then of the column."""
    frequency = 10000.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    row, column = np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij")
    parts = [f(axis[None] * frequency[:, None, None]) for axis in (row, column) for f in (np.sin, np.cos)]
    return torch.tensor(np.concatenate(parts)[None], dtype=torch.float32)


def write(folder, config, **changes):
    """A checkpoint with random weights; a change to None drops a tensor."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes_of(config).items()}
    for name in tensors:
        if name.endswith("pos_emb"):
            tensors[name] = sine_cosine_table()
    if "quantize._codebook.embed" in tensors:
        codes = tensors["quantize._codebook.embed"]
        tensors["quantize._codebook.embed"] = torch.nn.functional.normalize(codes, dim=-1)
        tensors["quantize._codebook.initted"] = torch.ones(1)
    tensors |= changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: t.contiguous() for name, t in tensors.items() if t is not None}, folder / "model.safetensors")
    return folder


def values(tokenizer, batch=3):
    rng, v = np.random.default_rng(0), tokenizer.modality.value
    match v.type:
        case "image":
            return rng.integers(0, 256, (batch, *v.size, 3), dtype=np.uint8)
        case "classes":
            return rng.integers(0, len(v.classes), (batch, *v.size), dtype=np.uint8)
        case _:
            return rng.uniform(-1, 1, (batch, *v.size, v.channels)).astype(np.float32)


def equal(one, other):
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads((one / "config.json").read_text(encoding="utf-8")) == json.loads(
        (other / "config.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_load_and_export_give_an_equal_file(name, tmp_path):
    config = CONFIGS[name]
    published = write(tmp_path / "published", config)
    tokenizer = load_tokenizer(published)
    assert not tokenizer.training and tokenizer.vocabulary_size == CODES
    assert tokenizer.modality.value.type == ("map" if name == "diffusion" else name)
    x = values(tokenizer)
    tokens = tokenizer.encode(x)
    assert tokens.shape == ((3, 2) if name == "vector" else (3, GRID, GRID))
    assert len(tokens.unique()) > 1
    decoded = tokenizer.decode(tokens)
    assert decoded.reshape(x.shape).dtype == x.dtype
    export_tokenizer(tokenizer, tmp_path / "exported")
    equal(published, tmp_path / "exported")

    tokenizer.save(tmp_path / "saved")  # as in a bundle
    again = GridTokenizer.load(tmp_path / "saved", tokenizer.modality)
    assert torch.equal(again.encode(x), tokens) and np.array_equal(again.decode(tokens), decoded)
    export_tokenizer(again, tmp_path / "again")
    equal(published, tmp_path / "again")


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_trained_here_exports_too(name, tmp_path):
    entry = load_tokenizer(write(tmp_path / "published", CONFIGS[name])).modality
    torch.manual_seed(0)
    tokenizer = GridTokenizer(entry).eval()
    export_tokenizer(tokenizer, tmp_path / "mine")
    assert set(load_file(tmp_path / "mine" / "model.safetensors")) == set(shapes_of(CONFIGS[name]))
    back = load_tokenizer(tmp_path / "mine")
    assert dataclasses.replace(back.spec, diffusion=None) == dataclasses.replace(tokenizer.spec, diffusion=None)
    x = values(tokenizer)
    assert torch.equal(back.encode(x), tokenizer.encode(x))


def test_other_architectures_are_not_exported(tmp_path):
    spec = TokenizerSpec(width=16, heads=2, tail="none", quantizer=Quantizer("vq", codes=8, dim=4))
    for other in (
        spec,
        dataclasses.replace(spec, tail="norm"),
        dataclasses.replace(spec, quantizer=Quantizer("fsq")),
        dataclasses.replace(spec, quantizer=Quantizer("vq", codes=8, dim=4, codebook="simvq")),
    ):
        entry = Modality("probe", 1, "grid", Image((8, 8), 3), grid=(2, 2), tokenizer=other)
        with pytest.raises(MaskweaveError, match="the published format does not support"):
            export_tokenizer(GridTokenizer(entry), tmp_path / "t")


def test_a_published_codebook_outlives_the_first_training_step(tmp_path):
    """k-means starts a codebook that is not initialized, and would wipe this one."""
    quantizer = load_tokenizer(write(tmp_path / "published", CONFIGS["map"])).quantizer
    before = quantizer.codebook.clone()
    assert bool(quantizer.initialized)
    torch.manual_seed(0)
    quantizer.train()(torch.randn(2, 16, LATENT))
    kept = torch.nn.functional.cosine_similarity(before, quantizer.codebook) > 0.9
    assert kept.float().mean() > 0.9, "each code moves a little towards its latents"


def test_weights_are_those_of_the_file(tmp_path):
    """Without a copy, but for patches: they lie next to each other in memory."""
    folder = write(tmp_path / "published", CONFIGS["map"])
    state = load_tokenizer(folder).state_dict()
    q, k = (state[f"encoder.blocks.0.attention.{x}.weight"] for x in "qk")
    assert k.data_ptr() - q.data_ptr() == q.numel() * 4
    file = load_file(folder / "model.safetensors")
    assert torch.equal(torch.cat([q, k]), file["encoder.blocks.0.attn.qkv.weight"][: 2 * WIDTH])
    state["encoder.blocks.0.attention.q.weight"].zero_()  # training changes memory, and never the file
    assert load_file(folder / "model.safetensors")["encoder.blocks.0.attn.qkv.weight"][:WIDTH].abs().min() > 0


def test_patches_are_reordered(tmp_path):
    """A convolution over (channel, row, column) is what our patch layer computes."""
    folder = write(tmp_path / "published", CONFIGS["image"])
    file, tokenizer = load_file(folder / "model.safetensors"), load_tokenizer(folder)
    x = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    expected = torch.nn.functional.conv2d(x, file["encoder.proj.weight"], file["encoder.proj.bias"], stride=PATCH)
    seen = []
    tokenizer.encoder.patches.register_forward_hook(lambda _, __, out: seen.append(out))
    tokenizer.encode_tensor(x)
    torch.testing.assert_close(seen[0].transpose(1, 2).reshape(expected.shape), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(GRID * PATCH * 2, GRID * PATCH * 2), (GRID * PATCH, 3 * PATCH)])
def test_positions_are_resized(size, tmp_path):
    tokenizer = load_tokenizer(write(tmp_path / "published", CONFIGS["map"]), size=size)
    grid = (size[0] // PATCH, size[1] // PATCH)
    expected = torch.nn.functional.interpolate(sine_cosine_table(), grid, mode="bicubic")[0].flatten(1).T
    for side in (tokenizer.encoder, tokenizer.decoder):
        torch.testing.assert_close(side.positions, expected)
    assert tokenizer.encode(values(tokenizer)).shape == (3, *grid)
    assert tokenizer.decode(torch.zeros(2, *grid, dtype=torch.long)).shape == (2, *size)
    export_tokenizer(tokenizer, tmp_path / "exported")
    equal(tmp_path / "published", tmp_path / "exported")


def test_optional_tensors_may_be_absent(tmp_path):
    config = {key: value for key, value in CONFIGS["image"].items() if key != "out_conv"}
    shapes = shapes_of(CONFIGS["image"])
    absent = dict.fromkeys([n for n in shapes if n.endswith(("gamma", "pos_emb", "cluster_size"))])
    folder = write(tmp_path / "published", CONFIGS["image"], **absent)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.spec.image_blocks == 2 and not tokenizer.spec.image_scale and tokenizer.spec.tail == "none"
    export_tokenizer(tokenizer, tmp_path / "exported")
    equal(folder, tmp_path / "exported")


def test_the_whole_unet_has_its_names():
    """The published U-Net's 446 names and shapes, as the digest of their list."""
    value = Map((64, 64), range=(-1, 1))
    spec = TokenizerSpec(width=16, heads=2, diffusion=Diffusion(), quantizer=Quantizer("vq", codes=16, dim=32))
    tokenizer = GridTokenizer.without_weights(Modality("probe", 1, "grid", value, grid=(4, 4), tokenizer=spec))
    state = {name: torch.empty(p.shape, device="meta") for name, p in tokenizer.state_dict().items()}
    stored = [s for s in correspondence(tokenizer) if s.name.startswith("decoder.")]
    shapes = {s.name: list(s.layout.published([state[part] for part in s.parts]).shape) for s in stored}
    listed = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
    assert len(shapes) == len(stored) == len([*_unet(Diffusion())]) == 446
    assert hashlib.sha256(listed.encode()).hexdigest().startswith("4d56efb0025bfd770179c46761866715")
    assert {part for s in stored for part in s.parts} == {name for name in state if name.startswith("decoder.")}


def refusal(folder, modality=None, size=None):
    with pytest.raises(MaskweaveError) as caught:
        load_tokenizer(folder, modality, size)
    return str(caught.value)


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("map", {"color": 1}, ["unknown: color"]),
        ("map", {"codebook_size": None}, ["codebook_size", "whole number", "None"]),
        ("map", {"enc_type": "vit_xxl_enc"}, ["enc_type is 'vit_xxl_enc'", "vit_b_enc"]),
        ("map", {"dec_type": "BottleneckMLP/B_1-Wi_8"}, ["dec_type", "unet_patched"]),
        ("map", {"norm_codes": False}, ["norm_codes is false", "expected true"]),
        ("map", {"image_size": 30}, ["image_size is (30, 30)", "(8, 8)"]),
        ("map", {"image_size": 8 * 10**9}, ["image_size is (8000000000, 8000000000)", "at most 8192"]),
        ("map", {"latent_dim": 10**9}, ["latent_dim is 1000000000, expected 1 to 8192"]),
        ("vector", {"enc_type": "BottleneckMLP/B_99999999-Wi_16"}, ["B_99999999-Wi_16', expected at most B_1024"]),
        ("map", {"image_size_dec": 64}, ["image_size_dec is (64, 64)", "(32, 32)"]),
        ("map", {"num_codebooks": 2}, ["num_codebooks is 2"]),
        ("map", {"prediction_type": "sample"}, ["prediction_type", "only possible with dec_type 'unet_patched'"]),
        ("vector", {"post_mlp": True, "n_labels": 3}, ["n_labels, post_mlp"]),
        ("vector", {"latent_dim": 7}, ["latent_dim is 7", "multiple of num_codebooks 2"]),
        ("diffusion", {"beta_schedule": "sigmoid"}, ["beta_schedule is 'sigmoid'", "shifted_cosine:NUMBER"]),
        ("diffusion", {"prediction_type": "epsilon"}, ["tokenizer.diffusion", "'v_prediction'"]),
        ("diffusion", {"codebook_size": 0, "n_labels": 2}, ["codebook_size is 0", "n_labels"]),
        ("map", {"latent_dim": 8}, ["quant_proj.weight [6, 16, 1, 1] instead of [8, 16, 1, 1]"]),
        ("map", {"post_mlp": False}, ["unknown: decoder.norm_mlp.bias"]),
        ("features", {"patch_proj": True}, ["encoder.proj.weight [16, 12, 1, 1] instead of [16, 12, 8, 8]"]),
    ],
)
def test_a_wrong_configuration_is_told(name, change, words, tmp_path):
    folder = write(tmp_path / "t", CONFIGS[name])
    (folder / "config.json").write_text(json.dumps({**CONFIGS[name], **change}), encoding="utf-8")
    message = refusal(folder)
    assert all(word in message for word in [*words, "config.json"]), message


def test_wrong_files_are_told(tmp_path):
    folder = write(tmp_path / "t", CONFIGS["map"], **{"encoder.pos_emb": sine_cosine_table() + 0.1, "stranger": torch.ones(1)})  # fmt: skip
    message = refusal(folder)
    assert "encoder.pos_emb with values that differ" in message and "unknown: stranger" in message
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated" in refusal(folder)
    weights.rename(folder / "model.pth")
    (folder / "config.json").unlink()
    assert "pickled" in refusal(folder) and "pickled" in refusal(folder / "model.pth")
    assert "no such folder" in refusal(tmp_path / "elsewhere")


def entry(value, grid=(GRID, GRID), codes=CODES):
    model = "mlp" if value.type == "vector" else "vit"
    spec = TokenizerSpec(model=model, quantizer=Quantizer("vq", codes=codes))
    return Modality("mine", 3, "grid", value, grid=grid, tokenizer=spec)


SIZE = (GRID * PATCH, GRID * PATCH)


def test_an_entry_says_what_the_values_are(tmp_path):
    folder = write(tmp_path / "t", CONFIGS["map"])
    tokenizer = load_tokenizer(folder, entry(Map(SIZE, range=(0, 10), unit="m")))
    assert tokenizer.modality.name == "mine" and tokenizer.modality.value.unit == "m"
    assert tokenizer.decode(tokenizer.encode(np.full((1, *SIZE), 9.0))).max() <= 10
    assert load_tokenizer(folder, entry(Binary(SIZE))).decode(torch.zeros(1, 16, dtype=torch.long)).dtype == bool  # fmt: skip


@pytest.mark.parametrize(
    "name, other, words",
    [
        ("map", entry(Image(SIZE, 3)), ["n_channels is 1, expected 3"]),
        ("map", entry(Map(SIZE, range=(0, 1)), codes=8), ["codebook_size is 32, expected 8"]),
        ("map", entry(Map(SIZE, range=(0, 1)), grid=(8, 8)), ["patch_size is (8, 8), expected (4, 4)"]),
        ("map", entry(Classes(SIZE, classes=("a", "b"))), ["n_labels is None, expected 2"]),
        ("map", entry(Vector(channels=1), grid=(2,)), ["enc_type is 'vit_s_enc'", "'vector'"]),
        ("classes", entry(Classes(SIZE, classes=("a", "b"))), ["n_labels is 7, expected 2"]),
        ("vector", entry(Vector(channels=9), grid=(4,)), ["n_channels is 10, expected 9", "num_codebooks is 2, expected 4"]),
        ("vector", entry(Map(SIZE, 10, range=(0, 1))), ["enc_type is 'BottleneckMLP/B_2-Wi_16'", "'map'"]),
    ],
)  # fmt: skip
def test_an_entry_that_does_not_fit_is_told(name, other, words, tmp_path):
    message = refusal(write(tmp_path / "t", CONFIGS[name]), other)
    assert all(word in message for word in [*words, "'mine'", "config.json"]), message


def test_sizes_that_do_not_fit_are_told(tmp_path):
    write(tmp_path / "t", CONFIGS["map"])
    message = refusal(write(tmp_path / "v", CONFIGS["vector"]), size=(32, 32))
    assert "vectors have no rows and columns" in message
    message = refusal(tmp_path / "t", size=(32, 33))
    assert "(32, 33)" in message and "multiples of the patch (8, 8)" in message
    message = refusal(write(tmp_path / "u", {**CONFIGS["diffusion"], "patch_size": 4, "image_size": 16}), size=(20, 20))
    assert "multiple of 8, found (20, 20)" in message


def test_diffusion_settings_are_read(tmp_path):
    decoder = load_tokenizer(write(tmp_path / "t", CONFIGS["diffusion"])).decoder
    assert isinstance(decoder, DiffusionDecoder)
    assert decoder.settings == dataclasses.replace(
        UNET, prediction="v_prediction", schedule="shifted_cosine", shift=0.5, zero_terminal_snr=True, clip=True,
        training_steps=50, steps=3,
    )  # fmt: skip
