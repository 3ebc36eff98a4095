"""Copies weights of a trained model into a new one that may have other modalities. Weights that only the new model has stay random.

Modalities are matched by name; their ids may differ.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.differences import entry_differences
from maskweave.modality.entry import Modality
from maskweave.models.fourm import FourM
from maskweave.models.joint_encoder import JointEncoder
from maskweave.values.array import Array

SAME = ("kind", "grid", "max_tokens", "positions", "vocabulary", "row_width")
"""Fields of an entry that its weights depend on."""


@torch.no_grad()
def copy_fourm(model: FourM, catalog: Catalog, donor: FourM, theirs: Catalog, where: str) -> list[str]:
    """Copies the weights that two 4M models share.

    Args:
        theirs: the donor's modalities.
        where: folder of the donor, for messages.

    Returns:
        Sentences about the modalities that only one of the two models has.

    Raises:
        MaskweaveError: the architectures or the entry of a modality differ; the message lists the differences.
    """
    _check_architecture(model.config, donor.config, where)
    shared = _shared(catalog, theirs, where, other_channels=True)
    ours, given = model.state_dict(), donor.state_dict()
    names = _parameters_of(model, shared)
    entries = {name: (catalog[name], theirs[name]) for name in shared}
    other_channels = [n for n, (a, b) in entries.items() if a.row_width != b.row_width or _are_reordered(a, b)]
    sentences = [_copy_channels(model, catalog[name], donor, theirs[name]) for name in other_channels]
    names -= {f"token_embedding.rows.for_{name}.weight" for name in other_channels}
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
    for name in shared:
        if name not in other_channels:
            sentences += _fourm_scale(model, catalog[name], theirs[name])
        elif differing := _other_scale(catalog[name], theirs[name]):
            sentences.append(f"{name}: {differing}; not mapped, because its channels differ, too")
    return sentences + _differences(catalog, theirs, where)


@torch.no_grad()
def copy_joint_encoder(
    model: JointEncoder, catalog: Catalog, donor: JointEncoder, theirs: Catalog, where: str
) -> list[str]:
    """Copies all weights between two models of a joint encoder's family with the same modalities; arguments, result and errors as for `copy_fourm`."""
    _check_architecture(model.config, donor.config, where)
    _shared(catalog, theirs, where)
    if different := _differences(catalog, theirs, where):
        raise MaskweaveError(
            f"start: this model can only start from one with the same modalities. {'; '.join(different)}; use the same modalities, or remove 'start'"
        )
    if differing := [name for name in catalog if catalog[name].id != theirs[name].id]:
        raise MaskweaveError(
            f"start: {where} has other ids for {', '.join(differing)}; set the ids of these entries to those of {where}"
        )
    model.load_state_dict(donor.state_dict())
    return [note for name in catalog for note in _joint_scale(model, catalog[name], theirs[name])]


READING = ("array", "fit", "bands", "scale", "offset", "use_scale_tags", "background", "outside", "missing", "storage")
"""Settings of a value that say how files are read, and so not what the model sees."""


def _fourm_scale(model: FourM, ours: Modality, theirs: Modality) -> list[str]:
    """Maps the embedding of raw rows to the scale of our entry; returns a sentence about what differs and whether it was mapped."""

    def embedding() -> tuple[torch.Tensor, torch.Tensor]:
        rows: Any = model.token_embedding.rows[ours.name]
        return rows.weight, model.position_embedding.modality.weight[ours.id]

    return _map_scale(ours, theirs, embedding)


def _joint_scale(model: JointEncoder, ours: Modality, theirs: Modality) -> list[str]:
    """As `_fourm_scale`. What the model predicts is not mapped, because the objective may normalize it."""

    def embedding() -> tuple[torch.Tensor, torch.Tensor]:
        layer: Any = model.token_embedding[ours.name]
        return layer.weight, layer.bias

    beside = "; its predictions are not mapped" if hasattr(model, "heads") else ""
    return _map_scale(ours, theirs, embedding, beside)


def _map_scale(
    ours: Modality,
    theirs: Modality,
    embedding: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    beside: str = "",
) -> list[str]:
    """Maps weight (D, C) and constant (D,) of an embedding to the scale of our entry, in place.

    Args:
        embedding: returns both; called only if the map is linear.
        beside: what the sentence about a mapped embedding adds.
    """
    differing = _other_scale(ours, theirs)
    if not differing:
        return []
    if (change := _rescaling(ours, theirs)) is None:
        return [
            f"{ours.name}: {differing}, so its values mean something else to the copied weights; they are not mapped"
        ]
    weight, constant = embedding()
    factor_C, shift_C = (part.to(weight) for part in change)
    constant += weight @ shift_C
    weight *= factor_C
    return [
        f"{ours.name}: {differing}; its embedding was mapped, so the copied encoder sees the same as before{beside}"
    ]


def _other_scale(ours: Modality, theirs: Modality) -> str:
    """Which settings that decide what the model sees of a value differ; empty if none do."""
    found = entry_differences(ours, theirs, ("value",))
    found = [text for text in found if text.split(" ")[0].removeprefix("value.") not in (*READING, "channels")]
    if None in (getattr(value, "fitted", None) for value in (ours.value, theirs.value)):  # a grid's tokenizer has it
        found = [text for text in found if not text.startswith("value.fitted ")]
    if ours.value.unit != theirs.value.unit:
        found.append(f"value.unit is {theirs.value.unit!r} there, {ours.value.unit!r} here")
    return ", ".join(found)


