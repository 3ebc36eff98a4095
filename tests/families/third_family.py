"""A whole model family in one file, as another package would bring it: a small denoiser of patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.data.order import Order
from maskweave.errors import MaskweaveError
from maskweave.families.base import Family, ModelSettings
from maskweave.families.sheets import Sheet, Tile, TileRow
from maskweave.modality.catalogs import Catalog


@dataclass(frozen=True)
class DenoiserConfig:
    width: int = 16
    depth: int = 2


@dataclass(frozen=True)
class DenoiserSettings(DenoiserConfig, ModelSettings):
    family: str = "denoiser"
    noise: float = 0.5
    """Deviation of what is added to the patches."""
    loss: float = 1.0
    """Factor on the loss; a number, where `fourm` has a name."""


@dataclass(frozen=True)
class NoisyBatch:
    rows: dict[str, Tensor]

    def to(self, device: torch.device | str) -> Self:
        return type(self)({name: rows.to(device) for name, rows in self.rows.items()})

    @property
    def names(self) -> list[str]:
        return list(self.rows)

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))


class NoisyBatches:
    def __init__(self, data: Any, batch_size: int, seed: int, shuffle: bool):
        self.data, self.order = data, Order(data.counts, batch_size, seed, shuffle, data.weights, data.windows)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> NoisyBatch:
        columns, catalog = self.data.columns(self.order[i]), self.data.catalog
        rows = {n: np.asarray(c.rows) for n, c in columns.items() if catalog[n].kind == "patches"}
        return NoisyBatch({n: torch.from_numpy(catalog[n].value.normalize_rows(r)) for n, r in rows.items()})


class Denoiser(nn.Module):
    decoder_parts = ("out",)

    def __init__(self, catalog: Catalog, config: DenoiserConfig):
        super().__init__()
        self.config = DenoiserConfig(config.width, config.depth)
        widths = {m.name: m.row_width for m in catalog.values() if m.kind == "patches"}
        self.embed = nn.ModuleDict({name: nn.Linear(width, config.width) for name, width in widths.items()})
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.width), nn.GELU())
            for _ in range(config.depth)
        )
        self.out = nn.ModuleDict({name: nn.Linear(config.width, width) for name, width in widths.items()})

    def readable(self, catalog: Catalog) -> list[str]:
        return list(self.embed)

    def encode(self, name: str, rows: Tensor) -> Tensor:
        x = self.embed[name](rows)
        for block in self.encoder:
            x = x + block(x)
        return x

    def encode_inputs(self, inputs: Any, catalog: Catalog) -> Tensor:
        return torch.cat([self.encode(name, rows) for name, rows in inputs.content.items()], dim=1)

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        return [p for name in names for p in self.embed[name].parameters()]


class DenoiserObjective(nn.Module):
    def __init__(self, model: Denoiser, noise: float, factor: float):
        super().__init__()
        self.model, self.noise, self.factor = model, noise, factor

    def forward(self, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        losses = {}
        for name, rows in batch.rows.items():
            noisy = rows + self.noise * torch.randn_like(rows)
            losses[f"loss/{name}"] = (self.model.out[name](self.model.encode(name, noisy)) - rows).square().mean()
        return self.factor * torch.stack([*losses.values()]).sum(), {k: v.detach() for k, v in losses.items()}


class DenoiserFamily(Family[DenoiserSettings, Denoiser]):
    name = "denoiser"
    Settings = DenoiserSettings
    Config = DenoiserConfig
    Model = Denoiser
    summary = "A denoiser of patches."
    shown_samples = 2

    def check(self, settings: DenoiserSettings, catalog: Catalog) -> None:
        if not any(m.kind == "patches" for m in catalog.values()):
            raise MaskweaveError("a denoiser needs a modality of kind patches")

    def build_model(self, catalog: Catalog, config: DenoiserConfig) -> Denoiser:
        return Denoiser(catalog, config)

    def build_objective(self, model: Denoiser, settings: DenoiserSettings, catalog: Catalog) -> nn.Module:
        return DenoiserObjective(model, settings.noise, settings.loss)

    def build_batches(
        self, settings: DenoiserSettings, data: Any, batch_size: int, seed: int, held_out: bool
    ) -> NoisyBatches:
        return NoisyBatches(data, batch_size, seed, shuffle=not held_out)

    def facts(self, settings: DenoiserSettings) -> dict[str, str]:
        return {"noise": f"{settings.noise:g}"}

    def sheets(self, model: Any, settings: Any, catalog: Catalog, tokenizers: Any, samples: Any) -> list[Sheet]:
        name = next(iter(model.embed))
        return [Sheet("seen", [TileRow([Tile(name, sample[name])]) for sample in samples], catalog, "What is seen")]
