"""Shortcuts for tests of value types."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskweave.modality.entry import Modality
from maskweave.values import value_type
from maskweave.values.base import ValueType


def value_of(type: str, **settings: Any) -> ValueType:
    """A value type by name; settings that it does not have are left out."""
    cls = value_type(type)
    return cls(**{name: setting for name, setting in settings.items() if name in cls.__dataclass_fields__})


def network(modality: Modality, values: Any, first: int = 0) -> Tensor:
    """A batch of values, checked, as the tokenizer's network takes it."""
    return modality.value.to_network(modality.value.check_batch(values, modality.name, first))


def colors(
    modality: Modality, value: Any, span: tuple[float, float] | None = None, reference: Any = None
) -> np.ndarray:
    """Colors of each point of a dense value."""
    v: Any = modality.value
    return v.colors(v.drawable(value), span, reference)


def legend(
    modality: Modality, values: Sequence[Any] | None = None, width: int = 420, span: tuple[float, float] | None = None
) -> Any:
    return modality.value.legend(span, values, width)


def merge(modality: Modality, values: Sequence[Any], overlap: float = 0.5) -> Any:
    return modality.value.merge(values, overlap)
