import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_bundle import catalog, scenes

from maskweave.errors import MaskweaveError
from maskweave.label.encoder import VisionEncoder
from maskweave.label.features import open_encoder

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def saved(model, folder: Path, processor) -> str:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def dinov2(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14)
    processor = transformers.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return saved(transformers.Dinov2Model(config), folder, processor)


def test_features_are_the_model_s_own(tmp_path: Path) -> None:
    teacher = VisionEncoder(dinov2(tmp_path / "dinov2"), catalog("rgb"))
    pictures = [sample["rgb"] for sample in scenes(3)]
    found = teacher([{"rgb": picture} for picture in pictures])
    assert found.shape == (3, 32) and teacher.width == 32 and found.dtype == np.float32
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    x = torch.nn.functional.interpolate(x, (28, 28), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (
        torch.tensor(c).view(3, 1, 1)
        for c in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    )
    with torch.inference_mode():
        expected = teacher.model((x - mean) / deviation).pooler_output
    np.testing.assert_allclose(found, expected, atol=1e-4)
    alone = teacher([{"rgb": pictures[1]}])
    np.testing.assert_allclose(alone[0], found[1], atol=1e-5)


def test_pictures_are_scaled_to_one_around_0_if_the_network_does_not_say_how(tmp_path: Path) -> None:
    settings = Path(dinov2(tmp_path / "dinov2"), "preprocessor_config.json")
    content = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(
        json.dumps({k: v for k, v in content.items() if k not in ("image_mean", "image_std")}), encoding="utf-8"
    )
    teacher = VisionEncoder(str(settings.parent), catalog("rgb"))
    value = np.full((64, 64, 3), [0, 51, 255], np.uint8)
    pixels = torch.tensor([-1, -0.6, 1]).view(1, 3, 1, 1).expand(1, 3, 28, 28)
    with torch.inference_mode():
        expected = teacher.model(pixels).pooler_output
    np.testing.assert_allclose(teacher([{"rgb": value}]), expected, atol=1e-4)


def test_fingerprints_tell_networks_apart(tmp_path: Path) -> None:
    a, same, b = (VisionEncoder(dinov2(tmp_path / str(i), seed), catalog("rgb")) for i, seed in enumerate((0, 0, 1)))
    assert a.fingerprint == same.fingerprint != b.fingerprint


def test_a_pooler_that_the_checkpoint_lacks_is_not_trusted(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=16)
    folder = saved(
        transformers.ViTModel(config, add_pooling_layer=False),
        tmp_path / "vit",
        transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}),
    )
    samples = [{"rgb": sample["rgb"]} for sample in scenes(2)]
    found = [
        VisionEncoder(folder, catalog("rgb"))(samples) for _ in range(2)
    ]  # would be initialized at random each time
    np.testing.assert_array_equal(*found)


def test_a_model_of_pictures_and_text(tmp_path: Path) -> None:
    text = {**SMALL, "vocab_size": 50}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, projection_dim=24
    )
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    features, entries = open_encoder(saved(transformers.CLIPModel(config), tmp_path / "clip", processor), catalog())
    assert features.width == 24 and list(entries) == ["rgb"]


def test_what_is_no_encoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="expected the folder of a run, or a vision model"):
        VisionEncoder(str(tmp_path), catalog("rgb"))
    with pytest.raises(MaskweaveError, match="no modality of pictures"):
        VisionEncoder(dinov2(tmp_path / "dinov2"), catalog("caption"))


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    folder = dinov2(tmp_path / "dinov2")
    weights, config = Path(folder, "model.safetensors"), Path(folder, "config.json")
    whole, settings = weights.read_bytes(), json.loads(config.read_text(encoding="utf-8"))
    for content, change in ((whole[:-100], {}), (whole, {"hidden_size": 64}), (whole, {"patch_size": "x"})):
        weights.write_bytes(content)
        config.write_text(json.dumps({**settings, **change}), encoding="utf-8")
        with pytest.raises(MaskweaveError, match="or a vision model that transformers can open, found neither"):
            VisionEncoder(folder, catalog("rgb"))
    weights.write_bytes(whole)
    config.write_text(json.dumps({**settings, "num_hidden_layers": 2}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"its weights lack encoder\.layer\S+, .* in all\); choose a folder"):
        VisionEncoder(folder, catalog("rgb"))


def test_code_of_a_model_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "conf.Own"}}), encoding="utf-8"
    )
    (folder / "conf.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what transformers asks
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MaskweaveError, match="found neither"):
        VisionEncoder(str(folder), catalog("rgb"))
    assert not (tmp_path / "ran").exists()
