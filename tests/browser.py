"""A real Chromium for tests of the page; where there is none they are skipped, with the reason."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def chromium_path() -> str | None:
    """Return the browser to use: the variable's, or one that is installed."""
    return os.environ.get("PD_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser and end it whatever happens."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium was found; install one, or name it in PD_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """Open a page in a browser of its own, wait until it can be used, and check what it did.

    Whatever the page does, it asks nobody but its own server, and no script of it fails.
    """
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
    context.set_default_timeout(60_000)
    requested, errors = list[str](), list[str]()
    try:
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#send:not([disabled])")
        yield page
    finally:
        context.close()
    assert errors == []
    assert [asked for asked in requested if not asked.startswith(f"{url}/")] == []


def ask(page: Any, text: str) -> None:
    """Send a text."""
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def answered(page: Any) -> str:
    """Wait until the last answer has ended; return its text."""
    page.wait_for_selector(".turn:last-child[aria-busy=false]")
    return str(page.locator(".turn:last-child .text").inner_text())


def set_choice(page: Any, name: str, value: str) -> None:
    """Type into a field of the settings."""
    page.click("#open-settings")
    page.fill(f"#settings [name={name}]", value)
    page.press(f"#settings [name={name}]", "Escape")


def posted(page: Any) -> list[Any]:
    """Return the list that the bodies of the page's requests are added to from now on."""
    bodies = list[Any]()

    def note(request: Any) -> None:
        if request.method == "POST":
            bodies.append(request.post_data_json)

    page.on("request", note)
    return bodies


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for what no selector says; the page's policy lets no string be evaluated in it again."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
