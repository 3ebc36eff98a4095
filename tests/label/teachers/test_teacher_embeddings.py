"""Features of pictures, texts and sounds by small networks, compared with the networks' own outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import asked, entries, grid, photographs, teacher_of  # noqa: E402

from maskweave.errors import MaskweaveError  # noqa: E402
from maskweave.label.teachers.opening import open_teacher  # noqa: E402
from maskweave.values.audio import Audio  # noqa: E402

FEATURES = "image-feature-extraction"
SOUND = {"kind": "grid", "grid": [4, 8], "value": {"type": "audio", "rate": 8000, "max_seconds": 1.024, "mels": 16, "window": 1024}}  # fmt: skip


def vector(channels: int) -> dict[str, Any]:
    quantizer = {"type": "memcodes", "codes": 16, "dim": 32, "heads": 4}
    value = {"type": "vector", "channels": channels}
    return {"kind": "grid", "grid": [4], "value": value, "tokenizer": {"model": "mlp", "quantizer": quantizer}}


def dense(channels: int) -> dict[str, Any]:
    return {**grid(type="features", channels=channels), "value": {"type": "features", "size": [4, 4], "fit": "crop", "channels": channels}}  # fmt: skip


def vectors(most: int = 6) -> dict[str, Any]:
    return {"kind": "vectors", "max_tokens": most, "value": {"type": "vectors", "channels": 32}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.dinov2(tmp_path_factory.mktemp("dinov2"))


def test_a_vector_is_clip_s_embedding(clip: str) -> None:
    found = asked(teacher_of(vector(24), clip, FEATURES), photographs())
    model, processor = transformers.CLIPModel.from_pretrained(clip), transformers.CLIPImageProcessorPil.from_pretrained(clip)  # fmt: skip
    for picture, label in zip(photographs(), found, strict=True):
        with torch.inference_mode():
            pooled = model.vision_model(**processor(images=picture, return_tensors="pt")).pooler_output
            expected = model.visual_projection(pooled)[0].numpy()
        np.testing.assert_allclose(label.value, expected, atol=1e-5)


def test_patches_cover_the_whole_picture(clip: str) -> None:
    last = asked(teacher_of(dense(32), clip, FEATURES), photographs())
    assert [label.value.shape for label in last] == [(4, 4, 32), (4, 6, 32), (4, 6, 32)]
    joint = asked(teacher_of(dense(24), clip, FEATURES), photographs()[:1])
    model = transformers.CLIPModel.from_pretrained(clip)
    with torch.inference_mode():
        tokens = model.vision_model.post_layernorm(torch.from_numpy(last[0].value))
        np.testing.assert_allclose(joint[0].value, model.visual_projection(tokens).numpy(), atol=1e-5)
    # The patches of a square picture are those of the model without interpolation.
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (model_mean(clip), model_std(clip)))
    x = torch.from_numpy(photographs()[0]).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.inference_mode():
        plain = model.vision_model(pixel_values=(x - mean) / std).last_hidden_state[0, 1:].reshape(4, 4, 32)
    np.testing.assert_allclose(last[0].value, plain.numpy(), atol=1e-4)


def test_siglip_s_vector_is_its_pooled_one_and_its_patches_are_not_projected(tmp_path: Path) -> None:
    folder = tiny_teachers.siglip(tmp_path)
    model = transformers.SiglipModel.from_pretrained(folder)
    processor = transformers.SiglipImageProcessorPil.from_pretrained(folder)
    (pooled, *_), patches = asked(teacher_of(vector(32), folder, FEATURES), photographs()), asked(teacher_of(dense(32), folder, FEATURES), photographs())  # fmt: skip
    with torch.inference_mode():
        expected = model.vision_model(**processor(images=photographs()[0], return_tensors="pt"))
    np.testing.assert_allclose(pooled.value, expected.pooler_output[0], atol=1e-5)
    assert [label.value.shape for label in patches] == [(4, 4, 32), (4, 6, 32), (4, 6, 32)]
    for picture, label in zip(photographs(), patches, strict=True):
        rows, columns = label.value.shape[:2]
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        x = torch.nn.functional.interpolate(x, (8 * rows, 8 * columns), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.inference_mode():
            tokens = model.vision_model((x - 0.5) / 0.5, interpolate_pos_encoding=True).last_hidden_state[0]
        np.testing.assert_allclose(label.value, tokens.reshape(rows, columns, 32), atol=1e-4)


def model_mean(folder: str) -> list[float]:
    return transformers.CLIPImageProcessorPil.from_pretrained(folder).image_mean


def model_std(folder: str) -> list[float]:
    return transformers.CLIPImageProcessorPil.from_pretrained(folder).image_std


def test_dinov2_gives_its_class_token_or_the_mean(dinov2: str) -> None:
    model, processor = transformers.Dinov2Model.from_pretrained(dinov2), transformers.BitImageProcessorPil.from_pretrained(dinov2)  # fmt: skip
    with torch.inference_mode():
        outputs = [model(**processor(images=picture, return_tensors="pt")) for picture in photographs()]
    for options, expected in (
        ({}, [output.pooler_output[0] for output in outputs]),
        ({"pool": "mean"}, [output.last_hidden_state[0, 1:].mean(0) for output in outputs]),
    ):
        found = asked(teacher_of(vector(32), dinov2, FEATURES, options=options), photographs())
        np.testing.assert_allclose([label.value for label in found], np.stack(expected), atol=1e-5)


def test_dinov3_leaves_out_its_registers(tmp_path: Path) -> None:
    folder = tiny_teachers.dinov3(tmp_path / "dinov3")
    (label,) = asked(teacher_of(dense(32), folder, FEATURES), photographs()[:1])
    model = transformers.DINOv3ViTModel.from_pretrained(folder)
    x = torch.from_numpy(photographs()[0]).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.inference_mode():
        expected = model(pixel_values=(x - 0.5) / 0.5).last_hidden_state[0, 5:].reshape(4, 4, 32)
    np.testing.assert_allclose(label.value, expected.numpy(), atol=1e-4)


def test_features_of_another_width(clip: str) -> None:
    with pytest.raises(MaskweaveError, match="its vectors have 24 channels, but the entry's have 99; set value.channels: 24"):  # fmt: skip
        teacher_of(vector(99), clip, FEATURES)
    with pytest.raises(MaskweaveError, match="options.pool is 'max'; expected cls or mean"):
        teacher_of(vector(24), clip, FEATURES, options={"pool": "max"})


@pytest.mark.parametrize(
    ("architecture", "encoder"), [(tiny_teachers.bert, "BertModel"), (tiny_teachers.t5, "T5EncoderModel")]
)
def test_texts_become_a_vector_for_each_token(
    architecture: Callable[[Path], str], encoder: str, tmp_path: Path
) -> None:
    folder = architecture(tmp_path)
    teacher = teacher_of(vectors(), folder, "text-embedding", "words")
    texts = ["a red cat", "the dog", "a red cat on the sea"]
    found = asked(teacher, texts, "words")
    model, tokenizer = getattr(transformers, encoder).from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)  # fmt: skip
    for text, label in zip(texts, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= 6 else [*ids[:5], ids[-1]]  # the end token stays
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(label.value, expected, atol=1e-5)
    assert teacher.notes == ["1 texts of more than 6 tokens are cut"]
    with pytest.raises(MaskweaveError, match="reads text, but derive.from is 'rgb'"):
        teacher_of(vectors(), folder, "text-embedding", "rgb")


def test_texts_are_cut_to_what_the_encoder_takes(tmp_path: Path) -> None:
    teacher = teacher_of(vectors(24), tiny_teachers.bert(tmp_path / "bert", 16), "text-embedding", "words")
    (label,) = asked(teacher, ["a red cat on the sea " * 4], "words")
    assert len(label.value) == 16 and teacher.notes == ["1 texts of more than 16 tokens are cut"]


@pytest.mark.parametrize("task", ["audio-feature-extraction", "automatic-speech-recognition"])
def test_models_of_sounds(tmp_path: Path, task: str) -> None:
    folder = tiny_teachers.wav2vec2(tmp_path / "wav2vec2")
    text = {"kind": "sequence", "vocabulary": "text", "max_tokens": 64, "value": {"type": "text"}}
    entry = vectors(4) if task == "audio-feature-extraction" else text
    derive = {"from": "sound", "by": "teacher", "model": folder, "task": task}
    catalog = entries(sound=SOUND, label={**entry, "derive": derive})
    value = catalog["sound"].value
    assert isinstance(value, Audio)
    waveforms = [np.random.default_rng(n).normal(0, 0.1, 3000 + 1000 * n).astype(np.float32) for n in range(3)]
    sounds = [value.check(waveform, "sound") for waveform in waveforms]
    teacher = open_teacher(catalog, catalog["label"], "cpu")
    labels = asked(teacher, sounds, "sound")
    model = transformers.Wav2Vec2ForCTC.from_pretrained(folder)
    for waveform, label in zip(waveforms, labels, strict=True):
        x = torch.from_numpy((waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7))[None]
        with torch.inference_mode():
            hidden = model.wav2vec2(x).last_hidden_state[0]
            ids = model.lm_head(hidden).argmax(-1).tolist()
        if task == "audio-feature-extraction":
            np.testing.assert_allclose(label.value, hidden[:4].numpy(), atol=1e-4)
            continue
        once = [id for n, id in enumerate(ids) if n == 0 or id != ids[n - 1]]
        expected = "".join({2: " "}.get(id, "abcdefgh"[id - 3]) for id in once if id > 1)
        assert (label.value if label else "") == " ".join(expected.split())
        assert label is None or 0 < label.confidence <= 1
    assert any(label is not None for label in labels)
