"""The page's Markdown, in a real browser: what it makes of texts, and that it takes any in time."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import api_server
from tests.browser import chromium, opened

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

# A tree with the makers of its characters, rendered by the page's own module.
RENDER = """async ([text, runs]) => {
    const { RichText } = await import("/page/rich_text.js");
    const made = document.createElement("div");
    new RichText(made).show(text, runs, "markdown");
    const tree = (node) => node.nodeType === Node.TEXT_NODE ? node.data
        : node.matches(".code") ? ["pre", ["code", node.querySelector("code").textContent]]
        : node.localName === "span" ? [...node.childNodes].map(tree).join("")
        : [node.localName, ...merged([...node.childNodes].map(tree))];
    const merged = (all) => all.reduce((done, next) => {
        const both = typeof next === "string" && typeof done.at(-1) === "string";
        done.push(both ? done.pop() + next : next);
        return done;
    }, []);
    return tree(made).slice(1);
}"""
PLACES = """async (text) => {
    const { parseMarkdown } = await import("/page/markdown.js");
    const wrong = [];
    const visit = (node) => {
        if (Array.isArray(node)) node.forEach(visit);
        else if (node && typeof node === "object") {
            if (typeof node.text === "string" && Array.isArray(node.at)) {
                for (let i = 0; i < node.text.length; i += 1) {
                    const [is, was] = [node.text[i], text[node.at[i]]];
                    if (is !== was && (is + was).trim()) wrong.push([node.text, i]);
                }
            }
            Object.values(node).forEach(visit);
        }
    };
    visit(parseMarkdown(text));
    return wrong;
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with (
        chromium() as browser,
        api_server() as server,
        opened(browser, server.url) as made,
    ):
        yield made


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("plain", [["p", "plain"]]),
        ("one\ntwo\n\nthree", [["p", "one\ntwo"], ["p", "three"]]),
        ("one  \ntwo", [["p", "one", ["br"], "two"]]),
        ("# Title #\ntext", [["h3", "Title"], ["p", "text"]]),
        ("# a\n###### deep\n## b", [["h3", "a"], ["h4", "deep"], ["h4", "b"]]),
        ("> # quoted", [["blockquote", ["p", ["strong", "quoted"]]]]),
        ("#no title", [["p", "#no title"]]),
        ("*em* **strong** ***both*** ~~gone~~", [[
            "p", ["em", "em"], " ", ["strong", "strong"], " ", ["strong", ["em", "both"]], " ",
            ["del", "gone"]]]),
        ("snake_case_name and 2 * 3 * 4", [["p", "snake_case_name and 2 * 3 * 4"]]),
        ("_em_ __strong__", [["p", ["em", "em"], " ", ["strong", "strong"]]]),
        ("**a *b* c**", [["p", ["strong", "a ", ["em", "b"], " c"]]]),
        ("**unfinished", [["p", "**unfinished"]]),
        ("`code *not em*` and ``a ` b``", [["p", ["code", "code *not em*"], " and ",
                                            ["code", "a ` b"]]]),
        (r"\*not em\* \# \\", [["p", r"*not em* # \\".replace(r"\\", "\\")]]),
        ("<b>text</b> &amp;", [["p", "<b>text</b> &amp;"]]),
        ("- a\n- b\n  - c\n- d", [["ul", ["li", "a"], ["li", "b", ["ul", ["li", "c"]]],
                                   ["li", "d"]]]),
        ("3. a\n4. b", [["ol", ["li", "a"], ["li", "b"]]]),
        ("- a\n\n- b\n\n  more", [["ul", ["li", "a"], ["li", "b", ["p", "more"]]]]),
        ("> a\n> - b\n\nc", [["blockquote", ["p", "a"], ["ul", ["li", "b"]]], ["p", "c"]]),
        ("```py\na = `1`\n\n  b\n```\nc", [["pre", ["code", "a = `1`\n\n  b"]], ["p", "c"]]),
        ("```\nunfinished", [["pre", ["code", "unfinished"]]]),
        ("---\n***", [["hr"], ["hr"]]),
        ("| a | b |\n|---|:-:|\n| 1 | x \\| y |", [["div", ["table", ["thead", ["tr", [
            "th", "a"], ["th", "b"]]], ["tbody", ["tr", ["td", "1"], ["td", "x | y"]]]]]]),
        ("a | b", [["p", "a | b"]]),
        ("[l](https://a.example/x) <https://b.example>", [["p", ["a", "l"], " <", [
            "a", "https://b.example"], ">"]]),
        ("[l](ftp://a.example) [m](/etc/passwd)", [["p", "[l](ftp://a.example) [m](/etc/passwd)"]]),
        ("", []),
    ],
)  # fmt: skip
def test_markdown(page: Any, text: str, tree: list[Any]) -> None:
    assert page.evaluate(RENDER, [text, []]) == tree


