"""Editors in a real browser that `test_browser.py` does not use: sound, video, webcam and microphone (Chromium's own false devices), painting, boxes by mouse, colors, sliders; and a full queue."""

import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundle
import torch
from browser_window import Window, need_browser

from maskweave.generate.bundle import Bundle
from maskweave.modality.catalogs import load_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.serve import serve
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.rules import RuleTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

CATALOG = """\
vocabularies: {words: {type: wordpiece, size: 800, sentinels: 4, values: {v0: 64, v1: 256}, words: [cat, dog]}}
modalities:
  photo: {id: 1, kind: patches, grid: [2, 2], value: {type: image, size: [16, 16]}}
  clip: {id: 2, kind: patches, grid: [2, 2, 2], value: {type: video, size: [4, 16, 16], fps: 8}}
  speech: {id: 3, kind: patches, grid: [2, 8], value: {type: audio, rate: 8000, max_seconds: 0.512, mels: 16, hop: 128, window: 512}}
  cover:
    id: 4
    kind: grid
    grid: [4, 4]
    value: {type: classes, size: [16, 16], classes: [water, forest, field]}
    tokenizer: {width: 32, depth: 1, heads: 2, quantizer: {type: vq, codes: 16, dim: 8}}
  things: {id: 5, kind: sequence, vocabulary: words, max_tokens: 32, value: {type: boxes, classes: [cat, dog]}}
  colors: {id: 6, kind: sequence, vocabulary: words, max_tokens: 32, value: {type: palette}}
  kind: {id: 7, kind: grid, value: {type: label, classes: [red, blue]}}
  place:
    id: 8
    kind: sequence
    vocabulary: words
    max_tokens: 8
    chunk: 2
    value: {type: metadata, keys: {height: {id: 0, range: [0, 9], bins: 8, unit: m}, floors: {id: 1, range: [0, 9], bins: 8, integer: true}}}
  hour: {id: 9, kind: grid, value: {type: scalar, range: [0, 24]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle of all of them."""
    home = tmp_path_factory.mktemp("media")
    (home / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    catalog = load_catalog(home / "catalog.yaml")
    torch.manual_seed(0)
    words = TextTokenizer.train(catalog.vocabularies["words"], ["cat dog"] * 4)
    tokenizers = {
        "cover": GridTokenizer(catalog["cover"]).eval(),
        "things": SequenceTokenizer(catalog["things"], words),
        "colors": SequenceTokenizer(catalog["colors"], words),
        "kind": RuleTokenizer(catalog["kind"], {"classes": ["red", "blue"]}),
        "place": SequenceTokenizer(catalog["place"], words),
        "hour": RuleTokenizer.fit(catalog["hour"], [float(hour) for hour in range(25)]),
    }
    model = FourM(catalog, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1))
    return small_bundle.save(Bundle(catalog, tokenizers, model), home / "bundle")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[str]:
    """The address of a running studio in whose queue one request may wait."""
    need_browser()
    page = serve(Offered([str(folder)], []), Bounds(waiting=1), blocks=False)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Any:
    """A browser that may use its false webcam and microphone without asking."""
    return browser.new_context(permissions=["camera", "microphone"])


def asked(window: Window, name: str) -> str:
    """Asks for the classes, given one input, and returns the Python code of the request."""
    window.generate()
    window.finished()
    assert window.cards() == ["cover"]
    code: str = window.page.locator(".cm-content").first.inner_text()
    assert f"'{name}': " in code
    return code


def test_a_sound_is_uploaded(window: Window, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(4000) / 5).astype(np.float32), 8000)
    window.inputs("speech")
    window.field("speech", "sound").locator("input[type=file]").set_input_files(tmp_path / "tone.wav")
    window.field("speech", "sound").locator("audio").first.wait_for(state="attached")
    asked(window, "speech")


