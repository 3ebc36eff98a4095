"""Thinking in modalities: the starting model, frozen, generates modalities from the inputs, and their tokens are further inputs of the fine-tuned encoder.

TerraMind (https://arxiv.org/abs/2504.11171). The tokens are made again for every batch, after augmentation, with the same seed for every sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle, load
from maskweave.generate.engine import bulk_precision
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog
from maskweave.models.warm_start import has_other_channels

FOLDER = "thinking"
"""Folder of a transfer that holds the model that generates."""


@dataclass(frozen=True)
class Thinking:
    """Generates further inputs."""

    bundle: Bundle
    names: list[str]
    """Modalities that are generated, in this order."""
    inputs: list[str]
    """Modalities that they are generated from."""

    def added(self, inputs: Inputs, samples: Sequence[Mapping[str, Any]], order: Sequence[str]) -> Inputs:
        """Returns the inputs of some samples with the generated tokens.

        Args:
            samples: checked values by modality, or by the modality that holds them.
            order: all modalities of the encoder, in the order of their tokens.
        """
        given = []
        for sample in samples:
            values = {name: sample.get(name, sample.get(self.bundle.catalog[name].reads)) for name in self.inputs}
            given.append({name: value for name, value in values.items() if value is not None})
        precision = bulk_precision(self.bundle.device)
        found = self.bundle.generate_batch(given, self.names, seeds=[0] * len(given), precision=precision)
        content, present = dict(inputs.content), dict(inputs.present)
        for name in self.names:
            tokens = [result.tokens[name].flatten() for result in found]
            mask_BL = np.arange(max(1, *map(len, tokens)))[None] < np.array([*map(len, tokens)])[:, None]
            ids_BL = np.zeros(mask_BL.shape, np.int64)
            ids_BL[mask_BL] = np.concatenate(tokens)
            content[name], present[name] = torch.from_numpy(ids_BL), torch.from_numpy(mask_BL)
        return Inputs.of({name: content[name] for name in order}, present)


def open_thinking(start: Path, catalog: Catalog, names: Sequence[str], inputs: Sequence[str]) -> Thinking | None:
    """Opens the model that generates `names` from `inputs`; None without names.

    Args:
        catalog: entries of the transfer.

    Raises:
        MaskweaveError: the model cannot generate them, or an input is new to it.
    """
    if not names:
        return None
    bundle = load(start)
    new = [n for n in inputs if n not in bundle.catalog or has_other_channels(catalog[n], bundle.catalog[n])]
    if new or (both := [name for name in names if name in inputs]):
        fault = f"{new[0]!r} is an input that it does not know" if new else f"{both[0]!r} is an input already"
        raise MaskweaveError(f"think: {start} generates from the inputs, but {fault}; remove think, or this input")
    if wrong := [name for name in names if not bundle.catalog[name].is_target]:
        raise MaskweaveError(
            f"think: {start} cannot generate {wrong[0]!r}; choose a grid or a sequence that it predicts"
        )
    bundle.schedule(list(inputs), list(names))  # raises: it cannot generate at all
    return Thinking(bundle, list(names), list(inputs))
