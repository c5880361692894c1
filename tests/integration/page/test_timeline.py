"""The timeline of made-up answers: no handoff that was none, and room for long ones."""

from collections.abc import Iterator
from typing import Any

import pytest

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.plan_notes import plan_words
from pd_device_client.planning.planner import Plan
from tests.api_server import api_server
from tests.browser import chromium, opened

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

# Draws an answer out of chunks into the page; leaves the timeline in `window`.
DRAW = """async (chunks) => {
    const { Answer } = await import("/page/answer.js");
    const { Timeline } = await import("/page/timeline.js");
    const { courseWords } = await import("/page/words.js");
    const place = document.createElement("div");
    place.style.width = "700px";
    place.id = "drawn";
    document.querySelector("#drawn")?.remove();
    document.body.append(place);
    const answer = new Answer();
    chunks.forEach((chunk) => answer.apply(chunk));
    const timeline = new Timeline();
    place.append(timeline.element, timeline.zoom);
    await new Promise((resolve) => new ResizeObserver(resolve).observe(timeline.element));
    timeline.draw(answer);
    return { text: timeline.element.textContent, zoom: timeline.zoom.hidden ? "" : timeline.zoom.textContent,
             course: courseWords(answer), shapes: timeline.element.querySelectorAll("*").length,
             size: timeline.element.outerHTML.length };
}"""  # noqa: E501


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with (
        chromium() as browser,
        api_server() as server,
        opened(browser, server.url) as made,
    ):
        yield made


def event(at_s: float, name: str, **facts: Any) -> dict[str, Any]:
    return {"pd": {"event": name, "at_s": at_s, **facts}}


def plan(at_s: float = 0.0, **facts: Any) -> dict[str, Any]:
    usual = {"mode": "pd-device", "prompt_tokens": 100, "cloud_tokens": 4, "pace_s": 0.1,
             "ttft_s": 0.2, "ready_s": 0.6, "notes": []}  # fmt: skip
    facts = {**usual, **facts}
    made = Plan(Mode(facts["mode"]), facts["cloud_tokens"], facts["pace_s"], ready_s=0.6)
    return event(at_s, "plan", words=plan_words(made, facts["prompt_tokens"]), **facts)


def shown(at_s: float, position: int, origin: str) -> dict[str, Any]:
    facts = {"at_s": at_s, "position": position, "origin": origin}
    return {"choices": [{"delta": {"content": "x"}, "pd": facts}]}


def arrivals(count: int) -> list[dict[str, Any]]:
    return [event(0.2 + i / 50, "cloud_tokens", position=i, num_tokens=1) for i in range(count)]


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ASKED = event(0.0, "cloud_asked", cloud_tokens=4)
CLAIM = event(0.5, "handoff", position=4)


def carried(count: int, pace_s: float = 0.1) -> list[dict[str, Any]]:
    """An answer of which the cloud makes four tokens and the device the rest."""
    first = [shown(0.2 + i * pace_s, i, "cloud") for i in range(4)]
    passes = [
        event(0.5 + i * pace_s, "device_pass", fed_tokens=101 + i, num_tokens=1, seconds=0.01)
        for i in range(4, count)
    ]
    rest = [shown(0.2 + i * pace_s, i, "device") for i in range(4, count)]
    return [plan(), ASKED, *arrivals(4), CLAIM, *first, *passes, *rest]


def test_a_handoff_is_drawn_where_one_was(page: Any) -> None:
    drawn = page.evaluate(DRAW, [*carried(12), END])
    assert "handoff" in drawn["text"]
    assert "This device went on from token 5" in drawn["course"]


@pytest.mark.parametrize(
    "tokens",
    [
        # The device was first; the cloud's tokens came for nothing.
        [shown(0.1 + i / 10, i, "device") for i in range(8)],
        # The cloud's tokens were the whole answer, though the device had claimed.
        [shown(0.2 + i / 10, i, "cloud") for i in range(4)],
        # Nothing was shown.
        [],
    ],
    ids=["device first", "cloud to the end", "nothing"],
)
def test_no_handoff_is_drawn_where_none_was(page: Any, tokens: list[Any]) -> None:
    for ending in ([], [END]):  # under way, and at the end
        chunks = [plan(), ASKED, *arrivals(4), CLAIM, *tokens, *ending]
        drawn = page.evaluate(DRAW, chunks)
        assert "handoff" not in drawn["text"]
        assert "went on from" not in drawn["course"]


def test_a_cloud_that_broke_off_handed_nothing_over(page: Any) -> None:
    cut = event(0.3, "cloud_failed", final=True, message="it broke", code="cloud_unavailable")
    chunks = carried(12)
    drawn = page.evaluate(DRAW, [*chunks[:6], cut, *chunks[6:], END])
    assert "handoff" not in drawn["text"]
    assert "goes on" in drawn["text"]
    assert "broke off after 0.30" in drawn["text"]
    assert "free after" not in drawn["text"] + drawn["course"]


def test_a_plan_that_is_revised_is_told_anew(page: Any) -> None:
    first = page.evaluate(DRAW, [plan()])
    assert first["course"] == plan()["pd"]["words"].replace("0.60 s", "0.60\N{NO-BREAK SPACE}s")
    assert "The cloud makes the first 4 tokens" in first["course"]
    revised = page.evaluate(DRAW, [plan(), ASKED, *arrivals(4), plan(0.4, cloud_tokens=9)])
    assert "The cloud makes the first 9 tokens" in revised["course"]


def test_what_has_become_of_a_plan_is_told_at_once_and_at_the_end(page: Any) -> None:
    why = "this device makes 11 tokens a second; 20 were asked for: the cloud makes the rest"
    replan = event(1.0, "replan", mode="cloud-only", why=why)
    made = ["cloud", "device", "device", "cloud", "cloud"]
    tokens = [shown(0.1 * (i + 1), i, made[i]) for i in range(5)]
    chunks = [plan(), *arrivals(1), event(0.2, "handoff", position=1), *tokens[:3], replan]
    assert page.evaluate(DRAW, chunks)["course"] == f"T{why[1:]}."
    ended = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    course = page.evaluate(DRAW, [*chunks, *tokens[3:], ended])["course"]
    assert course.endswith("went on from token 2 without a seam, and the cloud again from token 4.")


def test_a_long_answer_is_drawn_with_few_shapes(page: Any) -> None:
    few = page.evaluate(DRAW, [*carried(20), END])
    many = page.evaluate(DRAW, [*carried(20_000, pace_s=0.02), END])
    assert many["size"] < 3 * few["size"]
    assert many["shapes"] < 60
    assert "19,996 tokens" in many["text"]


def test_a_long_answer_can_be_looked_at_closely(page: Any) -> None:
    assert page.evaluate(DRAW, [*carried(12), END])["zoom"] == ""
    drawn = page.evaluate(DRAW, [*carried(600), END])
    assert drawn["zoom"] == "Zoom to where hands change"
    device = page.locator("#drawn .dots.device")
    assert device.get_attribute("d").count("M") == 1, "a line"
    page.locator("#drawn .zoom").focus()
    page.keyboard.press("Enter")
    assert device.get_attribute("d").count("M") > 4, "dots that can be told apart"
    assert "handoff" in page.locator("#drawn .timeline").text_content()
    assert page.locator("#drawn .zoom").inner_text() == "Show the whole answer"
    page.keyboard.press("Enter")
    assert device.get_attribute("d").count("M") == 1
