"""Features of pictures from a published network, with the transformers library (extra `[hf]`)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError, reason
from maskweave.generate.request import Sample
from maskweave.label.teachers.transformers import lost_weights
from maskweave.modality.catalogs import Catalog


class VisionEncoder:
    """A vision model that computes one vector per picture.

    The vector is the output of `get_image_features` for models of pictures and text (CLIP, SigLIP), the pooled output if the checkpoint
    has it (DINOv2), and otherwise the mean over the tokens.

    Args:
        folder_or_hub_id: a folder in the layout of transformers, or a Hub id, with safetensors weights.
        catalog: contains the entry of the pictures.

    Raises:
        MaskweaveError: transformers is not installed, or the model cannot be opened or is not a vision model.
    """

    auto_class: ClassVar[str] = "AutoModel"
    """Class of transformers that opens the model."""

    def __init__(self, folder_or_hub_id: str, catalog: Catalog, device: torch.device | str = "cpu"):
        try:
            import transformers
        except ImportError as error:
            raise MaskweaveError(
                f"{folder_or_hub_id}: teachers need transformers; install it with: pip install 'maskweave[hf]'"
            ) from error
        try:
            model: Any
            model, report = getattr(transformers, self.auto_class).from_pretrained(
                folder_or_hub_id, output_loading_info=True, use_safetensors=True, trust_remote_code=False
            )
            settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(folder_or_hub_id)
        except Exception as error:  # transformers, safetensors and huggingface_hub have no common class
            raise MaskweaveError(
                f"{folder_or_hub_id}: expected the folder of a run, or a vision model that transformers can open, found neither ({reason(error)})"
            ) from error
        if lost := lost_weights(report):
            raise MaskweaveError(
                f"{folder_or_hub_id}: its weights lack {', '.join(lost[:5])} ({len(lost)} in all); choose a folder with all weights"
            )
        self.model, self.catalog, self._where = model.eval().to(device), catalog, folder_or_hub_id
        # A pooler that the checkpoint lacks is initialized at random.
        self._pooled = not any("pooler" in name for name in report["missing_keys"])
        self._settings = settings
        self._size = picture_size(settings, model.config)
        self._mean = torch.tensor(settings.get("image_mean", [0.5] * 3)).view(3, 1, 1)
        self._std = torch.tensor(settings.get("image_std", [0.5] * 3)).view(3, 1, 1)
        name = next((n for n, m in catalog.items() if m.value.is_picture), None)
        if name is None:
            raise MaskweaveError(
                f"{catalog.where}: has no modality of pictures, which {folder_or_hub_id} needs as input; add an entry of type image"
            )
        size = catalog[name].value.size
        black = np.zeros((*size, catalog[name].value.channels), np.uint8)
        self.width = self([{name: black}]).shape[1]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self._settings, sort_keys=True, default=str).encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Returns (B, D) float32 for samples with one picture each. Pictures are resized to the model's input size."""
        x = colors(samples, self.catalog, self._where)
        x = F.interpolate(x, self._size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        pixels = (x - self._mean) / self._std
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.features(pixels.to(device)).float().cpu().numpy()

    def features(self, pixels: Tensor) -> Tensor:
        """Returns the vectors (B, D) of pictures (B, 3, H, W) of the model's size and scale."""
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(pixel_values=pixels)
            return output if isinstance(output, Tensor) else output.pooler_output
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state.mean(dim=1) if pooled is None or not self._pooled else pooled.flatten(1)


def colors(samples: Sequence[Sample], catalog: Catalog, where: str) -> Tensor:
    """Returns the colors (B, 3, H, W), from 0 to 1, of samples with one picture each.

    Raises:
        MaskweaveError: the pictures have no colors.
    """
    (name,) = samples[0]
    pictures = np.stack(catalog[name].value.check_batch([sample[name] for sample in samples], name))
    x = torch.from_numpy(pictures[..., :3]).movedim(-1, 1).float() / 255
    if x.shape[1] != 3:
        raise MaskweaveError(
            f"{where}: expected pictures of 3 channels, found {x.shape[1]} in {name!r}; use another modality"
        )
    return x


def picture_size(settings: Mapping[str, Any], config: Any) -> tuple[int, int]:
    """Returns rows and columns of the model's input pictures."""
    size: Any = settings.get("crop_size") or settings.get("size") or getattr(config, "image_size", 224)
    if isinstance(size, Mapping):
        side: int = size.get("shortest_edge", 224)
        return size.get("height", side), size.get("width", side)
    return (size, size) if isinstance(size, int) else (size[0], size[1])
