"""Tokenizers that were trained elsewhere: EnCodec, DAC and Mimi for sounds, VQ models and TiTok for pictures, and the user's own code."""

from maskweave.permission import code_allowed
from maskweave.tokenizers.external.base import ExternalTokenizer
from maskweave.tokenizers.external.grid import ExternalGridTokenizer

__all__ = ["ExternalGridTokenizer", "ExternalTokenizer", "code_allowed"]
