"""A recipe of a transfer: which trained model learns which task, from which data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from maskweave import limits
from maskweave.config import build
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.catalogs import Catalog, load_catalog, load_saved_catalog
from maskweave.training.recipe import read_recipe_file
from maskweave.training.settings import TrainSettings


@dataclass(frozen=True)
class TransferData:
    """Where examples come from."""

    source: str = "scenes"
    """The folder of an imported data set; a folder ROOT with pictures as ROOT/CLASS/NAME.EXT; COCO's json of boxes; or the name of a source made by code, `scenes` or `python: package.module:function`, which is then run."""
    held_out: str = ""
    """Where those to evaluate on come from, of the same form; empty: others of a source without an end, or the last of the source."""
    pictures: str = ""
    """COCO's json: folder of the source's pictures."""
    held_out_pictures: str = ""
    """COCO's json: folder of the held-out pictures; empty: the source's."""
    samples: int = 0
    """Examples to train on; 0: all. Sources without an end, such as scenes, need a number."""
    validation: int = 256
    """Held-out examples; 0: all of held_out."""
    seed: int = 0
    """Of sources without an end, such as scenes; the held-out examples have the next seed."""
    limit: float = 0.01
    """Largest share of examples that cannot be used, 0 to 1, when the model is evaluated."""
    crop: float = 1.0
    """Least share of a picture that a random crop keeps in training, above 0 to 1; 1: no crops."""
    flip: float = 0.0
    """Chance of a mirrored sample in training."""

    def __post_init__(self) -> None:
        for key in ("samples", "validation", "seed"):
            if getattr(self, key) < 0:
                raise MaskweaveError(f"{key} must be 0 or more, found {getattr(self, key)}")
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)
        if not (0 <= self.flip <= 1 and 0 <= self.limit <= 1 and 0 < self.crop <= 1):
            raise MaskweaveError(
                f"flip, limit and crop are shares up to 1, found {self.flip}, {self.limit}, {self.crop}"
            )


@dataclass(frozen=True)
class Tuning:
    """How the encoder takes part."""

    parameters: Literal["all", "lora", "head"] = "all"
    """`all`: everything learns. `lora`: the encoder's linear layers get corrections of low rank. `head`: the encoder stays as it is."""
    layer_decay: float = 0.75
    """Rate of each block relative to the one above; 1: all learn alike."""
    stochastic_depth: float = 0.0
    """Chance that the last block is left out in training; it rises evenly from the first."""
    rank: int = 8
    """LoRA: rank of the corrections."""
    alpha: float = 16.0
    """LoRA: corrections are multiplied by alpha / rank."""
    mlp: bool = False
    """LoRA: also in the MLPs, not only in attention."""

    def __post_init__(self) -> None:
        if not (0 < self.layer_decay <= 1 and 0 <= self.stochastic_depth < 1):
            raise MaskweaveError(
                f"layer_decay must be above 0 up to 1 and stochastic_depth from 0 to below 1, found {self.layer_decay} and {self.stochastic_depth}"
            )
        if self.rank < 1 or self.alpha <= 0:
            raise MaskweaveError(f"rank must be 1 or more and alpha above 0, found {self.rank} and {self.alpha}")
        limits.check_most("rank", self.rank, limits.WIDTH)


@dataclass(frozen=True)
class HeadSettings:
    """Size of the head of a dense task or of boxes; that of labels is one linear layer."""

    width: int = 128
    """Channels of the ConvNeXt blocks, or width of the box decoder."""
    depth: int = 4
    """Blocks."""
    upsample: int = 4
    """Dense tasks: each token becomes upsample × upsample places."""
    queries: int = 20
    """Boxes: most that are found."""
    heads: int = 4
    """Boxes: of attention."""

    def __post_init__(self) -> None:
        if min(self.__dict__.values()) < 1:
            raise MaskweaveError("width, depth, upsample, queries and heads must be 1 or more")
        largest = dict(  # noqa: C408 (quoted, one of the keys would be the name of a modality)
            width=limits.WIDTH,
            depth=limits.DEPTH,
            upsample=limits.DIFFUSION_PATCH,
            queries=limits.TOKENS,
            heads=limits.HEADS,
        )
        for key, most in largest.items():
            limits.check_most(key, getattr(self, key), most)


@dataclass(frozen=True)
class TransferRecipe:
    """All that fixes a transfer."""

    renamed: ClassVar[dict[str, str]] = {"catalogue": "catalog"}

    start: str = ""
    """Folder of a finished run or bundle whose encoder is used."""
    inputs: list[str] = field(default_factory=list)
    """Modalities that are given."""
    target: str = ""
    """Modality whose values are learned: classes, map or direction over a picture, or boxes. Empty: the classes of a folder of folders."""
    label: str = ""
    """Learn a label in place of the whole value: a key of metadata with whole numbers, or `first`, the class of the first box or instance."""
    catalog: str = ""
    """Catalog with entries that the start does not have: new inputs (patches or vectors), new targets."""
    scratch: bool = False
    """Take the start's architecture alone and begin with random weights, to compare."""
    data: TransferData = field(default_factory=TransferData)
    tuning: Tuning = field(default_factory=Tuning)
    head: HeadSettings = field(default_factory=HeadSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    seed: int = 0
    """Of initialization, shuffling and augmentation."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise MaskweaveError(f"seed must be 0 or more, found {self.seed}")
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)

    def load_catalog(self) -> Catalog:
        """The start's entries and the further ones.

        Raises:
            MaskweaveError: no start, or an entry that differs from the start's of the same name.
        """
        theirs = load_saved_catalog(Path(self.start))
        return joined(theirs, load_catalog(self.catalog)) if self.catalog else theirs


def joined(first: Catalog, second: Catalog) -> Catalog:
    """All entries of two catalogs.

    Raises:
        MaskweaveError: one name for two different entries.
    """
    for name in second:
        if name in first and first[name] != second[name]:
            raise MaskweaveError(
                f"{second.where}: the entry {shown(name)} differs from that of {first.where}; rename it"
            )
    return Catalog(
        [*first.values(), *(m for m in second.values() if m.name not in first)],
        {**second.vocabularies, **first.vocabularies}.values(),
        second.where,
    )


def load_transfer(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> TransferRecipe:
    """Read a recipe of a transfer; what names its start and data is checked when it runs.

    Raises:
        MaskweaveError: naming file and key.
    """
    recipe = build(TransferRecipe, read_recipe_file(path, overrides), str(path))
    if not recipe.start or not recipe.inputs:
        fault = "inputs is empty; name one modality or more" if recipe.start else "start is empty; name a finished run"
        raise MaskweaveError(f"{path}: {fault}")
    return recipe
