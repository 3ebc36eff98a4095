"""Published M3AE weights give the published outputs, losses and representation; what is written back is what was read."""

import json

import pytest
import torch
from safetensors.torch import load_file

from maskweave.errors import MaskweaveError
from maskweave.interop.m3ae import load_m3ae, save_m3ae
from maskweave.masking.m3ae import MaskedBatch, MaskedGroup, MaskedTokens
from maskweave.nn.patches import patchify
from maskweave.objectives.m3ae import M3AEObjective


def parts_of(case, masked: bool) -> dict[str, MaskedTokens]:
    """A case's pictures and texts, with what its masks hide hidden, or nothing."""
    grid = (case.config["image_size"] // case.config["patch_size"],) * 2
    contents = {"image": patchify(case.inputs["image"], grid), "text": case.inputs["text"].long()}
    present = {"image": None, "text": case.inputs["text_padding"] == 0}
    masks = {name: case.inputs[f"{name}_mask"] > 0 for name in contents}
    return {
        name: MaskedTokens.of(content, masks[name] if masked else torch.zeros_like(masks[name]), present[name])
        for name, content in contents.items()
    }


@torch.inference_mode()
def test_outputs_losses_and_representation(m3ae_case, assert_near) -> None:
    model, catalog = load_m3ae(m3ae_case.checkpoint)
    assert [m.kind for m in catalog.values()] == ["patches", "sequence"]
    parts = parts_of(m3ae_case, masked=True)
    assert parts["image"].kept.shape[1] < parts["image"].masked.shape[1], "hidden patches are not to be encoded"
    for name, output in model(parts).items():
        assert_near(output, m3ae_case.expected[f"{name}_output"])

    loss, metrics = M3AEObjective(model)(MaskedBatch([MaskedGroup(torch.arange(len(output)), parts, None)]))
    for name in parts:
        assert_near(metrics[f"loss/{name}"].reshape(1), m3ae_case.expected[f"{name}_loss"])
    assert loss.item() == pytest.approx((metrics["loss/image"] + 0.5 * metrics["loss/text"]).item(), rel=1e-5)

    found = model.features(parts_of(m3ae_case, masked=False))
    assert_near(torch.cat([found.class_token[:, None], found.tokens], dim=1), m3ae_case.expected["representation"])


def test_what_is_written_is_what_was_read(m3ae_case, tmp_path) -> None:
    save_m3ae(*load_m3ae(m3ae_case.checkpoint), tmp_path)
    old, new = (load_file(folder / "model.safetensors") for folder in (m3ae_case.checkpoint, tmp_path))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {key: config[key] for key in m3ae_case.config} == m3ae_case.config


def test_what_does_not_fit_is_named(m3ae_case, tmp_path) -> None:
    save_m3ae(*load_m3ae(m3ae_case.checkpoint), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))

    def refused(**changes) -> str:
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
        with pytest.raises(MaskweaveError) as error:
            load_m3ae(tmp_path)
        return str(error.value)

    depth = config["depth"]
    assert f"missing: encoder/Block_{depth}/LayerNorm_0/scale" in refused(depth=depth + 1)
    assert f"unknown: encoder/Block_{depth - 1}/Attention_0" in refused(depth=depth - 1)
    assert "text_embedding/embedding" in refused(text_vocab_size=config["text_vocab_size"] + 1)
    assert "output_head_depth is 2" in refused(output_head_depth=2)
