"""Tiny tokenizers of published architectures with random weights, saved as their libraries save them."""

from pathlib import Path
from typing import Any

import torch

RATE, HOP = 2000, 8
"""Samples per second of the sound models, and samples of one of their frames."""
PATCH = 4
"""Pixels along each axis of a code of the picture models."""


def save(model: Any, folder: Path, license: str = "mit") -> Any:
    """Saves a model beside a README that states its license. Returns it in evaluation mode."""
    model.save_pretrained(folder)
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\nA tiny tokenizer.\n", encoding="utf-8")
    return model.eval()


def _draw_codes(codebooks: list[torch.Tensor], latents: torch.Tensor) -> None:
    """Takes latents (B, C, …) as the codes of the first level, so that many are used, and smaller ones for the others."""
    rows = latents.detach().flatten(2).movedim(1, -1).flatten(0, 1)
    for level, codes in enumerate(codebooks):
        codes.copy_(rows[torch.randperm(len(rows))[: len(codes)]] * 0.5**level)


def encodec(folder: Path, **settings: Any) -> Any:
    """2 levels of 16 codes."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    bandwidth = RATE / HOP * 4 / 1000  # of one level of 16 codes
    given: dict[str, Any] = {
        "target_bandwidths": [bandwidth, 2 * bandwidth],
        "sampling_rate": RATE,
        "hidden_size": 8,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": 16,
        "num_lstm_layers": 1,
    }
    model = EncodecModel(EncodecConfig(**(given | settings)))
    _draw_codes(
        [level.codebook.embed for level in model.quantizer.layers],
        model.encoder(torch.randn(1, model.config.audio_channels, 40 * HOP)),
    )
    return save(model, folder)


def dac(folder: Path) -> Any:
    """3 levels of 16 codes."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2, 4], decoder_hidden_size=16, n_codebooks=3, codebook_size=16,
        codebook_dim=4, sampling_rate=RATE,
    )  # fmt: skip
    return save(DacModel(config), folder)


def mimi(folder: Path) -> Any:
    """4 levels of 16 codes, the first of them semantic."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    config = MimiConfig(
        sampling_rate=RATE, hidden_size=8, num_filters=4, upsampling_ratios=[2, 2], codebook_size=16, codebook_dim=6,
        vector_quantization_hidden_dimension=6, num_quantizers=4, upsample_groups=8, num_hidden_layers=1, intermediate_size=16,
        num_attention_heads=2, num_key_value_heads=2, frame_rate=RATE / HOP,
    )  # fmt: skip
    model = MimiModel(config)
    for part in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        for level in part.layers:
            level.codebook.embed_sum.normal_().mul_(0.3)
    return save(model, folder)


def janus(folder: Path) -> Any:
    """16 codes, for pictures of 16×16 pixels."""
    from transformers import JanusVQVAE, JanusVQVAEConfig

    torch.manual_seed(0)
    config = JanusVQVAEConfig(
        embed_dim=4, num_embeddings=16, latent_channels=32, base_channels=32, channel_multiplier=[1, 1, 1], num_res_blocks=1, num_patches=4
    )  # fmt: skip
    return save(JanusVQVAE(config), folder)


def emu3(folder: Path) -> Any:
    """16 codes."""
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    torch.manual_seed(0)
    config = Emu3VQVAEConfig(
        codebook_size=16, embed_dim=4, latent_channels=4, base_channels=32, channel_multiplier=[1, 1, 1], num_res_blocks=1,
        attn_resolutions=[2], hidden_size=32,
    )  # fmt: skip
    model = Emu3VQVAE(config)
    latents = model.encoder(torch.rand(2, 4, 3, 32, 32) * 2 - 1)  # (B, T, 3, H, W)
    _draw_codes([model.quantize.embedding.weight.data], model.quant_conv(latents.transpose(1, 2)))
    return save(model, folder)


def vq_model(folder: Path) -> Any:
    """16 codes."""
    from diffusers import VQModel

    torch.manual_seed(0)
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(8, 8, 8),
        latent_channels=4, num_vq_embeddings=16, norm_num_groups=4, vq_embed_dim=4,
    )  # fmt: skip
    _draw_codes([model.quantize.embedding.weight.data], model.encode(torch.rand(2, 3, 32, 32) * 2 - 1).latents)
    return save(model, folder)
