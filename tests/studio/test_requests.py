"""Requests: the Python code and the command line that are shown give the page's result bit for bit; saved requests come back; bounds hold."""

import dataclasses
import io
import itertools
import json
import shlex
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_bundle

from maskweave import deadline
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.result import Generated
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding, Ramp
from maskweave.studio.bounds import Bounds
from maskweave.studio.request import StudioRequest, as_command, as_python, read_schedule, region_from, schedule_text
from maskweave.studio.running import likelihood, run
from maskweave.studio.saving import open_request, save_request

CAPTION = "1 object: a large red cube's twin."
BOUNDS = Bounds()
SCENE = small_bundle.scenes(1)[0]
MASK = np.zeros((64, 64), bool)
MASK[:32, 10:40] = True

REQUESTS = {
    "text": StudioRequest({"caption": CAPTION}, ("depth",), seed=3),
    "picture and settings": StudioRequest(
        {"rgb": SCENE["rgb"], "caption": CAPTION},
        ("depth", "caption"),
        decoding={"depth": {"steps": 3, "temperature": 0.5, "scheme": "maskgit"}},
        conditions={"rgb": 2.5, "caption": -0.5},
        guide_with_finished=True,
        chain=False,
    ),
    "samples": StudioRequest({"caption": CAPTION}, ("depth",), samples=2, seed=5),
    "ensemble": StudioRequest({"caption": CAPTION}, ("depth",), samples=2, ensemble=True),
    "brushed": StudioRequest({"depth": SCENE["depth"], "caption": CAPTION}, ("depth",), edit={"depth": MASK}),
    "words": StudioRequest({"caption": CAPTION, "rgb": SCENE["rgb"]}, ("caption",), edit={"caption": "red"}),
    "box": StudioRequest({"depth": SCENE["depth"]}, ("depth",), edit={"depth": [0.0, 0.25, 0.5, 1.0]}),
}


def last(bundle: Bundle, request: StudioRequest):
    return list(run(bundle, request, BOUNDS))[-1]


def values_of(result: Generated) -> dict:
    return {name: value.tobytes() if hasattr(value, "tobytes") else value for name, value in result.values.items()}


def unpack(request: StudioRequest, bundle: Bundle, folder: Path) -> Path:
    for path, content in request.files(bundle.catalog).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", REQUESTS)
def test_the_python_code_gives_the_same_result(name, bundle, bundle_folder, tmp_path, monkeypatch) -> None:
    request = REQUESTS[name]
    monkeypatch.chdir(unpack(request, bundle, tmp_path))
    space: dict = {}
    exec(compile(as_python(request, bundle.catalog, str(bundle_folder)), name, "exec"), space)
    made = space["out"] if isinstance(space["out"], list) else [space["out"]]
    progress = last(bundle, request)
    shown = [progress.merged] if progress.merged else progress.results
    assert [values_of(one) for one in made] == [values_of(one) for one in shown]
    assert all(one.values for one in made) and progress.done == progress.total


@pytest.mark.parametrize("name", ["text", "picture and settings", "samples", "ensemble", "brushed"])
def test_the_command_line_gives_the_same_result(name, bundle, bundle_folder, tmp_path, monkeypatch) -> None:
    request = REQUESTS[name]
    monkeypatch.chdir(unpack(request, bundle, tmp_path))
    words = shlex.split(as_command(request, bundle.catalog, str(bundle_folder)).replace("\\\n", " "))
    assert words[0] == "maskweave" and main(words[1:]) == 0
    progress = last(bundle, request)
    shown = [progress.merged] if progress.merged else progress.results
    for n, result in enumerate(shown):
        folder = tmp_path / "out" / str(n) if len(shown) > 1 else tmp_path / "out"
        assert np.array_equal(np.load(folder / "depth.npy"), result["depth"])


@pytest.mark.parametrize("name", REQUESTS)
def test_whether_the_code_names_files_is_known(name, bundle) -> None:
    for request in (REQUESTS[name], dataclasses.replace(REQUESTS[name], schedule="steps: []")):
        assert request.has_files(bundle.catalog) == bool(request.files(bundle.catalog))


def test_an_edited_schedule_runs(bundle, bundle_folder, tmp_path, monkeypatch) -> None:
    plan = REQUESTS["text"].schedule_of(bundle)
    assert read_schedule(schedule_text(plan)) == plan
    steps = [dataclasses.replace(plan.steps[0], tokens=64, temperature=0.25)]
    text = schedule_text(dataclasses.replace(plan, steps=tuple(steps)))
    request = StudioRequest({"caption": CAPTION}, ("depth",), schedule=text)
    progress = last(bundle, request)
    assert progress.total == 1 and progress.schedule.steps[0].temperature == 0.25
    monkeypatch.chdir(unpack(request, bundle, tmp_path))
    space: dict = {}
    exec(as_python(request, bundle.catalog, str(bundle_folder)), space)
    assert values_of(space["out"]) == values_of(progress.results[0])
    assert "--schedule schedule.yaml" in as_command(request, bundle.catalog, "x")
    for text, said in (("steps: [", "not valid YAML"), ("- 1", "expected a mapping"), ("stepz: []", "stepz")):
        with pytest.raises(MaskweaveError, match=said):
            read_schedule(text)


