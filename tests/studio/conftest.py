"""Shared by the tests of the studio: an untrained bundle on disk, what it offers, and a browser on the `studio` that a test module serves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_bundle
from browser_window import CHROMIUM, Window

from maskweave.generate.bundle import Bundle
from maskweave.studio.offered import Offered


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle with pictures (input only), depth, captions and a vector."""
    return small_bundle.save(small_bundle.small_bundle(), tmp_path_factory.mktemp("studio") / "small")


@pytest.fixture(scope="session")
def offered(bundle_folder: Path) -> Offered:
    return Offered([str(bundle_folder)], ["scenes"])


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path, offered: Offered) -> Bundle:
    return offered.bundle(str(bundle_folder))


@pytest.fixture(scope="module")
def browser(studio: str) -> Iterator[Any]:
    """Has a false webcam and microphone."""
    from playwright.sync_api import sync_playwright

    words = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Any:
    """One person's browser, whose windows share what they have loaded."""
    return browser.new_context()


@pytest.fixture
def window(context: Any, studio: str) -> Iterator[Window]:
    opened = Window(context, studio)
    yield opened
    assert opened.faults == [] and opened.hosts == {studio.split("/")[2]}, (
        "scripts fail, or something is loaded from elsewhere"
    )
    opened.page.close()
