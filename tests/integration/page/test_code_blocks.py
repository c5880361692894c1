"""Code in an answer: its language, its button, and who made which line."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import EOS, ROLES, TOKENIZER, api_server, loaded_model
from tests.browser import answered, ask, opened
from tests.saying_engine import SayingEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

CODE = "def one():\n    return 1\n\n\nprint(one())"
TEXT = f"Here:\n\n```python\n{CODE}\n```\n\n- in a list:\n\n  ```\n  x\n  ```\n\nDone."

# The margin of the first block, as [maker, lines] from the top, with the code's own elements.
MARGIN = """async ([text, runs]) => {
    const { RichText } = await import("/page/rich_text.js");
    const made = document.createElement("div");
    made.className = "text";
    document.body.append(made);
    new RichText(made).show(text, runs, "markdown");
    const line = parseFloat(getComputedStyle(made.querySelector("pre")).lineHeight);
    const bars = [...made.querySelectorAll(".makers span")].map((bar) =>
        [bar.className, Math.round(bar.getBoundingClientRect().height / line * 10) / 10]);
    const [first, pre] = [".makers span", "pre"].map((s) => made.querySelector(s));
    const offset = first.getBoundingClientRect().top - pre.getBoundingClientRect().top
        - parseFloat(getComputedStyle(pre).paddingTop);
    const tinted = pre.firstChild.querySelectorAll("*").length;
    made.remove();
    return { bars, tinted, offset };
}"""


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Any]:
    engine = SayingEngine(TOKENIZER, TEXT, EOS)
    rights = ["clipboard-read", "clipboard-write"]
    with (
        api_server(loaded=loaded_model(ROLES), engine=engine) as server,
        opened(browser, server.url, permissions=rights) as made,
    ):
        ask(made, "Code, please")
        answered(made)
        yield made


def test_code_says_its_language(page: Any) -> None:
    blocks = page.locator(".turn .text .code")
    assert blocks.locator(".language").all_inner_texts() == ["python", "code"]
    region = page.get_by_role("region", name="code, python")
    assert region.inner_text() == CODE


def test_code_is_copied_by_its_button(page: Any) -> None:
    copy = page.get_by_role("button", name="Copy code").first
    copy.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".code button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == CODE


@pytest.mark.parametrize(
    ("code", "cloud_makes", "bars"),
    [
        ("a\nb\nc", "a\nb\n", [["from-cloud", 2], ["from-device", 1]]),
        ("a\nb\nc", "a\n", [["from-cloud", 1], ["from-device", 2]]),
        ("ab\nc", "a", [["from-cloud", 0.5], ["from-device", 1.5]]),
        ("a\n\n\nb", "a\n\n", [["from-cloud", 2], ["from-device", 2]]),
        ("a\nb", "a\nb", [["from-cloud", 2]]),
    ],
)
def test_the_margin_says_who_made_a_line(
    page: Any, code: str, cloud_makes: str, bars: list[Any]
) -> None:
    text = f"```\n{code}\n```"
    split = 4 + len(cloud_makes)
    runs = [
        {"origin": "cloud", "start": 0, "end": split},
        {"origin": "device", "start": split, "end": len(text)},
    ]
    drawn = page.evaluate(MARGIN, [text, runs])
    assert drawn["bars"] == bars
    assert drawn["tinted"] == 0, "the code itself is free of tints"
    assert abs(drawn["offset"]) < 2, "bars stand beside their lines"


def test_growing_code_keeps_its_button_and_its_place(page: Any) -> None:
    kept = page.evaluate(
        """async () => {
            const { RichText } = await import("/page/rich_text.js");
            const made = document.createElement("div");
            document.body.append(made);
            const rich = new RichText(made);
            const long = "x".repeat(500);
            const text = "```js\\n" + long + "\\nlet b = 2;\\n```\\nend";
            const runs = [{ origin: "cloud", start: 0, end: text.length }];
            rich.show(text.slice(0, 510), runs, "markdown");
            const [button, pre] = ["button", "pre"].map((s) => made.querySelector(s));
            button.focus();
            made.style.width = "200px";
            pre.style.overflowX = "auto";
            pre.scrollLeft = 40;
            for (let end = 511; end <= text.length; end += 1) {
                rich.show(text.slice(0, end), runs, "markdown");
            }
            const same = document.activeElement === button && made.contains(button);
            const result = [same, pre.scrollLeft, made.querySelector("code").textContent.length];
            made.remove();
            return result;
        }"""
    )
    assert kept == [True, 40, 500 + len("\nlet b = 2;")]
