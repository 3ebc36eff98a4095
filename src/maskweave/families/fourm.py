"""The family `fourm`: predicts any modality from any others with 4M's masked modeling (https://arxiv.org/abs/2312.06647)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.errors import shown_command
from maskweave.families.base import WEIGHTS, Family, ModelSettings
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.masking.paths import TrainedPaths
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.warm_start import copy_fourm
from maskweave.nn.weights import load_passthrough, save_passthrough, save_weights, take_tensors
from maskweave.objectives.fourm import FourMObjective, Loss
from maskweave.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class FourMSettings(FourMConfig, ModelSettings):
    """Architecture, masking and loss."""

    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """How tokens are sampled as inputs and targets."""
    loss: Loss = "mod"
    """`mod`: mean over modalities of each modality's mean; `token`: mean over all target tokens."""


class FourMFamily(Family[FourMSettings, FourM]):
    name = "fourm"
    Settings = FourMSettings
    Config = FourMConfig
    Model = FourM
    generates = True
    resumable = ("loss",)
    learns_new_inputs = True

    def check(self, settings: FourMSettings, catalog: Catalog) -> None:
        MaskSampler(catalog, settings.masking)
        settings.resolved()

    def tokens_per_sample(self, settings: FourMSettings, catalog: Catalog) -> int:
        return settings.masking.input_tokens + settings.masking.target_tokens

    def target_tokens(self, settings: FourMSettings) -> int:
        return settings.masking.target_tokens

    def build_model(self, catalog: Catalog, config: FourMConfig) -> FourM:
        return FourM(catalog, config)

    def initialize(
        self, model: FourM, settings: FourMSettings, tokenizers: Callable[[], Mapping[str, Tokenizer]]
    ) -> None:
        if settings.init_from_tokenizers:
            model.init_from_tokenizers({name: t.token_embeddings for name, t in tokenizers().items()})

    def how_to_import(self, folder: Path) -> str:
        return f"convert it to a bundle first: {shown_command('import', '4m', folder, '--out', 'BUNDLE')}"

    def warm_start(self, model: FourM, catalog: Catalog, donor: FourM, theirs: Catalog, folder: Path) -> list[str]:
        return copy_fourm(model, catalog, donor, theirs, str(folder))

    def build_objective(self, model: FourM, settings: FourMSettings, catalog: Catalog) -> nn.Module:
        weights = {m.name: m.value.target_smoothing for m in catalog.values() if m.kind == "grid" and m.is_target}
        smoothing = {name: w for name, w in weights.items() if w is not None}
        budgets = {"inputs": settings.masking.input_tokens, "targets": settings.masking.target_tokens}
        return FourMObjective(model, settings.loss, smoothing, budgets)

    def build_batches(
        self, settings: FourMSettings, data: TokenData | MixedTokens, batch_size: int, seed: int, held_out: bool
    ) -> SizedBatches:
        sampler = MaskSampler(data.catalog, settings.masking)
        return TokenBatches(data, sampler, batch_size, seed, shuffle=not held_out)

    def trained_without_inputs(self, settings: FourMSettings) -> bool | None:
        return settings.masking.unconditional > 0

    def trained_paths(self, settings: FourMSettings, catalog: Catalog) -> TrainedPaths | None:
        return TrainedPaths(catalog, settings.masking)

    def empty_model(self, catalog: Catalog, config: FourMConfig) -> FourM:
        return FourM.without_weights(catalog, config)

    def write_weights(self, model: FourM, folder: Path) -> None:
        save_weights(model.state_dict(), folder / WEIGHTS)
        save_passthrough(model.passthrough, folder)

    def read_weights(self, catalog: Catalog, config: FourMConfig, folder: Path) -> FourM:
        model = self.empty_model(catalog, config)
        take_tensors(model, folder / WEIGHTS)
        model.tie()
        model.passthrough = load_passthrough(folder)
        return model

    def facts(self, settings: FourMSettings) -> dict[str, str]:
        return {"input + target tokens": f"{settings.masking.input_tokens} + {settings.masking.target_tokens}"}
