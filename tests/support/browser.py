"""Debian's chromium, headless, driven by Playwright: what a person would see of a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

#: Width and height in CSS pixels.
DESKTOP, PHONE = (1280, 900), (375, 800)

#: Runs as root in a container, and asks nobody on the network for anything.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
]


def binary() -> str:
    """Path of the browser; skips the test where there is none."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, closed at the end; skips the test where there is none.

    Playwright keeps an event loop running meanwhile, so `asyncio.run` fails: prepare what needs it before.
    """
    path = binary()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Seen:
    """What a page said behind a reader's back.

    Attributes:
        errors: messages of the console that are errors or warnings, and exceptions.
        requests: addresses that were asked for, the page's own and its pictures within left out.
    """

    def __init__(self, page: Page) -> None:
        """Listens to a page that has loaded nothing yet."""
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.requests.append(url)


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
