"""The recipe of a transfer: the starting model, the task and the data."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from maskweave import limits
from maskweave.arguments import check_arguments
from maskweave.config import build
from maskweave.data.augment import Augment
from maskweave.data.bundle_place import bundle_folder
from maskweave.data.split import Split
from maskweave.errors import MaskweaveError, shown
from maskweave.limits import RecipeLimits
from maskweave.modality.catalogs import Catalog, load_catalog, load_saved_catalog
from maskweave.models.sample_heads import NumberForm
from maskweave.models.warm_start import has_other_channels
from maskweave.training.learned_scaling import unlearned
from maskweave.training.recipe import read_recipe_file
from maskweave.training.settings import TrainSettings
from maskweave.values.items import MAX_BINS


@dataclass(frozen=True)
class TransferData:
    """The examples."""

    source: str = "scenes"
    """Folder of an imported data set; folder ROOT with pictures ROOT/CLASS/NAME.EXT; COCO JSON file of boxes; `scenes`; or `python: package.module:function`, which is called."""
    held_out: str = ""
    """Source of the held-out examples, in the same form. Empty: other samples of an endless source, or the examples of the source that `split` chooses."""
    fields: dict[str, str] = field(default_factory=dict)
    """Column of each modality in a table, or its field in WebDataset tars, as `data.fields` of a run; also for `held_out`."""
    outside_paths: bool = False
    """Whether paths in a table may lead out of its folder. Set it only for tables that you trust."""
    window: int = 0
    """Frames of a sample of a LeRobot folder; 0: whole episodes."""
    pictures: str = ""
    """COCO: folder of the source's pictures."""
    held_out_pictures: str = ""
    """COCO: folder of the held-out pictures. Empty: the folder of the source."""
    samples: int = 0
    """Number of training examples; 0: all. Endless sources, such as scenes, need a number above 0."""
    validation: int = 256
    """Number of held-out examples; 0: all of held_out, or without it a fifth of the source, at most 1,000."""
    split: Split = field(default_factory=Split)
    """Which examples of the source are held out, if held_out is empty: by default those whose names have the smallest hashes."""
    seed: int = 0
    """Seed of endless sources, such as scenes; the held-out examples use seed + 1."""
    limit: float = 0.01
    """Largest fraction of unusable examples in the evaluation, 0 to 1."""
    crop: float = 1.0
    """Smallest fraction of a picture that a random crop keeps in training, above 0 to 1; 1: no crops."""
    flip: float = 0.0
    """Probability of mirroring a sample in training."""
    color: float = 0.0
    """In training, brightness, contrast and saturation of pictures are multiplied by random factors from 1 - color to 1 + color."""
    noise: dict[str, float] = field(default_factory=dict)
    """Standard deviation of the noise that is added to inputs in training, `{spectrum: 0.05}`, in the scale of a tokenizer's input."""
    shift: dict[str, float] = field(default_factory=dict)
    """Largest shift of inputs along time in training, `{speech: 0.1}`, as a share of their length; the modalities of a view are shifted alike."""

    modality_dropout: float = 0.0
    """Probability of leaving out each input of a sample in training; at least one stays. Above 0, samples may lack some of the inputs, also in prediction."""

    @property
    def augment(self) -> Augment:
        """Augmentation of training examples."""
        return Augment(crop=self.crop, flip=self.flip, color=self.color, noise=self.noise, shift=self.shift)

    def __post_init__(self) -> None:
        for key in ("samples", "validation", "seed"):
            if getattr(self, key) < 0:
                raise MaskweaveError(f"{key} must be 0 or more, found {getattr(self, key)}")
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)
        if self.held_out and self.split != Split():
            raise MaskweaveError("held_out and split both say which examples are held out; remove one of them")
        if not 0 <= self.limit <= 1:
            raise MaskweaveError(f"limit must be 0 to 1, found {self.limit}")
        if not 0 <= self.modality_dropout < 1:
            raise MaskweaveError(f"modality_dropout must be 0 to below 1, found {self.modality_dropout}")
        self.augment  # noqa: B018 - checks crop, flip, color, noise and shift


