"""The encoder alone, for its features: one interface over every model that has the members of `Encodes`.

Dimension letters: B samples, N tokens of all modalities, L of one, D width, h and w rows and columns of a lattice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog


class Encodes(Protocol):
    """What the encoder needs of a model: every family's has it."""

    config: Any
    """`config.width` is the width of the encoder's tokens."""
    decoder_parts: tuple[str, ...]
    """Names of the members that the encoder does without."""

    @property
    def encoder(self) -> Any:
        """ModuleList of its blocks, from the first to the last."""

    def readable(self, catalog: Catalog) -> list[str]:
        """The modalities that it reads, of those of its catalog."""

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """(B, N, D) its normalized output at each token of samples of which nothing is masked."""

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Those that embed these modalities alone."""


class Encoded(NamedTuple):
    """What an encoder makes of samples."""

    tokens: Tensor
    """(B, N, D) normalized output at each token, modality after modality."""
    present: Tensor | None
    """(B, N) bool, False at padding; None where there is none."""
    slices: dict[str, slice]
    """Where each modality's tokens stand."""
    grids: dict[str, tuple[int, ...]]
    """Lattice of each modality that has one."""

    @property
    def pooled(self) -> Tensor:
        """(B, D) mean over the tokens that are there."""
        if self.present is None:
            return self.tokens.mean(dim=1)
        weight = self.present[..., None].to(self.tokens.dtype)
        return (self.tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def feature_map(self, name: str) -> Tensor:
        """(B, D, h, w) the tokens of one modality on its lattice, of as many axes as that has.

        Raises:
            MaskweaveError: it is not an input, or has no lattice.
        """
        if name not in self.grids:
            raise MaskweaveError(
                f"no feature map of {name!r}: it is no input with a lattice; there are {', '.join(self.grids) or 'none'}"
            )
        return self.tokens[:, self.slices[name]].mT.unflatten(2, self.grids[name])


class Encoder(nn.Module):
    """A model's encoder over some of its modalities.

    Args:
        model: shared, not copied.
        catalog: the model's modalities.
        names: the inputs, any order.

    Raises:
        MaskweaveError: an unknown modality, one that the model does not read, or none.
    """

    def __init__(self, model: Encodes, catalog: Catalog, names: Sequence[str]):
        super().__init__()
        readable = model.readable(catalog)
        if not names or (wrong := [name for name in names if catalog[name].name not in readable]):
            fault = f"does not read {', '.join(wrong)}" if names else "needs one input or more"
            raise MaskweaveError(f"the encoder {fault}; it reads {', '.join(readable)}")
        self.model: Any = model
        self.catalog = catalog
        chosen = [catalog[name] for name in catalog if name in names]
        self.names = [m.name for m in sorted(chosen, key=lambda m: not m.grid)]
        """The inputs in the order of their tokens: lattices first, so that these always stand at the same places."""
        self.width: int = model.config.width
        self.new: list[str] = []
        """Inputs of patches or vectors that the model learns anew."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The Transformer blocks, from the first to the last."""
        return self.model.encoder

    def new_parameters(self) -> list[nn.Parameter]:
        """Those that embed the `new` inputs alone."""
        return self.model.input_parameters(self.new)

    def drop_decoder(self) -> "Encoder":
        """Take away, in place, what only predicts; returns itself."""
        for name in self.model.decoder_parts:
            if hasattr(self.model, name):
                delattr(self.model, name)
        return self

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode what `maskweave.masking.inputs.read_inputs` made, its modalities in the order of `names`."""
        tokens = self.model.encode_inputs(inputs, self.catalog)
        grids = {name: self.catalog[name].grid for name in inputs.content if self.catalog[name].grid}
        return Encoded(tokens, inputs.mask, inputs.slices, grids)


def add_stochastic_depth(blocks: nn.ModuleList, last: float) -> None:
    """Leave out blocks at random in training, each sample on its own. Stochastic depth, https://arxiv.org/abs/1603.09382.

    The chance rises evenly from 0 for the first block to `last` for the last. What a block that stays adds is scaled up accordingly.
    """
    for i, block in enumerate(blocks):
        block.register_forward_hook(_Skip(last * i / max(1, len(blocks) - 1)))


class _Skip:
    """A forward hook, so that the names of the parameters stay as they are."""

    def __init__(self, chance: float):
        self.chance = chance

    def __call__(self, block: nn.Module, given: tuple[Any, ...], out_BND: Tensor) -> Tensor:
        if not block.training or self.chance == 0:
            return out_BND
        x_BND = given[0]
        keep = torch.rand(len(x_BND), 1, 1, device=x_BND.device) >= self.chance
        return x_BND + (out_BND - x_BND) * keep / (1 - self.chance)
