"""Code shared by the studies of M3AE: two data sets, created once, and a trial, which trains an M3AE, or another model with its encoder, and probes the
encoder on pictures only.

The labels of a scene are its number of objects and the name of its first object ("red cube"; in the order of 4M's boxes, from the top left).
The labels of an emoji come from its Unicode name: what it shows (one of SHOWN), and the skin tone if it has one. The split into training and held-out
emoji ignores skin tone and gender, so variants of one emoji are always in the same part.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import Metrics
from torch import Tensor, nn

from maskweave.data.order import Order
from maskweave.data.source import Source, Subset
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import tokenize
from maskweave.data.transforms import fit as fit_values
from maskweave.families.contrastive import ContrastiveSettings
from maskweave.files import read_json, write_json
from maskweave.masking.inputs import Inputs, TransferBatch
from maskweave.masking.m3ae import NOTHING, MaskedBatches, MaskRatio, mask_columns
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.models.joint_encoder import JointEncoder
from maskweave.models.sample_heads import ClassHead
from maskweave.objectives.classes import ClassLoss
from maskweave.objectives.transfer import TransferObjective
from maskweave.synthetic.emoji import Emoji, name_of
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.training.loop import fit
from maskweave.training.pipeline import build_batches
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.transfer.data import make_target
from maskweave.transfer.outliers import area_under_curve, mahalanobis
from maskweave.transfer.probe import Labeled, LinearProbe, nearest_neighbors, share_right

RECIPES = Path(__file__).parents[2] / "recipes"
PARTS, ALL = ("train", "held-out"), "all"
"""Parts whose samples have labels for the probes; and the labels of all training samples, for supervised training."""
SCENES, HELD_OUT_SCENES = 4000, 1000
PROBED = 2000
"""Number of labeled training scenes, the first ones. All emoji are labeled."""
HELD_OUT_EMOJI = 0.3
TONE, GENDERS = "emoji modifier", ("male sign", "female sign")
PEOPLE = ("man", "woman", "adult", "boy", "girl", "child", "baby")
SHOWN = {
    "flag": r"regional indicator symbol letter \w \w$|waving black flag, tag",
    "clock": r"clock face",
    "woman": r"(.*, )?(woman|female sign)(,|$)",
    "man": r"(.*, )?(man|male sign)(,|$)",
    "hand": r"(?!.*\b(face|person)\b)[^,]*\b(hand|fist|thumbs|finger|palms)\b[^,]*$",
    "face": r"(?!.*(gesture|massage|person))[^,]*\bface\b[^,]*$",
}
"""What an emoji shows: the first pattern that matches its name without skin tones. Groups of people and all other emoji have no label."""


Answers = dict[str, list[int | None]]
"""By label, the class of each sample, or None."""


@dataclass(frozen=True)
class Setting:
    """Settings of a trial."""

    names: tuple[str, ...] = ("rgb", "caption")
    """Modalities; only the picture: an MAE."""
    text: float = 0.75
    """Share of the text tokens that are masked in training."""
    unpaired: float = 0.0
    """Share of samples whose picture and text never appear together."""
    part: str = "train"
    """Training data: `train`, or `half` of it."""
    trained: bool = True
    contrastive: bool = False
    """Train the same encoder to tell which picture and caption belong together, instead of an M3AE."""
    supervised: str = ""
    """Train the same encoder to predict this label of the pictures, of all training samples that have it, instead of an M3AE."""


def make_data(folder: Path, kind: str) -> None:
    """Creates tokenizer, token shards and labels of `scenes` or `emoji` if they do not exist."""
    if (folder / "labels.json").exists() and ALL in read_json(folder / "labels.json"):
        return
    catalog = load_recipe(RECIPES / f"m3ae-{kind}.yaml").load_catalog()
    train, held_out, labels = (_scenes if kind == "scenes" else _emoji)(catalog)
    text = TextTokenizer.train(catalog.vocabularies["text"], [train[i]["caption"] for i in range(len(train))])
    half = Subset(train, range(len(train) // 2))
    for part, source in (("train", train), ("half", half), ("held-out", held_out)):
        tokenize(source, catalog, {"caption": SequenceTokenizer(catalog["caption"], text)}, folder / part)
    write_json(folder / "labels.json", labels)


def run_trial(
    folder: Path, kind: str, steps: int, batch_size: int, setting: Setting, seed: int, shifts: bool = False
) -> Metrics:
    """Trains a model and measures it on held-out samples.

    Args:
        folder: folder of `make_data`.
        shifts: measure the probes on shifted pictures, too.

    Returns:
        for each label, the accuracy of a linear probe and of nearest neighbors on pictures only, and of the linear probe with `SHIFTS`; how well pictures
        of shuffled patches are told from others by the features (AUROC). Of an M3AE, for paired samples with 75% masked, the squared error of patches
        and the accuracy of the predicted words; and that accuracy without a picture.
    """
    recipe = _recipe(kind, steps, batch_size, setting, seed)
    catalog, labels = recipe.load_catalog(), read_json(folder / "labels.json")
    torch.manual_seed(seed)
    model = recipe.family.build_model(catalog, recipe.model)
    data = TokenData(folder / setting.part, catalog)
    if setting.supervised:
        answers = _known(labels[ALL][setting.supervised])
        encoder = recipe.family.encoder(model, catalog, ["rgb"]).drop_decoder()
        head = ClassHead(encoder.width, 1 + max(answers.values()))
        objective: nn.Module = TransferObjective(encoder, head, ClassLoss())
        batches: Any = LabeledPictures(data, answers, batch_size, seed)
    else:
        objective = recipe.family.build_objective(model, recipe.model, catalog)
        batches = build_batches(recipe, data, held_out=False)
    if setting.trained:
        with tempfile.TemporaryDirectory() as place:
            fit(objective, batches, recipe.train, Path(place))
    objective.eval()
    restores = setting.trained and not (setting.contrastive or setting.supervised)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = _restoring(objective, folder / "held-out", catalog) if restores else {}
        pictures = {part: TokenData(folder / part, catalog.subset(["rgb"])) for part in PARTS}
        features = {part: _features(model, some, labels[part]) for part, some in pictures.items()}
        others = SHIFTS | {SHUFFLED: shuffle_patches} if shifts else {}
        shifted = {
            name: _features(model, pictures["held-out"], labels["held-out"], change) for name, change in others.items()
        }
    return found | _probes(features, shifted, labels)


def _recipe(kind: str, steps: int, batch_size: int, setting: Setting, seed: int) -> Recipe:
    changes: dict[str, Any] = {
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.processes": 1,
        "train.validate_every": 0,
    }
    changes |= {"modalities": list(setting.names), "model.mask_ratio.sequence": setting.text}
    changes |= {"model.unpaired": setting.unpaired, "train.checkpoint_every": 0, "seed": seed}
    recipe = load_recipe(RECIPES / f"m3ae-{kind}.yaml", changes)
    settings: Any = ContrastiveSettings(group_size=batch_size)
    return replace(recipe, model=settings) if setting.contrastive else recipe


class LabeledPictures:
    """Batches of pictures with their classes, by index, for supervised training.

    Args:
        answers: class of each labeled sample, by its number.
    """

    def __init__(self, data: TokenData, answers: dict[int, int], batch_size: int, seed: int):
        self.data, self.numbers, self.classes = data, np.array(list(answers)), np.array(list(answers.values()))
        self.order = Order([len(answers)], batch_size, seed)

    def __getitem__(self, i: int) -> TransferBatch:
        chosen = self.order[i]
        rows = self.data.columns(self.numbers[chosen])["rgb"].rows
        assert rows is not None
        content = torch.from_numpy(self.data.catalog["rgb"].value.normalize_rows(np.asarray(rows)))
        return TransferBatch(Inputs.of({"rgb": content}, {}), torch.from_numpy(self.classes[chosen]))


def _known(answers: list[int | None]) -> dict[int, int]:
    return {i: answer for i, answer in enumerate(answers) if answer is not None}


def _restoring(objective: nn.Module, folder: Path, catalog: Catalog) -> Metrics:
    """Reconstruction of the held-out samples, all in one batch; the masks are always the same."""

    def restore(names: list[str]) -> dict[str, Tensor]:
        data = TokenData(folder, catalog.subset(names))
        return objective(MaskedBatches(data, MaskRatio(), len(data), shuffle=False)[0])[1]

    found = restore(list(catalog))
    metrics = {"patch error": float(found["loss/rgb"])}
    if "caption" in catalog:
        metrics["word accuracy"] = float(found["accuracy/caption"])
        metrics["word accuracy, no picture"] = float(restore(["caption"])["accuracy/caption"])
    return metrics


Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Changes raw patches (B, P, C) of 8 bits, as float64; C are the pixels of a patch, each with its three colors. One generator for all batches."""
SHUFFLED = "shuffled"


