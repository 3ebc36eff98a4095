"""Quantisers, one file each: latents to codes and back."""

from maskweave.modality import Quantiser
from maskweave.tokenizers.quantisers.base import BaseQuantiser, Quantised
from maskweave.tokenizers.quantisers.fsq import FSQ
from maskweave.tokenizers.quantisers.lfq import LFQ
from maskweave.tokenizers.quantisers.memcodes import Memcodes
from maskweave.tokenizers.quantisers.vq import VQ

__all__ = ["FSQ", "LFQ", "VQ", "BaseQuantiser", "Memcodes", "Quantised", "build_quantiser"]


def build_quantiser(spec: Quantiser) -> BaseQuantiser:
    """The quantiser that an entry asks for; its latents have `spec.latent_dim` channels."""
    match spec.type:
        case "fsq":
            return FSQ(spec.levels)
        case "vq":
            return VQ(spec.codes, spec.dim)
        case "lfq":
            return LFQ(spec.codes)
        case "memcodes":
            return Memcodes(spec.codes, spec.dim, spec.heads)
