"""Residual codes of sounds: EnCodec (https://arxiv.org/abs/2210.13438), DAC (https://arxiv.org/abs/2306.06546) and Mimi (https://arxiv.org/abs/2410.00037).

A frame of the waveform has one code of each level. Sounds are extended by silence to the entry's `max_seconds`, so that all have as many frames.

Dimension letters: B batch, R levels, F frames, S samples, V codes, C width.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.tokenizers.external.published import PublishedTokenizer
from maskweave.values.audio import Audio
from maskweave.values.base import ValueType
from maskweave.values.sound import Sound


class SoundTokenizer(PublishedTokenizer):
    """Waveforms to residual codes and back."""

    def check_value(self, value: ValueType) -> None:
        if not isinstance(value, Audio):
            raise MaskweaveError(
                f"{self.where}: is for sounds, value.type audio, but the entry's values are of type {value.type!r}"
            )
        if value.rate != self.config.sampling_rate:
            raise MaskweaveError(
                f"{self.where}: takes {self.config.sampling_rate} samples per second, but value.rate is {value.rate}; set it to {self.config.sampling_rate}"
            )
        if getattr(self.config, "audio_channels", 1) != 1:
            raise MaskweaveError(f"{self.where}: is for stereo, but values of type audio are mono; choose a mono model")

    @property
    @abstractmethod
    def hop(self) -> int:
        """Samples of a frame."""

    @abstractmethod
    def codes_of(self, waveforms_B1S: Tensor) -> Tensor:
        """Encodes waveforms to codes (B, R, F)."""

    @abstractmethod
    def waveforms_of(self, codes_BRF: Tensor) -> Tensor:
        """Decodes codes to waveforms (B, S)."""

    @property
    def num_samples(self) -> int:
        """Samples of the longest sound."""
        value = cast(Audio, self.value)
        return value.size[1] * value.hop

    def latents(self) -> tuple[int, ...]:
        return (math.ceil(self.num_samples / self.hop),)

    @torch.inference_mode()
    def encode(self, values: Sequence[Any]) -> Tensor:
        waveforms = np.zeros((len(values), 1, self.latents()[0] * self.hop), np.float32)
        for i, sound in enumerate(values):
            waveforms[i, 0, : sound.num_samples] = sound.waveform
        codes_BRF = self.codes_of(torch.from_numpy(waveforms).to(self.device))
        if self.spec.tokens == "separate":
            return codes_BRF
        weights = torch.tensor([self.spec.codes**r for r in reversed(range(self.spec.depth))], device=codes_BRF.device)
        return (codes_BRF.long() * weights[:, None]).sum(1)

    @torch.inference_mode()
    def decode(self, ids: Tensor) -> list[Sound]:
        codes_BRF = ids.to(self.device)
        if self.spec.tokens == "joined":
            levels = [codes_BRF // self.spec.codes**r % self.spec.codes for r in reversed(range(self.spec.depth))]
            codes_BRF = torch.stack(levels, dim=1)
        waveforms = self.waveforms_of(codes_BRF).float().cpu().numpy()[:, : self.num_samples].clip(-1, 1)
        missing = self.num_samples - waveforms.shape[1]
        analysis = cast(Audio, self.value).analysis
        return [Sound(analysis, waveform) for waveform in np.pad(waveforms, ((0, 0), (0, missing)))]

    def blank(self) -> Tensor:
        silence = Sound(cast(Audio, self.value).analysis, np.zeros(self.num_samples, np.float32))
        return self.encode([silence])[0].cpu()


class EncodecTokenizer(SoundTokenizer):
    """EnCodec without scales, as at 24 kHz."""

    architecture = "EncodecModel"

    def check_value(self, value: ValueType) -> None:
        super().check_value(value)
        if self.config.normalize or self.config.chunk_length_s is not None:
            raise MaskweaveError(
                f"{self.where}: divides sounds into chunks with a scale each, which are not codes; choose a model without normalize and chunk_length_s, such as facebook/encodec_24khz"
            )

    def sizes(self) -> tuple[int, int]:
        return self.config.codebook_size, len(self.model.quantizer.layers)

    @property
    def hop(self) -> int:
        return int(self.config.hop_length)

    def codes_of(self, waveforms_B1S: Tensor) -> Tensor:
        quantizer, bits = self.model.quantizer, math.log2(self.config.codebook_size)
        bandwidth = (self.spec.depth + 0.5) * bits * quantizer.frame_rate / 1000  # rounded down to the levels
        codes_RBF: Tensor = quantizer.encode(self.model.encoder(waveforms_B1S), bandwidth)
        return codes_RBF.transpose(0, 1)

    def waveforms_of(self, codes_BRF: Tensor) -> Tensor:
        waveforms: Tensor = self.model.decoder(self.model.quantizer.decode(codes_BRF.transpose(0, 1)))
        return waveforms[:, 0]

    def codebooks(self) -> Tensor:
        return torch.stack([level.codebook.embed for level in self.model.quantizer.layers[: self.spec.depth]])


class DacTokenizer(SoundTokenizer):
    """Descript audio codec."""

    architecture = "DacModel"

    def sizes(self) -> tuple[int, int]:
        return self.config.codebook_size, self.config.n_codebooks

    @property
    def hop(self) -> int:
        return math.prod(self.config.downsampling_ratios)

    def codes_of(self, waveforms_B1S: Tensor) -> Tensor:
        codes: Tensor = self.model.encode(waveforms_B1S, n_quantizers=self.spec.depth).audio_codes
        return codes

    def waveforms_of(self, codes_BRF: Tensor) -> Tensor:
        waveforms: Tensor = self.model.decode(audio_codes=codes_BRF).audio_values
        return waveforms

    def codebooks(self) -> Tensor:
        levels = self.model.quantizer.quantizers[: self.spec.depth]
        return torch.stack([level.out_proj(level.codebook.weight[..., None])[..., 0] for level in levels])


class MimiTokenizer(SoundTokenizer):
    """Mimi: the first level has the meaning of speech, the others the rest of the sound."""

    architecture = "MimiModel"

    def check_value(self, value: ValueType) -> None:
        super().check_value(value)
        if self.model.encoder is None or self.model.decoder is None:
            raise MaskweaveError(f"{self.where}: has only one half of the tokenizer; expected encoder and decoder")
        if self.spec.depth < self.config.num_semantic_quantizers:
            raise MaskweaveError(
                f"{self.where}: tokenizer.depth is {self.spec.depth}; expected at least {self.config.num_semantic_quantizers}"
            )

    def sizes(self) -> tuple[int, int]:
        return self.config.codebook_size, self.config.num_quantizers

    @property
    def hop(self) -> int:
        return round(self.config.sampling_rate / self.config.frame_rate)

    def codes_of(self, waveforms_B1S: Tensor) -> Tensor:
        codes: Tensor = self.model.encode(waveforms_B1S, num_quantizers=self.spec.depth).audio_codes
        return codes

    def waveforms_of(self, codes_BRF: Tensor) -> Tensor:
        waveforms: Tensor = self.model.decode(audio_codes=codes_BRF).audio_values
        return waveforms[:, 0]

    def codebooks(self) -> Tensor:
        quantizer, vectors = self.model.quantizer, []
        for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
            for level in part.layers:
                embed = level.codebook.embed[..., None]
                vectors.append((embed if part.output_proj is None else part.output_proj(embed))[..., 0])
        return torch.stack(vectors[: self.spec.depth])
