"""Encoder and head of a transfer: built from a recipe, or loaded from a finished run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.arguments import check_arguments
from maskweave.config import build, plain
from maskweave.errors import MaskweaveError
from maskweave.families.base import family_named, family_of
from maskweave.families.weights import FORMAT, load_model, read_config, unfinished
from maskweave.files import write_aside, write_json
from maskweave.generate.engine import Precision
from maskweave.generate.places import find_places
from maskweave.generate.request import Sample, read
from maskweave.generate.tiles import OVERLAP, Tiled, plane_output, predict_tiles
from maskweave.masking.inputs import raw_inputs, read_inputs
from maskweave.modality.catalogs import Catalog, load_saved_catalog
from maskweave.models.encoder import Encoder, add_stochastic_depth
from maskweave.models.lora import add_lora, merge_lora
from maskweave.models.sample_heads import NumberHead, PooledHead
from maskweave.nn.weights import save_weights, take_tensors
from maskweave.objectives.transfer import TransferObjective
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.transfer.encoding import encoded_for_head
from maskweave.transfer.recipe import HeadSettings, TransferRecipe
from maskweave.transfer.target import Target, make_target
from maskweave.transfer.task import TargetFacts, make_head, number_answers, raw_names, task_loss
from maskweave.transfer.thinking import FOLDER, Thinking, open_thinking
from maskweave.values.detection import Detected
from maskweave.values.distribution import point

LEAST_SCORE = 0.5
"""Predicted boxes below this probability are dropped; scoring keeps them."""


class Built(NamedTuple):
    objective: TransferObjective
    notes: list[str]
    """Sentences about new modalities and about weights that are not used."""


def build_objective(recipe: TransferRecipe, catalog: Catalog, target: Target, facts: TargetFacts) -> Built:
    """Build the encoder with the weights of `recipe.start`, a new head, and the loss.

    Args:
        facts: of the targets of the training examples.

    Raises:
        MaskweaveError: no starting model, inputs that it cannot read, or a head that does not fit.
    """
    folder = recipe.start_folder
    known = load_saved_catalog(folder)
    donor: Any = load_model(folder, known)
    family = family_of(donor)
    new = [name for name in recipe.inputs if catalog[name].name not in known]
    if new and not family.learns_new_inputs:
        raise MaskweaveError(
            f"{folder}: a model of family {family.name!r} cannot learn new inputs ({', '.join(new)}); use its inputs {', '.join(known)}, or a run of another family, such as fourm"
        )
    entries = catalog.subset([*known, *new])
    torch.manual_seed(recipe.seed)
    model = family.build_model(entries, donor.config)
    notes = [] if recipe.scratch else family.warm_start(model, entries, donor, known, folder)
    encoder = family.encoder(model, entries, [*recipe.inputs, *recipe.think]).drop_decoder()
    encoder.new, encoder.thoughts = new, list(recipe.think)
    head = make_head(encoder, target, recipe.head, len(facts.centers))
    if isinstance(head, NumberHead):
        head.set_scale(facts.mean, facts.std)
        if head.form == "histogram":
            head.set_bins(facts.edges, facts.centers)
    tuning = recipe.tuning
    if tuning.parameters != "all":
        encoder.requires_grad_(False)
        for p in encoder.new_parameters():
            p.requires_grad_(True)
    if tuning.parameters == "lora":
        add_lora(encoder.blocks, tuning.rank, tuning.alpha, tuning.mlp)
    if tuning.stochastic_depth and tuning.parameters != "head":
        add_stochastic_depth(encoder.blocks, tuning.stochastic_depth)
    return Built(
        TransferObjective(encoder, head, task_loss(target, head, facts, recipe.loss), tuning.layer_decay), notes
    )


class Transferred:
    """A fine-tuned encoder with its head, for predictions.

    Args:
        catalog: entries of the inputs and of the target.
        partial: samples may lack some of the inputs.
        thinking: generates further inputs of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        target: Target,
        catalog: Catalog,
        tokenizers: Mapping[str, Tokenizer],
        partial: bool = False,
        thinking: Thinking | None = None,
    ):
        self.partial, self.thinking = partial, thinking
        self.encoder, self.head, self.target = encoder.eval(), head.eval(), target
        self.catalog, self.tokenizers = catalog, tokenizers

    def predict(self, samples: Sequence[Sample], *, batch_size: int = 64, distributions: bool = False) -> list[Any]:
        """Returns a prediction per sample: a class name, a list of tags, a number or vector, a dense value in its entry's form, or boxes
        with their "score", best first: `{"class", "box", "score"}` in a picture.

        Args:
            samples: each with all inputs (with some of them, if it was trained with modality_dropout), in any form that `Bundle.generate` accepts.
            distributions: return the distributions of numbers and tags instead of their values.

        Raises:
            MaskweaveError: an input is missing or does not fit its entry.
        """
        values = [read({n: s[n] for n in s if n in self._wanted}, self.catalog, self.tokenizers) for s in samples]
        answers: list[Any] = []
        for start in range(0, len(values), batch_size):
            answers += self.answers(self.outputs(values[start : start + batch_size]), whole=distributions)
        return answers

    def tiles(
        self,
        scene: Sample,
        *,
        overlap: float = OVERLAP,
        batch_size: int = 8,
        folder: str | os.PathLike[str] | None = None,
    ) -> Tiled:
        """Predicts a dense target of a scene of any size from overlapping tiles, and blends them: classes by their probabilities. `Bundle.tiles` explains the arguments.

        Raises:
            MaskweaveError: the target is not a plane, or as `predict_tiles`.
        """
        target = self.target
        if target.kind != "points" or target.modality is None:
            raise MaskweaveError(
                f"target {target.name!r}: tiles give planes, and it is none; predict each tile by itself"
            )
        value, name = target.modality.value, target.modality.name

        def predict(samples: Sequence[Sample], numbers: Sequence[int]) -> list[dict[str, np.ndarray]]:
            output = self.outputs([read(s, self.catalog, self.tokenizers) for s in samples]).float()
            if value.num_classes:
                return [{name: array} for array in output.softmax(dim=1).movedim(1, -1).cpu().numpy()]
            return [{name: value.to_blend(array)} for array in value.from_network(output)]

        given = {n: v for n, v in scene.items() if n in self._wanted}
        tiled = predict_tiles(
            self.catalog,
            given,
            {name: plane_output(value, name)},
            predict,
            overlap=overlap,
            batch_size=batch_size,
            folder=Path(folder) if folder else None,
        )
        tiled.places = find_places(given, self.catalog, tiled=True)
        return tiled

    @property
    def _wanted(self) -> set[str]:
        return {form for name in self.encoder.given for form in (name, self.catalog[name].reads)}

    @torch.inference_mode()
    def outputs(self, values: Sequence[Mapping[str, Any]], precision: Precision = "float32") -> Tensor:
        """Returns the head's output for checked values.

        Args:
            precision: of the encoder's matrix products.
        """
        device = next(self.head.parameters()).device
        inputs = read_inputs(values, self.catalog, self.tokenizers, self.encoder.given, self.partial)
        if self.thinking:
            inputs = self.thinking.added(inputs, values, self.encoder.names)
        inputs = inputs.to(device)
        raw = {n: x.to(device) for n, x in raw_inputs(values, self.catalog, raw_names(self.head)).items()}
        return self.head(encoded_for_head(self.encoder, inputs, device, precision)._replace(raw=raw))

    def answers(self, output: Tensor, least: float = LEAST_SCORE, whole: bool = False) -> list[Any]:
        """Converts the head's output to what `predict` returns.

        Args:
            least: boxes with a lower score are dropped.
            whole: return distributions instead of values where there are any, for scores.
        """
        if self.target.kind == "label":
            return [self.target.classes[i] for i in output.argmax(dim=-1).tolist()]
        value = self.target.value
        assert value is not None
        if not isinstance(value, Detected):
            if isinstance(self.head, NumberHead):
                found = number_answers(self.target, self.head, output)
            else:
                found = value.answers(output)
            return found if whole else [point(answer) for answer in found]
        predictions, count = [], value.box_numbers
        for logits, rows in zip(output[-1, ..., :-count].softmax(-1), output[-1, ..., -count:], strict=True):
            score, label = (t.cpu().numpy() for t in logits[:, :-1].max(dim=-1))
            order = [q for q in np.argsort(-score) if score[q] >= least]
            names = [self.target.classes[label[q]] for q in order]
            predictions.append(value.detections(rows.cpu().numpy()[order], names, score[order].tolist()))
        return predictions


