"""M3AE and MAE weights of our own, written in the published format and read again; what cannot be written or read is told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_catalog import random_columns, tiny

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.families.weights import load_model, save_model
from maskweave.generate.bundle import Bundle
from maskweave.interop.m3ae import load_m3ae, save_m3ae
from maskweave.masking.m3ae import MaskRatio, mask_columns
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.image import Image

TINY = M3AEConfig(width=32, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=3, mlp_ratio=3)
PAIRS = tiny().subset(["photo", "caption"])
PICTURES = tiny().subset(["photo"])


def trained(catalog: Catalog) -> M3AE:
    torch.manual_seed(0)
    model = M3AE(catalog, TINY)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


@torch.inference_mode()
def outputs(model: M3AE, catalog: Catalog) -> list[torch.Tensor]:
    import numpy as np

    columns = {n: c for n, c in random_columns(PAIRS, 4, np.random.default_rng(0)).items() if n in catalog}
    (group,) = mask_columns(columns, catalog, MaskRatio(0.5, 0.5), np.random.default_rng(0)).groups
    return list(model(group.parts).values())


@pytest.mark.parametrize("catalog", [PAIRS, PICTURES], ids=["m3ae", "mae"])
def test_written_and_read_again(catalog: Catalog, tmp_path) -> None:
    model = trained(catalog)
    save_m3ae(model, catalog, tmp_path)
    again, own = load_m3ae(tmp_path, catalog)
    assert own is catalog and not again.training
    for a, b in zip(outputs(model, catalog), outputs(again, catalog), strict=True):
        assert torch.equal(a, b)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (config["model"], config["image_size"], config["patch_size"]) == (
        "m3ae" if "caption" in catalog else "mae", 8, 2,
    )  # fmt: skip
    made = load_m3ae(tmp_path).catalog
    assert [(m.kind, m.row_width) for m in made.values() if m.grid] == [("patches", 12)]
    assert len(made) == len(catalog)


def test_what_was_set_in_training_is_written_as_it_was_read(tmp_path) -> None:
    save_m3ae(trained(PAIRS), PAIRS, tmp_path / "published", MaskRatio(0.5, 0.25))
    path = tmp_path / "published" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert (config["image_mask_ratio"], config["text_mask_ratio"]) == (0.5, 0.25)
    path.write_text(json.dumps({**config, "drop_path": 0.1}), encoding="utf-8")
    model, catalog = load_m3ae(tmp_path / "published", PAIRS)
    save_m3ae(model, catalog, tmp_path / "again")
    save_model(model, catalog, tmp_path / "bundle")  # and by way of a bundle
    save_m3ae(load_model(tmp_path / "bundle", catalog), catalog, tmp_path / "from bundle")
    for folder in ("again", "from bundle"):
        assert json.loads((tmp_path / folder / "config.json").read_text(encoding="utf-8")) == json.loads(
            path.read_text(encoding="utf-8")
        )
    save_m3ae(model, catalog, tmp_path / "tuned", MaskRatio(0.75, 0.9))
    assert json.loads((tmp_path / "tuned" / "config.json").read_text(encoding="utf-8"))["text_mask_ratio"] == 0.9
    save_m3ae(trained(PAIRS), PAIRS, tmp_path / "own")
    assert json.loads((tmp_path / "own" / "config.json").read_text(encoding="utf-8"))["image_mask_ratio"] == 0.75, (
        "where nothing is known"
    )


def test_without_type_embeddings(tmp_path) -> None:
    save_m3ae(trained(PAIRS), PAIRS, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "use_type_embedding": False}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="unknown: decoder_image_type_embedding"):
        load_m3ae(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: t for n, t in weights.items() if "type_embedding" not in n}, tmp_path / "model.safetensors")
    model, _ = load_m3ae(tmp_path)
    assert not model.types.weight[1].any() and not model.decoder_types.weight[2].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": "2"}, ["'depth' expects a whole number, found '2'"]),
        ({"use_type_embedding": "no"}, ["'use_type_embedding' expects true or false"]),
        ({"patch_size": 0, "dec_depth": 10**9}, ["patch_size is 0, expected 1 to 8192", "dec_depth is 1000000000, expected 1 to 1024"]),
        ({"num_heads": 0}, ["num_heads is 0"]),
        ({"image_size": 9, "emb_dim": 33}, ["image_size is 9, expected a multiple of patch_size 2", "emb_dim is 33"]),
        ({"mlp_ratio": float("nan"), "text_vocab_size": -1}, ["mlp_ratio is nan", "text_vocab_size is -1"]),
        ({"text_vocab_size": 2}, ["more than its size 2"]),
        ({"mlp_ratio": 4}, ["encoder/Block_0/TransformerMLP_0/fc1/kernel [32, 96] instead of [32, 128]"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_told(changes: dict, words: list[str], tmp_path) -> None:
    save_m3ae(trained(PAIRS), PAIRS, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    with pytest.raises(MaskweaveError) as error:
        load_m3ae(tmp_path)
    assert all(word in str(error.value) for word in [*words, str(tmp_path / "config.json")]), error.value


def test_an_entry_of_other_sizes_is_told(tmp_path) -> None:
    save_m3ae(trained(PICTURES), PICTURES, tmp_path)
    large = Catalog([Modality("large", 1, "patches", Image((16, 16), 3), grid=(8, 8))])
    with pytest.raises(MaskweaveError, match=r"image_size is 8 and patch_size 2, but 'large' .* has size \(16, 16\)"):
        load_m3ae(tmp_path, large)


def test_what_cannot_be_read_or_written_is_told(tmp_path) -> None:
    with pytest.raises(MaskweaveError, match="needs one modality of kind patches and at most one of kind sequence"):
        save_m3ae(trained(PAIRS), tiny().subset(["photo", "caption", "facts"]), tmp_path)
    wide = Catalog([Modality("wide", 1, "patches", Image((8, 16), 3), grid=(4, 4))])
    with pytest.raises(MaskweaveError, match=r"wide: the published format needs square pictures, found size \(8, 16\)"):
        save_m3ae(M3AE(wide, TINY), wide, tmp_path)
    save_m3ae(trained(PAIRS), PAIRS, tmp_path)
    with pytest.raises(MaskweaveError, match="unknown: .*text_embedding/embedding"):
        load_m3ae(tmp_path, PICTURES)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "color": 1}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="not the configuration of an M3AE; unknown: color"):
        load_m3ae(tmp_path)


def test_a_bundle_needs_its_text_tokenizer(tmp_path) -> None:
    model = trained(PAIRS)
    with pytest.raises(
        MaskweaveError,
        match=r"bundle: a bundle needs the text tokenizer of every vocabulary, but that of .* is missing",
    ):
        Bundle(PAIRS, {}, model).save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    text = TextTokenizer.train(PAIRS.vocabularies[PAIRS["caption"].vocabulary], ["a cat"] * 9)
    Bundle(PAIRS, {"caption": SequenceTokenizer(PAIRS["caption"], text)}, model).save(tmp_path / "bundle")
    assert list(maskweave.load(tmp_path / "bundle").tokenizers) == ["caption"]
    Bundle(PICTURES, {}, trained(PICTURES)).save(tmp_path / "pictures")
    assert maskweave.load(tmp_path / "pictures").tokenizers == {}