def add_noise(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows + rng.normal(0, 15, rows.shape)


def lower_contrast(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.7 * rows + 0.3 * rows.mean(axis=(1, 2), keepdims=True)


def darken(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.75 * rows


def shuffle_patches(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.random(rows.shape[:2]).argsort(axis=1)
    return np.take_along_axis(rows, order[..., None], axis=1)


SHIFTS: dict[str, Shift] = {"noise": add_noise, "contrast": lower_contrast, "darkness": darken}
"""Corruptions, as in ImageNet-C (https://arxiv.org/abs/1903.12261)."""


def _features(model: JointEncoder, data: TokenData, labels: Answers, shift: Shift | None = None) -> Tensor:
    """Mean patch features (S, D) of the labeled samples, without masking."""
    count, pooled, rng = len(next(iter(labels.values()))), [], np.random.default_rng(0)
    noise = np.random.default_rng(1)
    for numbers in np.array_split(np.arange(count), -(-count // 250)):
        columns = data.columns(numbers)
        if shift is not None:
            rows = np.asarray(columns["rgb"].rows)
            changed = shift(rows.astype(np.float64), noise).round().clip(0, 255).astype(rows.dtype)
            columns = {"rgb": columns["rgb"]._replace(rows=changed)}
        (group,) = mask_columns(columns, data.catalog, NOTHING, rng).groups
        pooled.append(model.features(group.parts).pooled.float())
    return torch.cat(pooled)


def _probes(features: dict[str, Tensor], shifted: dict[str, Tensor], labels: dict[str, Answers]) -> Metrics:
    found: Metrics = {}
    for label, answers in labels["train"].items():
        known, asked = (_labeled(features[part], labels[part][label]) for part in PARTS)
        classes = 1 + max(_known(answers).values())
        probe = LinearProbe.tuned(known, classes)
        found[f"linear {label}"] = share_right(probe(asked.features), asked.labels)
        found[f"neighbors {label}"] = share_right(nearest_neighbors(known, asked.features, classes), asked.labels)
        found[f"most frequent {label}"] = float((asked.labels == torch.bincount(known.labels).argmax()).float().mean())
        for name in shifted.keys() & SHIFTS.keys():
            other = _labeled(shifted[name], labels["held-out"][label])
            found[f"{name} {label}"] = share_right(probe(other.features), other.labels)
        if SHUFFLED in shifted:
            scores = (mahalanobis(known, some) for some in (features["held-out"], shifted[SHUFFLED]))
            found[f"{SHUFFLED} {label}"] = area_under_curve(*scores)
    return found


def _labeled(features_SD: Tensor, answers: list[int | None]) -> Labeled:
    known = _known(answers)
    return Labeled(features_SD[list(known)], torch.tensor(list(known.values())))


def _scenes(catalog: Catalog) -> tuple[Source, Source, Any]:
    every = load_catalog("scenes")
    targets = {
        "count": make_target(every, "metadata", "object_count"),
        "first object": make_target(every, "boxes", "first"),
    }
    labels = {}
    for part, count, seed in ((ALL, SCENES, 0), ("held-out", HELD_OUT_SCENES, 1)):
        scenes = list(Scenes(every.subset(["metadata", "boxes"]), count, seed))
        labels[part] = {name: [target.of(scene) for scene in scenes] for name, target in targets.items()}
    labels["train"] = {name: answers[:PROBED] for name, answers in labels[ALL].items()}
    return Scenes(catalog, SCENES, 0), Scenes(catalog, HELD_OUT_SCENES, 1), labels


def _emoji(catalog: Catalog) -> tuple[Source, Source, Any]:
    emoji = Emoji(catalog)
    names = [name_of(sequence).split(", ") for sequence in emoji.sequences]
    bases = [_base(parts) for parts in names]
    order = np.random.default_rng(0).permutation(sorted(set(bases)))
    held_out = set(order[: round(HELD_OUT_EMOJI * len(order))])
    labels, sources = {}, []
    for part in PARTS:
        numbers = [i for i, base in enumerate(bases) if (base in held_out) == (part == "held-out")]
        labels[part] = {"shown": [_shown(names[i]) for i in numbers], "skin tone": [_tone(names[i]) for i in numbers]}
        sources.append(Subset(_Fitted(emoji, catalog), numbers))
    labels[ALL] = labels["train"]
    return sources[0], sources[1], labels


class _Fitted(Subset):
    """All samples of a source, resized to the sizes of their entries."""

    def __init__(self, source: Source, catalog: Catalog):
        super().__init__(source, range(len(source)))
        self.catalog = catalog

    def __getitem__(self, i: int) -> dict[str, Any]:
        return fit_values(super().__getitem__(i), self.catalog)


def _base(parts: list[str]) -> str:
    """The name without skin tones and genders."""
    kept = [part for part in parts if not part.startswith(TONE) and part not in GENDERS]
    return ", ".join(sorted("adult" if part in ("man", "woman") else part for part in kept))


def _shown(parts: list[str]) -> int | None:
    if sum(part in PEOPLE for part in parts) > 1:
        return None
    name = ", ".join(part for part in parts if not part.startswith(TONE))
    return next((i for i, pattern in enumerate(SHOWN.values()) if re.match(pattern, name)), None)


def _tone(parts: list[str]) -> int | None:
    """Skin tone, 0 (lightest) to 4: Fitzpatrick types 1-2 to 6. None if there is no tone, or more than one."""
    tones = [part for part in parts if part.startswith(TONE)]
    return int(tones[0][-1]) - 2 if len(tones) == 1 else None
