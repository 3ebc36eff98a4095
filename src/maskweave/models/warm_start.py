"""Weights of a trained model in a new one that may have other modalities: what both know is copied, the rest keeps its random start.

Modalities are told apart by their names, whatever their ids.
"""

import dataclasses
from typing import Any

import torch

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM
from maskweave.models.m3ae import M3AE

SAME = ("kind", "grid", "max_tokens", "positions", "vocabulary", "row_width")
"""Facts of an entry that its weights rest on."""


@torch.no_grad()
def copy_fourm(model: FourM, catalog: Catalog, donor: FourM, theirs: Catalog, where: str) -> list[str]:
    """Copy what two 4M models share.

    Args:
        theirs: the donor's modalities.
        where: the donor's place, for messages.

    Returns:
        Sentences about the modalities that only one of the two has.

    Raises:
        MaskweaveError: another architecture, or a modality whose entry has changed; names what differs.
    """
    _check_architecture(model.config, donor.config, where)
    shared = _shared(catalog, theirs, where)
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
    return _told(catalog, theirs, where)


@torch.no_grad()
def copy_m3ae(model: M3AE, catalog: Catalog, donor: M3AE, theirs: Catalog, where: str) -> list[str]:
    """Copy all weights between two M3AEs of the same modalities; otherwise as `copy_fourm`."""
    _check_architecture(model.config, donor.config, where)
    _shared(catalog, theirs, where)
    if different := _told(catalog, theirs, where):
        raise MaskweaveError(f"start: an M3AE goes on with the same modalities alone. {'; '.join(different)}")
    if differing := [name for name in catalog if catalog[name].id != theirs[name].id]:
        raise MaskweaveError(
            f"start: {where} has other ids for {', '.join(differing)}; give these entries the ids they have there"
        )
    model.load_state_dict(donor.state_dict())
    return []


def _shared(catalog: Catalog, theirs: Catalog, where: str) -> list[str]:
    """The modalities that both have, of the same entries."""
    shared = [name for name in catalog if name in theirs]
    for name in shared:
        facts = {fact: (getattr(theirs[name], fact), getattr(catalog[name], fact)) for fact in SAME}
        sizes = [c.vocabulary_size(name) if c[name].has_tokens else 0 for c in (theirs, catalog)]
        facts["vocabulary size"] = (sizes[0], sizes[1])
        differing = [f"{fact} is {was} there, {now} here" for fact, (was, now) in facts.items() if was != now]
        if differing:
            raise MaskweaveError(
                f"start: {name!r} of {where} is of another entry than {catalog.where}'s: {'; '.join(differing)}. Rename the entry to begin it anew"
            )
    if not shared:
        raise MaskweaveError(f"start: {where} knows none of {', '.join(catalog)}; it would give nothing to start from")
    return shared


def _told(catalog: Catalog, theirs: Catalog, where: str) -> list[str]:
    new = [name for name in catalog if name not in theirs]
    left = [name for name in theirs if name not in catalog]
    return [
        *([f"{', '.join(new)}: not in {where}, so initialized anew"] if new else []),
        *([f"{', '.join(left)}: of {where}, not in this recipe, left behind"] if left else []),
    ]


def _check_architecture(ours: Any, theirs: Any, where: str) -> None:
    free = {"size", "init_from_tokenizers"}
    differing = [
        f"{f.name} is {getattr(theirs, f.name)} there, {getattr(ours, f.name)} here"
        for f in dataclasses.fields(ours)
        if f.name not in free and getattr(theirs, f.name) != getattr(ours, f.name)
    ]
    if differing:
        raise MaskweaveError(
            f"start: the model of {where} is of another architecture: {'; '.join(differing)}. Set model.* as there"
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
