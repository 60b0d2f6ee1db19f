"""Opens pages in headless Chromium, and keeps what a page says on its console and what it asks for.

The fixture is ``open_page`` of ``conftest.py``::

    @pytest.mark.browser
    def test_a_button(open_page):
        opened = open_page(html, width=360, scheme="dark")
        opened.page.get_by_role("button", name="Copy").click()   # a page of Playwright
        opened.assert_quiet()

Chromium is the system's own: Playwright downloads none. Tests are skipped where one of both is missing.
"""

import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 768, 1280, 1920)
"""Widths of windows in which pages are looked at, in pixels."""
SCHEMES = ("light", "dark")


@dataclass
class OpenedPage:
    """A page in the browser, and what happened in it since it was opened."""

    page: Any
    """A page of Playwright."""
    messages: list[str] = field(default_factory=list)
    """What was written to the console, errors and violations of the page's policy among them."""
    requests: list[str] = field(default_factory=list)
    """What was asked for beside the page itself and data within it."""

    def assert_quiet(self) -> None:
        """Asserts that the page said nothing, violated no policy of its own, and asked for nothing."""
        assert (self.messages, self.requests) == ([], [])

    def wait_until(self, condition: str, seconds: float = 5.0) -> None:
        """Waits until an expression of JavaScript is true.

        Playwright's own ``wait_for_function`` evaluates a string in the page, which the page's policy forbids.
        """
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {condition}"
            self.page.wait_for_timeout(20)

    def sideways(self) -> int:
        """Returns by how many pixels the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@contextmanager
def start_chromium() -> Generator[Any]:
    """Starts the system's Chromium without a window, and ends it; skips the test where it or Playwright is missing."""
    reason = "Playwright is not installed: uv sync --group test --group browser"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("Chromium is not installed, as by apt-get install chromium")
    # Chromium refuses to isolate its processes if it is started by root, as in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(
    browser: Any,
    address: str,
    *,
    width: int = 1280,
    height: int = 900,
    scheme: str = "light",
    reduced_motion: bool = False,
    touch: bool = False,
    scripts: bool = True,
) -> Generator[OpenedPage]:
    """Opens a page in a window of its own, which has no storage of before, and closes it.

    Args:
        browser: That of :func:`start_chromium`.
        address: Where the page is.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        scheme: What the reader's system prefers: ``light`` or ``dark``.
        reduced_motion: Whether the system asks for little motion.
        touch: Whether there is a finger and no mouse.
        scripts: Whether scripts run.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce" if reduced_motion else "no-preference",
        has_touch=touch,
        java_script_enabled=scripts,
        permissions=["clipboard-read", "clipboard-write"],
    )
    try:
        opened = OpenedPage(context.new_page())
        page = opened.page
        page.on("console", lambda message: opened.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: opened.messages.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (opened.messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))

        def keep(request: Any) -> None:
            if request.url.split("#")[0] != address and not request.url.startswith("data:"):
                opened.requests.append(request.url)

        page.on("request", keep)
        page.goto(address)
        yield opened
    finally:
        context.close()


def as_file(folder: Path, html: str) -> str:
    """Writes a page to a file, and returns the file's address."""
    file = folder / f"page-{len(list(folder.glob('page-*.html')))}.html"
    file.write_text(html, encoding="utf-8")
    return file.as_uri()