def test_a_video_is_uploaded(window: Window, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from maskweave.values.formats.video import write_mp4

    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    (tmp_path / "mine.mp4").write_bytes(write_mp4(frames, 8, "mine"))
    window.inputs("clip")
    window.field("clip", "video").locator("input[type=file]").set_input_files(tmp_path / "mine.mp4")
    window.field("clip", "video").locator("video").wait_for()
    asked(window, "clip")


def test_a_picture_is_taken_with_the_webcam(window: Window) -> None:
    window.inputs("photo")
    field = window.field("photo", "picture")
    field.get_by_label("Capture from camera").click()
    field.get_by_text("Click to Access Webcam").click()
    window.page.wait_for_function("document.querySelector(\"[id='input-photo-picture'] video\")?.videoWidth > 0")
    field.get_by_label("capture photo").click()
    field.locator("img:not(.hide)").first.wait_for()
    asked(window, "photo")


def test_speech_is_recorded_with_the_microphone(window: Window) -> None:
    pytest.importorskip("soundfile")
    window.inputs("speech")
    field = window.field("speech", "sound")
    field.get_by_label("Record audio").click()
    field.get_by_text("Record", exact=True).click()
    window.page.wait_for_timeout(1200)
    field.get_by_text("Stop", exact=True).first.click()
    field.get_by_label("Play", exact=True).first.wait_for()
    asked(window, "speech")


def test_classes_are_painted_and_boxes_drawn_and_colors_picked(window: Window) -> None:
    window.inputs("cover")
    canvas = window.field("cover", "paint").locator("canvas")
    window.drag(canvas, (20, 20), (100, 60))
    asked(window, "cover")
    window.inputs("things")
    window.drag(window.field("things", "boxes").locator("canvas"), (20, 20), (120, 90))
    window.field("things", "boxes").get_by_label("Remove cat").wait_for()
    assert "'inputs/things.json'" in asked(window, "things")
    window.inputs("colors")
    window.field("colors", "colors").get_by_role("button", name="Add a color").click()
    assert window.field("colors", "colors").get_by_label("Color 1", exact=True).input_value() == "#3c78c8"
    asked(window, "colors")


def test_sliders_are_moved(window: Window) -> None:
    """Their values are in the request that is saved."""
    page = window.page
    window.inputs("place", "hour")
    place, hour = window.field("place", "sliders"), window.field("hour", "number")
    place.get_by_label("height", exact=True).focus()
    for key in ("End", "ArrowLeft"):
        page.keyboard.press(key)
    assert (
        place.get_by_label("height (m)").is_checked()
        and not place.get_by_label("floors", exact=True).first.is_checked()
    )
    place.get_by_label("floors, exact").fill("7")
    place.get_by_label("floors, exact").press("Tab")
    hour.locator("input[type=range]").fill("18")
    window.generate()
    window.finished()
    with zipfile.ZipFile(window.save().path()) as saved:
        files = {name: json.loads(saved.read(name)) for name in saved.namelist() if name.endswith(".json")}
    height = files["inputs/place.json"]["height"]
    assert 8 < height < 9 and place.get_by_label("height, exact").input_value() == str(height)
    assert files["inputs/place.json"] == {"height": height, "floors": 7} and files["inputs/hour.json"] == 18


@pytest.mark.slow
def test_requests_beyond_the_queue_are_refused(context: Any, studio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one runs, the second one waits, the third one is told; then the second one gets its result."""
    from maskweave.studio import page

    begun, go_on, run = threading.Event(), threading.Event(), page.run

    def slow(*arguments: Any) -> Iterator[Any]:
        begun.set()
        assert go_on.wait(60)
        yield from run(*arguments)

    monkeypatch.setattr(page, "run", slow)
    windows = [Window(context, studio) for _ in range(3)]
    for one in windows:
        one.inputs("colors")
        one.field("colors", "colors").get_by_role("button", name="Add a color").click()
    try:
        windows[0].generate()
        assert begun.wait(60)
        windows[1].generate()
        windows[1].page.get_by_text("queue").first.wait_for()
        windows[2].generate()
        windows[2].page.get_by_text("currently busy").first.wait_for()
    finally:
        go_on.set()
    for one in windows[:2]:
        one.finished()
        assert one.cards() == ["cover"]
    for one in windows:
        one.page.close()
