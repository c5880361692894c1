"""A turn is asked once, can be edited, and carries what the settings say."""

from collections.abc import Iterator
from typing import Any

import pytest

from pd_core.text.chat_template import ChatTemplate
from tests.api_server import EOS, ROLES, TOKENIZER, ApiServer, api_server, loaded_model
from tests.browser import answered, ask, opened, posted, set_choice
from tests.saying_engine import SayingEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    engine = SayingEngine(TOKENIZER, "An answer of some words, and then some more.", EOS, 0.01)
    with api_server(loaded=loaded_model(ROLES), engine=engine) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: ApiServer) -> Iterator[Any]:
    with opened(browser, server.url) as made:
        made.bodies = posted(made)
        yield made


def edit(page: Any, turn: int) -> Any:
    """Begin to edit a turn; return its field."""
    page.locator(".turn").nth(turn).get_by_role("button", name="Edit", exact=True).click()
    field = page.locator(".turn").nth(turn).locator("textarea")
    assert field.evaluate("e => e === document.activeElement")
    return field


def test_an_edited_message_is_asked_again_without_what_followed(page: Any) -> None:
    for question in ("One?", "Two?", "Three?"):
        ask(page, question)
        answered(page)
    field = edit(page, 1)
    assert field.input_value() == "Two?"
    warning = page.locator(".turn .warning")
    assert [warning.nth(i).is_visible() for i in range(3)] == [False, True, False]
    field.fill("Two, really?")
    page.keyboard.press("Shift+Enter")
    assert field.input_value() == "Two, really?\n"
    field.fill("Two, really?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn:nth-child(2)[aria-busy=true]")
    assert page.locator(".turn").count() == 2
    answered(page)
    assert page.locator(".turn .asked").all_inner_texts() == ["One?", "Two, really?"]
    asked = [m["content"] for m in page.bodies[-1]["messages"] if m["role"] == "user"]
    assert asked == ["One?", "Two, really?"]


def test_an_edit_is_given_up_with_escape(page: Any) -> None:
    ask(page, "One?")
    answered(page)
    edit(page, 0).fill("Another?")
    assert page.is_hidden(".turn .warning")
    page.keyboard.press("Escape")
    assert page.locator(".turn .asked").inner_text() == "One?"
    assert page.evaluate("document.activeElement.textContent") == "Edit"
    assert edit(page, 0).input_value() == "One?"
    page.get_by_role("button", name="Cancel").click()
    assert len(page.bodies) == 1


def test_an_edit_stops_the_answer_under_way(page: Any, server: ApiServer) -> None:
    ask(page, "One?")
    page.wait_for_selector(".turn .text p")
    edit(page, 0).fill("Another?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn .asked:has-text('Another?')")
    answered(page)
    assert page.locator(".turn").count() == 1
    assert page.locator(".turn .course").inner_text().startswith("This device made all")
    assert page.locator(".turn .text").inner_text().endswith("some more.")
    assert page.is_visible("#send"), "nothing runs any more"


def test_a_text_that_is_gone_on_with_can_be_edited_too(browser: Any) -> None:
    with api_server() as base, opened(browser, base.url) as page:
        set_choice(page, "maxTokens", "10")
        long = "\n".join(f"line {i}" for i in range(20))
        ask(page, long)
        answered(page)
        field = edit(page, 0)
        assert field.input_value() == long, "all of it, not the end alone"
        field.fill("Short")
        page.get_by_role("button", name="Ask again").click()
        answered(page)
        assert page.locator(".turn .prompt").inner_text() == "Short"
        assert page.is_hidden(".turn .unfold")


def test_two_quick_presses_are_one_wish(browser: Any, page: Any) -> None:
    page.evaluate("""() => {
        const example = document.querySelector("#examples button");
        example.click();
        example.click();
    }""")
    answered(page)
    assert page.locator(".turn").count() == 1
    assert len(page.bodies) == 1
    with api_server() as base, opened(browser, base.url) as other:
        set_choice(other, "maxTokens", "5")
        ask(other, "Once upon a time")
        answered(other)
        other.evaluate("""() => {
            const goOn = [...document.querySelectorAll(".tools button")]
                .find((button) => button.textContent === "Go on");
            goOn.click();
            goOn.click();
        }""")
        other.wait_for_selector(".turn:nth-child(2)[aria-busy=false]")
        assert other.locator(".turn").count() == 2


def test_system_prompt_and_top_p_are_carried(page: Any) -> None:
    set_choice(page, "system", "Answer in rhymes.")
    set_choice(page, "topP", "0.5")
    ask(page, "One?")
    answered(page)
    assert page.bodies[-1]["messages"] == [
        {"role": "system", "content": "Answer in rhymes."},
        {"role": "user", "content": "One?"},
    ]
    assert page.bodies[-1]["top_p"] == 0.5
    assert page.locator(".turn .error").is_hidden()
    page.reload()
    page.wait_for_selector("#send:not([disabled])")
    page.click("#open-settings")
    assert page.input_value("#settings [name=system]") == "Answer in rhymes."
    assert page.input_value("#settings [name=topP]") == "0.5"
    page.fill("#settings [name=topP]", "1.5")
    page.click("#settings [value=close]")
    assert page.is_visible("#settings"), "no probability"


