"""The page in a real Chromium: answers stream, hands are changed, and everything can be reached."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pd_core.errors import QueueFull
from pd_device_client.api.http.guard import Access
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.api_server import (
    EOS,
    ROLES,
    TOKENIZER,
    ApiServer,
    api_server,
    emulated_engine,
    loaded_model,
    scripted_cloud,
)
from tests.browser import answered, ask, eventually, opened, set_choice
from tests.real_server import real_server
from tests.saying_engine import SayingEngine
from tests.scripted_cloud import ScriptedCloud

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

PROFILE = SpeedProfile("slow", "a test", 1 / 1500, 0.003)
PROMPT = "The device and the cloud carry one answer together. " * 20
BUTTONS = [
    "New chat", "Chats", "Settings", "Edit", "Figures", "Copy", "Regenerate", "Go on"]  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> ScriptedCloud:
    made = scripted_cloud()
    made.script.first_token_s, made.script.step_s = 0.05, 0.005
    return made


@pytest.fixture(scope="module")
def server(cloud: ScriptedCloud) -> Iterator[ApiServer]:
    """A base model on a device that is slow to read, and a cloud."""
    with api_server(
        cloud=cloud, profile=PROFILE, pace_s=0.02, cloud_address="cloud.example:50051"
    ) as running:
        yield running


def press(page: Any, name: str) -> None:
    """Press a button of the last answer."""
    page.locator(".turn:last-child").get_by_role("button", name=name, exact=True).click()


def test_an_answer_streams_and_the_handoff_shows(page: Any, server: ApiServer) -> None:
    set_choice(page, "seed", "11")
    set_choice(page, "maxTokens", "60")
    ask(page, PROMPT)
    page.wait_for_selector(".turn .text .by-cloud")
    early = page.locator(".turn .text").text_content()
    assert page.is_visible("#stop")
    answered(page)
    text = page.locator(".turn .text").text_content()
    assert 0 < len(early) < len(text)
    body = {"messages": [{"role": "user", "content": PROMPT}], "seed": 11, "max_tokens": 60}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert text == answer["choices"][0]["message"]["content"]
    assert page.locator(".turn .text .by-cloud").count() >= 1
    assert page.locator(".turn .text .by-device").count() >= 1
    assert "handoff" in page.locator(".turn .timeline").text_content()
    course = page.locator(".course").inner_text()
    assert course.startswith("The cloud made ")
    assert "This device went on from token" in course
    # Cloud arrivals, device passes and shown tokens are drawn; those too close to be told apart
    # together.
    marks = page.locator(".turn .timeline .marks.cloud").get_attribute("d").count("M")
    assert marks + page.locator(".turn .timeline .many.cloud").count() >= 1
    assert page.locator(".turn .timeline .dots.cloud").get_attribute("d").count("M") >= 1
    assert page.locator(".turn .timeline .pass.prefill").count() >= 1
    assert page.locator(".turn .timeline .dots.device").get_attribute("d").count("M") > 10


def test_the_plan_is_told_in_words_while_it_is_carried_out(page: Any) -> None:
    ask(page, PROMPT)
    plan = page.wait_for_selector(".course:has-text('The cloud makes the first')").inner_text()
    assert "has caught up after about" in plan
    page.press("#prompt", "Escape")
    answered(page)


def test_nothing_can_be_sent_before_the_device_has_told_its_state(
    browser: Any, server: ApiServer
) -> None:
    context, held = browser.new_context(), list[Any]()
    try:
        page = context.new_page()
        page.route("**/page/main.js", lambda route: held.append(route))
        page.goto(server.url, wait_until="commit")
        page.wait_for_selector("#send")
        assert page.is_disabled("#send")
        eventually(lambda: bool(page.is_visible("#send")) and len(held) == 1)
        held[0].continue_()
        page.wait_for_selector("#send:not([disabled])")
        assert "ready" in page.locator("#model-state").inner_text()
    finally:
        context.close()


def test_state_and_savings_are_shown(page: Any) -> None:
    assert (
        "random-tiny" in page.locator("#model-state").inner_text()
        or page.locator("#model-state").inner_text()
    )
    assert "ready" in page.locator("#model-state").inner_text()
    cloud = page.locator("#cloud-state").inner_text()
    assert "cloud.example:50051" in cloud
    assert "connected" in cloud
    set_choice(page, "maxTokens", "40")
    ask(page, PROMPT)
    answered(page)
    page.wait_for_selector("#saved:has-text('needed no')")


def test_stop_ends_both_sides(page: Any, server: ApiServer, cloud: ScriptedCloud) -> None:
    page.click("#open-settings")
    page.check("#settings [value=cloud-only]")
    page.click("#settings [value=close]")
    stops: list[Callable[[], None]] = [
        lambda: page.click("#stop"),
        lambda: page.press("#prompt", "Escape"),
    ]
    for stop in stops:
        ask(page, PROMPT)
        page.wait_for_selector(".turn:last-child .text .by-cloud")
        assert server.gauge("pd_answers_running") == 1
        assert cloud.open_streams == 1
        stop()
        answered(page)
        assert "You stopped it." in page.locator(".turn:last-child .course").inner_text()
        eventually(lambda: server.gauge("pd_answers_running") == 0)
        eventually(lambda: cloud.open_streams == 0)
        assert server.gauge("pd_engine_running") == 0


@pytest.mark.slow
def test_the_answer_goes_on_when_the_cloud_is_killed(browser: Any, tmp_path: Path) -> None:
    with (
        real_server(tmp_path, "--sampler", "rolling-hash", ready_within_s=150) as victim,
        api_server(
            make_cloud=lambda: GrpcCloudLink(victim.address),
            engine=emulated_engine(PROFILE),
            profile=PROFILE,
            pace_s=0.01,
            cloud_address=victim.address,
        ) as device,
        opened(browser, device.url) as page,
    ):
        set_choice(page, "maxTokens", "400")
        set_choice(page, "seed", "3")
        page.click("#open-settings")
        page.check("#settings [value=cloud-only]")
        page.click("#settings [value=close]")
        # The cloud is far ahead of what is shown, so it must die early in a long answer.
        ask(page, PROMPT)
        page.wait_for_selector(".turn .text .by-cloud")
        victim.process.send_signal(signal.SIGKILL)
        answered(page)
        assert "of 400 tokens" in page.locator(".course").inner_text()
        assert "The cloud broke off" in page.locator(".troubles").inner_text()
        assert page.locator(".turn .text .by-device").count() >= 1
        assert page.locator(".error").is_hidden()
        alone = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400, "seed": 3,
                 "pd": {"mode": "device-only"}}  # fmt: skip
        answer = httpx.post(f"{device.url}/v1/chat/completions", json=alone, timeout=60).json()
        text = page.locator(".turn .text").text_content()
        assert text == answer["choices"][0]["message"]["content"], "nothing lost, nothing twice"
        eventually(lambda: "not reachable" in page.locator("#cloud-state").inner_text(), 40)


def test_a_cloud_that_breaks_off_is_said_and_the_answer_goes_on(browser: Any) -> None:
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.05, 0.03
    cloud.script.cut_after, cloud.script.cut_streams = 4, 99
    with (
        api_server(cloud=cloud, profile=PROFILE, pace_s=0.03) as server,
        opened(browser, server.url) as page,
    ):
        set_choice(page, "maxTokens", "50")
        ask(page, PROMPT)
        text = answered(page)
        assert "The cloud broke off" in page.locator(".troubles").inner_text()
        assert "of 50 tokens" in page.locator(".course").inner_text()
        assert page.locator(".turn .text .by-device").count() >= 1
        assert len(text) > 20


def test_keyboard_alone_is_enough(page: Any) -> None:
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#prompt") == "one\ntwo"
    assert page.locator(".turn").count() == 0
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn")
    assert page.locator(".turn .prompt").inner_text() == "one\ntwo"
    page.keyboard.press("Escape")
    answered(page)
    # Back from the text field: the answer's buttons, then those at the top, then the skip link.
    names = list[str]()
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        names.append(page.evaluate("document.activeElement.textContent.trim()"))
        if names[-1].startswith("Skip"):
            break
    assert [n for n in names if n in BUTTONS] == list(reversed(BUTTONS))
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "open-settings"
    page.keyboard.press("Enter")
    assert page.is_visible("#settings")
    assert page.evaluate("document.querySelector('#settings').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.is_hidden("#settings")
    assert page.evaluate("document.activeElement.id") == "open-settings"


def test_regenerate_go_on_and_new_chat(page: Any) -> None:
    set_choice(page, "maxTokens", "20")
    ask(page, "Once upon a time")
    first = answered(page)
    press(page, "Regenerate")
    page.wait_for_selector(".turn[aria-busy=true]")
    second = answered(page)
    assert second != first, "a new seed gives another answer"
    press(page, "Go on")
    page.wait_for_selector(".turn:nth-child(2)")
    answered(page)
    assert page.locator(".turn:last-child .prompt").text_content().endswith(second.rstrip()[-5:])
    page.click("#new-chat")
    assert page.locator(".turn").count() == 0
    assert page.is_visible("#welcome")


def test_copy_takes_the_whole_text(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        set_choice(page, "maxTokens", "10")
        ask(page, "Once upon a time")
        answered(page)
        press(page, "Copy")
        page.wait_for_selector("text=Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == "Once upon a time" + page.locator(".turn .text").text_content()


def test_a_chat_carries_its_earlier_turns(browser: Any) -> None:
    engine = SayingEngine(TOKENIZER, "A *short* answer.", EOS)
    with (
        api_server(loaded=loaded_model(ROLES), engine=engine) as server,
        opened(browser, server.url) as page,
    ):
        bodies = list[dict[str, Any]]()

        def note(request: Any) -> None:
            if request.method == "POST":
                bodies.append(request.post_data_json)

        page.on("request", note)
        for question in ("First?", "Second?"):
            ask(page, question)
            assert answered(page) == "A short answer."
        assert page.locator(".turn:last-child .text em").inner_text() == "short"
        assert bodies[-1]["messages"] == [
            {"role": "user", "content": "First?"},
            {"role": "assistant", "content": "A *short* answer."},
            {"role": "user", "content": "Second?"},
        ]


def test_only_on_this_device_asks_no_cloud(browser: Any) -> None:
    cloud = scripted_cloud()
    with (
        api_server(cloud=cloud, profile=PROFILE, cloud_address="cloud.example:1") as server,
        opened(browser, server.url) as page,
    ):
        page.check("#local-only")
        page.wait_for_selector("#cloud-state:has-text('not used')")
        asked = list[str]()
        page.on("request", lambda request: asked.append(request.url))
        set_choice(page, "maxTokens", "10")
        ask(page, PROMPT)
        answered(page)
        assert cloud.starts == []
        eventually(lambda: any(url.endswith("/v1/pd/status") for url in asked))
        assert not any("fresh" in url for url in asked)


def test_settings_stay_and_conversations_do_not(page: Any) -> None:
    set_choice(page, "maxTokens", "10")
    ask(page, "A secret thought")
    answered(page)
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert "secret" not in kept
    assert "maxTokens" in kept
    page.reload()
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn").count() == 0
    page.click("#open-settings")
    assert page.input_value("#settings [name=maxTokens]") == "10"


def test_a_refusal_is_shown_with_its_reason(page: Any) -> None:
    set_choice(page, "maxTokens", "99999")
    ask(page, "hello")
    answered(page)
    assert "max_tokens" in page.locator(".turn .error").inner_text()
    set_choice(page, "maxTokens", "5")
    press(page, "Regenerate")
    page.wait_for_selector(".turn[aria-busy=false] .text span")
    assert page.locator(".turn .error").is_hidden()


def test_a_cloud_that_refuses_is_a_note_not_an_error(browser: Any) -> None:
    cloud = scripted_cloud()
    cloud.script.refuse = lambda _: QueueFull("the queue is full", 30.0)
    with (
        api_server(cloud=cloud, profile=PROFILE, pace_s=0.01) as server,
        opened(browser, server.url) as page,
    ):
        set_choice(page, "maxTokens", "10")
        ask(page, PROMPT)
        answered(page)
        page.click(".troubles summary")
        assert "the queue is full" in page.locator(".troubles").inner_text().lower()
        assert "This device made all 10 tokens" in page.locator(".course").inner_text()


def test_a_device_with_a_key_asks_for_it(browser: Any) -> None:
    with api_server(access=Access(key="right")) as server:
        context = browser.new_context()
        try:
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_selector("#settings[open]")
            page.keyboard.type("right")
            page.keyboard.press("Enter")
            page.wait_for_selector("#send:not([disabled])")
            assert "right" not in page.evaluate("JSON.stringify({...localStorage})")
        finally:
            context.close()


def test_a_device_that_went_away_is_said(browser: Any) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        with api_server() as server:
            page.goto(server.url)
            page.wait_for_selector("#send:not([disabled])")
        ask(page, "hello")
        page.wait_for_selector("#notice:has-text('does not answer')")
        assert "no answer" in page.locator("#model-state").inner_text()
    finally:
        context.close()
