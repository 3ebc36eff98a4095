"""Networks that score generated values: a classifier of pictures, a model of pictures and texts, a perceptual distance."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError, reason, shown
from maskweave.evaluate.judges import ClipJudge, InceptionJudge, Judge, PerceptualJudge
from maskweave.generate.bundle import Bundle
from maskweave.generate.request import Sample
from maskweave.label.encoder import VisionEncoder, colors
from maskweave.label.lpips import LINEAR, open_lpips
from maskweave.modality.catalogs import Catalog

PAIRS = 16
"""Pairs of pictures whose layers are in memory together."""
JUDGES = ("inception", "clip", "lpips")


class PictureClassifier(VisionEncoder):
    """Logits of a classifier of pictures; arguments as for `VisionEncoder`."""

    auto_class = "AutoModelForImageClassification"

    def features(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).logits


class PictureTextEncoder(VisionEncoder):
    """Features of pictures, and of texts, in one space (CLIP, SigLIP); arguments as for `VisionEncoder`.

    Raises:
        MaskweaveError: also, it is no model of pictures and texts, or has no tokenizer.
    """

    def __init__(self, folder_or_hub_id: str, catalog: Catalog, device: torch.device | str = "cpu"):
        super().__init__(folder_or_hub_id, catalog, device)
        from transformers import AutoTokenizer

        if not hasattr(self.model, "get_text_features"):
            raise MaskweaveError(f"{folder_or_hub_id}: expected a model of pictures and texts, such as CLIP")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder_or_hub_id, trust_remote_code=False)
        except Exception as error:  # transformers and tokenizers have no common class
            raise MaskweaveError(f"{folder_or_hub_id}: its tokenizer cannot be opened ({reason(error)})") from error
        # Without a tokenizer's files, transformers makes one that knows only special tokens.
        if not {*self.tokenizer.get_vocab()} - {*self.tokenizer.all_special_tokens}:
            raise MaskweaveError(f"{folder_or_hub_id}: has no files of a tokenizer; copy all files of the model")

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Returns (B, D) float32 for samples with one picture each, or one text."""
        (name,) = samples[0]
        return (
            self._texts([s[name] for s in samples]) if self.catalog[name].value.is_text else super().__call__(samples)
        )

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        longest = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        output = self.model.get_text_features(**inputs.to(self.model.device))
        return (output if isinstance(output, Tensor) else output.pooler_output).float().cpu().numpy()


class LayerDistance(VisionEncoder):
    """Perceptual distance by the layers of a vision model: squared distance of features of length 1, averaged over places and layers, from 0 to 4.

    It has the form of LPIPS, without weights that were fitted to people's judgments. Arguments as for `VisionEncoder`.
    """

    def distances(self, found: Sequence[Sample], truth: Sequence[Sample]) -> np.ndarray:
        """Returns (S,) float64."""

        def layers(samples: Sequence[Sample]) -> list[Tensor]:
            x = F.interpolate(
                colors(samples, self.catalog, self._where), self._size, mode="bicubic", antialias=True
            ).clamp(0, 1)
            vision = getattr(self.model, "vision_model", self.model)
            pixels = ((x - self._mean) / self._std).to(self.model.device)
            states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
            # Tokens (B, N, D), or maps (B, D, H, W).
            return [s.flatten(2).mT if s.ndim == 4 else s for s in states]

        return in_pairs(lambda a, b: _mean_distance(layers(a), layers(b)), found, truth)


def _mean_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    each = [
        (F.normalize(x.float(), dim=-1) - F.normalize(y.float(), dim=-1)).square().sum(dim=-1).mean(dim=-1)
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(each).mean(dim=0)


def in_pairs(
    distance: Callable[[Sequence[Sample], Sequence[Sample]], Tensor], found: Sequence[Sample], truth: Sequence[Sample]
) -> np.ndarray:
    """Returns the distances (S,) of a few pairs at a time."""
    with torch.inference_mode():
        parts = [distance(found[i : i + PAIRS], truth[i : i + PAIRS]) for i in range(0, len(found), PAIRS)]
        return torch.cat(parts).double().cpu().numpy()


def open_judge(given: str, bundle: Bundle) -> Judge:
    """Opens the network of a score, on the bundle's device.

    Args:
        given: `inception=NETWORK`, `clip=NETWORK` or `lpips=NETWORK`, with a folder in the layout of transformers or a Hub id; for LPIPS as published,
            a folder with `model.safetensors` and `lpips.safetensors` (`maskweave.label.lpips`).

    Raises:
        MaskweaveError: no such score, or the network cannot be opened or is of another kind.
    """
    name, _, place = given.partition("=")
    if name not in JUDGES or not place:
        raise MaskweaveError(
            f"{shown(given)} names no score and network; expected SCORE=NETWORK, with one of {', '.join(JUDGES)}"
        )
    catalog, device = bundle.catalog, bundle.device
    if name == "inception":
        return InceptionJudge(bundle, PictureClassifier(place, catalog, device))
    if name == "clip":
        return ClipJudge(bundle, PictureTextEncoder(place, catalog, device))
    if not (Path(place) / LINEAR).is_file():
        return PerceptualJudge(bundle, LayerDistance(place, catalog, device).distances, "perceptual distance")
    model = open_lpips(Path(place)).to(device)

    def distance(found: Sequence[Sample], truth: Sequence[Sample]) -> Tensor:
        return model(*(colors(some, catalog, place).to(device) for some in (found, truth)))

    return PerceptualJudge(bundle, lambda found, truth: in_pairs(distance, found, truth), "LPIPS")
