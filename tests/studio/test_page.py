"""How the page starts, how it is served, and what its errors say: no browser is needed."""

import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_bundle import scenes

from maskweave import deadline
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.studio import serve as server
from maskweave.studio.bounds import Bounds
from maskweave.studio.desk import Desk
from maskweave.studio.events import guarded, told
from maskweave.studio.offered import Offered
from maskweave.studio.page import build_page
from maskweave.studio.search_panel import search

gr = pytest.importorskip("gradio")

STARTS: dict[str, list[Any]] = {
    "Bundle": ["small"], "Inputs: what you give": [[]], "Targets: what is generated, in this order": [[]], "Inputs of the next request": [[]],
    "Run this schedule as it stands here": [False], "Files to download": [None], "Open a saved request": [None], "Given all other inputs": [None],
    "Data set": ["scenes"], "Sample, from 0": [0], "Run": ["begun"], "Follow: look again every 5 s": [False], "Index": ["six"],
    "View (empty: the first)": [None], "Results": [10],
    "Python, command line and schedule of this request": ["open"], "Save and reopen": ["closed"], "Likelihood of an input": ["closed"],
    "Search an index with these inputs": ["closed"],
}  # fmt: skip
"""What each field holds, and which parts are open, when the page is opened; the form's fields come later, with the bundle."""


@pytest.fixture
def page(bundle_folder: Path, tmp_path: Path) -> Any:
    (run := tmp_path / "begun").mkdir()
    (run / "recipe.yaml").write_text("catalog: scenes\n", encoding="utf-8")
    (index := tmp_path / "six").mkdir()
    for name in ("index.json", "centers.safetensors"):
        (index / name).write_text("", encoding="utf-8")
    return build_page(Offered([str(bundle_folder), str(run), str(index)], ["scenes"]), Bounds(waiting=5), tmp_path)


def test_what_the_page_starts_with(page: Any) -> None:
    found: dict[str, list[Any]] = {}
    for part in page.config["components"]:
        props = part["props"]
        if props.get("label") and part["type"] != "tabitem":
            value = ("open" if props["open"] else "closed") if "open" in props else props.get("value")
            found.setdefault(props["label"], []).append(Path(value).name if isinstance(value, str) else value)
    assert found == STARTS
    (timer,) = (part["props"] for part in page.config["components"] if part["type"] == "timer")
    assert (timer["value"], timer["active"]) == (5.0, False)


def test_no_event_is_an_endpoint_and_models_run_one_at_a_time(page: Any) -> None:
    events = page.fns.values()
    others = [event.name for event in events if event.api_visibility != "private"]
    assert len(events) > 10 and others == ["apply"], "only Gradio's own event, which draws the form"
    limits = {(event.concurrency_id, event.concurrency_limit) for event in events if event.concurrency_id == "model"}
    assert limits == {("model", 1)}
    assert page._queue.max_size == 5


@pytest.mark.parametrize("blocks", [True, False])
def test_the_page_is_served_on_this_machine_alone(
    offered: Offered, blocks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def launch(page: Any, **options: Any) -> None:
        given.update(options)
        page.local_url = "http://here"

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: given.update(waits=True))
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    server.serve(offered, Bounds(upload_mb=3), port=7900, opens=True, blocks=blocks)
    look = {name: given.pop(name) for name in ("theme", "css", "head")}
    assert look["css"] and look["head"]
    assert given == {
        "server_name": "127.0.0.1", "server_port": 7900, "inbrowser": True, "share": False, "quiet": True, "show_error": False,
        "prevent_thread_lock": True, "max_file_size": 3 * 2**20, "max_threads": 8, "state_session_capacity": 64, "allowed_paths": [],
        "footer_links": [], "ssr_mode": False, "pwa": False, "mcp_server": False, "enable_monitoring": False,
    } | ({"waits": True} if blocks else {})  # fmt: skip
    assert ("The studio runs at http://here (this machine only)" in capsys.readouterr().out) == blocks
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and os.environ["HF_HUB_DISABLE_TELEMETRY"] in ("1", "True")
    scratch = Path(os.environ["GRADIO_TEMP_DIR"])
    assert scratch.is_dir() and scratch.stat().st_mode & 0o777 == 0o700


