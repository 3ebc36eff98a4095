"""The encoder without decoder, for features: one interface for every model that has the members of `Encodes`.

Dimension letters: B samples, N tokens of all modalities, D width, h and w rows and columns of a grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog


class Encodes(Protocol):
    """The members that `Encoder` needs from a model. The models of all families have them."""

    config: Any
    """`config.width` is the width of the encoder's tokens."""
    decoder_parts: tuple[str, ...]
    """Names of the members that the encoder does not need."""

    @property
    def encoder(self) -> Any:
        """ModuleList of its blocks, from the first to the last."""

    def readable(self, catalog: Catalog) -> list[str]:
        """Returns the modalities of its catalog that it can read."""

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """Returns (B, N, D), the normalized output at each token of samples without masking."""

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Returns the parameters that embed only these modalities."""


class Encoded(NamedTuple):
    """Encoder output."""

    tokens: Tensor
    """(B, N, D) normalized output at each token, modality after modality."""
    present: Tensor | None
    """(B, N) bool, False at padding; None without padding."""
    slices: dict[str, slice]
    """Token range of each modality."""
    grids: dict[str, tuple[int, ...]]
    """Grid size of each modality that has a grid."""
    raw: Mapping[str, Tensor] = {}
    """(B, C, *size) values of dense inputs as network input, NaN at unknown points, for heads that see them; see `TransferBatch.raw`."""

    @property
    def pooled(self) -> Tensor:
        """(B, D) mean over the tokens that are not padding."""
        if self.present is None:
            return self.tokens.mean(dim=1)
        weight = self.present[..., None].to(self.tokens.dtype)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def feature_map(self, name: str) -> Tensor:
        """Returns (B, D, h, w), the tokens of one modality on its grid, with as many axes as the grid has; 0 at unknown tokens.

        Raises:
            MaskweaveError: the modality is not an input, or has no grid.
        """
        if name not in self.grids:
            raise MaskweaveError(
                f"no feature map of {name!r}: it is not an input with a grid; inputs with a grid: {', '.join(self.grids) or 'none'}"
            )
        tokens = self.tokens[:, self.slices[name]]
        if self.present is not None:
            tokens = tokens.masked_fill(~self.present[:, self.slices[name], None], 0)
        return tokens.mT.unflatten(2, self.grids[name])


class Encoder(nn.Module):
    """A model's encoder for some of its modalities.

    Args:
        model: shared, not copied.
        catalog: the model's modalities.
        names: the inputs, in any order.

    Raises:
        MaskweaveError: a modality is unknown or cannot be read by the model, or `names` is empty.
    """

    def __init__(self, model: Encodes, catalog: Catalog, names: Sequence[str]):
        super().__init__()
        readable = model.readable(catalog)
        if not names or (wrong := [name for name in names if catalog[name].name not in readable]):
            problem = f"does not read {', '.join(wrong)}" if names else "needs one input or more"
            raise MaskweaveError(f"the encoder {problem}; it reads {', '.join(readable)}")
        self.model: Any = model
        self.catalog = catalog
        chosen = [catalog[name] for name in catalog if name in names]
        self.names = [m.name for m in sorted(chosen, key=lambda m: not m.grid)]
        """The inputs in the order of their tokens: grids first, so that their positions never shift."""
        self.width: int = model.config.width
        self.new: list[str] = []
        """Inputs of patches or vectors whose embedding is learned from scratch."""
        self.thoughts: list[str] = []
        """Inputs whose tokens another model generates from the others."""

    @property
    def given(self) -> list[str]:
        """The inputs that samples have, in the order of `names`."""
        return [name for name in self.names if name not in self.thoughts]

    @property
    def blocks(self) -> nn.ModuleList:
        """The Transformer blocks, from the first to the last."""
        return self.model.encoder

    def new_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that embed only the `new` inputs."""
        return self.model.input_parameters(self.new)

    def drop_decoder(self) -> "Encoder":
        """Removes, in place, the parts that are only for prediction; returns itself."""
        for name in self.model.decoder_parts:
            if hasattr(self.model, name):
                delattr(self.model, name)
        return self

    def forward(self, inputs: Inputs) -> Encoded:
        """Encodes inputs from `maskweave.masking.inputs.read_inputs`, with modalities in the order of `names`."""
        tokens = self.model.encode_inputs(inputs, self.catalog)
        grids = {name: self.catalog[name].grid for name in inputs.content if self.catalog[name].grid}
        return Encoded(tokens, inputs.mask, inputs.slices, grids)


def add_stochastic_depth(blocks: nn.ModuleList, last: float) -> None:
    """Skips blocks at random in training, independently per sample. Stochastic depth, https://arxiv.org/abs/1603.09382.

    The probability rises linearly from 0 for the first block to `last` for the last one. The residual of a kept block is scaled up to match.
    """
    for i, block in enumerate(blocks):
        block.register_forward_hook(_Skip(last * i / max(1, len(blocks) - 1)))


class _Skip:
    """A forward hook, so that parameter names do not change."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, block: nn.Module, given: tuple[Any, ...], out_BND: Tensor) -> Tensor:
        if not block.training or self.probability == 0:
            return out_BND
        x_BND = given[0]
        keep = torch.rand(len(x_BND), 1, 1, device=x_BND.device) >= self.probability
        return x_BND + (out_BND - x_BND) * keep / (1 - self.probability)
