"""A cloud that fails is one sentence; what lies behind it is there for who unfolds it."""

from typing import Any

import pytest

from pd_core.errors import CloudUnavailable
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.api_server import api_server, scripted_cloud
from tests.browser import answered, ask, opened, set_choice

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

PROFILE = SpeedProfile("slow", "a test", 1 / 1500, 0.003)
PROMPT = "The device and the cloud carry one answer together. " * 20
LONG = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:50051: refused"


def test_a_dead_cloud_is_one_sentence(browser: Any) -> None:
    cloud = scripted_cloud()
    cloud.script.refuse = lambda number: CloudUnavailable(f"attempt: {LONG}")
    with (
        api_server(cloud=cloud, profile=PROFILE, pace_s=0.01) as server,
        opened(browser, server.url) as page,
    ):
        set_choice(page, "maxTokens", "30")
        ask(page, PROMPT)
        answered(page)
        troubles = page.locator(".troubles")
        assert troubles.locator("> *").count() == 1, "however often it was tried"
        assert troubles.inner_text() == "The cloud did not answer; this device answers alone."
        assert page.locator(".turn .error").is_hidden()
        assert "handoff" not in page.locator(".turn .timeline").text_content()
        assert "did not answer" in page.locator(".turn .timeline").text_content()
        troubles.locator("summary").focus()
        page.keyboard.press("Enter")
        assert LONG in troubles.inner_text()
        assert troubles.locator("p").count() == 1, "the same words once"


def test_a_cloud_that_broke_off_is_one_sentence(browser: Any) -> None:
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.05, 0.03
    cloud.script.cut_after, cloud.script.cut_streams = 4, 99
    with (
        api_server(cloud=cloud, profile=PROFILE, pace_s=0.03) as server,
        opened(browser, server.url) as page,
    ):
        set_choice(page, "maxTokens", "50")
        ask(page, PROMPT)
        answered(page)
        said = page.locator(".turn .troubles").inner_text()
        assert said == "The cloud broke off; this device went on."
        assert "handoff" not in page.locator(".turn .timeline").text_content()


def test_the_settings_fold_the_details_too(browser: Any) -> None:
    cloud = scripted_cloud()

    async def dead() -> Any:
        raise CloudUnavailable(LONG)

    cloud.info = dead  # type: ignore[method-assign]
    with (
        api_server(cloud=cloud, profile=PROFILE, cloud_address="cloud.example:1") as server,
        opened(browser, server.url) as page,
    ):
        page.wait_for_selector("#cloud-state:has-text('not reachable')")
        page.click("#open-settings")
        detail = page.locator("#cloud-detail")
        assert LONG not in detail.inner_text()
        detail.locator("summary").click()
        assert LONG in detail.inner_text()
        page.keyboard.press("Escape")
        set_choice(page, "maxTokens", "10")
        ask(page, PROMPT)
        answered(page)
        said = page.locator(".turn .troubles").inner_text()
        assert said == "The cloud could not take part; this device answers alone."


# What the words make of made-up answers.
WORDS = """async (chunks) => {
    const { Answer } = await import("/page/answer.js");
    const { failure, troubles } = await import("/page/troubles.js");
    const answer = new Answer();
    for (const chunk of chunks) {
        if (chunk.error) answer.end(Object.assign(new Error(chunk.error), { code: chunk.code }));
        else answer.apply(chunk);
    }
    return { troubles: troubles(answer), error: answer.error && failure(answer.error) };
}"""


def failed(side: str, message: str, code: str, final: bool = True) -> dict[str, Any]:
    return {"pd": {"event": f"{side}_failed", "at_s": 0.1, "message": message, "code": code,
                   "final": final}}  # fmt: skip


def shown(origin: str) -> dict[str, Any]:
    facts = {"at_s": 0.2, "position": 0, "origin": origin}
    return {"choices": [{"delta": {"content": "x"}, "pd": facts}]}


ARRIVED = {"pd": {"event": "cloud_tokens", "at_s": 0.15, "position": 0, "num_tokens": 1}}
PLAN = {"pd": {"event": "plan", "at_s": 0.0, "mode": "device-only", "prompt_tokens": 5}}


ALONE = "This device answers alone. It reads the 5 tokens of the text first."
SLOW = "this device makes 11 tokens a second; 20 were asked for"


@pytest.mark.parametrize(
    ("chunks", "sentences"),
    [
        ([failed("cloud", "full", "queue_full"), shown("device")],
         ["The cloud had no room; this device answers alone."]),
        ([failed("cloud", "cut", "cloud_unavailable", final=False)],
         ["The cloud did not answer; it is asked again."]),
        ([ARRIVED, failed("cloud", "cut", "cloud_unavailable"), ARRIVED, shown("cloud")],
         ["The cloud broke off, and came back."]),
        ([failed("device", "no memory", "engine_error"), ARRIVED, shown("cloud")],
         ["This device could not go on; the cloud did."]),
        ([{"pd": {**PLAN["pd"], "words": ALONE, "notes": [ALONE, SLOW],
                  "broken": [SLOW], "mode": "device-only"}}],
         ["This device makes 11 tokens a second; 20 were asked for."]),
    ],
)  # fmt: skip
def test_words(browser: Any, chunks: list[Any], sentences: list[str]) -> None:
    with api_server() as server, opened(browser, server.url) as page:
        told = page.evaluate(WORDS, chunks)["troubles"]
        assert [trouble["words"] for trouble in told] == sentences


def test_both_sides_failing_is_one_sentence_too(browser: Any) -> None:
    message = f"neither side can go on. Cloud: {LONG}. Device: out of memory"
    with api_server() as server, opened(browser, server.url) as page:
        told = page.evaluate(WORDS, [{"error": message, "code": "both_engines_failed"}])["error"]
        assert told == {
            "words": "Neither the cloud nor this device could go on.",
            "details": [message],
        }
