"""A device that is gone: the page says so where it is seen, and loses nothing that was written."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import EOS, ROLES, TOKENIZER, ApiServer, api_server, loaded_model
from tests.browser import answered, ask
from tests.saying_engine import SayingEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

NOTICE = "#notice:not([hidden]):has-text('does not answer')"
BACK = "#send:not([disabled])"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A chat model that says many lines."""
    engine = SayingEngine(TOKENIZER, "A line.\n\n" * 60, EOS, 0.005)
    with api_server(loaded=loaded_model(ROLES), engine=engine) as running:
        yield running


def leave(page: Any) -> None:
    """Let the device be gone for this page."""
    page.route("**/v1/**", lambda route: route.abort())


def come_back(page: Any) -> None:
    page.unroute("**/v1/**")
    page.wait_for_selector(BACK)


def in_sight(page: Any, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    height = page.viewport_size["height"]
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= height


def test_header_and_notice_stay_in_sight(page: Any) -> None:
    ask(page, "Say it")
    answered(page)
    for where in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight"):
        page.evaluate(f"scrollTo(0, {where})")
        assert in_sight(page, ".top")
        assert in_sight(page, "#model-state")
    leave(page)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector(NOTICE)
    for where in ("0", "document.body.scrollHeight"):
        page.evaluate(f"scrollTo(0, {where})")
        assert in_sight(page, "#notice")
    assert page.locator("#notice").get_attribute("role") == "alert"


def test_what_was_sent_to_a_gone_device_is_a_draft_again(page: Any) -> None:
    leave(page)
    ask(page, "A long thought")
    page.wait_for_selector(NOTICE)
    assert page.input_value("#prompt") == "A long thought"
    assert page.locator(".turn").count() == 0
    assert page.is_visible("#welcome")
    page.keyboard.press("Enter")  # it cannot be sent, and stays
    page.wait_for_selector("#notice.insists")
    assert page.input_value("#prompt") == "A long thought"
    come_back(page)
    assert page.is_hidden("#notice")
    assert "This device answers again." in page.locator("#announcer").text_content()
    page.press("#prompt", "Enter")
    answered(page)
    assert page.locator(".turn .asked").all_inner_texts() == ["A long thought"], "once"
    assert page.input_value("#prompt") == ""


def test_a_regeneration_that_is_not_answered_keeps_the_answer(page: Any) -> None:
    ask(page, "Say it")
    text = answered(page)
    leave(page)
    page.get_by_role("button", name="Regenerate").click()
    page.wait_for_selector(NOTICE)
    page.wait_for_selector(".turn[aria-busy=false]")
    assert page.locator(".turn .text").inner_text() == text
    assert page.locator(".turn .error").is_hidden()


def test_an_edit_that_is_not_answered_is_still_an_edit(page: Any) -> None:
    for question in ("First", "Second"):
        ask(page, question)
        answered(page)
    leave(page)
    page.get_by_role("button", name="Edit", exact=True).first.click()
    page.keyboard.type(" of all")
    page.keyboard.press("Enter")
    page.wait_for_selector(NOTICE)
    field = page.locator(".turn textarea:visible")
    field.wait_for()
    assert field.input_value() == "First of all"
    assert page.locator(".turn").count() == 2, "nothing is forgotten"
    page.keyboard.press("Enter")  # known to be gone by now
    assert field.input_value() == "First of all"
    page.keyboard.press("Escape")
    assert page.locator(".turn .asked").all_inner_texts() == ["First", "Second"]


def test_an_answer_that_breaks_off_stays_as_far_as_it_came(browser: Any) -> None:
    engine = SayingEngine(TOKENIZER, "word " * 2000, EOS, 0.005)
    context = browser.new_context()
    try:
        page = context.new_page()
        with api_server(loaded=loaded_model(ROLES), engine=engine) as server:
            page.goto(server.url)
            page.wait_for_selector(BACK)
            ask(page, "Say it")
            page.wait_for_selector(".turn .text p")
            page.fill("#prompt", "The next thought")
        text = answered(page)
        assert text.startswith("word")
        error = page.locator(".turn .error").inner_text()
        assert error
        assert "network error" not in error, "the browser's words say nothing"
        page.wait_for_selector(NOTICE)
        assert page.input_value("#prompt") == "The next thought"
    finally:
        context.close()
