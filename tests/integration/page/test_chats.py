"""Chats are kept only on request, in this browser, within bounds, and can be deleted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import EOS, ROLES, TOKENIZER, ApiServer, api_server, loaded_model
from tests.browser import answered, ask, eventually, opened, posted
from tests.saying_engine import SayingEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

STORED = """Object.entries(localStorage).filter(([key]) => key.startsWith("pd-device.chat."))
    .map(([, value]) => JSON.parse(value))"""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    engine = SayingEngine(TOKENIZER, "A *short* answer.", EOS)
    with api_server(loaded=loaded_model(ROLES), engine=engine) as running:
        yield running


def keep(page: Any) -> None:
    page.click("#open-chats")
    page.check("#chats [name=keepChats]")
    page.keyboard.press("Escape")


def talk(page: Any, *questions: str) -> None:
    for question in questions:
        ask(page, question)
        answered(page)


def titles(page: Any) -> list[str]:
    """Open the sheet and read its list."""
    page.click("#open-chats")
    found = page.locator("#chat-list .open-chat").all_inner_texts()
    return [text.split("\n")[0] for text in found]


def test_nothing_is_kept_unasked(page: Any) -> None:
    talk(page, "A secret thought")
    assert page.evaluate(STORED) == []
    page.click("#open-chats")
    assert not page.is_checked("#chats [name=keepChats]")
    assert page.is_hidden("#delete-chats")
    assert "forgets it" in page.locator("#chats-fact").inner_text()


def test_a_kept_chat_is_opened_and_goes_on_as_one(page: Any) -> None:
    keep(page)
    talk(page, "First?")
    page.click("#new-chat")
    talk(page, "Other?")
    page.reload()
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn").count() == 0
    assert titles(page) == ["Other?", "First?"], "the newest first"
    page.click("#chat-list .open-chat:has-text('First?')")
    assert page.is_hidden("#chats")
    assert page.locator(".turn .asked").all_inner_texts() == ["First?"]
    assert page.locator(".turn .text em").inner_text() == "short"
    assert page.locator(".turn .text .by-device").count() >= 1, "its makers are kept"
    assert "This device made all" in page.locator(".turn .course").inner_text()
    assert page.is_hidden(".turn .timeline")
    bodies = posted(page)
    talk(page, "Second?")
    assert [m["content"] for m in bodies[-1]["messages"]] == [
        "First?", "A *short* answer.", "Second?"]  # fmt: skip
    assert titles(page) == ["First?", "Other?"], "no chat twice"
    assert page.locator(".open-chat[aria-current]").inner_text().startswith("First?")


def test_keeping_begins_with_the_chat_that_is_open_and_ends_when_told(page: Any) -> None:
    talk(page, "Before")
    keep(page)
    assert [len(chat["turns"]) for chat in page.evaluate(STORED)] == [1]
    page.click("#open-chats")
    page.uncheck("#chats [name=keepChats]")
    page.keyboard.press("Escape")
    talk(page, "After")
    assert [len(chat["turns"]) for chat in page.evaluate(STORED)] == [1], "what is there stays"


def test_what_was_said_before_a_new_chat_is_kept_too(browser: Any) -> None:
    engine = SayingEngine(TOKENIZER, "word " * 500, EOS, 0.005)
    with (
        api_server(loaded=loaded_model(ROLES), engine=engine) as slow,
        opened(browser, slow.url) as page,
    ):
        keep(page)
        ask(page, "Say it")
        page.wait_for_selector(".turn .text p")
        page.click("#new-chat")
        eventually(lambda: len(page.evaluate(STORED)) == 1)
        assert page.evaluate(STORED)[0]["turns"][0]["text"].startswith("word")
        ask(page, "Say more")
        page.wait_for_selector(".turn .text p")
        page.click("#open-chats")
        page.check("#chats [name=keepChats]")
        page.locator("#chat-list .danger").first.dblclick()  # of the first; the second runs
        eventually(lambda: page.evaluate(STORED) == [])


def test_chats_are_deleted_one_by_one_and_all(page: Any) -> None:
    keep(page)
    for question in ("One", "Two", "Three"):
        page.click("#new-chat")
        talk(page, question)
    assert titles(page) == ["Three", "Two", "One"]
    away = page.locator("#chat-list li:has-text('Two') .danger")
    away.click()
    assert away.inner_text() == "Sure?"
    assert len(page.evaluate(STORED)) == 3, "asked first"
    away.click()
    assert [chat["turns"][0]["prompt"] for chat in page.evaluate(STORED) if chat].count("Two") == 0
    assert len(page.evaluate(STORED)) == 2
    page.locator("#chat-list li:has-text('Three') .danger").dblclick()
    assert page.locator(".turn").count() == 0, "the open one leaves the page too"
    page.click("#delete-chats")
    assert "1 chat?" in page.locator("#delete-chats").inner_text()
    page.click("#delete-chats")
    assert page.evaluate(STORED) == []
    assert page.is_hidden("#delete-chats")


def test_a_chat_deleted_in_another_page_is_not_brought_back(page: Any, server: ApiServer) -> None:
    keep(page)
    talk(page, "Here")
    other = page.context.new_page()
    other.goto(server.url)
    other.wait_for_selector("#send:not([disabled])")
    assert titles(other) == ["Here"]
    other.locator("#chat-list .danger").dblclick()
    assert other.evaluate(STORED) == []
    talk(page, "More")
    assert page.evaluate(STORED) == []


FILL = """async ([count, characters]) => {
    const { KeptChats } = await import("/page/kept_chats.js");
    const kept = new KeptChats();
    const problems = [];
    for (let i = 0; i < count; i += 1) {
        const told = { course: "", figures: [] };
        const text = "x".repeat(characters);
        problems.push(kept.save({ id: `n${i}`, savedMs: i, turns: [
            { prompt: `Chat ${i}`, chat: true, text, runs: [], error: "", told }] }));
    }
    const size = Object.values(localStorage).reduce((sum, value) => sum + value.length, 0);
    return { problems: problems.filter(Boolean), ids: kept.list().map(({ id }) => id), size };
}"""


def test_the_store_has_bounds(page: Any) -> None:
    many = page.evaluate(FILL, [130, 10])
    assert many["problems"] == []
    assert len(many["ids"]) == 100
    assert many["ids"][0] == "n129"
    page.evaluate("localStorage.clear()")
    large = page.evaluate(FILL, [10, 500_000])
    assert large["ids"][0] == "n9"
    assert large["size"] <= 2_100_000
    page.evaluate("localStorage.clear()")
    huge = page.evaluate(FILL, [1, 3_000_000])
    assert huge["ids"] == []
    assert "too long" in huge["problems"][0]


def test_a_full_storage_is_said_and_breaks_nothing(page: Any) -> None:
    page.evaluate("""() => {
        for (let size = 2 ** 22; size >= 1; size /= 2) {
            try {
                for (;;) localStorage.setItem(`filler ${Math.random()}`, "x".repeat(size));
            } catch {}
        }
    }""")
    page.click("#open-chats")
    page.check("#chats [name=keepChats]")
    page.keyboard.press("Escape")
    ask(page, "A thought " * 50)
    assert answered(page) == "A short answer."
    page.wait_for_selector("#notice:has-text('no room')")
    page.click("#open-chats")
    assert "no room" in page.locator("#chats-problem").inner_text()
    assert page.locator(".turn").count() == 1


@pytest.mark.parametrize(
    "stored",
    ["{", "null", "7", "{}", '{"id": "x", "savedMs": 1, "turns": []}',
     '{"id": "x", "savedMs": 1, "turns": [{"prompt": 5}]}',
     '{"id": "other", "savedMs": 1, "turns": [{"prompt": "a", "chat": true, "text": "", "runs": [],'
     ' "error": "", "told": {"course": "", "figures": []}}]}'],
)  # fmt: skip
def test_what_is_no_chat_is_not_listed(page: Any, stored: str) -> None:
    page.evaluate("(v) => localStorage.setItem('pd-device.chat.x', v)", stored)
    assert titles(page) == []


def test_kept_text_stays_text(page: Any) -> None:
    told = {"course": "<b>x</b>", "figures": [["<i>a</i>", "<script>window.hit=1</script>"]]}
    turn = {"prompt": "<img src=x onerror=window.hit=1>", "chat": True, "text": "<b>bold</b>",
            "runs": [], "error": "", "told": told}  # fmt: skip
    chat = json.dumps({"id": "x", "savedMs": 1, "turns": [turn]})
    page.evaluate("(v) => localStorage.setItem('pd-device.chat.x', v)", chat)
    assert titles(page) == ["<img src=x onerror=window.hit=1>"]
    page.click("#chat-list .open-chat")
    assert page.locator(".turn .text").inner_text() == "<b>bold</b>"
    assert page.evaluate("window.hit") is None
