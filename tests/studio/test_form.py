"""The form: fields of every setting, whatever an entry has."""

import dataclasses

import pytest

from maskweave.generate.schedule import GRID_SCHEMES
from maskweave.modality.decoding import Decoding, Ramp
from maskweave.studio.desk import Desk, Field
from maskweave.studio.form import _option, _settings, shown_number
from maskweave.studio.request import StudioRequest

gr = pytest.importorskip("gradio")


def test_settings_that_change_with_the_step_and_all_schemes_have_fields(bundle) -> None:
    own = Decoding("roar", temperature=Ramp(1.0, 0.0), top_p=0.12345678)
    with gr.Blocks():
        parts = {
            place.key: part
            for place, part in _settings(Desk(), dataclasses.replace(bundle.catalog["depth"], decoding=own))
        }
    assert parts["temperature"].placeholder == "changes with the step" and parts["steps"].placeholder == "8"
    assert [value for _, value in parts["scheme"].choices] == ["", *GRID_SCHEMES]
    assert parts["top_p"].placeholder == "0.12345678"


def test_numbers_are_shown_with_all_digits() -> None:
    numbers = [None, 3, 3.0, 0.12345678, 1234567.5, 1e-7]
    assert [shown_number(x) for x in numbers] == ["", "3", "3", "0.12345678", "1234567.5", "1e-07"]


def test_an_option_that_was_emptied_is_that_of_the_request() -> None:
    state = Desk(request=StudioRequest(seed=5))
    assert _option(state, "seed") == 5
    for draft, shown in ((0, 0), (None, 5), (3, 3)):
        state.drafts[Field("option", "", "seed")] = draft
        assert _option(state, "seed") == shown