@dataclass(frozen=True)
class Tuning:
    """How the encoder is fine-tuned."""

    parameters: Literal["all", "lora", "head"] = "all"
    """`all`: all parameters are trained. `lora`: the encoder gets LoRA layers. `head`: the encoder is frozen."""
    layer_decay: float = 0.75
    """Learning rate of each block relative to the block above; 1: the same for all."""
    stochastic_depth: float = 0.0
    """Probability of skipping the last block in training; it rises linearly from the first block."""
    rank: int = 8
    """LoRA: rank."""
    alpha: float = 16.0
    """LoRA: the update is multiplied by alpha / rank."""
    mlp: bool = False
    """LoRA: adapt the MLPs too, not only attention."""

    def __post_init__(self) -> None:
        if not (0 < self.layer_decay <= 1 and 0 <= self.stochastic_depth < 1):
            raise MaskweaveError(
                f"layer_decay must be above 0 up to 1 and stochastic_depth from 0 to below 1, found {self.layer_decay} and {self.stochastic_depth}"
            )
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            raise MaskweaveError(f"rank must be 1 or more and alpha above 0, found {self.rank} and {self.alpha}")
        limits.check_most("rank", self.rank, limits.WIDTH)


@dataclass(frozen=True)
class HeadSettings:
    """The head. For classes and numbers of a sample, it is one linear layer."""

    width: int = 128
    """Channels of the ConvNeXt blocks (dense targets), or width of the box decoder."""
    depth: int = 4
    """Number of blocks."""
    upsample: int = 4
    """Dense targets: each token becomes upsample × upsample points."""
    queries: int = 20
    """Boxes: number of learned queries, which is the largest number of detected boxes. 0: one query for each token of the first input on a 2-D grid; they learn from fewer examples."""
    heads: int = 4
    """Boxes: attention heads."""
    form: NumberForm = "gaussian"
    """Numbers: what is predicted of each. `gaussian`: mean and standard deviation; `quantile`: 19 quantiles, for skewed errors; `histogram`: the
    probabilities of bins, for several peaks, and for one number only."""
    bins: int = 32
    """Numbers: most bins of form `histogram`; they hold equal shares of the training examples."""
    attention: int = 0
    """Classes and numbers of a sample: heads of an attention pooling beside the mean of the tokens; 0: only the mean."""
    statistics: bool | None = None
    """Classes and numbers of a sample: features of the raw inputs are used beside those of the encoder: mean and standard deviation of each channel and of
    each row of a plane, and the means of as many parts as the input has tokens. The linear start chooses how much each kind counts. By default if there are raw inputs of numbers at points."""
    skip: bool | None = None
    """Dense targets: the head also sees the inputs themselves at full resolution. By default if an input has the size of the target."""
    skip_width: int = 32
    """Dense targets: channels of the convolutions at full resolution."""
    calibrate: float = 0.1
    """Numbers with form `gaussian`: share of the training examples, at least 20 if they are at most a fifth, that are not trained on, but on which the
    predicted standard deviations are scaled so that intervals of 90% hold 90%. 0: none; the deviations are then too small where training examples are few."""
    linear_start: bool = True
    """Start the head from a linear model of the frozen features (ridge or logistic regression with cross-validated strength, and for dense targets of each
    point of the inputs), so that training goes on from there. Linear probing, then fine-tuning: https://arxiv.org/abs/2202.10054."""

    def __post_init__(self) -> None:
        largest = dict(  # noqa: C408 (quoted, one of the keys would be the name of a modality)
            width=limits.WIDTH,
            depth=limits.DEPTH,
            upsample=limits.DIFFUSION_PATCH,
            queries=limits.TOKENS,
            heads=limits.HEADS,
            skip_width=limits.WIDTH,
        )
        least = dict.fromkeys(largest, 1) | {"queries": 0}
        if any(getattr(self, key) < least[key] for key in largest):
            raise MaskweaveError(
                f"{', '.join(largest)} must be 1 or more (queries 0 or more), found {', '.join(str(getattr(self, key)) for key in largest)}"
            )
        if not 0 <= self.calibrate <= 0.5:
            raise MaskweaveError(f"calibrate must be a share from 0 to 0.5, found {self.calibrate}")
        if not (2 <= self.bins <= MAX_BINS and 0 <= self.attention <= limits.HEADS):
            raise MaskweaveError(
                f"bins must be 2 to {MAX_BINS:,} and attention 0 to {limits.HEADS}, found {self.bins} and {self.attention}"
            )
        for key, most in largest.items():
            limits.check_most(key, getattr(self, key), most)


