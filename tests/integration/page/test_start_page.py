"""The start page: a small answer plays and explains itself; it rests when asked to."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import ApiServer, api_server, scripted_cloud
from tests.browser import answered, ask, opened

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

SAID = "document.querySelector('#example-said').textContent"
PLAYED = "#example-run:not(.playing)"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


def test_the_example_plays_once_and_again_when_asked(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url) as page:
        page.wait_for_selector("#example-said span")
        early = page.evaluate(SAID)
        page.wait_for_selector(PLAYED)
        whole = page.evaluate(SAID)
        assert whole.startswith(early)
        assert whole.startswith("The cloud begins this sentence at once,")
        assert len(whole) > len(early)
        assert page.locator("#example-said .by-cloud").inner_text() in whole
        assert page.locator("#example-said .by-device").inner_text().endswith("end.")
        assert "handoff" in page.locator("#example-timeline").text_content()
        assert page.locator("#example-steps li").count() == 3
        page.get_by_role("button", name="Play again").click()
        assert len(page.evaluate(SAID)) < len(whole)
        page.wait_for_selector(PLAYED)
        assert page.evaluate(SAID) == whole


def test_nothing_moves_for_who_wants_it_so(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url, reduced_motion="reduce") as page:
        assert page.locator("#example-run.playing").count() == 0
        assert page.evaluate(SAID).endswith("end.")
        assert "handoff" in page.locator("#example-timeline").text_content()


def test_it_leaves_when_something_is_asked(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url) as page:
        ask(page, "hello")
        answered(page)
        assert page.is_hidden("#example-run")
        page.click("#new-chat")
        assert page.is_visible("#example-run")
        page.wait_for_selector(PLAYED)


def test_the_words_say_what_is_here(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url) as page:
        page.wait_for_selector("#examples button")
        words = page.locator("#welcome-text").inner_text()
        assert "base model" in words
        assert "No cloud is set here" in words
    cloud = scripted_cloud()
    with (
        api_server(cloud=cloud, cloud_address="cloud.example:1") as both,
        opened(browser, both.url) as page,
    ):
        page.wait_for_selector("#examples button")
        assert "No cloud is set" not in page.locator("#welcome-text").inner_text()
