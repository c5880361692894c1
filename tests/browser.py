"""A real Chromium for tests of the page; where there is none they are skipped, with the reason."""

import os
import shutil
from collections.abc import Iterator
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
    context.set_default_timeout(30_000)
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
