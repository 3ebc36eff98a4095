"""LPIPS, the learned perceptual image patch similarity, https://arxiv.org/abs/1801.03924, with weights from a folder.

The folder holds the convolutions of AlexNet or VGG-16, and the weights of their channels that were fitted to people's judgments.
Dimension letters: B pairs, D channels, H rows, W columns.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.nn.tensor_files import open_file

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which pictures are scaled by."""
WEIGHTS, LINEAR = "model.safetensors", "lpips.safetensors"
"""Files of the folder."""

ALEXNET = "C64/11/4/2 P C192/5/1/2 P C384/3/1/1 C256/3/1/1 C256/3/1/1"
VGG16 = "C64 C64 P C128 C128 P C256 C256 C256 P C512 C512 C512 P C512 C512 C512"
"""Layers: convolutions by channels, size, stride and padding, each followed by ReLU, and pooling."""


class LPIPS(nn.Module):
    """Distance of pictures by the layers of AlexNet or VGG-16.

    Args:
        weights: the network's convolutions, `features.N.weight` and `features.N.bias`, as torchvision and timm number them.
        linear: the fitted weights of each layer's channels, whose names, such as `linN.model.1.weight`, have the order of the layers.
        where: for messages.

    Raises:
        MaskweaveError: the weights are not those of such a network.
    """

    def __init__(self, weights: Mapping[str, Tensor], linear: Mapping[str, Tensor], where: str):
        super().__init__()
        first = weights.get("features.0.weight")
        words = (ALEXNET if first is not None and first.shape[-1] == 11 else VGG16).split()
        self.features, self.taps = nn.Sequential(), list[int]()
        channels = 3
        for i, word in enumerate(words):
            if word == "P":
                self.features.append(nn.MaxPool2d(3 if words[0] != "C64" else 2, 2))
                continue
            width, size, stride, padding = map(int, (word[1:] + "/3/1/1").split("/")[:4])
            self.features.append(nn.Conv2d(channels, width, size, stride, padding)).append(nn.ReLU())
            channels = width
            # AlexNet is read after each convolution, VGG before each pooling and at the end.
            if words[0] != "C64" or words[i + 1 : i + 2] in (["P"], []):
                self.taps.append(len(self.features) - 1)
        found = {n.removeprefix("features."): t.float() for n, t in weights.items() if n.startswith("features.")}
        expected = self.features.state_dict()
        if {n: t.shape for n, t in found.items()} != {n: t.shape for n, t in expected.items()}:
            raise MaskweaveError(
                f"{where}: expected the convolutions of AlexNet or VGG-16 as features.0.weight, features.0.bias, …, with the shapes of torchvision"
            )
        self.features.load_state_dict(found)
        self.linear = [linear[name].float().flatten() for name in sorted(linear)]
        widths = [len(self.features.state_dict()[f"{tap - 1}.bias"]) for tap in self.taps]
        if [len(w) for w in self.linear] != widths:
            raise MaskweaveError(
                f"{where}: {LINEAR} has layers of {', '.join(str(len(w)) for w in self.linear)} weights; expected {', '.join(map(str, widths))}"
            )

    def layers(self, x: Tensor) -> list[Tensor]:
        """Returns the features (B, D, H, W) of pictures (B, 3, H, W) with colors from 0 to 1."""
        x = (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the distances (B,)."""
        total = torch.zeros(len(a), device=a.device)
        for x, y, weights in zip(self.layers(a), self.layers(b), self.linear, strict=True):
            x, y = (z / (z.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() for z in (x, y))
            total += ((x - y).square() * weights.to(x.device).view(-1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
        return total


def open_lpips(folder: Path) -> LPIPS:
    """Opens a folder with `model.safetensors` and `lpips.safetensors`.

    Raises:
        MaskweaveError: a file cannot be read, or holds other weights.
    """
    with open_file(folder / WEIGHTS) as stored, open_file(folder / LINEAR) as fitted:
        convolutions, linear = (
            {name: file.get_tensor(name) for name in file.keys() if name.startswith(start)}  # noqa: SIM118 - not a mapping
            for file, start in ((stored, "features."), (fitted, ""))
        )
    return LPIPS(convolutions, linear, str(folder)).eval()
