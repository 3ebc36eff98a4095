"""Published tokenizers give the published numbers: tokens, latents, reconstructions, denoiser and DDIM decode."""

import pytest
import torch

from maskweave.interop.fourm.tokenizers import load_tokenizer
from maskweave.tokenizers.diffusion import DiffusionDecoder, make_scheduler
from maskweave.tokenizers.grid import GridTokenizer


@pytest.fixture(scope="session")
def tokenizer(tokenizer_case) -> GridTokenizer:
    x = tokenizer_case.inputs["x"]
    is_vector = tokenizer_case.config["enc_type"].startswith("BottleneckMLP")
    return load_tokenizer(tokenizer_case.checkpoint, size=None if is_vector else tuple(x.shape[-2:]))


def values(case):
    """As the network takes them: vectors have no axes of length 1."""
    x = case.inputs["x"]
    return x.flatten(1) if case.config["enc_type"].startswith("BottleneckMLP") else x


@torch.inference_mode()
def test_tokens_and_latents(tokenizer_case, tokenizer, assert_near):
    expected = tokenizer_case.expected
    tokens = tokenizer.encode_tensor(values(tokenizer_case))
    assert torch.equal(tokens, expected["tokens"].reshape(tokens.shape))
    if "latent" in expected:
        latent_BND = tokenizer.encoder(values(tokenizer_case))
        assert_near(latent_BND.transpose(1, 2).reshape(expected["latent"].shape), expected["latent"])


@torch.inference_mode()
def test_values(tokenizer_case, tokenizer, assert_near):
    expected, decoder = tokenizer_case.expected, tokenizer.decoder
    tokens = expected["tokens"].flatten(1)
    if not isinstance(decoder, DiffusionDecoder):
        output, reconstruction = tokenizer.decode_tensor(tokens), expected["reconstruction"]
        if output.ndim == 4:  # of class logits the case has every fourth pixel
            every = output.shape[-1] // reconstruction.shape[-1]
            output = output[..., ::every, ::every]
        assert_near(output.reshape(reconstruction.shape), reconstruction)
        return
    noise, z_BND = tokenizer_case.inputs["noise"], tokenizer.codes(tokens)
    assert_near(decoder(noise, torch.full((len(noise),), 999), z_BND), expected["denoised_at_999"])
    steps = len(expected["ddim_timesteps"])
    scheduler = make_scheduler(decoder.settings)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, expected["ddim_timesteps"])
    assert_near(decoder.decode(z_BND, noise, steps), expected["ddim"], 1e-3)
