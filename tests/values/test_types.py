"""What holds for every value type: its own fields and no others, written and read again; and the labels that values tell."""

import dataclasses

import numpy as np
import pytest
import yaml

from maskweave.config import build, plain
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog, shipped
from maskweave.values import BUILT_IN, value_type, value_types
from maskweave.values.base import ValueType
from maskweave.values.boxes import Boxes
from maskweave.values.instances import Instances
from maskweave.values.metadata import Key, Metadata

TYPES = value_types()
KEYS = {name: {field: key for key, field in getattr(cls, "aliases", {}).items()} for name, cls in TYPES.items()}
FIELDS = {name: {KEYS[name].get(f.name, f.name) for f in dataclasses.fields(cls)} for name, cls in TYPES.items()}
ENTRIES = [
    pytest.param(modality.value, id=f"{name}-{modality.name}")
    for name in shipped()
    for modality in load_catalog(name).values()
]


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_known_by_its_name_and_says_what_its_values_are(name: str) -> None:
    cls = value_type(name)
    assert cls.type == name and cls.python and cls.kinds
    assert set(cls.default_metrics) <= set(cls().metrics())
    assert cls.losses or "grid" not in cls.kinds or cls.tokenized_by == "rules", "grids have a tokenizer network"
    assert len(BUILT_IN) == len({cls.type for cls in BUILT_IN}) <= len(TYPES)


ABILITIES = {
    "is_photograph": {"image"},
    "is_text": {"text"},
    "may_be_empty": {"label", "scalar", "tags", "text"},
    "is_mask": {"binary", "map"},
    "is_embedding": {"vector"},
    "blends_patches": {"series"},
    "can_be_weighted": {"features", "map", "series", "vector"},
}
"""The built-in types that can do something special."""
NOT_MERGEABLE = {"metadata", "palette", "poses", "queries", "text", "vectors"}
CLASSES_OF_POINTS = {"classes"}


def test_abilities_of_the_built_in_types() -> None:
    for ability, types in ABILITIES.items():
        assert {cls.type for cls in BUILT_IN if getattr(cls, ability)} == types, ability
    assert {cls.type for cls in BUILT_IN if not cls.mergeable} == NOT_MERGEABLE
    assert {cls.type for cls in BUILT_IN if not cls.can_add_noise} == CLASSES_OF_POINTS
    by_rules = {cls.type for cls in BUILT_IN if cls.tokenized_by == "rules"}
    assert by_rules == {"label", "scalar", "tags"}
    heads = {cls.type: cls.head for cls in BUILT_IN if cls.head}
    dense = dict.fromkeys(("audio", "classes", "direction", "map", "series"), "points")
    assert heads == dense | {
        "boxes": "boxes",
        "boxes3d": "boxes",
        "label": "label",
        "tags": "sample",
        "scalar": "numbers",
        "vector": "numbers",
    }


@pytest.mark.parametrize("name", TYPES)
def test_fields_of_other_types_are_refused(name: str) -> None:
    foreign = set().union(*FIELDS.values()) - FIELDS[name] - set(getattr(TYPES[name], "aliases", {}))
    assert len(foreign) >= 8
    for field in sorted(foreign):
        with pytest.raises(
            MaskweaveError, match=rf"^f.yaml: unknown key 'value.{field}'; it is only valid if value.type is '"
        ):
            build(ValueType, {"type": name, field: 1}, "f.yaml", "value")


def test_fields_of_former_names_are_refused() -> None:
    for content, said in (
        ({"type": "map", "size": [4], "tails": 0.1}, "the key 'value.tails' is now 'value.trim_quantile'; rename it"),
        ({"type": "image", "size": [4], "deviation": [1.0]}, "the key 'value.deviation' is now 'value.std'; rename it"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            build(ValueType, content, "f.yaml", "value")


def written_and_read(value: ValueType) -> ValueType:
    return build(ValueType, yaml.safe_load(yaml.safe_dump(plain(value))), "again")


@pytest.mark.parametrize("value", ENTRIES)
def test_values_of_shipped_catalogs_survive_being_written(value: ValueType) -> None:
    again = written_and_read(value)
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize("name", TYPES)
def test_defaults_survive_being_written(name: str) -> None:
    assert written_and_read(value_type(name)()) == value_type(name)()


# Labels.


def test_metadata_tells_its_whole_numbers() -> None:
    keys = {
        "count": Key(0, (0, 3), bins=4, integer=True),
        "year": Key(1, (1999, 2001), integer=True),
        "height": Key(2, (0, 9)),
    }
    value = Metadata(keys=keys)
    assert value.labels == {"count": ("0", "1", "2", "3"), "year": ("1999", "2000", "2001")}
    facts = {"count": 2.2, "year": 2002, "height": 1}
    assert value.label_of(facts, "count") == "2"
    with pytest.raises(BadSample, match="year is 2002; expected 1999 to 2001"):
        value.label_of(facts, "year")
    with pytest.raises(BadSample, match="the key 'count' is missing"):
        value.label_of({"year": 2000}, "count")


def test_boxes_and_instances_tell_the_class_of_their_first() -> None:
    mask = np.ones((4, 4), bool)
    for value, extra in (
        (Boxes(classes=("a", "b")), {"box": [0, 0, 1, 1]}),
        (Instances((4, 4), ("a", "b")), {"mask": mask}),
    ):
        assert value.labels == {"first": ("a", "b")}
        assert value.label_of([{"class": "b", **extra}, {"class": "a", **extra}], "first") == "b"
        with pytest.raises(BadSample, match="the list is empty, so there is no first class"):
            value.label_of([], "first")


def test_other_types_tell_no_label(scenes_catalog: Catalog) -> None:
    for name in ("rgb", "depth", "semseg", "caption", "palette"):
        value = scenes_catalog[name].value
        assert not value.labels
        with pytest.raises(BadSample, match=f"values of type '{value.type}' have no label 'first'"):
            value.label_of(None, "first")
