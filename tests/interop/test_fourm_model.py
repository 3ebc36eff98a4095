"""Published 4M models in and out, on small ones written here: every architecture, exact files, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_catalog import tiny, tiny_batch

from maskweave.errors import MaskweaveError
from maskweave.families.weights import load_model as load_saved
from maskweave.families.weights import save_model
from maskweave.interop.fourm import load_model
from maskweave.interop.fourm.backbone import load_backbone
from maskweave.interop.fourm.model import export_model
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM, FourMConfig

SWIGLU = FourMConfig(width=32, heads=4, encoder_depth=2, decoder_depth=1, separate=True)
BIASES = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "norm_bias": True}
VARIANTS = {
    "swiglu": SWIGLU,
    "qk_norm": dataclasses.replace(SWIGLU, qk_norm=True),
    "gelu": dataclasses.replace(SWIGLU, gated=False, **BIASES),
    "gelu, normalized": dataclasses.replace(SWIGLU, gated=False, qk_norm=True, **BIASES),
    "registers": dataclasses.replace(SWIGLU, registers=3),
    "some biases": dataclasses.replace(SWIGLU, proj_bias=True, mlp_ratio=3.0),
}


def written(folder: Path, config: FourMConfig = SWIGLU, catalog: Catalog | None = None) -> FourM:
    """A model, and a published checkpoint of it in `folder`."""
    torch.manual_seed(0)
    catalog = catalog or tiny()
    model = FourM(catalog, config).eval()
    export_model(model, catalog, folder)
    return model


def outputs(model: FourM, catalog: Catalog) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {name: logits for name, (_, _, logits) in model(tiny_batch(catalog)).items()}


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, value in values.items():
        config.pop(key) if value is None else config.update({key: value})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def equal(a: Path, b: Path) -> bool:
    x, y = (load_file(folder / "model.safetensors") for folder in (a, b))
    same = x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
    return same and json.loads((a / "config.json").read_text(encoding="utf-8")) == json.loads(
        (b / "config.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_goes_out_and_comes_back(variant: str, tmp_path: Path) -> None:
    model = written(tmp_path / "first", VARIANTS[variant])
    loaded, catalog = load_model(tmp_path / "first", tiny())
    assert dataclasses.replace(loaded.config, size="") == dataclasses.replace(model.config, size="")
    for name, logits in outputs(model, tiny()).items():
        torch.testing.assert_close(outputs(loaded, catalog)[name], logits, rtol=0, atol=0)
    export_model(loaded, catalog, tmp_path / "second")
    assert equal(tmp_path / "first", tmp_path / "second")


def test_names_and_shapes_are_the_published_ones(tmp_path: Path) -> None:
    written(tmp_path, dataclasses.replace(SWIGLU, qk_norm=True, registers=1))
    shapes = {name: list(t.shape) for name, t in load_file(tmp_path / "model.safetensors").items()}
    expected = {
        "mask_token": [1, 1, 32],
        "register_tokens": [1, 1, 32],
        "encoder_embeddings.photo.proj.weight": [32, 12],
        "encoder_embeddings.photo.pos_emb": [1, 16, 32],
        "encoder_embeddings.feature.emb_proj.bias": [32],
        "encoder_embeddings.caption.pos_emb": [1, 512, 32],
        "decoder_embeddings.caption.to_logits.weight": [320, 32],
        "decoder_embeddings.facts.token_emb.weight": [320, 32],
        "decoder_embeddings.codes.token_emb.weight": [20, 32],
        "decoder_embeddings.spectrum.pos_emb": [1, 5, 32],
        "encoder.1.attn.qkv.weight": [96, 32],
        "decoder.0.cross_attn.kv.weight": [64, 32],
        "decoder.0.cross_attn.k_norm.bias": [8],
        "decoder_proj_context.bias": [32],
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any(name.startswith(("decoder_embeddings.photo", "decoder_embeddings.feature")) for name in shapes)


def test_a_bundle_keeps_what_nothing_reads(tmp_path: Path) -> None:
    written(tmp_path / "first")
    tensors = load_file(tmp_path / "first" / "model.safetensors")
    passthrough = torch.randn(20, 32)
    tensors["decoder_embeddings.codes.token_emb.weight"] = passthrough
    del tensors["decoder_embeddings.caption.mod_emb"]  # as files are written that hold shared tensors once
    del tensors["encoder_embeddings.photo.pos_emb"]  # what the architecture prescribes may be left out
    save_file(tensors, tmp_path / "first" / "model.safetensors")
    model, catalog = load_model(tmp_path / "first", tiny())
    save_model(model, catalog, tmp_path / "bundle")
    again = load_saved(tmp_path / "bundle", catalog)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    export_model(again, catalog, tmp_path / "second")
    assert equal(tmp_path / "first", tmp_path / "second")


def test_weights_are_read_once_and_not_copied(tmp_path: Path) -> None:
    written(tmp_path)
    attention = load_model(tmp_path, tiny()).model.encoder[0].attention
    storages = {layer.weight.untyped_storage().data_ptr() for layer in (attention.q, attention.k, attention.v)}
    assert len(storages) == 1  # three views of the stored, fused layer


def test_a_modality_that_is_only_read(tmp_path: Path) -> None:
    reading = Catalog(
        [dataclasses.replace(m, input_only=m.name in ("caption", "spectrum")) for m in tiny().values()],
        tiny().vocabularies.values(),
    )
    written(tmp_path, catalog=reading)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["domains_out"] == ["codes", "facts"]
    model, catalog = load_model(tmp_path, tiny())
    assert [m.name for m in catalog.values() if m.is_target] == ["codes", "facts"]
    assert list(model.heads) == ["codes", "facts"] and "caption" in model.token_embedding.tokens


def test_a_source_that_the_model_lacks_is_no_input(tmp_path: Path) -> None:
    alone = Catalog([dataclasses.replace(tiny()["codes"], source=""), tiny()["caption"]], tiny().vocabularies.values())
    written(tmp_path, catalog=alone)
    assert list(load_model(tmp_path, tiny()).catalog) == ["codes", "caption"]


def test_the_backbone_is_the_models_encoder(tmp_path: Path) -> None:
    model = written(tmp_path, dataclasses.replace(SWIGLU, registers=2, qk_norm=True))
    backbone = load_backbone(tmp_path, tiny())
    pixels = torch.randn(2, 3, 8, 8)
    assert backbone(pixels).shape == (2, 16, 32)
    assert backbone(torch.randn(2, 3, 12, 6)).shape == (2, 18, 32)
    torch.testing.assert_close(
        backbone.positions, model.position_embedding.fixed[model.position_embedding.starts[1] :][:16]
    )
    for wrong in (torch.randn(2, 3, 9, 8), torch.randn(2, 1, 8, 8), torch.randn(3, 8, 8)):
        with pytest.raises(MaskweaveError, match="expected \\(B, 3, H, W\\) with H and W multiples"):
            backbone(wrong)
    with pytest.raises(MaskweaveError, match="no encoder of pictures"):
        written(tmp_path / "blind", catalog=tiny().subset(["caption", "facts"]))
        load_backbone(tmp_path / "blind", tiny())


WRONG_KEYS: dict[str, tuple[object, str]] = {
    "num_experts": (8, "unknown: num_experts"),
    "dim": (None, "missing: dim"),
    "act_layer": ("GELU", "act_layer 'GELU' with gated_mlp True is not a published architecture"),
    "mlp_ratio": (float("nan"), "mlp_ratio must be a number above 0 and at most 64, found nan"),
    "decoder_depth": (10**9, "decoder_depth must be a whole number, 1 to 1024, found 1000000000"),
    "num_register_tokens": (-1, "num_register_tokens must be a whole number, 0 to 4096, found -1"),
    "num_heads": (5, "width 32 must be an even multiple of heads 5"),
    "encoder_depth": ("12", "encoder_depth must be a whole number, 1 to 1024, found '12'"),
    "decoder_sep_mask": (False, "decoder_sep_mask is False, but only True is supported"),
    "qkv_bias": (1, "qkv_bias must be true or false, found 1"),
    "domains_in": (["codes", "sonar"], "domains_in contains sonar, for which catalog has no entry"),
    "domains_out": (["codes", ["codes"]], "domains_out must be a list of different modalities"),
    "patch_size": (16, "patch_size is 16, but 'photo' of catalog has patches of \\(2, 2\\)"),
}


@pytest.mark.parametrize("key", WRONG_KEYS)
def test_wrong_configurations(key: str, tmp_path: Path) -> None:
    written(tmp_path)
    value, message = WRONG_KEYS[key]
    change(tmp_path, **{key: value})
    with pytest.raises(MaskweaveError, match=f"config.json: .*{message}"):
        load_model(tmp_path, tiny())


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    written(tmp_path)
    change(tmp_path, domains_out=["codes", "photo"])
    with pytest.raises(MaskweaveError, match="config.json: domains_out has photo, which catalog has as input only"):
        load_model(tmp_path, tiny())
    written(tmp_path)
    change(tmp_path, domains_in=["photo", "codes"])
    with pytest.raises(MaskweaveError, match="domains_out has spectrum, caption, facts, which domains_in lacks"):
        load_model(tmp_path, tiny())


def test_wrong_tensors_are_listed_together(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder_norm.weight"]
    tensors["encoder.0.mlp.fc4.weight"] = torch.zeros(2)
    tensors["decoder_embeddings.caption.to_logits.weight"] = torch.zeros(319, 32)
    tensors["encoder_embeddings.codes.pos_emb"] = tensors["encoder_embeddings.codes.pos_emb"] + 0.1
    tensors["encoder.1.norm1.bias"] = torch.ones(32)
    save_file(tensors, path)
    with pytest.raises(MaskweaveError) as caught:
        load_model(tmp_path, tiny())
    text = str(caught.value)
    for part in (
        str(path),
        "missing: encoder_norm.weight [32]",
        "unknown: encoder.0.mlp.fc4.weight",
        "decoder_embeddings.caption.to_logits.weight [319, 32] instead of [320, 32]",
        "encoder_embeddings.codes.pos_emb with values that differ from those of the architecture",
        "encoder.1.norm1.bias with values that differ",
    ):
        assert part in text


@pytest.mark.parametrize(
    "name", ["mask_token", "encoder_embeddings.photo.mod_emb", "decoder_embeddings.spectrum.pos_emb"]
)
def test_every_tensor_is_checked(name: str, tmp_path: Path) -> None:
    learned = Catalog(
        [dataclasses.replace(m, positions="learned") if m.name == "spectrum" else m for m in tiny().values()],
        tiny().vocabularies.values(),
    )
    written(tmp_path, catalog=learned)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for change, message in (
        ({}, f"missing: {name}"),
        ({name: tensors[name][..., :8].contiguous()}, rf"{name} \[.*8\] instead of"),
        ({name: tensors[name].half()}, f"{name} in float16 instead of float32"),
        ({name: tensors[name].int()}, f"{name} in int32 instead of float32"),
    ):
        save_file({key: t for key, t in tensors.items() if key != name} | change, path)
        with pytest.raises(MaskweaveError, match=f"model.safetensors: .*{message}"):
            load_model(tmp_path, learned)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    written(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MaskweaveError, match="model.safetensors: cannot be read as safetensors, probably truncated"):
        load_model(tmp_path, tiny())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MaskweaveError, match="model.safetensors: no such file"):
        load_model(tmp_path, tiny())
    with pytest.raises(MaskweaveError, match="no such folder in .*; expected one with config.json"):
        load_model(tmp_path / "nowhere", tiny())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(MaskweaveError, match=r"pytorch_model.bin: a pickled checkpoint"):
        load_model(tmp_path, tiny())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "4m-b.pth").write_bytes(b"\x80\x04")
    for pickled in (tmp_path / "old", tmp_path / "old" / "4m-b.pth"):
        with pytest.raises(MaskweaveError, match=r"4m-b.pth: a pickled checkpoint .* weights_only=True"):
            load_model(pickled, tiny())


def test_shared_tables_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="model.separate: true"):
        export_model(FourM(tiny(), dataclasses.replace(SWIGLU, separate=False)), tiny(), tmp_path)