def save_transferred(
    objective: TransferObjective, catalog: Catalog, target: Target, recipe: TransferRecipe, folder: Path
) -> None:
    """Write `folder/model`. LoRA layers are merged into the weights first."""
    merge_lora(objective.encoder)
    encoder = objective.encoder
    with write_aside(folder / "model") as aside:
        aside.mkdir()
        config = {
            "format": FORMAT,
            "family": family_of(encoder.model).name,
            "model": plain(encoder.model.config),
            "modalities": list(encoder.catalog),
            "transfer": {
                "inputs": encoder.given,
                "think": encoder.thoughts,
                "target": target.modality.name if target.modality else "",
                "label": target.label,
                "classes": [] if target.modality else list(target.classes),
                "head": plain(recipe.head),
                "partial": recipe.data.modality_dropout > 0,
                "bins": _bins(objective.head),
                "features": objective.head.blocks if isinstance(objective.head, PooledHead) else {},
            },
        }
        write_json(aside / "config.json", config)
        save_weights(_tensors(encoder, objective.head), aside / "model.safetensors")


def _bins(head: nn.Module) -> int:
    return len(head.bin_centers) if isinstance(head, NumberHead) and head.form == "histogram" else 0


def _tensors(encoder: Encoder, head: nn.Module) -> dict[str, Tensor]:
    return nn.ModuleDict({"encoder": encoder, "head": head}).state_dict()


