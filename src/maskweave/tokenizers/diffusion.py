"""The diffusion decoder that 4M uses for its image-like tokenizers (https://arxiv.org/abs/2312.06647, appendix B.2).

Small patches of the noisy value become channels. The codes are resized to the grid of these patches and concatenated. A U-Net then predicts the
value, the noise or the velocity. Network and schedules are from diffusers; decoding is DDIM (https://arxiv.org/abs/2010.02502).

Dimension letters: B batch, C channels, H and W rows and columns, N tokens, D latent channels, T training steps.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, TokenizerSpec

GROUPS = 32
LOG_SNR_LIMIT = 15.0


class DiffusionDecoder(nn.Module):
    """Decodes codes (B, N, D) and noise (B, C, H, W) to values (B, C, H, W).

    Raises:
        MaskweaveError: diffusers is not installed.
    """

    def __init__(self, modality: Modality, spec: TokenizerSpec):
        super().__init__()
        assert spec.diffusion is not None
        self.settings = d = spec.diffusion
        self.has_unknown = modality.value.has_unknown
        self.grid, self.shape = modality.grid, (modality.value.channels, *modality.value.size)
        channels, plain = modality.value.channels * d.patch**2, len(d.widths) - d.attention
        self.unet = diffusers().UNet2DModel(
            in_channels=channels + spec.quantizer.latent_dim,
            out_channels=channels,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * d.attention,
            up_block_types=("AttnUpBlock2D",) * d.attention + ("UpBlock2D",) * plain,
            block_out_channels=d.widths,
            layers_per_block=d.layers,
            attention_head_dim=None,  # one head
            norm_num_groups=GROUPS,
            norm_eps=1e-5,
        )

    @cached_property
    def _scheduler(self) -> Any:
        """Of training. It keeps its tables on the device."""
        return make_scheduler(self.settings)

    def forward(self, noisy_BCHW: Tensor, t_B: Tensor, z_BND: Tensor) -> Tensor:
        """Returns the network's prediction, (B, C, H, W), at the steps `t_B` from 0 to T - 1."""
        x = F.pixel_unshuffle(noisy_BCHW, self.settings.patch)
        z = z_BND.transpose(1, 2).unflatten(2, self.grid)
        x = torch.cat([x, F.interpolate(z, x.shape[2:], mode="nearest").to(x.dtype)], dim=1)
        return F.pixel_shuffle(self.unet(x, t_B).sample, self.settings.patch)

    def decode(self, z_BND: Tensor, noise_BCHW: Tensor, steps: int = 0) -> Tensor:
        """Decode the codes from this noise in `steps` steps of DDIM; 0: the number of steps of the entry."""
        scheduler = make_scheduler(self.settings)
        scheduler.set_timesteps(steps or self.settings.steps)
        x = noise_BCHW
        for t in scheduler.timesteps if len(x) else ():  # pixel_unshuffle gives a wrong shape for an empty batch
            x = scheduler.step(self(x, t.to(x.device), z_BND), t, x).prev_sample
        return x

    def noise(self, seeds: Sequence[int], device: torch.device) -> Tensor:
        """Returns noise (B, C, H, W). The noise of a sample depends only on its seed."""
        noise = torch.empty(len(seeds), *self.shape)
        for row, seed in zip(noise, seeds, strict=True):
            row.normal_(generator=torch.Generator().manual_seed(seed))
        return noise.to(device)

    def training_pass(self, x_BCHW: Tensor, z_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise of a random step. Returns the network's prediction and its target, both (B, C, H, W). Unknown points, which are NaN, are noise
        around 0 for the network, and NaN in the target.

        In evaluation mode, steps and noise are always the same, and the random state of training is not changed.
        """
        unknown = x_BCHW.isnan() if self.has_unknown else None
        if unknown is not None:
            x_BCHW = x_BCHW.masked_fill(unknown, 0)
        scheduler, B, T = self._scheduler, len(x_BCHW), self.settings.training_steps
        if self.training:
            t_B = torch.randint(T, (B,), device=x_BCHW.device)
            noise = torch.randn_like(x_BCHW)
        else:
            t_B = torch.linspace(0, T - 1, B, device=x_BCHW.device).long()
            noise = self.noise(range(B), x_BCHW.device)
        output = self(scheduler.add_noise(x_BCHW, noise, t_B), t_B, z_BND)
        match self.settings.prediction:
            case "sample":
                target = x_BCHW
            case "epsilon":
                target = noise
            case "v_prediction":
                target = scheduler.get_velocity(x_BCHW, noise, t_B)
        return output, target if unknown is None else target.masked_fill(unknown, torch.nan)


def make_scheduler(settings: Diffusion) -> Any:
    """Returns the DDIM scheduler of diffusers with these settings."""
    is_shifted = settings.schedule == "shifted_cosine"
    scheduler = diffusers().DDIMScheduler(
        num_train_timesteps=settings.training_steps,
        beta_schedule="squaredcos_cap_v2" if settings.schedule == "cosine" else "linear",
        prediction_type=settings.prediction,
        clip_sample=settings.clip,
        thresholding=settings.threshold,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=settings.zero_terminal_snr and not is_shifted,
    )
    if is_shifted:  # set exactly: computing it from betas would accumulate rounding errors
        scheduler.alphas_cumprod = shifted_cosine(settings.training_steps, settings.shift)
    return scheduler


def shifted_cosine(training_steps: int, shift: float) -> Tensor:
    """ᾱ (T,), the value's share of the variance at each step: sigmoid(-2 (log tan(πt/2) + log shift)) with t from 0 to 1; 0 at the last step."""
    t = torch.linspace(0, 1, training_steps, dtype=torch.float64)
    log_snr = -2 * (torch.tan(math.pi * t / 2).log() + math.log(shift))
    alphas = log_snr.clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT).sigmoid().float()
    alphas[-1] = 0
    return alphas


def diffusers() -> Any:
    """Import diffusers on first use, because it takes seconds.

    Raises:
        MaskweaveError: it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MaskweaveError(
            f"a diffusion decoder needs diffusers, which cannot be imported ({error}); install it with: pip install 'maskweave[diffusion]'"
        ) from error
    return diffusers
