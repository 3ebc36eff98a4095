"""One person's work: what is chosen, given and generated, and how the fields of the form become a request. Nothing here needs the page."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.generate.result import Generated
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.studio.editors import UNPAINTED, editors_of, ids_of, read_payloads, write_payload
from maskweave.studio.request import StudioRequest, region_from

DECODING = {
    "steps": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "guidance": float,
    "scheme": str,
}
"""Settings of a target that the form has, and their types. Empty fields leave the entry's own."""
OF_GRIDS = ("steps", "scheme")


class Field(NamedTuple):
    """One field of the form."""

    role: str
    """`input`, `decoding`, `condition`, `region` or `option`."""
    name: str
    """Of the modality; empty for options."""
    key: str
    """Widget of an input or region, setting of a target, or name of an option."""


@dataclass(eq=False)
class Desk:
    """What one browser window works on."""

    bundle: str = ""
    inputs: list[str] = field(default_factory=list)
    """Modalities whose editors are shown."""
    targets: list[str] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)
    """Values that were taken from a result, a sample or a saved request, checked, by modality."""
    drafts: dict[Field, Any] = field(default_factory=dict)
    """What the fields have sent: they have it again when the form is drawn again."""
    request: StudioRequest = field(default_factory=StudioRequest)
    """Gives the other fields their first values."""
    result: Generated | None = None
    """The latest one."""
    requests: int = 0
    """Counts what was generated."""
    version: int = 0
    """Counts changes of what the form shows."""
    begun: int = 0
    """Counts bundles and saved requests; all fields begin anew with each."""
    placed: dict[str, int] = field(default_factory=dict)
    """Counts, by modality, how often a value was put in other than by typing; its editors begin anew then."""

    def choose(self, bundle: str, catalog: Catalog) -> None:
        """Begins with a bundle: its first input and its first target."""
        self.bundle = bundle
        names = [m.name for m in catalog.values()]
        goals = [m.name for m in catalog.values() if m.is_target]
        texts = [m.name for m in catalog.values() if m.value.is_text]
        self.inputs = (texts or names)[:1]
        given = {catalog[n].reads for n in self.inputs}
        self.targets = [n for n in goals if catalog[n].reads not in given][:1]
        self.held, self.drafts, self.request, self.result = {}, {}, StudioRequest(), None
        self._begin()

    def hold(self, values: Mapping[str, Any]) -> None:
        """Gives values as inputs; they replace what their editors have."""
        self.held |= values
        self.inputs = [*self.inputs, *(name for name in values if name not in self.inputs)]
        for place in [*self.drafts]:
            if place.role in ("input", "region") and place.name in values:
                del self.drafts[place]
        for name in values:
            self.placed[name] = self.placed.get(name, 0) + 1
        self.version += 1

    def drawn(self, name: str) -> tuple[int, int]:
        """Returns which fields of a modality are there: all begin anew with a bundle or a saved request, those of a modality when a value is put in."""
        return self.begun, self.placed.get(name, 0)

    def keep(self, place: Field, payload: Any, drawn: tuple[int, int]) -> None:
        """Keeps what a field has, for the next form.

        Args:
            drawn: what `drawn` was when the field was drawn. What a field sends that is not there any more is ignored.
        """
        if drawn == self.drawn(place.name):
            self.drafts[place] = payload

    def drop(self, name: str) -> None:
        """Takes a held value away."""
        self.held.pop(name, None)
        self.version += 1

    def reopen(self, request: StudioRequest, catalog: Catalog) -> None:
        """Begins with a saved request."""
        self.request, self.drafts, self.result = request, {}, None
        self.held, self.inputs = dict(request.inputs), list(request.inputs)
        self.targets = list(request.targets)
        self._begin()

    def _begin(self) -> None:
        self.begun += 1
        self.version += 1

    def usable(self) -> dict[str, Any]:
        """Returns the inputs and results that can be inputs of the next request."""
        found = {} if self.result is None else self.result.as_inputs()
        return {name: value for name, value in found.items() if not isinstance(value, Tokens)}

    def edited(self, catalog: Catalog) -> list[str]:
        """Returns the targets that are also inputs, of which a region can be regenerated."""
        given = {catalog[name].reads for name in self.inputs}
        return [name for name in self.targets if catalog[name].reads in given]