@pytest.mark.parametrize("name", REQUESTS)
def test_saved_requests_come_back(name, bundle, bundle_folder) -> None:
    request = REQUESTS[name]
    content = save_request(request, bundle, str(bundle_folder))
    assert content == save_request(request, bundle, str(bundle_folder)), "equal requests give equal files"
    again = open_request(content, bundle.catalog, BOUNDS)
    for key in ("targets", "decoding", "conditions", "chain", "guide_with_finished", "seed", "samples", "ensemble"):
        assert getattr(again, key) == getattr(request, key), key
    assert list(again.inputs) == list(request.inputs)
    for part in ("inputs", "edit"):
        for key, value in getattr(request, part).items():
            assert np.array_equal(getattr(again, part)[key], value), key
    members = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert {"request.json", "request.py", "command.sh", "schedule.yaml"} <= set(members)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_json", ".json"), content)
    return buffer.getvalue()


def test_damaged_saved_requests_are_refused(bundle, bundle_folder) -> None:
    good = save_request(REQUESTS["brushed"], bundle, str(bundle_folder))
    opened = zipfile.ZipFile(io.BytesIO(good))
    files = {name: opened.read(name) for name in opened.namelist()}
    record = files["request.json"]
    facts = json.loads(record)
    without = [
        json.dumps(changed).encode()
        for changed in (
            {key: value for key, value in facts.items() if key != "inputs"},
            {key: value for key, value in facts.items() if key != "edit"},
            {**facts, "inputs": {**facts["inputs"], "texts": []}},
            {**facts, "inputs": []},
            {**facts, "edit": []},
        )
    ]
    small = dataclasses.replace(BOUNDS, upload_mb=1)
    for content, said in (
        (b"", "no readable ZIP"),
        (b"PK\x03\x04 not really", "no readable ZIP"),
        (good[: len(good) // 2], "no readable ZIP"),
        (archive(other=b"x"), "has no request.json"),
        (archive(request_json=b"{"), "not JSON"),
        (archive(request_json=b'{"format": 99}'), "another version"),
        (archive(request_json=record), "its file is missing"),
        *((archive(request_json=changed), "lacks its inputs; save the request again") for changed in without),
        (archive(**{**files, "request.json": record.replace(b'"seed": 0', b'"seed": "x"')}), "seed"),
        (archive(**{**files, "request.json": record.replace(b'"depth"', b'"nothing"')}), "nothing"),
        (archive(**{**files, "inputs/depth.npy": b"broken"}), "inputs|depth"),
        (archive(**{**files, "../../outside": b"x", "/etc/outside": b"x", "edit/nothing.png": b"x"}), "nothing"),
        (archive(request_json=record, bomb=bytes(2**21)), "larger than 1 MB"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            open_request(content, bundle.catalog, small)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": ["nothing"]}, "unknown modality 'nothing'"),
        ({"targets": ["rgb"]}, "input only"),
        ({"conditions": {"caption+nothing": 1.0}}, "unknown modality 'nothing'"),
        ({"conditions": {"caption": float("inf")}}, "expected|JSON"),
        ({"edit": {"nothing": 0.5}}, "unknown modality 'nothing'"),
        ({"decoding": {"nothing": {"steps": 2}}}, "unknown modality 'nothing'"),
        ({"decoding": {"depth": {"steps": 0}}}, "steps is 0"),
        ({"decoding": {"depth": {"steps": 2.5}}}, "steps"),
        (
            {"decoding": {"depth": {"temperature": {"from": 1, "to": 0}}}},
            "temperature of 'depth' is .*expected a number",
        ),
        ({"decoding": {"depth": {"scheme": 3}}}, "scheme of 'depth' is 3; expected a name"),
        ({"decoding": {"depth": {"scheme": "nothing"}}}, "scheme"),
        ({"decoding": {"depth": {"a=1); print(": 1}}}, "expected steps, temperature"),
        ({"own_schedule": True}, "schedule"),
    ],
)
def test_saved_requests_that_do_not_fit_are_refused(change: dict, said: str, bundle) -> None:
    facts = {
        "format": 1,
        "inputs": {"order": ["caption"], "texts": {"caption": CAPTION}},
        "targets": ["depth"],
        "edit": {},
    }
    assert open_request(archive(request_json=json.dumps(facts).encode()), bundle.catalog, BOUNDS).targets == ("depth",)
    content = archive(request_json=json.dumps({**facts, **change}).encode(), **{"schedule.yaml": b"steps: ["})
    with pytest.raises(MaskweaveError, match=said):
        open_request(content, bundle.catalog, BOUNDS)


def test_damaged_members_of_every_method_are_refused(bundle) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            file.writestr("request.json", np.random.default_rng(0).bytes(5000).hex())
        content = bytearray(buffer.getvalue())
        content[60:2000] = b"\xff" * 1940
        with pytest.raises(MaskweaveError, match="no readable ZIP"):
            open_request(bytes(content), bundle.catalog, BOUNDS)


def test_bounds_hold(bundle) -> None:
    request = REQUESTS["text"]
    for change, said in (
        ({"samples": 9}, "samples"),
        ({"samples": 0}, "samples"),
        ({"seed": -1}, "seed"),
        ({"ensemble": True}, "samples to 2"),
        ({"ensemble": True, "samples": 2, "targets": ("caption",)}, "cannot be merged"),
        ({"targets": ("rgb",)}, "input only"),
        ({"targets": ("nothing",)}, "nothing"),
        ({"conditions": {"rgb": 1.0}}, "neither an input nor a target"),
        ({"decoding": {"depth": {"steps": 0}}}, "steps is 0"),
        ({"decoding": {"depth": {"stepz": 1}}}, "stepz"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            list(run(bundle, dataclasses.replace(request, **change), BOUNDS))
    for wrong in ({"seconds": 0}, {"upload_mb": True}, {"waiting": 10**9}):
        with pytest.raises(MaskweaveError, match="expected a whole number"):
            Bounds(**wrong)


def test_a_request_stops_at_its_time_with_what_it_has(bundle) -> None:
    request = dataclasses.replace(REQUESTS["text"], targets=("caption", "depth"), inputs={"rgb": SCENE["rgb"]})
    ticks = iter(range(0, 10_000, 7))
    states = list(run(bundle, request, dataclasses.replace(BOUNDS, seconds=20), clock=lambda: float(next(ticks))))
    assert "stopped after 20 s" in states[-1].stopped and states[-1].done < states[-1].total
    assert len(states) > 1 and [s.done for s in states] == sorted(s.done for s in states)
    assert set(states[-1].results[0].tokens) == {"caption"}, "depth has not begun"


@pytest.mark.parametrize(("name", "seconds"), [("caption", 100), ("depth", 10)])
def test_a_likelihood_gives_up_at_its_time(bundle, monkeypatch, name, seconds) -> None:
    """A sequence within its tokens, a grid before its one pass."""
    inputs = {"caption": CAPTION, "depth": SCENE["depth"]}
    with dataclasses.replace(BOUNDS, seconds=1000).timed():
        assert likelihood(bundle, inputs, name).score.total < 0
    ticks = itertools.count(step=25)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    told = rf"^stopped after {seconds} s, the time of a request \(--seconds\)$"
    with pytest.raises(MaskweaveError, match=told), dataclasses.replace(BOUNDS, seconds=seconds).timed():
        likelihood(bundle, inputs, name)
    assert next(ticks) == seconds // 25 * 25 + 50


def test_likelihood_is_that_of_the_library(bundle) -> None:
    inputs = {"caption": CAPTION, "rgb": SCENE["rgb"]}
    found = likelihood(bundle, inputs, "caption")
    score = bundle.score({"rgb": SCENE["rgb"]}, {"caption": CAPTION})["caption"]
    assert found.score.total == score.total and len(found.words) == len(score.tokens)
    assert "".join(found.words).startswith("1") and found.words[-1] == "[EOS]"
    deep = likelihood(bundle, {"caption": CAPTION, "depth": SCENE["depth"]}, "depth")
    assert deep.words == tuple(map(str, range(64)))
    for name, said in (("depth", "not among the inputs"), ("rgb", "input only")):
        with pytest.raises(MaskweaveError, match=said):
            likelihood(bundle, inputs, name)


def test_a_scheme_without_choices_drops_the_noise_of_the_entry(bundle) -> None:
    own = Decoding("maskgit", choice_temperature=Ramp(4.5, 0.0))
    catalog = Catalog(
        [dataclasses.replace(m, decoding=own) if m.name == "depth" else m for m in bundle.catalog.values()],
        bundle.catalog.vocabularies.values(),
    )
    for scheme, noise in (("halton", 0.0), ("roar", 0.0), ("entropy", own.choice_temperature)):
        request = StudioRequest({"caption": CAPTION}, ("depth",), decoding={"depth": {"scheme": scheme}})
        made = request.options(catalog)["decoding"]["depth"]
        assert (made.scheme, made.choice_temperature) == (scheme, noise)
        for text in (as_python(request, catalog, "x"), as_command(request, catalog, "x")):
            assert ("choice_temperature=0.0" in text) == (noise == 0.0)


def test_boxes_have_all_digits_in_command_lines(bundle) -> None:
    box = [0.0, 0.12345678, 0.5, 1.0]
    request = StudioRequest({"depth": SCENE["depth"]}, ("depth",), edit={"depth": box})
    words = shlex.split(as_command(request, bundle.catalog, "x").replace("\\\n", " "))
    assert region_from(words[words.index("--edit") + 1].removeprefix("depth="), "grid") == box


def test_typed_regions() -> None:
    assert region_from(" 0.3 ", "grid") == 0.3
    assert region_from("0, 0.1,0.5,1", "grid") == [0.0, 0.1, 0.5, 1.0]
    assert region_from("red cube", "sequence") == "red cube"
    assert region_from("  ", "grid") is None
    with pytest.raises(MaskweaveError, match="expected a share"):
        region_from("1,2", "grid")