def _rescaling(ours: Modality, theirs: Modality) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns factor and shift (C,) that turn raw rows, scaled as by our entry, into rows scaled as by theirs; None if that is no linear map."""
    a, b = ours.value, theirs.value
    plain = ("type", "channels", "trim_quantile", "unit")
    if ours.has_tokens or not isinstance(a, Array) or any(getattr(a, k, None) != getattr(b, k, None) for k in plain):
        return None
    assert isinstance(b, Array)
    if getattr(a, "learned", None) or getattr(b, "learned", None):
        return None
    (f, s), (g, t) = a.factor_shift, b.factor_shift
    factor, shift = np.broadcast_to(g / f, a.channels), np.broadcast_to(t - s * g / f, a.channels)
    points = ours.row_width // a.channels
    return torch.from_numpy(np.tile(factor, points)), torch.from_numpy(np.tile(shift, points))


def has_other_channels(ours: Modality, theirs: Modality) -> bool:
    """Whether two entries of raw patches differ in their channels, but not in what else their weights depend on."""
    same = all(getattr(ours, fact) == getattr(theirs, fact) for fact in SAME if fact != "row_width")
    values = ours.value, theirs.value
    return (
        same
        and ours.kind == "patches"
        and values[0].type == values[1].type
        and values[0].size == values[1].size
        and values[0].channels != values[1].channels
    )


def _are_reordered(ours: Modality, theirs: Modality) -> bool:
    """Whether entries of raw patches name some of the same channels, but in another order or beside others."""
    names, known = (list(getattr(m.value, "channel_names", ())) for m in (ours, theirs))
    return ours.kind == "patches" and names != known and bool({*names} & {*known})


def matching_channels(ours: Modality, theirs: Modality) -> tuple[list[int], list[int]]:
    """Returns the channels that two entries share, as indices into each: by name if both name their channels, otherwise by position."""
    names, known = map(_channel_names, (ours, theirs))
    if names and known:
        found = [(i, known.index(name)) for i, name in enumerate(names) if name in known]
    else:
        found = [(i, i) for i in range(min(ours.value.channels, theirs.value.channels))]
    return [i for i, _ in found], [j for _, j in found]


def _channel_names(modality: Modality) -> list[str]:
    names: Sequence[str] = getattr(modality.value, "channel_names", None) or ()
    return list(names)


def _copy_channels(model: FourM, ours: Modality, donor: FourM, theirs: Modality) -> str:
    """Copies the weights of the shared channels of an input; those of new channels stay random. Returns a sentence about it."""
    here, there = matching_channels(ours, theirs)
    weights: list[Any] = [m.token_embedding.rows[ours.name].weight for m in (model, donor)]
    mine, its = (w.view(len(w), -1, e.value.channels) for w, e in zip(weights, (ours, theirs), strict=True))
    mine[..., here] = its[..., there]
    by = "name" if _channel_names(ours) and _channel_names(theirs) else "position"
    return (
        f"{ours.name}: {ours.value.channels} channels, {theirs.value.channels} in the start; the weights of {len(here)} are kept, matched by {by}, "
        f"and {ours.value.channels - len(here)} are new"
    )


def _shared(catalog: Catalog, theirs: Catalog, where: str, other_channels: bool = False) -> list[str]:
    """Returns the modalities that both models have, after checking that their entries are the same.

    Args:
        other_channels: raw patches may differ in their channels.
    """
    shared = [name for name in catalog if name in theirs]
    for name in shared:
        facts = {fact: (getattr(theirs[name], fact), getattr(catalog[name], fact)) for fact in SAME}
        sizes = [c.vocabulary_size(name) if c[name].has_tokens else 0 for c in (theirs, catalog)]
        if other_channels and has_other_channels(catalog[name], theirs[name]):
            del facts["row_width"]
        facts["vocabulary size"] = (sizes[0], sizes[1])
        differing = [f"{fact} is {was} there and {now} here" for fact, (was, now) in facts.items() if was != now]
        if differing:
            raise MaskweaveError(
                f"start: the entry of {name!r} in {where} differs from that in {catalog.where}: {'; '.join(differing)}. Rename the entry to train it from scratch"
            )
    if not shared:
        raise MaskweaveError(
            f"start: {where} has none of the modalities {', '.join(catalog)}; use a model that has some of them, or remove 'start'"
        )
    return shared


def _differences(catalog: Catalog, theirs: Catalog, where: str) -> list[str]:
    new = [name for name in catalog if name not in theirs]
    left = [name for name in theirs if name not in catalog]
    return [
        *([f"{', '.join(new)}: not in {where}, randomly initialized"] if new else []),
        *([f"{', '.join(left)}: in {where} but not in this recipe, not used"] if left else []),
    ]


def _check_architecture(ours: Any, theirs: Any, where: str) -> None:
    free = {"size", "init_from_tokenizers"}
    differing = [
        f"{f.name} is {getattr(theirs, f.name)} there and {getattr(ours, f.name)} here"
        for f in dataclasses.fields(ours)
        if f.name not in free and getattr(theirs, f.name) != getattr(ours, f.name)
    ]
    if differing:
        raise MaskweaveError(
            f"start: the model in {where} has another architecture: {'; '.join(differing)}. Set the model.* keys to its values"
        )


def _parameters_of(model: FourM, names: list[str]) -> set[str]:
    """Returns the state names of the tables, projections and heads of these modalities."""
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
