"""The page in a real browser: Debian's chromium, headless, driven by Playwright.

Without them the tests are skipped, unless `MASKWEAVE_BROWSER=required`, as in `.ci/run`: then they fail.
"""

import json
import re
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_window import Window, need_browser
from PIL import Image

from maskweave.generate.bundle import Bundle
from maskweave.retrieve.indexing import make_index
from maskweave.retrieve.sources import open_indexed
from maskweave.studio import data_page, running
from maskweave.studio import page as studio_page
from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.request import StudioRequest
from maskweave.studio.serve import serve
from maskweave.studio.showing import progress_html


@pytest.fixture(scope="module")
def studio_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trains."""
    run = tmp_path_factory.mktemp("runs") / "begun"
    run.mkdir()
    (run / "recipe.yaml").write_text("catalog: scenes\n", encoding="utf-8")
    lines = [{"step": step, "split": "train", "loss": 9.0 / step, "loss/depth": 4.0 / step} for step in range(1, 30)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def studio(
    bundle: Bundle, bundle_folder: Path, studio_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The address of a running studio with a bundle, a run, an index of six scenes, and the scenes as a data set."""
    need_browser()
    index = tmp_path_factory.mktemp("index") / "six"
    data: dict[str, Any] = {"data": "scenes", "samples": 6, "seed": 1}
    source = open_indexed(**data, catalog=bundle.catalog)
    make_index(bundle, source, index, views=["rgb", "caption"], data=data)
    places = [str(bundle_folder), str(studio_run), str(index)]
    page = serve(Offered(places, ["scenes"]), Bounds(upload_mb=1), blocks=False)
    yield page.local_url
    page.close()


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Requests wait after their second pass until it is set."""
    go_on, run = threading.Event(), studio_page.run
    monkeypatch.setattr(running, "INTERVAL", 0.0)

    def slow(*arguments: Any) -> Iterator[Any]:
        for state in run(*arguments):
            yield state
            if state.done == 2:
                assert go_on.wait(60)

    monkeypatch.setattr(studio_page, "run", slow)
    yield go_on
    go_on.set()


def test_what_was_given_is_still_there_after_another_choice(window: Window, tmp_path: Path) -> None:
    window.inputs("caption", "rgb")
    window.write("caption", "1 object: a large red cube.")
    window.page.get_by_label("Seed").fill("7")
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "gray.png")
    picture = window.page.locator("[id='input-rgb-picture']")
    picture.locator("input[type=file]").first.set_input_files(tmp_path / "gray.png")
    picture.locator("img").wait_for()
    window.page.wait_for_timeout(500)
    chosen = window.page.locator("#targets input")
    before = window.drawn()
    chosen.fill("caption")
    chosen.press("Enter")
    window.drawn_again(before)
    window.page.keyboard.press("Escape")
    window.inputs("caption", "rgb", "depth")
    window.inputs("caption", "rgb")
    assert window.field("caption", "text").locator("textarea").input_value() == "1 object: a large red cube."
    assert window.page.get_by_label("Seed").input_value() == "7"
    picture.locator("img").wait_for()
    window.generate()
    window.finished()
    assert "seed=7" in window.page.locator(".cm-content").first.inner_text()


def test_a_caption_gives_a_depth_map_and_its_code(window: Window, bundle_folder: Path) -> None:
    window.write("caption", "1 object: a red cube.")
    window.generate()
    window.finished()
    assert window.cards() == ["depth"]
    code = window.page.locator(".cm-content").first.inner_text()
    assert "maskweave.load(" in code and "'1 object: a red cube.'" in code
    window.page.get_by_role("tab", name="Command line").click()
    assert "maskweave generate" in window.page.locator(".cm-content:visible").inner_text()
    assert not window.page.locator("#hint").is_visible(), "no files are named, and an empty line takes no space"


def test_wrong_requests_are_told_in_the_page(window: Window, tmp_path: Path) -> None:
    window.write("caption", "")
    window.generate()
    alert = window.page.get_by_role("alert")
    alert.get_by_text("input 'caption': nothing is given").wait_for()
    window.inputs("caption", "rgb")
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    window.field("rgb", "picture").locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    window.page.get_by_text("broken.png: corrupt or truncated png picture").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(2**21))
    window.field("rgb", "file").locator("input[type=file]").set_input_files(tmp_path / "large.png")
    window.page.get_by_text(re.compile("exceed the maximum", re.IGNORECASE)).first.wait_for()
    assert "Traceback" not in window.page.content()


def test_a_picture_is_uploaded_and_a_part_of_the_depth_is_repainted(window: Window, tmp_path: Path) -> None:
    page = window.page
    window.inputs("caption", "rgb")
    window.write("caption", "a blue cone")
    picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "mine.png")
    window.field("rgb", "picture").locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    window.field("rgb", "picture").locator("img").wait_for()
    window.generate()
    window.finished()
    before = window.drawn()
    page.get_by_role("button", name="Use as inputs").first.click()
    window.drawn_again(before)
    window.drag(page.locator("[id='region-depth'] canvas"), (40, 40), (120, 60))
    assert window.field("caption", "text").locator("textarea").input_value() == "a blue cone"
    window.write("caption", "a red cone")
    window.generate()
    window.finished()
    code = page.locator(".cm-content").first.inner_text()
    assert "edit={'depth': 'edit/depth.png'}" in code and "'a red cone'" in code and "'inputs/rgb.png'" in code
    assert "press Save the request, unpack the ZIP file" in page.locator("#hint").inner_text()


def test_samples_are_merged_with_an_uncertainty_map_and_a_caption_is_scored(window: Window) -> None:
    page = window.page
    window.write("caption", "a red cube")
    page.get_by_label(re.compile("^Samples")).fill("3")
    page.get_by_label("Merge the samples").check()
    window.generate()
    window.finished()
    page.get_by_text("Merged from 3 samples").wait_for()
    assert window.cards() == ["depth", "depth: uncertainty", "depth", "depth", "depth"]
    page.get_by_role("button", name="Likelihood of an input").click()
    page.get_by_role("button", name="Compute the likelihood").click()
    page.get_by_text("nats in all").wait_for()
    assert page.locator(".mw-token").first.inner_text() == "a"


def test_a_request_is_saved_and_reopened(window: Window, context: Any, studio: str, tmp_path: Path) -> None:
    page = window.page
    window.write("caption", "a green cylinder")
    page.get_by_label("Seed").fill("42")
    window.save().save_as(tmp_path / "request.zip")
    other = Window(context, studio)
    other.page.get_by_role("button", name="Save and reopen").click()
    other.page.locator("#reopen input[type=file]").set_input_files(tmp_path / "request.zip")
    other.page.get_by_text("opened 1 inputs and 1 targets").wait_for()
    other.page.wait_for_function(
        "document.querySelector('[id=\"input-caption-text\"] textarea').value === 'a green cylinder'"
    )
    assert other.page.get_by_label("Seed").input_value() == "42"
    other.page.close()


def test_two_people_at_once_get_their_own_results(window: Window, browser: Any, studio: str) -> None:
    other = Window(browser.new_context(), studio)
    window.write("caption", "a red cube")
    other.write("caption", "a blue cone")
    other.page.get_by_label("Seed").fill("5")
    window.generate()
    other.generate()
    window.finished()
    other.finished()
    codes = [one.page.locator(".cm-content").first.inner_text() for one in (window, other)]
    assert "a red cube" in codes[0] and "seed=0" in codes[0] and "a blue" not in codes[0]
    assert "a blue cone" in codes[1] and "seed=5" in codes[1] and "a red" not in codes[1]
    pictures = [one.page.locator("#results img").first.get_attribute("src") for one in (window, other)]
    assert pictures[0] != pictures[1]
    other.page.close()


def test_an_index_is_searched(window: Window) -> None:
    page = window.page
    window.write("caption", "1 object: a large blue cone.")
    page.get_by_role("button", name="Search an index with these inputs").click()
    page.get_by_role("button", name="Search", exact=True).click()
    found = page.locator("#found img")
    found.wait_for()
    assert len(re.findall(r"1-000000\d \(-?\d\.\d+\)", found.get_attribute("alt"))) == 6


def test_a_data_set_and_a_run_are_browsed(window: Window) -> None:
    page = window.page
    page.get_by_role("tab", name="Data").click()
    page.get_by_text("Sample 0 of 1000").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text("Sample 1 of 1000").wait_for()
    page.get_by_role("button", name="Use as inputs").last.click()
    page.get_by_text("caption are inputs now").wait_for()
    page.get_by_role("tab", name="Run").click()
    page.get_by_text("The model is in training, at step 29").wait_for()
    assert page.get_by_alt_text("curve: loss", exact=True).is_visible()
    page.get_by_role("tab", name="Generate").click()
    page.wait_for_function("document.querySelector('[id=\"input-caption-text\"] textarea').value.includes('object')")


def test_a_narrow_window_does_not_scroll_sideways(context: Any, studio: str) -> None:
    window = Window(context, studio, 400, 800)
    window.inputs("caption", "rgb", "depth")
    window.write("caption", "a red cube")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 400
    for selector in ("#generate", "[id='input-rgb-picture']", "[id='region-depth'] canvas"):
        box = window.page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400, selector
    assert window.page.get_by_text("Merge the samples").bounding_box()["height"] < 30, "it has one line"
    window.page.close()


def test_the_keyboard_alone_is_enough(window: Window) -> None:
    """From the top of the page, without the mouse: a second input and target, the caption, a drawing with the arrow keys, and the request."""
    page = window.page

    def tab_to(selector: str, words: str = "") -> None:
        """Presses Tab until something within what the selector finds has the focus, which has the words as its text or label."""
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(
                """([selector, words]) => {
                    const at = document.activeElement;
                    const said = [at.ariaLabel, at.innerText, at.closest("label")?.innerText].join(" ");
                    return at !== document.body && at.closest(selector) !== null && said.includes(words);
                }""",
                [selector, words],
            ):
                return
        raise AssertionError(f"{selector} {words!r} cannot be reached")

    def press(key: str) -> None:
        """Presses a key that has the form drawn again."""
        before = window.drawn()
        page.keyboard.press(key)
        window.drawn_again(before)

    begun = window.drawn()
    tab_to("#inputs", "rgb")
    page.wait_for_timeout(500)
    assert window.drawn() == begun, "to pass the bundle does not begin anew"
    press("Space")
    tab_to("#targets", "Targets")
    page.keyboard.type("global")
    press("Enter")
    page.keyboard.press("Escape")
    begun = window.drawn()
    tab_to("#input-caption-text")
    page.keyboard.type("a red cube")
    tab_to("#input-rgb-picture")
    tab_to("button", "or a drawing")
    page.keyboard.press("Enter")
    tab_to("#input-rgb-draw canvas")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    tab_to("#generate")
    page.keyboard.press("Enter")
    window.requests += 1
    window.finished()
    assert window.cards() == ["depth", "global"] and window.drawn() == begun


def test_statistics_are_shown(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_page, "MOST_COUNTED", 20)
    page = window.page
    page.get_by_role("tab", name="Data").click()
    page.get_by_role("button", name="Statistics").click()
    page.get_by_text("scenes: 1,000 samples, 20 of them read").wait_for()
    assert page.get_by_alt_text("histograms").is_visible()


def test_a_run_is_followed(window: Window, studio_run: Path) -> None:
    page = window.page
    page.get_by_role("tab", name="Run").click()
    page.get_by_text("at step 29").wait_for()
    with (studio_run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 30, "split": "train", "loss": 0.3}\n')
    page.get_by_label("Follow").check()
    page.get_by_text("at step 30").wait_for()
    assert page.get_by_text(re.compile(r"looked at \d\d:\d\d:\d\d")).is_visible()


def test_results_are_seen_before_they_are_finished(window: Window, blocked: threading.Event) -> None:
    page = window.page
    window.write("caption", "a red cube")
    page.get_by_role("button", name="Steps and guidance").click()
    page.get_by_label("depth: steps").fill("4")
    window.generate()
    page.get_by_text("Request 1: depth: pass 2 of 4").wait_for()
    assert window.cards() == ["depth"]
    early = page.locator("#results img").first.get_attribute("src")
    blocked.set()
    window.finished()
    assert window.cards() == ["depth"] and page.locator("#results img").first.get_attribute("src") != early


def test_a_request_is_stopped_and_the_next_one_runs(window: Window, blocked: threading.Event) -> None:
    """What was there when it stopped stays in the page; nothing of it comes later."""
    page = window.page
    window.write("caption", "a red cube")
    page.get_by_role("button", name="Steps and guidance").click()
    page.get_by_label("depth: steps").fill("4")
    window.generate()
    page.get_by_text("Request 1: depth: pass 2 of 4").wait_for()
    early = page.locator("#results img").first.get_attribute("src")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("stopped", exact=True).wait_for()
    blocked.set()
    page.wait_for_timeout(1000)
    assert page.locator(".mw-status").inner_text() == "stopped"
    assert page.locator("#results img").first.get_attribute("src") == early
    window.generate()
    window.finished()
    assert page.locator("#results img").first.get_attribute("src") != early


def test_an_edited_schedule_is_run(window: Window, bundle: Bundle) -> None:
    page = window.page
    window.write("caption", "a red cube")
    window.generate()
    window.finished()
    before = page.locator("#results img").first.get_attribute("src")
    page.get_by_role("tab", name="Schedule").click()
    steps = page.locator(".cm-content:visible")
    written = steps.inner_text()
    assert written.startswith("steps:\n- target: depth\n") and "  tokens: 64\n" in written
    edited = "steps: [{target: depth, scheme: roar, tokens: 30}, {target: depth, scheme: roar, tokens: 34}]"
    steps.fill(edited)
    page.get_by_label("Run this schedule as it stands here").check()
    window.generate()
    window.finished()
    assert steps.inner_text() == edited
    *_, expected = running.run(bundle, StudioRequest({"caption": "a red cube"}, ("depth",), schedule=edited), Bounds())
    found = page.locator("#results img").first.get_attribute("src")
    assert found != before and found in progress_html(bundle.catalog, expected, ["depth"])
    page.get_by_role("tab", name="Python").click()
    assert "schedule=load_schedule('schedule.yaml')" in page.locator(".cm-content:visible").inner_text()
    assert "unpack the ZIP file" in page.locator("#hint").inner_text()


def test_a_saved_request_of_another_catalog_is_told(window: Window, tmp_path: Path) -> None:
    facts = {"format": 1, "inputs": {"order": ["smell"], "texts": {"smell": "smoke"}}, "targets": ["depth"], "edit": {}}
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("request.json", json.dumps(facts))
    page = window.page
    window.write("caption", "a red cube")
    page.get_by_role("button", name="Save and reopen").click()
    page.locator("#reopen input[type=file]").set_input_files(tmp_path / "other.zip")
    page.get_by_role("alert").get_by_text("unknown modality 'smell'").wait_for()
    assert window.field("caption", "text").locator("textarea").input_value() == "a red cube", "the form stays"


def post(address: str, content: dict[str, Any]) -> tuple[int, str]:
    """Status and text of what the server answers to a request that no page would send."""
    ask = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(ask, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_paths_of_the_server_cannot_be_asked_for(studio: str, bundle_folder: Path) -> None:
    address = studio.rstrip("/")
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    secret = {
        "path": str(bundle_folder / "modalities.yaml"),
        "orig_name": "request.zip",
        "meta": {"_type": "gradio.FileData"},
    }
    uploads = [d["id"] for d in config["dependencies"] if any(t[1] == "upload" for t in d["targets"])]
    assert uploads and not config.get("api_names")
    for number in uploads:
        code, _ = post(
            f"{address}/gradio_api/queue/join", {"fn_index": number, "data": [secret, None], "session_hash": "forged"}
        )
        with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=forged", timeout=30) as stream:
            said = stream.read().decode()
        assert code == 200 and '"success":false' in said.replace(" ", "")
        assert "Traceback" not in said and "vocabularies" not in said and "modalities:" not in said
    for path in (bundle_folder / "modalities.yaml", Path(__file__)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
