"""The desk: how the fields of the form become a request, what is held and shown again, and what the page offers."""

from pathlib import Path

import numpy as np
import pytest
import small_bundle

from maskweave.errors import MaskweaveError
from maskweave.studio.bounds import Bounds
from maskweave.studio.desk import Desk, Field, first_payload, input_value, is_shown, read_request, settings_of
from maskweave.studio.editors import UNPAINTED, paint_payload
from maskweave.studio.offered import Offered
from maskweave.studio.request import StudioRequest
from maskweave.studio.running import run

SCENE = small_bundle.scenes(1)[0]


@pytest.fixture
def desk(bundle, bundle_folder) -> Desk:
    found = Desk()
    found.choose(str(bundle_folder), bundle.catalog)
    return found


def request(desk: Desk, bundle, typed: dict, schedule: str = "") -> StudioRequest:
    fields = [Field(*place) for place in typed]
    return read_request(desk, bundle.catalog, fields, list(typed.values()), schedule)


def test_a_desk_begins_with_a_text_and_a_target(desk) -> None:
    assert (desk.inputs, desk.targets) == (["caption"], ["depth"])


def test_fields_become_a_request(desk, bundle) -> None:
    desk.inputs, desk.targets = ["caption", "depth"], ["depth", "global"]
    desk.held = {"depth": SCENE["depth"]}
    mask = np.full((64, 64), UNPAINTED, np.uint8)
    mask[3, 4:6] = 0
    found = request(
        desk,
        bundle,
        {
            ("input", "caption", "text"): "a red cube",
            ("input", "caption", "file"): None,
            ("input", "depth", "file"): None,
            ("decoding", "depth", "steps"): 4,
            ("decoding", "depth", "scheme"): "",
            ("decoding", "depth", "temperature"): "0",
            ("condition", "caption", ""): "2",
            ("region", "depth", "paint"): paint_payload(mask),
            ("option", "", "seed"): 7,
            ("option", "", "samples"): 2,
            ("option", "", "chain"): False,
            ("option", "", "ensemble"): True,
        },
    )
    assert found.inputs["caption"] == "a red cube" and np.array_equal(found.inputs["depth"], SCENE["depth"])
    assert found.targets == ("depth", "global")
    assert found.decoding == {"depth": {"steps": 4, "temperature": 0.0}}, "empty fields leave the entry's own"
    assert found.conditions == {"caption": 2.0}
    assert found.edit["depth"].sum() == 2 and found.edit["depth"][3, 4]
    assert (found.seed, found.samples, found.chain, found.ensemble) == (7, 2, False, True)
    with_schedule = request(
        desk,
        bundle,
        {("input", "caption", "text"): "x", ("decoding", "depth", "steps"): 4, ("option", "", "chain"): False},
        "steps: []",
    )
    assert with_schedule.schedule == "steps: []" and not with_schedule.decoding and with_schedule.chain


