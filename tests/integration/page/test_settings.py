"""The page's settings in a real Chromium: what was stored, what was mistyped, two pages at once."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pd_core.errors import ConfigError
from pd_device_client.contract.ports import CloudLink
from tests.api_server import ApiServer, api_server, scripted_cloud
from tests.browser import answered, ask, eventually, opened, posted

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

KEPT = "pd-device.settings"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A base model that answers alone."""
    with api_server() as running:
        yield running


def ready(page: Any) -> None:
    page.wait_for_selector("#send:not([disabled])")


def stored(page: Any) -> Any:
    return json.loads(page.evaluate(f"localStorage.getItem('{KEPT}')"))


@pytest.mark.parametrize(
    "kept",
    [
        '{"mode": "a choice that is no more", "maxTokens": "7"}',
        '{"mode": 5, "tint": "no", "maxTokens": "7"}',
        '{"paceS": "9", "ttftS": "-1", "seed": "1e400", "format": "x", "maxTokens": "7"}',
    ],
)
def test_stored_choices_that_are_no_more_are_those_of_the_beginning(
    browser: Any, server: ApiServer, kept: str
) -> None:
    with opened(browser, server.url) as page:
        page.evaluate("([name, kept]) => localStorage.setItem(name, kept)", [KEPT, kept])
        page.reload()
        ready(page)
        ask(page, "hello")
        answered(page)
        assert page.locator(".turn .error").is_hidden()
        assert "all 7 tokens" in page.locator(".turn .course").inner_text()
        page.click("#open-settings")
        assert page.is_checked("#modes [value=as-set]")


@pytest.mark.parametrize("kept", ["{", "null", "[]", '"x"', "7"])
def test_what_is_no_choices_at_all_is_as_if_nothing_was_stored(
    browser: Any, server: ApiServer, kept: str
) -> None:
    with opened(browser, server.url) as page:
        page.evaluate("([name, kept]) => localStorage.setItem(name, kept)", [KEPT, kept])
        page.reload()
        ready(page)
        page.click("#open-settings")
        assert page.is_checked("#modes [value=as-set]")


def test_what_is_no_value_does_not_stand_there_as_if_it_held(
    browser: Any, server: ApiServer
) -> None:
    with opened(browser, server.url) as page:
        page.click("#open-settings")
        page.fill("#settings [name=ttftS]", "-4")
        page.click("#settings [value=close]")
        assert page.is_visible("#settings"), "the browser says what is wrong with it"
        page.press("#settings [name=ttftS]", "Escape")
        assert page.is_hidden("#settings")
        page.click("#open-settings")
        assert page.input_value("#settings [name=ttftS]") == ""


@pytest.mark.parametrize(
    ("chosen", "asked"),
    [
        ("240wpm", {"reading_wpm": 240}),
        ("500wpm", {"reading_wpm": 500}),
        ("0.02", {"pace_s": 0.02}),
    ],
)
def test_the_chosen_pace_is_asked_for_in_its_own_unit(
    browser: Any, server: ApiServer, chosen: str, asked: dict[str, float]
) -> None:
    with opened(browser, server.url) as page:
        page.click("#open-settings")
        page.select_option("#settings [name=paceS]", chosen)
        page.fill("#settings [name=maxTokens]", "3")
        page.click("#settings [value=close]")
        bodies = posted(page)
        ask(page, "hello")
        answered(page)
        pd = bodies[-1]["pd"]
        assert {name: pd[name] for name in ("pace_s", "reading_wpm") if name in pd} == asked
        assert page.locator(".turn .error").is_hidden()


def test_a_second_page_does_not_undo_what_was_chosen_in_the_first(
    browser: Any, server: ApiServer
) -> None:
    with opened(browser, server.url) as first:
        second = first.context.new_page()
        second.goto(server.url)
        ready(second)
        first.check("#local-only")
        second.wait_for_selector("#local-only:checked")
        second.click("#open-settings")
        second.uncheck("#settings [name=tint]")
        assert stored(second)["mode"] == "device-only"
        first.wait_for_selector("body.untinted")
        assert first.is_checked("#local-only")


def test_a_base_model_stays_one_while_it_is_not_reached(browser: Any) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        with api_server() as server:
            page.goto(server.url)
            page.wait_for_selector("#send:has-text('Continue')")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_selector("#notice:not([hidden])")
        assert page.locator("#send").inner_text() == "Continue"
    finally:
        context.close()


def test_the_cloud_is_chosen_in_the_settings(browser: Any) -> None:
    clouds = {"first:1": scripted_cloud(), "second:2": scripted_cloud()}
    asked = list[str | None]()

    def to(target: str | None) -> CloudLink | None:
        asked.append(target)
        if target == "far.example:1":
            raise ConfigError("the link would be plaintext")
        return None if target is None else clouds[target]

    with (
        api_server(cloud=clouds["first:1"], cloud_address="first:1", way_out=to) as server,
        opened(browser, server.url) as page,
    ):
        page.click("#open-settings")
        page.wait_for_selector("#cloud-choice:not([disabled])")
        assert page.input_value("#cloud-choice") == "first:1"
        page.fill("#cloud-choice", "far.example:1")
        page.press("#cloud-choice", "Enter")
        page.wait_for_selector("#cloud-problem:has-text('would be plaintext')")
        assert page.is_visible("#settings"), "it is there to be mended"
        page.locator("#cloud-choice").blur()
        assert asked == ["far.example:1"], "leaving the field asks no second time"
        page.fill("#cloud-choice", "second:2")
        page.press("#cloud-choice", "Enter")
        page.wait_for_selector("#cloud-state:has-text('second:2')")
        assert page.is_hidden("#cloud-problem")
        page.fill("#cloud-choice", "not used:")
        page.press("#cloud-choice", "Escape")
        page.click("#open-settings")
        eventually(lambda: page.input_value("#cloud-choice") == "second:2")
        page.fill("#cloud-choice", "")
        page.press("#cloud-choice", "Enter")
        page.wait_for_selector("#cloud-state:not(:has-text('second:2'))")
        assert asked[-1] is None, "no cloud is a choice too"


def test_a_cloud_that_may_not_be_chosen_is_shown(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url) as page:
        page.click("#open-settings")
        assert page.is_disabled("#cloud-choice")
        assert "--cloud" in page.locator("#cloud-detail").inner_text()
