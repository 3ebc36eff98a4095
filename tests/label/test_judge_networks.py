"""Networks that score generated values, with random weights, against torchmetrics and transformers."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_teachers
import torch
from safetensors.torch import save_file
from small_bundle import scenes, small_bundle
from torchmetrics.functional.image import lpips as their_lpips
from torchmetrics.functional.multimodal import clip_score

from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.label.judge_networks import open_judge
from maskweave.label.lpips import LPIPS, open_lpips

hf = pytest.importorskip("transformers")


def clip(folder: Path) -> str:
    """A small CLIP with the tokenizer of a few words, whose end token is the last of its vocabulary."""
    torch.manual_seed(0)
    tokenizer = tiny_teachers.words(folder)
    text = {**tiny_teachers.VIT, "vocab_size": len(tokenizer), "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 2}
    text["max_position_embeddings"] = 200
    vision = {**tiny_teachers.VIT, "image_size": 64, "patch_size": 16}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    pictures = hf.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    tokenizer.save_pretrained(folder)
    return tiny_teachers.saved(hf.CLIPModel(config), pictures, folder)


def classifier(folder: Path) -> str:
    torch.manual_seed(0)
    config = hf.ViTConfig(**tiny_teachers.VIT, image_size=32, patch_size=8, num_labels=5)
    model = hf.ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2)
    return tiny_teachers.saved(model, hf.ViTImageProcessorPil(size={"height": 32, "width": 32}), folder)


def pictures(count: int) -> list[np.ndarray]:
    return [sample["rgb"] for sample in scenes(count)]


def test_the_clip_score_is_that_of_torchmetrics(tmp_path: Path) -> None:
    folder, bundle = clip(tmp_path / "clip"), small_bundle()
    judge, samples = open_judge(f"clip={folder}", bundle), list(scenes(4))
    (row,) = judge.scores(judge.measured(["caption"], "rgb", [(p, p, p) for p in pictures(4)], samples))

    class Processor:
        """Of pictures and of texts."""

        texts, images = hf.AutoTokenizer.from_pretrained(folder), hf.AutoImageProcessor.from_pretrained(folder)

        def __call__(self, text: Any = None, images: Any = None, **options: Any) -> Any:
            return self.texts(text, **options) if images is None else self.images(images, return_tensors="pt")

    class Model(hf.CLIPModel):  # torchmetrics expects tensors
        def get_text_features(self, *given: Any) -> torch.Tensor:
            return super().get_text_features(*given).pooler_output

        def get_image_features(self, *given: Any) -> torch.Tensor:
            return super().get_image_features(*given).pooler_output

    own = lambda: (Model.from_pretrained(folder).eval(), Processor())  # noqa: E731
    texts = [s["caption"] for s in samples]
    with torch.no_grad():
        each = [
            float(clip_score(torch.from_numpy(p).movedim(-1, 0), text, own))
            for p, text in zip(pictures(4), texts, strict=True)
        ]
    assert row.value == pytest.approx(np.mean(each), rel=1e-3) and len(set(np.round(each, 3))) == 4
    assert len({*texts}) == 4


def test_siglip_reads_padded_texts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_teachers.words(tmp_path)
    text = {**tiny_teachers.VIT, "vocab_size": len(tokenizer), "max_position_embeddings": 40, "projection_size": 32}
    config = hf.SiglipConfig(text_config=text, vision_config={**tiny_teachers.VIT, "image_size": 64, "patch_size": 16})
    tokenizer.save_pretrained(tmp_path)
    pictures = hf.SiglipImageProcessorPil(size={"height": 64, "width": 64})
    folder = tiny_teachers.saved(hf.SiglipModel(config), pictures, tmp_path)
    settings = tmp_path / "tokenizer_config.json"  # published ones say so: padding is not masked
    settings.write_text(
        json.dumps({**json.loads(settings.read_text(encoding="utf-8")), "model_input_names": ["input_ids"]}),
        encoding="utf-8",
    )
    judge, samples = open_judge(f"clip={folder}", small_bundle()), list(scenes(3))
    captions = [(s["caption"], "a red cat", "a dog") for s in samples]
    measured = judge.measured(["rgb"], "caption", captions, samples)
    model = hf.SiglipModel.from_pretrained(folder).eval()
    ids = tokenizer(["a red cat"], padding="max_length", max_length=40, return_tensors="pt").input_ids
    pixels = (torch.from_numpy(np.stack([s["rgb"] for s in samples])).movedim(-1, 1) / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = model.get_text_features(input_ids=ids).pooler_output
        seen = model.get_image_features(pixel_values=pixels).pooler_output
    np.testing.assert_allclose(measured[1], expected.expand(3, -1), atol=1e-5)
    np.testing.assert_allclose(measured[3], seen, atol=1e-5)


def test_the_inception_score_of_a_classifier(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "classifier")
    judge = open_judge(f"inception={folder}", small_bundle())
    measured = judge.measured([], "rgb", [(p, p, p) for p in pictures(4)], [])
    model = hf.ViTForImageClassification.from_pretrained(folder).eval()
    x = torch.from_numpy(np.stack(pictures(4))).movedim(-1, 1) / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        expected = model(pixel_values=(x - 0.5) / 0.5).logits.numpy()
    np.testing.assert_allclose(measured[0], expected, atol=1e-4)
    p = torch.from_numpy(expected).double().softmax(1).numpy()
    assert judge.scores(measured)[0].value == pytest.approx(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()), rel=1e-4)


def convolutions(net: str) -> torch.nn.Sequential:
    """As torchvision builds them."""
    conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
    if net == "alex":
        return torch.nn.Sequential(
            conv(3, 64, 11, 4, 2), relu(), pool(3, 2), conv(64, 192, 5, 1, 2), relu(), pool(3, 2),
            conv(192, 384, 3, 1, 1), relu(), conv(384, 256, 3, 1, 1), relu(), conv(256, 256, 3, 1, 1), relu(), pool(3, 2),
        )  # fmt: skip
    layers, width = list[torch.nn.Module](), 3
    for word in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        layers += [conv(width, word, 3, 1, 1), relu()] if word else [pool(2, 2)]
        width = word or width
    return torch.nn.Sequential(*layers)


def lpips_folder(folder: Path, net: str) -> torch.nn.Sequential:
    """A network with random weights, and the linear weights that torchmetrics ships. As the documentation converts them."""
    torch.manual_seed(0)
    folder.mkdir()
    features = convolutions(net)
    save_file({f"features.{n}": t for n, t in features.state_dict().items()} | {"classifier.1.bias": torch.zeros(9)}, folder / "model.safetensors")  # fmt: skip
    linear = torch.load(
        Path(their_lpips.__file__).parent / f"lpips_models/{net}.pth", map_location="cpu", weights_only=True
    )
    save_file({name: tensor.contiguous() for name, tensor in linear.items()}, folder / "lpips.safetensors")
    return features


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_that_of_torchmetrics(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = lpips_folder(tmp_path / net, net)
    monkeypatch.setattr(their_lpips, "_get_tv_model_features", lambda *_: features)  # without torchvision
    theirs = their_lpips._LPIPS(net=net, pnet_rand=True)
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    ours = open_lpips(tmp_path / net)
    with torch.no_grad():
        expected = theirs(a, b, normalize=True).flatten()
        assert ours(a, b) == pytest.approx(expected, rel=1e-4) and ours(a, a) == pytest.approx(torch.zeros(2))
    judge = open_judge(f"lpips={tmp_path / net}", small_bundle())
    (row,) = judge.scores(judge.measured([], "rgb", [(255 - p, p, p) for p in pictures(2)], []))
    x = torch.from_numpy(np.stack(pictures(2))).movedim(-1, 1) / 255
    with torch.no_grad():
        assert row.value == pytest.approx(float(theirs(1 - x, x, normalize=True).mean()), rel=1e-4)
    assert (row.name, row.bound) == ("LPIPS", 0)


def test_other_networks_measure_a_distance_of_the_same_form(tmp_path: Path) -> None:
    folder = tiny_teachers.clip(tmp_path / "clip")
    judge = open_judge(f"lpips={folder}", small_bundle())
    (row,) = judge.scores(judge.measured([], "rgb", [(255 - p, p, p) for p in pictures(2)], []))
    model = hf.CLIPModel.from_pretrained(folder).vision_model.eval()
    settings = json.loads(Path(folder, "preprocessor_config.json").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    x = torch.from_numpy(np.stack([p if i else 255 - p for p in pictures(2) for i in (0, 1)])).movedim(-1, 1) / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        states = model(pixel_values=(x - mean) / std, output_hidden_states=True).hidden_states
    cosine = [torch.nn.functional.cosine_similarity(s[::2], s[1::2], dim=-1) for s in states]
    assert row.value == pytest.approx(float(torch.stack([2 - 2 * c for c in cosine]).mean()), rel=1e-3)
    assert (row.name, row.bound) == ("perceptual distance", pytest.approx(0, abs=1e-6))


def test_wrong_networks_are_told(tmp_path: Path) -> None:
    bundle = small_bundle()
    for given in ("fid=x", "clip", "clip="):
        with pytest.raises(MaskweaveError, match="expected SCORE=NETWORK, with one of inception, clip, lpips"):
            open_judge(given, bundle)
    vision = tiny_teachers.dinov2(tmp_path / "vision")
    with pytest.raises(MaskweaveError, match="expected a model of pictures and texts"):
        open_judge(f"clip={vision}", bundle)
    with pytest.raises(MaskweaveError, match="has no files of a tokenizer"):
        open_judge(f"clip={tiny_teachers.clip(tmp_path / 'clip')}", bundle)
    with pytest.raises(MaskweaveError, match="its weights lack classifier"):
        open_judge(f"inception={vision}", bundle)
    lpips_folder(tmp_path / "alex", "alex")
    weights = OrderedDict(convolutions("alex").state_dict())
    save_file(weights, tmp_path / "alex" / "model.safetensors")
    with pytest.raises(MaskweaveError, match="expected the convolutions of AlexNet or VGG-16"):
        open_lpips(tmp_path / "alex")
    with pytest.raises(MaskweaveError, match="has layers of 3 weights; expected 64, 192, 384, 256, 256"):
        LPIPS({f"features.{n}": t for n, t in weights.items()}, {"lin0": torch.ones(3)}, "here")


def test_the_command_adds_their_rows(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = read_yaml(run / "recipe.yaml")
    content["evaluate"]["requests"] = [{"inputs": ["caption"], "targets": ["tok_rgb"]}]
    write_yaml(run / "recipe.yaml", content)
    lpips_folder(tmp_path / "alex", "alex")
    judges = [
        f"inception={classifier(tmp_path / 'c')}",
        f"clip={clip(tmp_path / 'clip')}",
        f"lpips={tmp_path / 'alex'}",
    ]
    words = ["evaluate", str(run), "--samples", "3", "--device", "cpu"]
    assert main([*words, *(word for judge in judges for word in ("--judge", judge))]) == 0
    said = capsys.readouterr().out
    rows = {row["metric"]: row for row in json.loads((run / "evaluation.json").read_text(encoding="utf-8"))}
    for name in ("Inception score", "CLIP score", "LPIPS"):
        assert name in said and rows[name]["samples"] == 3 and rows[name]["target"] == "tok_rgb"
    assert rows["LPIPS"]["tokenizer"] > 0 and rows["LPIPS"]["constant"] > 0
    assert main([*words, "--suite", "scenes", "--judge", judges[0]]) == 1
    assert "--suite does not use --samples, --judge; remove them, or --suite" in capsys.readouterr().err
