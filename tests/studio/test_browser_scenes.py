"""The page in a real browser with two bundles, one of them the bundle that ships: a picture is repainted, and bundles, targets and guidance are chosen."""

import base64
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_window import Window, need_browser
from PIL import Image

from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.serve import serve
from maskweave.synthetic.scenes import Scenes


@pytest.fixture(scope="module")
def offers(bundle_folder: Path) -> Offered:
    return Offered([str(bundle_folder), "scenes"])


@pytest.fixture(scope="module")
def studio(offers: Offered) -> Iterator[str]:
    need_browser()
    page = serve(offers, Bounds(), blocks=False)
    yield page.local_url
    page.close()


def test_a_part_of_a_picture_is_repainted(window: Window, offers: Offered, tmp_path: Path) -> None:
    """Tokens without a brushed point keep what the tokenizer says of the picture; those with one get new content."""
    bundle = offers.bundle("scenes")
    scene = Scenes(bundle.catalog, 1, seed=3)[0]["rgb"]
    Image.fromarray(scene).save(tmp_path / "scene.png")
    window.choose_bundle("scenes")
    window.inputs("rgb")
    picture = window.field("rgb", "picture")
    picture.locator("input[type=file]").set_input_files(tmp_path / "scene.png")
    picture.locator("img").wait_for()
    region = window.page.locator("[id='region-tok_rgb']")
    region.locator("img").wait_for()
    assert (picture_of(region) == scene).all(), "the picture is under the brush"
    canvas = region.locator("canvas")
    window.drag(canvas, (90, 100), (150, 180))
    window.drag(canvas, (150, 100), (90, 180))
    window.generate()
    window.finished()
    assert window.cards() == ["tok_rgb"]
    shown = Image.fromarray(picture_of(window.page.locator("#results"))).resize((64, 64), Image.Resampling.BOX)
    with zipfile.ZipFile(window.save().path()) as saved:
        mask = np.asarray(Image.open(io.BytesIO(saved.read("edit/tok_rgb.png")))) > 0
        assert (np.asarray(Image.open(io.BytesIO(saved.read("inputs/rgb.png")))) == scene).all()
    tokenizer = bundle.tokenizers["tok_rgb"]
    kept = np.asarray(tokenizer.decode(tokenizer.encode([scene]))[0], np.float32)
    brushed = by_token(mask).any(-1)
    changes = by_token(np.abs(np.asarray(shown, np.float32) - kept).max(-1)).mean(-1)
    padded = np.pad(brushed, 1)  # the tokenizer's decoder looks at the tokens around each one
    near = np.any([padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)
    assert 4 <= brushed.sum() <= 16
    assert changes[~near].max() < 6 < 30 < changes[brushed].max()


def picture_of(part: Any) -> np.ndarray:
    """Returns the first picture in a part of the page."""
    source = part.locator("img").first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def by_token(plane_HW: np.ndarray) -> np.ndarray:
    """Returns the 64 points of each of the 8 × 8 tokens."""
    return plane_HW.reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(8, 8, 64)


def test_the_bundle_the_order_of_targets_and_the_guidance_are_chosen(window: Window, bundle_folder: Path) -> None:
    page = window.page
    targets = page.locator("#targets")
    window.write("caption", "a red cube")
    window.choose_bundle("scenes")
    assert window.field("caption", "text").locator("textarea").input_value() == "", "all begins anew"
    window.write("caption", "1 object: a large red cube.")
    for name in ("depth", "semseg"):
        window.target(name)
    window.target("tok_rgb", given=False)
    window.generate()
    window.finished()
    assert window.cards() == ["depth", "semseg"]
    window.target("depth", given=False)
    window.target("depth")
    page.get_by_role("button", name="Steps and guidance").click()
    page.get_by_label("Guidance by caption").fill("2.5")
    window.generate()
    window.finished()
    assert window.cards() == ["semseg", "depth"]
    code = page.locator(".cm-content").first.inner_text()
    assert "maskweave.load('scenes')" in code and "['semseg', 'depth']" in code
    assert "conditions={'caption': 2.5}" in code
    window.choose_bundle(str(bundle_folder))
    assert targets.inner_text().split()[-1] == "depth"