@check_arguments
def load_transferred(folder: Path, device: torch.device | str = "cpu") -> Transferred:
    """Open the folder of a finished transfer.

    Raises:
        MaskweaveError: the folder is not a transfer, is not finished, is of an earlier version with other heads, or is damaged.
    """
    path = folder / "model" / "config.json"
    catalog = load_saved_catalog(folder)
    if not path.is_file():
        raise unfinished(folder)
    config = read_config(path)
    if "transfer" not in config:
        raise MaskweaveError(f"{path}: not a model of a transfer; open it with maskweave.load")
    earlier = MaskweaveError(
        f"{path}: a transfer of an earlier version, with other heads; run it again into a new folder"
    )
    if "partial" not in config["transfer"]:
        raise earlier
    try:
        entries, task = catalog.subset(config["modalities"]), config["transfer"]
        target = make_target(catalog, task["target"], task["label"], task["classes"])
        family = family_named(config["family"])
        model = family.empty_model(entries, build(family.Config, config["model"], str(path), "model"))
        thoughts = task.get("think", [])
        encoder = family.encoder(model, entries, [*task["inputs"], *thoughts]).drop_decoder()
        encoder.thoughts = thoughts
        head = make_head(encoder, target, build(HeadSettings, task["head"], str(path), "head"), task.get("bins", 0))
    except KeyError as error:
        raise MaskweaveError(f"{path}: the key {error} is missing; copy the run again") from error
    if isinstance(head, PooledHead) and head.raw and task.get("features") != head.blocks:
        raise earlier
    take_tensors(nn.ModuleDict({"encoder": encoder, "head": head}), folder / "model" / "model.safetensors")
    tokenizers = load_tokenizers(folder / "tokenizers", entries)
    thinking = open_thinking(folder / FOLDER, catalog, thoughts, task["inputs"])
    if thinking:
        thinking.bundle.to(device)
    return Transferred(
        encoder.to(device), head.to(device), target, catalog, tokenizers, bool(task.get("partial")), thinking
    )
