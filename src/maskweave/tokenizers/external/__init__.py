"""Tokenizers that were trained elsewhere: EnCodec, DAC and Mimi for sounds, VQ models for pictures, and the user's own code."""

from maskweave.tokenizers.external.base import ExternalTokenizer
from maskweave.tokenizers.external.grid import ExternalGridTokenizer
from maskweave.tokenizers.external.permission import code_allowed

__all__ = ["ExternalGridTokenizer", "ExternalTokenizer", "code_allowed"]