def test_a_port_that_is_taken(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(page: Any, **options: Any) -> None:
        raise OSError("Cannot find empty port")

    monkeypatch.setattr(gr.Blocks, "launch", refuse)
    with pytest.raises(MaskweaveError, match="cannot be served: Cannot find empty port; choose another --port"):
        server.serve(offered, Bounds())


@pytest.mark.parametrize(
    ("error", "shown", "printed"),
    [
        (MaskweaveError("depth <is> missing"), "depth &lt;is&gt; missing", False),
        (KeyError("a secret"), "an internal error; the terminal of the studio says more", True),
    ],
)
def test_errors_of_events(error: Exception, shown: str, printed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that a user can fix are shown; all others are printed where the studio was started, and not shown."""

    def fail(value: int) -> None:
        raise error

    with pytest.raises(gr.Error) as caught:
        guarded(fail)(1)
    assert caught.value.message == shown and not caught.value.print_exception
    assert ("Traceback" in capsys.readouterr().err) == printed
    try:
        fail(1)
    except Exception as again:
        assert shown in told(again) and "secret" not in told(again)
    assert ("KeyError: 'a secret'" in capsys.readouterr().err) == printed
    assert guarded(lambda value: value + 1)(1) == 2


def test_what_the_events_of_a_data_set_do(page: Any) -> None:
    """Previous and Next stay within the 1000 samples; a sample that is not there gives an error."""
    work = [event.fn for event in page.fns.values() if event.name == "work" and "step" in event.fn.__qualname__]
    back, forth = work
    assert [back("scenes", at) for at in (0, 1, 5, None)] == [0, 0, 4, 0]
    assert [forth("scenes", at) for at in (0, 998, 999, None)] == [1, 999, 999, 1]
    show = next(
        event.fn for event in page.fns.values() if event.name == "show" and "data_page" in event.fn.__qualname__
    )
    assert "Sample 0 of 1000" in show("scenes", None) and "Sample 999 of 1000" in show("scenes", 999.0)
    assert "the data set has samples 0 to 999" in show("scenes", 1000)
    assert "offered: scenes" in show("other", 0)


def test_what_choosing_does(page: Any, bundle_folder: Path) -> None:
    events = {event.name: event.fn for event in page.fns.values()}
    desk = Desk()
    name, inputs, targets, scored, version, words = events["switch"](str(bundle_folder), desk)
    assert (name.value, inputs.value, targets.value, version) == (
        str(bundle_folder),
        ["caption"],
        ["depth"],
        desk.version,
    )
    assert [value for _, value in inputs.choices] == ["rgb", "depth", "caption", "global"]
    assert [value for _, value in targets.choices] == ["depth", "caption", "global"]
    assert (scored.value, [value for _, value in scored.choices]) == (
        "caption",
        ["caption"],
    ) and "press Generate" in words
    change = next(
        event.fn for event in page.fns.values() if "inputs" in getattr(event, "name", "") or event.name == "call"
    )
    before = desk.version
    skip = gr.skip()
    assert (
        events["switch"](str(bundle_folder), desk) == [skip] * 6 and change(["caption"], ["depth"], desk) == [skip] * 2
    )
    assert desk.version == before, "nothing has changed"
    scored, version = change(["rgb", "depth"], ["caption"], desk)
    assert (desk.inputs, desk.targets, version) == (["rgb", "depth"], ["caption"], before + 1)
    assert (scored.value, [value for _, value in scored.choices]) == ("depth", ["depth"])
    failed = events["switch"]("elsewhere", desk)
    assert "there is no bundle" in failed[-1] and desk.inputs == ["rgb", "depth"]
    assert events["opens"](None, desk)[-1] == ""


def test_searches_show_up_to_50_results(bundle_folder: Path, tmp_path: Path) -> None:
    found = load(bundle_folder)
    make_index(
        found,
        scenes(3),
        tmp_path / "index",
        views=["depth", "caption"],
        data={"data": "scenes", "samples": 3, "seed": 7},
    )
    index = Index(tmp_path / "index", found)
    for count, said in ((0, "0"), (51, "51"), (None, "nothing")):
        with pytest.raises(MaskweaveError, match=f"results: found {said}; expected 1 to 50"):
            search(index, {"caption": "a"}, "", count)
    for count, listed in ((1, 1), (2.0, 2), (50, 3)):
        page = search(index, {"caption": scenes(3)[1]["caption"]}, " caption ", count)
        names = re.search(r'alt="results: ([^"]*)"', page)
        assert names is not None and len(names[1].split(", ")) == listed and names[1].startswith("7-0000001 (")
    with pytest.raises(MaskweaveError, match="unknown modality 'smell'"):
        search(index, {"smell": 1}, "", 1)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_search_gives_up_at_its_time(
    bundle_folder: Path, backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is by then; and the next search, with enough time, finds everything."""
    found = load(bundle_folder)
    data: dict[str, Any] = {"data": "scenes", "samples": 3, "seed": 7}
    make_index(found, scenes(3), tmp_path / "index", views=["depth"], shard_size=2, data=data)
    inputs, seconds = {"depth": scenes(3)[1]["depth"]}, []
    index = Index(tmp_path / "index", found, backend)
    for allowed in range(1, 20):
        ticks = itertools.count()
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks)))
        try:
            with Bounds(seconds=allowed).timed():
                assert "7-0000001" in search(index, inputs, "", 3)
            break
        except MaskweaveError as error:
            assert str(error) == f"stopped after {allowed} s, the time of a request (--seconds)"
            seconds.append(allowed)
            index = Index(tmp_path / "index", found, backend)
    assert len(seconds) > 3
