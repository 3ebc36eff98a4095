"""Shared by the tests in a browser: whether there is one, and one person's window on the studio."""

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE = 60_000
"""Milliseconds after which what a test waits for is taken never to come."""


def missing() -> str:
    try:
        import gradio  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"the browser tests need {error.name}"
    return "" if Path(CHROMIUM).is_file() else "the browser tests need chromium: apt-get install chromium"


def need_browser() -> None:
    """Skips the tests if there is no browser, unless `MASKWEAVE_BROWSER=required`: then they fail."""
    if why := missing():
        assert os.environ.get("MASKWEAVE_BROWSER") != "required", why
        warnings.warn(f"the tests of the studio in a browser do not run: {why}", stacklevel=2)
        pytest.skip(why)


class Window:
    """One person's window on the studio."""

    def __init__(self, context: Any, address: str, width: int = 1280, height: int = 900):
        self.page = context.new_page()
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.requests = 0
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.page.on(
            "request", lambda request: self.hosts.add(request.url.split("/")[2]) if "://" in request.url else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.page.locator("#generate").wait_for()

    def field(self, name: str, widget: str) -> Any:
        return self.page.locator(f"[id='input-{name}-{widget}']")

    def write(self, name: str, text: str) -> None:
        self.field(name, "text").locator("textarea").fill(text)

    def drawn(self) -> str:
        """Which version of the form is there."""
        found = re.search(r"mw-form-\d+", self.page.locator("#generate").get_attribute("class"))
        assert found
        return found[0]

    def drawn_again(self, before: str) -> None:
        self.page.locator(f"#generate:not(.{before})").wait_for()

    def inputs(self, *names: str) -> None:
        for label in self.page.locator("#inputs label").all():
            box = label.locator("input[type=checkbox]")
            if box.is_checked() != (label.inner_text().strip() in names):
                before = self.drawn()
                box.click()
                self.drawn_again(before)

    def generate(self) -> None:
        self.requests += 1
        self.page.locator("#generate").click()

    def finished(self) -> None:
        self.page.get_by_text(f"Request {self.requests}: finished in").wait_for()

    def cards(self) -> list[str]:
        found = self.page.locator("#results figcaption")
        found.first.wait_for()
        return found.all_inner_texts()

    def drag(self, canvas: Any, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Presses the mouse at one point of a canvas, and moves it to another one."""
        canvas.scroll_into_view_if_needed()
        box, mouse = canvas.bounding_box(), self.page.mouse
        mouse.move(box["x"] + start[0], box["y"] + start[1])
        mouse.down()
        mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
        mouse.up()

    def save(self) -> Any:
        """Saves the request, and returns its file as a download."""
        self.page.get_by_role("button", name="Save and reopen").click()
        self.page.get_by_role("button", name="Save the request").click()
        with self.page.expect_download() as download:
            self.page.locator("#saved a").first.click()
        return download.value

    def choose_bundle(self, name: str) -> None:
        before = self.drawn()
        self.page.get_by_label("Bundle").click()
        self.page.get_by_role("option", name=name).click()
        self.drawn_again(before)

    def target(self, name: str, given: bool = True) -> None:
        """Adds a target at the end, or takes one away."""
        before, targets = self.drawn(), self.page.locator("#targets")
        if given:
            targets.locator("input").fill(name)
            targets.locator("input").press("Enter")
        else:
            targets.locator(".token", has_text=name).locator(".token-remove").click()
        self.drawn_again(before)
        self.page.keyboard.press("Escape")