def test_a_base_model_takes_no_system_prompt(browser: Any) -> None:
    with api_server() as base, opened(browser, base.url) as page:
        bodies = posted(page)
        page.evaluate("""localStorage.setItem("pd-device.settings", JSON.stringify(
            {system: "Be short.", maxTokens: "5"}))""")
        page.reload()
        page.wait_for_selector("#send:not([disabled])")
        page.click("#open-settings")
        assert page.is_disabled("#settings [name=system]")
        assert page.is_visible("#no-system")
        page.keyboard.press("Escape")
        ask(page, "hello")
        answered(page)
        assert [m["role"] for m in bodies[-1]["messages"]] == ["user"]


def test_only_this_device_is_one_choice_with_two_handles(page: Any) -> None:
    page.click("#open-settings")
    assert page.locator("#settings").get_by_text("Only on this device").count() == 0
    page.check("#settings [value=cloud-only]", force=True) if page.is_enabled(
        "#settings [value=cloud-only]") else page.check("#settings [value=as-set]")  # fmt: skip
    page.keyboard.press("Escape")
    page.check("#local-only")
    page.click("#open-settings")
    assert page.is_checked("#settings [value=device-only]")
    page.check("#settings [value=as-set]")
    page.keyboard.press("Escape")
    assert not page.is_checked("#local-only")


def test_what_an_older_page_kept_on_this_device_stays_there(page: Any) -> None:
    page.evaluate("""localStorage.setItem("pd-device.settings", JSON.stringify(
        {mode: "pd-device", localOnly: true}))""")
    page.reload()
    page.wait_for_selector("#send:not([disabled])")
    assert page.is_checked("#local-only")
    ask(page, "One?")
    answered(page)
    assert page.bodies[-1]["pd"]["mode"] == "device-only"


def test_a_chat_that_was_kept_on_this_device_stays_there_and_a_new_one_does_not(page: Any) -> None:
    page.check("#local-only")
    ask(page, "One?")
    answered(page)
    first = page.bodies[-1]["pd"]
    assert first["local_only"] is True
    page.uncheck("#local-only")
    ask(page, "Two?")
    answered(page)
    second = page.bodies[-1]["pd"]
    assert second["local_only"] is True
    assert "mode" not in second
    assert second["conversation"] == first["conversation"]
    page.click("#new-chat")
    ask(page, "Three?")
    answered(page)
    third = page.bodies[-1]["pd"]
    assert "local_only" not in third
    assert third["conversation"] != first["conversation"]


def test_counts_are_this_browser_s(browser: Any, server: ApiServer) -> None:
    with opened(browser, server.url) as first:
        ask(first, "One?")
        answered(first)
        first.wait_for_selector("#saved:has-text('of your')")
        counted = first.locator("#saved").inner_text()
        second = first.context.new_page()
        second.goto(server.url)
        second.wait_for_selector("#send:not([disabled])")
        assert second.locator("#saved").inner_text() == counted, "the same browser"
        with opened(browser, server.url) as other:
            assert other.locator("#saved").inner_text() == "", "another one used nothing"
        ask(second, "Two?")
        answered(second)
        first.wait_for_selector(f"#saved:not(:has-text('{counted}'))")
        second.click("#open-settings")
        assert second.locator("#totals dd").first.inner_text() == "2"
        second.click("#reset-use")
        assert second.locator("#totals dd").first.inner_text() == "2", "asked first"
        second.click("#reset-use")
        assert second.locator("#totals dd").first.inner_text() == "0"
        assert second.locator("#saved").inner_text() == ""


def test_thoughts_stand_apart_from_the_answer(browser: Any) -> None:
    engine = SayingEngine(TOKENIZER, "<think>\nI count < 3.\n</think>\n\nTwo.", EOS)
    template = ChatTemplate(ROLES.text + "{# <think> #}")
    with (
        api_server(loaded=loaded_model(template), engine=engine) as server,
        opened(browser, server.url) as page,
    ):
        bodies = posted(page)
        ask(page, "How many?")
        answered(page)
        assert page.locator(".turn .text").inner_text() == "Two."
        thoughts = page.locator(".turn .thoughts")
        assert thoughts.inner_text() == "Thoughts"
        thoughts.locator("summary").click()
        assert thoughts.locator("p").inner_text() == "I count < 3."
        ask(page, "And now?")
        answered(page)
        assert bodies[-1]["messages"][-2] == {"role": "assistant", "content": "Two."}


def test_an_answer_without_thoughts_has_no_place_for_them(page: Any) -> None:
    ask(page, "One?")
    answered(page)
    assert page.locator(".turn .thoughts").is_hidden()