def test_every_character_keeps_its_maker(page: Any) -> None:
    text = "# Ab *cd* ef\n\n- gh `ij` kl\n\nmn op\n"
    split = text.index("d*") + 1
    runs = [
        {"origin": "cloud", "start": 0, "end": split},
        {"origin": "device", "start": split, "end": len(text)},
    ]
    by = page.evaluate(
        """async ([text, runs]) => {
            const { RichText } = await import("/page/rich_text.js");
            const made = document.createElement("div");
            new RichText(made).show(text, runs, "markdown");
            const all = (kind) => [...made.querySelectorAll(kind)].map((e) => e.textContent);
            return [all(".by-cloud").join(""), all(".by-device").join(""), made.textContent];
        }""",
        [text, runs],
    )
    assert by[0] == "Ab cd"
    assert by[1] == " efgh ij klmn op"
    assert by[0] + by[1] == by[2].replace("\n", "")


def test_a_growing_text_is_shown_as_if_it_came_at_once(page: Any) -> None:
    text = (
        "# T\n\nA *b* **c**\n\n- x\n- y\n  - z\n\n> q\n\n```js\nlet a;\n```\n\n"
        "| a | b |\n|--|--|\n| 1 | 2 |\n"
    )
    same = page.evaluate(
        """async (text) => {
            const { RichText } = await import("/page/rich_text.js");
            const [grown, whole] = [document.createElement("div"), document.createElement("div")];
            const growing = new RichText(grown);
            for (let end = 0; end <= text.length; end += 1) {
                const runs = [{ origin: "cloud", start: 0, end: Math.min(end, 20) }];
                if (end > 20) runs.push({ origin: "device", start: 20, end });
                growing.show(text.slice(0, end), runs, "markdown");
                if (end === text.length) new RichText(whole).show(text, runs, "markdown");
            }
            return grown.isEqualNode(whole) && grown.children.length > 5;
        }""",
        text,
    )
    assert same


def test_characters_know_where_they_stood(page: Any) -> None:
    rng = random.Random(7)
    pieces = ["*", "**", "_", "`", "```\n", "\n", "\n\n", "> ", "- ", "1. ", "# ", "| a | b |\n",
              "|---|---|\n", "[x](https://e.example)", "\\", "word", " ", "  ", "é", "😀", "~~",
              "!", "    "]  # fmt: skip
    for _ in range(150):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
        assert page.evaluate(PLACES, text) == [], repr(text)


@pytest.mark.parametrize(
    "text",
    ["*" * 20_000, "[" * 20_000, "`" * 20_001, "_a" * 10_000, "> " * 10_000, "- " * 10_000,
     "*a " * 7_000, "[a](" * 5_000, "|" * 20_000 + "\n" + "|-" * 10_000, "`a``b" * 4_000,
     "**a *b " * 3_000, "h" * 20_000, "http://" * 3_000, "\\" * 20_000, "\n" * 20_000,
     "- a\n\n" * 4_000, "![" * 10_000, "~~a" * 7_000, "a" * 20_000],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_no_text_takes_long(page: Any, text: str) -> None:
    took_ms = page.evaluate(
        """async (text) => {
            const { RichText } = await import("/page/rich_text.js");
            let least = Infinity;  // of a few tries, since a busy machine only adds
            for (let i = 0; i < 5 && least > 500; i++) {
                const made = new RichText(document.createElement("div"));
                const began = performance.now();
                made.show(text, [{ origin: "cloud", start: 0, end: text.length }], "markdown");
                least = Math.min(least, performance.now() - began);
            }
            return least;
        }""",
        text,
    )
    assert took_ms < 5000
