"""The family `contrastive`: an encoder trained to tell which picture and text belong together, as CLIP (https://arxiv.org/abs/2103.00020)."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.families.base import Family, ModelSettings
from maskweave.masking.m3ae import NOTHING, MaskedBatches
from maskweave.modality.catalogs import Catalog
from maskweave.models.contrastive import Contrastive, ContrastiveConfig
from maskweave.models.encoder import Encoded
from maskweave.models.joint_encoder import check_kinds
from maskweave.models.warm_start import copy_joint_encoder
from maskweave.objectives.contrastive import ContrastiveObjective


@dataclass(frozen=True)
class ContrastiveSettings(ContrastiveConfig, ModelSettings):
    """Architecture and groups."""

    family: str = "contrastive"
    group_size: int = 32
    """Samples that are compared with each other, so that each has group_size - 1 negatives. train.batch_size must be a multiple of it."""

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise MaskweaveError(f"group_size must be 2 or more, found {self.group_size}")


class ContrastiveFamily(Family[ContrastiveSettings, Contrastive]):
    name = "contrastive"
    Settings = ContrastiveSettings
    Config = ContrastiveConfig
    Model = Contrastive
    summary = (
        "A contrastive encoder: it tells which modalities belong to the same sample, and is used for its features."
    )

    def check(self, settings: ContrastiveSettings, catalog: Catalog) -> None:
        check_kinds(catalog)
        if len(catalog) < 2:
            raise MaskweaveError(
                f"a contrastive model compares modalities and needs two or more, found {', '.join(catalog)}; add one to 'modalities'"
            )
        settings.resolved()

    def batch_multiple(self, settings: ContrastiveSettings) -> int:
        return settings.group_size

    def build_model(self, catalog: Catalog, config: ContrastiveConfig) -> Contrastive:
        return Contrastive(catalog, config)

    def warm_start(
        self, model: Contrastive, catalog: Catalog, donor: Contrastive, theirs: Catalog, folder: Path
    ) -> list[str]:
        return copy_joint_encoder(model, catalog, donor, theirs, str(folder))

    def build_objective(self, model: Contrastive, settings: ContrastiveSettings, catalog: Catalog) -> nn.Module:
        return ContrastiveObjective(model, settings.group_size)

    def build_batches(
        self, settings: ContrastiveSettings, data: TokenData | MixedTokens, batch_size: int, seed: int, held_out: bool
    ) -> SizedBatches:
        return MaskedBatches(data, NOTHING, batch_size, seed, shuffle=not held_out)

    def vectors(self, model: Contrastive, encoded: Encoded) -> Tensor:
        return model.vectors_of(encoded)

    def empty_model(self, catalog: Catalog, config: ContrastiveConfig) -> Contrastive:
        return Contrastive.without_weights(catalog, config)

    def facts(self, settings: ContrastiveSettings) -> dict[str, str]:
        return {"compared": f"{settings.group_size} samples at a time"}
