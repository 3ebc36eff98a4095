"""Going on from a trained model, also with other modalities: what both know is taken over, what is new keeps its random start."""

import dataclasses
import filecmp
from pathlib import Path

import torch

from maskweave.bundle import io as saving
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM

SAME = ("kind", "grid", "max_tokens", "positions", "vocabulary", "row_width")
"""Facts of an entry that its weights rest on."""


@torch.no_grad()
def warm_start(model: FourM, catalog: Catalog, folder: Path) -> list[str]:
    """Take over the weights of the bundle (or finished run) at `folder`.

    Modalities are told apart by their names, whatever their ids.

    Returns:
        Sentences about the modalities that only one of the two has.

    Raises:
        MaskweaveError: no bundle, another architecture, or a modality whose entry has changed; names what differs.
    """
    if (folder / "config.json").is_file():
        raise MaskweaveError(
            f"start: {folder} is a published checkpoint; make a bundle of it first: maskweave import 4m {folder} --out BUNDLE"
        )
    theirs = saving.load_saved_catalog(folder)
    donor = saving.load_model(folder, theirs)
    if not isinstance(donor, FourM):
        raise MaskweaveError(f"start: {folder} holds an M3AE; give the bundle of a run of objective 'fourm'")
    _check_configuration(model, donor, folder)
    shared = [name for name in catalog if name in theirs]
    for name in shared:
        facts = {fact: (getattr(theirs[name], fact), getattr(catalog[name], fact)) for fact in SAME}
        sizes = [c.vocabulary_size(name) if c[name].has_tokens else 0 for c in (theirs, catalog)]
        facts["vocabulary size"] = (sizes[0], sizes[1])
        differing = [
            f"{fact} is {shown(was)} there, {shown(now)} here" for fact, (was, now) in facts.items() if was != now
        ]
        if differing:
            raise MaskweaveError(
                f"start: {name!r} of {folder} is of another entry than {catalog.where}'s: {'; '.join(differing)}. Rename the entry to begin it anew"
            )
    if not shared:
        raise MaskweaveError(f"start: {folder} knows none of {', '.join(catalog)}; it would give nothing to start from")
    ours, given = model.state_dict(), donor.state_dict()
    names = _parameters_of(model, shared)
    for name, tensor in ours.items():
        if name in given and (
            name in names
            or not name.startswith(("token_embedding.", "target_token_embedding.", "heads.", "position_embedding."))
        ):
            tensor.copy_(given[name])
    for name in shared:
        model.position_embedding.modality.weight[catalog[name].id] = donor.position_embedding.modality.weight[
            theirs[name].id
        ]
        if catalog[name].positions == "learned":
            here, there = (
                model.position_embedding.learned_rows(catalog[name]),
                donor.position_embedding.learned_rows(theirs[name]),
            )
            for mine, its in (
                (model.position_embedding.learned, donor.position_embedding.learned),
                (model.position_embedding.learned_of_targets, donor.position_embedding.learned_of_targets),
            ):
                assert mine is not None and its is not None
                mine[here] = its[there]
    new = [name for name in catalog if name not in theirs]
    left = [name for name in theirs if name not in catalog]
    return [
        *([f"{', '.join(new)}: not in {folder}, so initialized anew"] if new else []),
        *([f"{', '.join(left)}: of {folder}, not in this recipe, left behind"] if left else []),
    ]


def other_tokenizers(catalog: Catalog, ours: Path, theirs: Path) -> list[str]:
    """Sentences about tokenizers that are not the bundle's, so that tokens mean other things than the weights taken over.

    Args:
        ours, theirs: folders with a tokenizer for each name of a grid or vocabulary.
    """
    names = dict.fromkeys(m.vocabulary or m.name for m in catalog.values() if m.has_tokens)
    files = [Path(name) / file for name in names for file in ("model.safetensors", "tokenizer.json")]
    both = [file for file in files if (ours / file).is_file() and (theirs / file).is_file()]
    differing = [str(file.parent) for file in both if not filecmp.cmp(ours / file, theirs / file, shallow=False)]
    if not differing:
        return []
    return [
        f"{', '.join(differing)}: other tokenizers than {theirs} has, so tokens mean other things to the weights taken over; "
        f"set tokenizers.reuse: {theirs} and begin in another folder"
    ]


def _check_configuration(model: FourM, donor: FourM, folder: Path) -> None:
    free = {"size", "init_from_tokenizers"}
    differing = [
        f"{f.name} is {getattr(donor.config, f.name)} there, {getattr(model.config, f.name)} here"
        for f in dataclasses.fields(model.config)
        if f.name not in free and getattr(donor.config, f.name) != getattr(model.config, f.name)
    ]
    if differing:
        raise MaskweaveError(
            f"start: the model of {folder} is of another architecture: {'; '.join(differing)}. Set model.* as there"
        )


def _parameters_of(model: FourM, names: list[str]) -> set[str]:
    """State names of the tables, projections and heads of these modalities."""
    return {
        part
        for name in names
        for table in [model.tables.get(name, name)]
        for part in (
            *(
                f"{owner}.for_{table}.weight"
                for owner in ("token_embedding.tokens", "target_token_embedding.tokens", "heads")
            ),
            f"token_embedding.rows.for_{name}.weight",
            f"token_embedding.rows.for_{name}.bias",
        )
    }
