"""Which feature of a published layout gives the values of which modality."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskweave.errors import MaskweaveError, shown


def named_features(
    place: Path, entries: Sequence[str], fields: Mapping[str, str], features: Sequence[str]
) -> dict[str, str]:
    """Returns the feature of each modality that has its name, or that `fields` (`data.fields`) gives it.

    Raises:
        MaskweaveError: `fields` has no modality of the catalog, or no feature of the layout.
    """
    for name, feature in fields.items():
        if name not in entries:
            raise MaskweaveError(
                f"{place}: data.fields has {name!r}; expected modalities of the catalog: {', '.join(entries)}"
            )
        if feature not in features:
            raise MaskweaveError(
                f"{place}: data.fields.{name}: there is no feature {shown(feature)}; found {', '.join(features)}"
            )
    return {name: fields.get(name, name) for name in entries if name in fields or name in features}


def with_likely_features(
    place: Path,
    entries: Sequence[str],
    found: Mapping[str, str],
    likely: Mapping[str, Sequence[str]],
    features: Sequence[str],
) -> dict[str, str]:
    """Returns the feature of each modality that has one, in the order of the catalog.

    Args:
        entries: modalities of the catalog.
        found: features by modality that are named so, or given by `data.fields`.
        likely: modalities without a feature that fit one by their values. It goes to a modality that is the only one.
        features: those that the layout has.

    Raises:
        MaskweaveError: no modality has a feature.
    """
    chosen = dict(found)
    for feature, names in likely.items():
        if feature in features and feature not in chosen.values() and len(names) == 1:
            chosen[names[0]] = feature
    if not chosen:
        raise MaskweaveError(
            f"{place}: no modality of the catalog has one of the features {', '.join(features)}; set data.fields: {{MODALITY: FEATURE}}"
        )
    return {name: chosen[name] for name in entries if name in chosen}
