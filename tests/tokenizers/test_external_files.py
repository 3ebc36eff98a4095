"""Files of published tokenizers that would have a library fetch code, or read files elsewhere."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizers as tiny
import transformers
from safetensors import safe_open

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import catalog_from
from maskweave.modality.entry import Modality
from maskweave.tokenizers.external import ExternalGridTokenizer

SOUND = {"type": "audio", "rate": tiny.RATE, "max_seconds": 0.2, "mels": 8, "hop": 32, "window": 128}
PICTURE = {"type": "image", "size": [16, 16], "channels": 3}


def entry(name: str, folder: Path) -> Modality:
    value, grid = (SOUND, [52]) if name in ("encodec", "dac", "mimi") else (PICTURE, [4, 4])
    tokenizer = {"external": str(folder), "codes": 16}
    content = {"id": 1, "kind": "grid", "grid": grid, "value": value, "tokenizer": tokenizer}
    return catalog_from({"modalities": {"thing": content}}, "entry")["thing"]


def change_config(folder: Path, **more: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | more), encoding="utf-8")


@pytest.mark.parametrize("name", ["encodec", "dac", "mimi", "janus", "emu3"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_no_attention_is_fetched(name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes the name of a repository for the name of kernels to fetch and import."""
    asked: list[Any] = []
    hub = transformers.integrations.hub_kernels
    monkeypatch.setattr(hub, "load_and_register_attn_kernel", lambda *given, **more: asked.append(given))
    getattr(tiny, name)(tmp_path / name)
    change_config(tmp_path / name, **{key: "someone/kernels"})
    tokenizer = ExternalGridTokenizer.open(entry(name, tmp_path / name))
    assert tokenizer.external.config._attn_implementation in ("sdpa", "eager") and asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["mimi", "vq_model"])
def test_quantized_weights_are_refused(name: str, tmp_path: Path) -> None:
    getattr(tiny, name)(tmp_path / name)
    change_config(tmp_path / name, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(MaskweaveError, match=r"config\.json has quantization_config, which loads further libraries"):
        ExternalGridTokenizer.open(entry(name, tmp_path / name))


@pytest.mark.parametrize(
    ("name", "weights"), [("mimi", "model"), ("vq_model", "diffusion_pytorch_model")], ids=["transformers", "diffusers"]
)
def test_weights_lie_in_the_folder(name: str, weights: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    getattr(tiny, name)(folder)
    modality = entry(name, folder)
    shutil.copy(folder / f"{weights}.safetensors", tmp_path / "outside.safetensors")
    part = folder / f"{weights}-00001-of-00001.safetensors"
    (folder / f"{weights}.safetensors").rename(part)
    with safe_open(part, "pt") as file:
        keys = list(file.keys())
    index = folder / f"{weights}.safetensors.index.json"
    size = {"total_size": part.stat().st_size}
    for place in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "gone.safetensors", "", "..", 3):
        index.write_text(json.dumps({"metadata": size, "weight_map": dict.fromkeys(keys, place)}), encoding="utf-8")
        with pytest.raises(
            MaskweaveError, match=rf"{re.escape(index.name)} names the file .*; expected names of safet"
        ):
            ExternalGridTokenizer.open(modality)
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="has no weight_map"):
        ExternalGridTokenizer.open(modality)
    index.write_text(json.dumps({"metadata": size, "weight_map": dict.fromkeys(keys, part.name)}), encoding="utf-8")
    assert ExternalGridTokenizer.open(modality).external.vocabulary_size == 16


@pytest.mark.parametrize("name", ["mimi", "vq_model"])
def test_adapters_are_refused(name: str, tmp_path: Path) -> None:
    """transformers loads the adapter, from wherever the file says, if peft is installed."""
    getattr(tiny, name)(tmp_path / name)
    (tmp_path / name / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}', encoding="utf-8"
    )
    with pytest.raises(
        MaskweaveError, match=r"has adapter_config\.json, so transformers would load an adapter into it"
    ):
        ExternalGridTokenizer.open(entry(name, tmp_path / name))
