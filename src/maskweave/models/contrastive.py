"""The contrastive model: encodes each modality of a sample by itself, into one space in which the modalities of a sample are near each other.

CLIP (https://arxiv.org/abs/2103.00020), section 2.4: a linear projection of each modality, and a learned temperature. Unlike CLIP's two towers, all
modalities share one encoder, M3AE's, as in MS-CLIP (https://arxiv.org/abs/2207.12661).

Dimension letters: B samples, N tokens of all modalities, D width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog
from maskweave.models.embeddings import ByName
from maskweave.models.encoder import Encoded
from maskweave.models.joint_encoder import JointEncoder, JointFeatures, Parts
from maskweave.models.m3ae import M3AEConfig
from maskweave.nn.cpu import Linear

TEMPERATURE = 0.07
"""At the start."""
LARGEST_SCALE = 100.0
"""Of the similarities: 1 / the smallest temperature."""


@dataclass(frozen=True)
class ContrastiveConfig:
    """A model size. Values given here replace those of the size table."""

    size: str = "nano"
    """Row of M3AE's size table, without its decoder: nano, S, B, L or H."""
    width: int = 0
    """Width of the tokens and of the vectors that are compared; 0: from the size table."""
    depth: int = 0
    """Encoder blocks; 0: from the size table."""
    heads: int = 0
    """Attention heads; 0: from the size table."""
    mlp_ratio: float = 4.0
    """Hidden width of an MLP relative to the width of tokens."""

    def resolved(self) -> "ContrastiveConfig":
        """Returns a copy with all sizes filled in.

        Raises:
            MaskweaveError: the size is unknown, or the width is not divisible by the heads.
        """
        own = {f.name: getattr(self, f.name) for f in fields(ContrastiveConfig)}  # a recipe's settings have more fields
        filled = M3AEConfig(**own).resolved()
        return ContrastiveConfig(**{name: getattr(filled, name) for name in own})


class OneModality(NamedTuple):
    """A modality of some samples."""

    name: str
    parts: Parts
    """Tokens of this modality alone."""


class Contrastive(JointEncoder):
    """The model over a catalog's patches and sequences.

    Raises:
        MaskweaveError: the catalog has a modality of another kind, or the sizes do not fit together.
    """

    config: ContrastiveConfig
    decoder_parts = ("projections", "log_scale")

    def __init__(self, catalog: Catalog, config: ContrastiveConfig):
        super().__init__(catalog, config := config.resolved())
        self.projections = ByName({name: Linear(config.width, config.width, bias=False) for name in catalog})
        self.log_scale = nn.Parameter(torch.empty(1))  # not a scalar, which cannot be divided among processes
        self.initialize()

    def initialize(self) -> None:
        super().initialize()
        nn.init.constant_(self.log_scale, -math.log(TEMPERATURE))

    @property
    def scale(self) -> Tensor:
        """(1,) factor of the similarities, 1 / temperature, at most `LARGEST_SCALE`."""
        excess = (self.log_scale - math.log(LARGEST_SCALE)).clamp(min=0)
        return (self.log_scale - excess.detach()).exp()  # the gradient passes, so that it can become smaller again

    def vectors(self, groups: Sequence[OneModality]) -> list[Tensor]:
        """Returns for each group (b, D), its samples as vectors of length 1 in float32: their mean tokens, projected."""
        encoded = self.encode_groups([group.parts for group in groups])
        return [
            self.project(group.name, JointFeatures.of(group.parts, tokens_BND).pooled)
            for group, tokens_BND in zip(groups, encoded, strict=True)
        ]

    def project(self, name: str, pooled_BD: Tensor) -> Tensor:
        """Returns (B, D) vectors of length 1, float32."""
        return F.normalize(self.projections[name](pooled_BD.float()).float(), dim=1)

    def vectors_of(self, encoded: Encoded) -> Tensor:
        """Returns (B, D), the mean of the vectors of the modalities that each sample has, for features of `encode_inputs`."""
        total_BD: Tensor | float = 0.0
        count_B1: Tensor | float = 0.0
        for name, part in encoded.slices.items():
            present_BN = None if encoded.present is None else encoded.present[:, part]
            one = encoded._replace(tokens=encoded.tokens[:, part], present=present_BN)
            has_it_B1 = (
                one.pooled.new_ones(len(one.tokens), 1) if present_BN is None else present_BN.any(1, True)
            ).float()
            total_BD = total_BD + has_it_B1 * self.project(name, one.pooled)
            count_B1 = count_B1 + has_it_B1
        assert isinstance(total_BD, Tensor)
        return total_BD / count_B1

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """Returns (B, N, D), the encoder's output at each token. Each modality is encoded by itself, as in training."""
        parts = inputs.as_masked_tokens()
        encoded = self.encode_groups([{name: tokens} for name, tokens in parts.items()])
        return torch.cat([tokens_BND[:, 1:] for tokens_BND in encoded], dim=1)