@dataclass(frozen=True)
class LossSettings:
    """The loss, for targets with classes."""

    class_weights: Literal["auto"] | list[float] = field(default_factory=list)
    """Weight of each class, in the order of the entry's classes. `auto`: median frequency / frequency in the training examples, from 0.1 to 10. Empty: 1."""
    focal: float = 0.0
    """Focal loss: points are weighted by (1 - probability of their class) to this power, so that hard ones count more; 2 is usual."""
    dice: float = 0.0
    """Classes at points: weight of the dice loss, which counts each class alike, however small, beside the cross-entropy."""

    def __post_init__(self) -> None:
        if self.class_weights != "auto" and not all(0 <= w < math.inf for w in self.class_weights):
            raise MaskweaveError(f"class_weights must be 0 or more, found {shown(self.class_weights)}")
        if not (0 <= self.focal <= 10 and 0 <= self.dice <= 100):
            raise MaskweaveError(f"focal must be 0 to 10 and dice 0 to 100, found {self.focal} and {self.dice}")


@dataclass(frozen=True)
class TransferRecipe:
    """The recipe of a transfer."""

    renamed: ClassVar[dict[str, str]] = {"catalogue": "catalog"}  # codespell:ignore

    start: str = ""
    """Finished run or bundle whose encoder is used: its folder, URL, `hf://owner/name`, or the name of one that ships with the package."""
    inputs: list[str] = field(default_factory=list)
    """Input modalities."""
    think: list[str] = field(default_factory=list)
    """Modalities that the starting model generates from the inputs, in this order, and that are further inputs of the encoder ("thinking in modalities"). Each step
    then takes at least twice as long."""
    target: str = ""
    """Modality to predict: a scalar, vector, label, tags, boxes, boxes3d, a map along one axis; or classes, map or direction over a picture. Empty: the classes of a
    folder of folders."""
    label: str = ""
    """Predict a part instead of the complete value: a metadata key (a class if it is a whole number, otherwise a number), or `first`, the class of the first
    box or instance."""
    catalog: str = ""
    """Catalog with entries that the starting model does not have: new inputs (patches or vectors) and new targets."""
    scratch: bool = False
    """Use only the architecture of the starting model and initialize at random, for comparison."""
    data: TransferData = field(default_factory=TransferData)
    tuning: Tuning = field(default_factory=Tuning)
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    limits: RecipeLimits = field(default_factory=RecipeLimits)
    """How large the files of the data may be."""
    seed: int = 0
    """Seed of initialization, shuffling and augmentation."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise MaskweaveError(f"seed must be 0 or more, found {self.seed}")
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)

    @property
    def start_folder(self) -> Path:
        """The folder of `start`; a bundle on the Hub or at a URL is fetched."""
        return bundle_folder(self.start)

    def load_catalog(self) -> Catalog:
        """Returns the entries of the starting model and those of `catalog`.

        Raises:
            MaskweaveError: no starting model, or an entry that differs from its entry of the same name.
        """
        known = load_saved_catalog(self.start_folder)
        return joined(known, load_catalog(self.catalog)) if self.catalog else known


def joined(first: Catalog, second: Catalog) -> Catalog:
    """Returns a catalog with the entries of both. Raw patches of the second may have other channels than in the first, and replace them.

    Raises:
        MaskweaveError: two different entries have the same name.
    """
    replaced = {m.name for m in second.values() if m.name in first and has_other_channels(m, first[m.name])}
    for name in second:
        if name in first and unlearned(first[name]) != unlearned(second[name]) and name not in replaced:
            raise MaskweaveError(
                f"{second.where}: the entry {shown(name)} differs from that of {first.where}; rename it"
            )
    return Catalog(
        [
            *(second[m.name] if m.name in replaced else m for m in first.values()),
            *(m for m in second.values() if m.name not in first),
        ],
        {**second.vocabularies, **first.vocabularies}.values(),
        second.where,
    )


@check_arguments
def load_transfer(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> TransferRecipe:
    """Read the recipe of a transfer. Its starting model and data are checked when it runs.

    Raises:
        MaskweaveError: with file and key.
    """
    recipe = build(TransferRecipe, read_recipe_file(path, overrides), str(path))
    if not recipe.start or not recipe.inputs:
        fault = "inputs is empty; list one modality or more" if recipe.start else "start is empty; give a finished run"
        raise MaskweaveError(f"{path}: {fault}")
    return recipe