def settings_of(modality: Modality) -> list[str]:
    """Returns the settings of a target that the form has."""
    return [key for key in DECODING if modality.kind != "sequence" or key not in OF_GRIDS]


def first_payload(desk: Desk, modality: Modality, widget: str) -> Any:
    """Returns what an input's widget shows when it is drawn: what it has sent before, or the value that is held."""
    if (place := Field("input", modality.name, widget)) in desk.drafts:
        return desk.drafts[place]
    editor = next(editor for editor in editors_of(modality.value) if editor.widget == widget)
    return write_payload(editor, modality.value, desk.held.get(modality.name))


def is_shown(desk: Desk, modality: Modality) -> bool:
    """Whether a widget shows the held value, so that the widget alone counts."""
    held = desk.held.get(modality.name)
    return any(write_payload(editor, modality.value, held) is not None for editor in editors_of(modality.value))


def input_value(desk: Desk, modality: Modality, payloads: Mapping[str, Any]) -> Any:
    """Returns the checked value of an input.

    Raises:
        MaskweaveError: nothing is given, or it does not fit.
    """
    value = read_payloads(modality, payloads)
    if value is None and not is_shown(desk, modality):
        value = desk.held.get(modality.name)
    if value is None:
        raise MaskweaveError(f"input {modality.name!r}: nothing is given; give a value, or take it out of the inputs")
    return value


def read_inputs(desk: Desk, catalog: Catalog, fields: Sequence[Field], payloads: Sequence[Any]) -> dict[str, Any]:
    """Returns the checked value of every chosen input; errors as `input_value`."""
    given: dict[str, dict[str, Any]] = {name: {} for name in desk.inputs}
    for one, payload in zip(fields, payloads, strict=True):
        if one.role == "input" and one.name in given:
            given[one.name][one.key] = payload
    return {name: input_value(desk, catalog[name], found) for name, found in given.items()}


def read_request(
    desk: Desk, catalog: Catalog, fields: Sequence[Field], payloads: Sequence[Any], schedule: str = ""
) -> StudioRequest:
    """Returns the request that the form describes.

    Args:
        payloads: one for each field.
        schedule: YAML to run instead of the form's settings.

    Raises:
        MaskweaveError: an input is missing or does not fit, or a field has no possible value.
    """
    decoding: dict[str, dict[str, Any]] = {}
    conditions: dict[str, float] = {}
    edit: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for one, payload in zip(fields, payloads, strict=True):
        if payload is None or payload == "":
            continue
        if one.role == "decoding":
            decoding.setdefault(one.name, {})[one.key] = _number(one, payload, DECODING[one.key])
        elif one.role == "condition":
            conditions[one.name] = _number(one, payload, float)
        elif one.role == "region":
            region = _region(one, payload, catalog[one.name])
            if region is not None:
                edit[one.name] = region
        elif one.role == "option":
            options[one.key] = payload if isinstance(payload, bool) else _number(one, payload, int)
    if schedule:
        decoding, conditions = {}, {}
        options.pop("chain", None)
        options.pop("guide_with_finished", None)
    inputs = read_inputs(desk, catalog, fields, payloads)
    if not desk.targets:
        raise MaskweaveError("no targets: choose at least one modality to generate")
    return StudioRequest(
        inputs=inputs,
        targets=tuple(desk.targets),
        decoding=decoding,
        conditions=conditions,
        edit=edit,
        schedule=schedule,
        **options,
    )


def _number(one: Field, payload: Any, kind: type) -> Any:
    if kind is str:
        return str(payload)
    where = f"{one.name} {one.key}".strip()
    number = payload
    if isinstance(number, str):
        with contextlib.suppress(ValueError):
            number = float(number)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise MaskweaveError(f"{where}: found {shown(payload)}; expected a number")
    if kind is int and number != int(number):
        raise MaskweaveError(f"{where}: found {payload}; expected a whole number")
    return kind(number)


def _region(one: Field, payload: Any, modality: Modality) -> Any:
    where = f"region of {one.name!r}"
    if one.key == "paint":
        mask = ids_of(payload, where) != UNPAINTED
        return np.asarray(mask) if mask.any() else None
    if not isinstance(payload, str):
        raise MaskweaveError(f"{where}: found {shown(payload)}; expected text")
    return region_from(payload, modality.kind)
