"""Features of pictures: one vector, or a vector at each patch (CLIP, SigLIP, DINOv2, DINOv3, ViT)."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.generate.request import Sample
from maskweave.label.encoder import picture_size
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.values.base import ValueType
from maskweave.values.features import Features
from maskweave.values.vector import Vector


class EmbeddingTeacher(TransformersTeacher):
    """`image-feature-extraction`: for entries of type `vector`, the embedding that models of pictures and text share (CLIP, SigLIP), otherwise the
    class token; for entries of type `features`, the last layer's patches.

    Vectors see the picture as the model's own processor prepares it. Patches cover the whole picture: it is resized so that its shorter side has the
    model's size, and both are whole patches, with interpolated position embeddings. If the entry has as many channels as CLIP's joint space, the
    patches are projected to it.

    Options: `pool: mean` takes the mean of the patches as the vector, for models without a class token.
    """

    auto_classes = ("AutoModel",)
    values: ClassVar[tuple[type[ValueType], ...]] = (Vector, Features)

    def prepare(self) -> None:
        self.vision = getattr(self.model, "vision_model", self.model)
        config = getattr(self.model.config, "vision_config", self.model.config)
        patch = getattr(config, "patch_size", None)
        if not isinstance(patch, int):
            raise MaskweaveError(f"{self.where}: has no patches; expected a vision transformer, such as CLIP or DINOv2")
        self.patch = patch
        self.size = picture_size(self.processor.to_dict(), config)
        self.pool = self.option("pool", "cls")
        if self.pool not in ("cls", "mean"):
            raise MaskweaveError(f"{self.where}: derive.options.pool is {self.pool!r}; expected cls or mean")
        self.dense = isinstance(self.entry.value, Features)
        projection = getattr(self.model, "visual_projection", None)
        self.project = self.dense and projection is not None and projection.out_features == self.entry.value.channels
        width = self([{self.source.name: np.zeros((*self.size, 3), np.uint8)}])[0].value.shape[-1]
        self.check_width(width)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        pictures = self.pictures(samples)
        found: dict[int, TeacherLabel] = {}
        inputs = [
            {"pixel_values": self._whole(p)} if self.dense else self.processor(images=p, return_tensors="pt")
            for p in pictures
        ]
        for numbers, group in self.groups(inputs):
            with self.compute():
                features = self._patches(group["pixel_values"]) if self.dense else self._vectors(group)
            for i, value in zip(numbers, features.float().cpu().numpy(), strict=True):
                found[i] = TeacherLabel(value)
        return [found[i] for i in range(len(samples))]

    def _vectors(self, inputs: dict[str, Any]) -> Tensor:
        if self.pool == "cls" and hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(**inputs)
            return output if isinstance(output, Tensor) else output.pooler_output
        tokens_BND = self.vision(**inputs).last_hidden_state
        if self.pool == "cls":
            return tokens_BND[:, 0]
        height, width = inputs["pixel_values"].shape[-2:]
        return tokens_BND[:, -(height // self.patch) * (width // self.patch) :].mean(1)

    def _whole(self, picture: np.ndarray) -> Tensor:
        """The whole picture in whole patches, (1, 3, H, W)."""
        height, width = picture.shape[:2]
        scale = min(self.size) / min(height, width)
        size = [max(1, round(n * scale / self.patch)) * self.patch for n in (height, width)]
        x = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float() / 255
        x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (
            torch.tensor(getattr(self.processor, name, None) or [0.5] * 3).view(3, 1, 1)
            for name in ("image_mean", "image_std")
        )
        return (x - mean) / std

    def _patches(self, pixels: Tensor) -> Tensor:
        rows, columns = (n // self.patch for n in pixels.shape[-2:])
        can = "interpolate_pos_encoding" in inspect.signature(self.vision.forward).parameters
        more: dict[str, Any] = {"interpolate_pos_encoding": True} if can else {}
        tokens_BND = self.vision(pixel_values=pixels, **more).last_hidden_state[:, -rows * columns :]
        if self.project:
            tokens_BND = self.model.visual_projection(self.vision.post_layernorm(tokens_BND))
        return tokens_BND.unflatten(1, (rows, columns))