def test_wrong_fields_are_named(desk, bundle) -> None:
    text = {("input", "caption", "text"): "a red cube"}
    for typed, said in (
        ({("input", "caption", "text"): ""}, "input 'caption': nothing is given"),
        ({**text, ("decoding", "depth", "steps"): 1.5}, "depth steps: found 1.5"),
        ({**text, ("decoding", "depth", "steps"): "many"}, "expected a number"),
        ({**text, ("decoding", "depth", "steps"): "inf"}, "expected a number"),
        ({**text, ("option", "", "seed"): [1]}, "expected a number"),
        ({**text, ("region", "depth", "paint"): "{}"}, "region of 'depth'"),
        ({**text, ("region", "depth", "typed"): "1,2"}, "expected a share"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            request(desk, bundle, typed)
    desk.targets = []
    with pytest.raises(MaskweaveError, match="no targets"):
        request(desk, bundle, text)


def test_results_are_inputs_of_the_next_request_and_one_word_changes(desk, bundle) -> None:
    """Change a word of the caption and keep the depth."""
    made = list(run(bundle, request(desk, bundle, {("input", "caption", "text"): "a red cube"}), Bounds()))[-1]
    desk.result = made.best
    assert set(desk.usable()) == {"caption", "depth"}
    desk.drafts[Field("input", "depth", "paint")] = "old"
    before = desk.version
    desk.hold(desk.usable())
    assert desk.inputs == ["caption", "depth"] and desk.version > before and not desk.drafts
    assert first_payload(desk, bundle.catalog["caption"], "text") == "a red cube"
    assert is_shown(desk, bundle.catalog["caption"]) and not is_shown(desk, bundle.catalog["depth"])
    desk.targets = ["global"]
    found = request(desk, bundle, {("input", "caption", "text"): "a blue cube", ("input", "depth", "file"): None})
    assert found.inputs["caption"] == "a blue cube" and np.array_equal(found.inputs["depth"], made.best["depth"])
    with pytest.raises(MaskweaveError, match="nothing is given"):
        input_value(desk, bundle.catalog["caption"], {"text": ""})  # an empty field is not the old text
    desk.drop("depth")
    with pytest.raises(MaskweaveError, match="'depth': nothing is given"):
        request(desk, bundle, {("input", "caption", "text"): "a blue cube", ("input", "depth", "file"): None})


def test_a_saved_request_fills_the_desk(desk, bundle) -> None:
    saved = StudioRequest({"caption": "old", "rgb": SCENE["rgb"]}, ("depth",), seed=9)
    desk.reopen(saved, bundle.catalog)
    assert desk.inputs == ["caption", "rgb"] and desk.targets == ["depth"] and desk.request.seed == 9
    again = request(desk, bundle, {("input", "caption", "text"): "old", ("option", "", "seed"): 9})
    assert np.array_equal(again.inputs["rgb"], SCENE["rgb"]) and again.seed == 9


def test_only_targets_that_are_inputs_have_regions(desk, bundle) -> None:
    assert desk.edited(bundle.catalog) == []
    desk.inputs = ["caption", "depth"]
    assert desk.edited(bundle.catalog) == ["depth"]
    assert "steps" in settings_of(bundle.catalog["depth"]) and "steps" not in settings_of(bundle.catalog["caption"])


def test_the_page_gets_only_what_was_offered(bundle_folder, offered, tmp_path, monkeypatch) -> None:
    name = str(bundle_folder)
    assert offered.bundle(name) is offered.bundle(name), "loaded once"
    for ask in (offered.bundle, offered.run, offered.index, offered.source):
        for wrong in ("/etc", "../small", "", None, ["x"], f"{name}/../small"):
            with pytest.raises(MaskweaveError, match="offered:"):
                ask(wrong)
    assert len(offered.source("scenes")) == 1000 and offered.source("scenes").names
    found = Offered([str(bundle_folder.parent)])
    assert list(found.bundles) == [name], "folders are looked through"
    monkeypatch.chdir(bundle_folder.parent)
    near = Offered([bundle_folder.name])
    assert near.bundles == {bundle_folder.name: name}, "a saved request runs in another folder"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("catalog: scenes\n", encoding="utf-8")
    assert list(Offered([str(tmp_path)]).runs) == [str(tmp_path / "run")], "also unfinished runs"
    (tmp_path / "empty").mkdir()
    for places, said in (
        ([str(tmp_path / "empty")], "contains no bundle"),
        ([str(tmp_path / "run" / "recipe.yaml")], "is a file"),
        ([], "nothing to show"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            Offered(places)
    with pytest.raises(MaskweaveError, match="--catalog"):
        Offered([], ["scenes"]).source("scenes")
    assert Path(name).is_dir()


def test_fields_keep_what_they_have_until_they_begin_anew(desk, bundle, bundle_folder) -> None:
    text, region, seed = (
        Field("input", "caption", "text"),
        Field("region", "depth", "typed"),
        Field("option", "", "seed"),
    )
    for place, payload in ((text, "a red cube"), (region, "0.3"), (seed, 7)):
        desk.keep(place, payload, desk.drawn(place.name))
    assert desk.drafts == {text: "a red cube", region: "0.3", seed: 7}
    assert first_payload(desk, bundle.catalog["caption"], "text") == "a red cube"

    drawn = {place: desk.drawn(place.name) for place in (text, seed)}
    desk.hold({"caption": "a blue cube", "depth": np.ones((64, 64), np.float32)})
    assert desk.drafts == {seed: 7}, "values that are put in replace what their fields and regions have"
    desk.keep(text, "late", drawn[text])
    desk.keep(seed, 8, drawn[seed])
    assert desk.drafts == {seed: 8}, "a field that is gone is late"
    assert first_payload(desk, bundle.catalog["caption"], "text") == "a blue cube"

    for begin in (lambda: desk.choose(str(bundle_folder), bundle.catalog), lambda: desk.reopen(StudioRequest(), bundle.catalog)):  # fmt: skip
        desk.keep(seed, 9, desk.drawn(""))
        drawn = {seed: desk.drawn("")}
        begin()
        desk.keep(seed, 9, drawn[seed])
        assert desk.drafts == {}
