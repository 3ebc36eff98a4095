"""The family `m3ae`: an encoder trained to reconstruct masked patches and tokens (https://arxiv.org/abs/2205.14204)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.families.base import WEIGHTS, Family, ModelSettings
from maskweave.families.m3ae_sheets import attention_sheet, restored_sheet
from maskweave.families.sheets import Sheet
from maskweave.masking.m3ae import MaskedBatches, MaskRatio
from maskweave.modality.catalogs import Catalog
from maskweave.models.joint_encoder import check_kinds
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.models.warm_start import copy_joint_encoder
from maskweave.nn.weights import load_passthrough, save_passthrough, save_weights, take_tensors
from maskweave.objectives.m3ae import LossWeight, M3AEObjective
from maskweave.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class M3AESettings(M3AEConfig, ModelSettings):
    """Architecture, mask ratios and loss."""

    renamed: ClassVar[dict[str, str]] = {"normalised_patches": "normalized_patches"}  # codespell:ignore

    family: str = "m3ae"
    mask_ratio: MaskRatio = field(default_factory=MaskRatio)
    """Share of tokens that are masked."""
    loss_weight: LossWeight = field(default_factory=LossWeight)
    """Weight of each modality's loss."""
    normalized_patches: bool = False
    """Predict each patch relative to its own mean and standard deviation, so that contrast counts more than brightness."""
    unpaired: float = 0.0
    """Share of samples whose modalities never appear together: each time only one of them is used."""

    def __post_init__(self) -> None:
        if not 0 <= self.unpaired <= 1:
            raise MaskweaveError(f"unpaired must be a share from 0 to 1, found {self.unpaired}")


class M3AEFamily(Family[M3AESettings, M3AE]):
    name = "m3ae"
    Settings = M3AESettings
    Config = M3AEConfig
    Model = M3AE
    summary = "A masked autoencoder: it reconstructs masked patches and tokens, and is used for its features."
    shown_samples = 4
    resumable = ("loss_weight.*",)

    def check(self, settings: M3AESettings, catalog: Catalog) -> None:
        check_kinds(catalog)
        settings.resolved()

    def build_model(self, catalog: Catalog, config: M3AEConfig) -> M3AE:
        return M3AE(catalog, config)

    def how_to_import(self, folder: Path) -> str:
        return (
            "save it as a bundle first, in Python: from maskweave.interop.m3ae import load_m3ae; from maskweave.generate.bundle import Bundle; "
            f"model, catalog = load_m3ae({str(folder)!r}); Bundle(catalog, {{}}, model).save('BUNDLE')"
        )

    def warm_start(self, model: M3AE, catalog: Catalog, donor: M3AE, theirs: Catalog, folder: Path) -> list[str]:
        return copy_joint_encoder(model, catalog, donor, theirs, str(folder))

    def build_objective(self, model: M3AE, settings: M3AESettings, catalog: Catalog) -> nn.Module:
        return M3AEObjective(model, settings.loss_weight, settings.normalized_patches)

    def build_batches(
        self, settings: M3AESettings, data: TokenData | MixedTokens, batch_size: int, seed: int, held_out: bool
    ) -> SizedBatches:
        unpaired = 0.0 if held_out else settings.unpaired
        return MaskedBatches(data, settings.mask_ratio, batch_size, seed, unpaired, shuffle=not held_out)

    def empty_model(self, catalog: Catalog, config: M3AEConfig) -> M3AE:
        return M3AE.without_weights(catalog, config)

    def write_weights(self, model: M3AE, folder: Path) -> None:
        save_weights(model.state_dict(), folder / WEIGHTS)
        save_passthrough(model.passthrough, folder)

    def read_weights(self, catalog: Catalog, config: M3AEConfig, folder: Path) -> M3AE:
        model = self.empty_model(catalog, config)
        take_tensors(model, folder / WEIGHTS)
        model.passthrough = load_passthrough(folder)
        return model

    def facts(self, settings: M3AESettings) -> dict[str, str]:
        ratio = settings.mask_ratio
        return {"masked": f"{ratio.patches:.0%} of patches, {ratio.sequence:.0%} of sequences"}

    def sheets(
        self,
        model: M3AE,
        settings: M3AESettings,
        catalog: Catalog,
        tokenizers: Mapping[str, Tokenizer],
        samples: Sequence[Mapping[str, Any]],
    ) -> list[Sheet]:
        """Reconstructions of the samples, and the attention from words to image patches."""
        restored = restored_sheet(model, catalog, tokenizers, samples, normalized=settings.normalized_patches)
        attention = attention_sheet(model, catalog, tokenizers, samples)
        return [restored] if attention is None else [restored, attention]
