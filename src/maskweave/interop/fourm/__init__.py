"""Loads and exports published 4M and 4M-21 models and tokenizers (https://arxiv.org/abs/2312.06647, https://arxiv.org/abs/2406.09406)."""

from maskweave.interop.fourm.backbone import load_backbone
from maskweave.interop.fourm.bundle import load_bundle
from maskweave.interop.fourm.model import export_model, load_model
from maskweave.interop.fourm.tokenizers import export_tokenizer, load_tokenizer

__all__ = ["export_model", "export_tokenizer", "load_backbone", "load_bundle", "load_model", "load_tokenizer"]
