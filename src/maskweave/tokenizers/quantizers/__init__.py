"""Quantizers, one per file: latents to codes and back."""

from maskweave.modality.tokenizer import Quantizer
from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized
from maskweave.tokenizers.quantizers.fsq import FSQ
from maskweave.tokenizers.quantizers.lfq import LFQ
from maskweave.tokenizers.quantizers.memcodes import Memcodes
from maskweave.tokenizers.quantizers.residual import ResidualFSQ, ResidualVQ
from maskweave.tokenizers.quantizers.simvq import SimVQ
from maskweave.tokenizers.quantizers.vq import VQ

__all__ = [
    "FSQ",
    "LFQ",
    "VQ",
    "BaseQuantizer",
    "Memcodes",
    "Quantized",
    "ResidualFSQ",
    "ResidualVQ",
    "SimVQ",
    "build_quantizer",
]


def build_quantizer(spec: Quantizer) -> BaseQuantizer:
    """Build the quantizer of an entry. Its latents have `spec.latent_dim` channels."""
    match spec.type:
        case "fsq":
            return FSQ(spec.levels)
        case "vq":
            if spec.codebook == "simvq":
                return SimVQ(spec.codes, spec.dim, spec.rotation)
            return VQ(spec.codes, spec.dim, rotation=spec.rotation)
        case "residual":
            if spec.over == "fsq":
                return ResidualFSQ(spec.levels, spec.depth)
            return ResidualVQ(spec.codes, spec.dim, spec.depth)
        case "lfq":
            return LFQ(spec.codes)
        case "memcodes":
            return Memcodes(spec.codes, spec.dim, spec.heads)
