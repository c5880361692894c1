"""What a model says stays text, nothing leaves the origin, and everybody can use the page."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api_server import EOS, ROLES, TOKENIZER, ApiServer, api_server, loaded_model
from tests.browser import answered, ask, opened
from tests.http_client import http
from tests.saying_engine import SayingEngine

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

HOSTILE = """# <img src=x onerror="window.hit=1">

<script>window.hit = 1</script> <svg onload="window.hit=1"></svg>

[click](javascript:window.hit=1) [data](data:text/html,<script>window.hit=1</script>)
[quote](https://ok.example/"onmouseover="window.hit=1) ![pixel](https://evil.example/pixel.png)
[good](https://ok.example/page) https://ok.example/bare.

```html"><script>window.hit=1</script>
</code></pre><script>window.hit = 1</script>
```

| <b>a</b> | b |
|---|---|
| <style>*{display:none}</style> | </td></table><iframe src=//evil.example> |
"""
RICH = (
    """## What it does

It *reads* the prompt, and `hands over` **at once**. Here are three points:

1. First
2. Second, with a [link](https://ok.example/)
   - and a part of it
3. Third

> A quote that goes on for a while, so that it has to be broken into several lines on a phone.

```python
def a_very_long_line_of_code(with_many, arguments_that, do_not_fit, on_a_phone): return None
```

| planet | distance | moons | a column | another column | and another one |
|---|---|---|---|---|---|
| Mercury | 0.39 | 0 | averyveryverylongword | averyveryverylongword | averyveryverylongword |

"""
    + "x" * 300
)


def saying(text: str, pass_s: float = 0.0005) -> Any:
    """A chat model that says this."""
    return api_server(loaded=loaded_model(ROLES), engine=SayingEngine(TOKENIZER, text, EOS, pass_s))


@pytest.fixture(scope="module")
def rich() -> Iterator[ApiServer]:
    with saying(RICH) as server:
        yield server


def test_hostile_text_is_inert(browser: Any) -> None:
    with saying(HOSTILE) as server, opened(browser, server.url) as page:
        ask(page, "<img src=x onerror=window.hit=1>")
        answered(page)
        assert page.evaluate("window.hit") is None
        made = page.locator(".turn .text").evaluate(
            "e => [...e.querySelectorAll('*')].map(x => x.localName)"
        )
        assert not {"img", "script", "svg", "iframe", "style", "b", "object"} & set(made)
        hrefs = page.locator(".text a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        assert hrefs == [
            'https://ok.example/"onmouseover="window.hit=1',
            "https://evil.example/pixel.png",
            "https://ok.example/page",
            "https://ok.example/bare",
        ]
        rels = page.locator(".text a").evaluate_all("all => all.map(a => a.rel)")
        assert all("noopener" in rel and "noreferrer" in rel for rel in rels)
        assert "<script>window.hit = 1</script>" in page.locator(".turn .text").inner_text()
        assert page.locator(".turn .asked").inner_text() == "<img src=x onerror=window.hit=1>"


def test_the_browser_itself_refuses_markup_out_of_strings(browser: Any, rich: ApiServer) -> None:
    with opened(browser, rich.url) as page:
        for attempt in (
            "document.body.innerHTML = '<b>x</b>'",
            "new DOMParser().parseFromString('<b>x</b>', 'text/html')",
            "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        ):
            code = f"() => {{ try {{ {attempt}; return '' }} catch (e) {{ return e.name }} }}"
            assert page.evaluate(code) == "TypeError", attempt
        tried = "fetch('https://evil.example/').then(() => 'reached', () => 'refused')"
        policy = http.get(rich.url).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        # Aborted before it is sent, so the page has asked nobody.
        page.route("https://evil.example/", lambda route: route.abort())
        page.evaluate("""() => { window.stopped = []; document.addEventListener(
            'securitypolicyviolation', e => window.stopped.push(e.effectiveDirective)) }""")
        assert page.evaluate(f"() => {tried}") == "refused"
        assert page.evaluate("window.stopped") == ["connect-src"]


def test_the_page_s_files_and_nothing_else(rich: ApiServer) -> None:
    index = http.get(rich.url)
    assert index.status_code == 200
    assert index.headers["content-type"].startswith("text/html")
    assert index.headers["x-frame-options"] == "DENY"
    assert index.headers["referrer-policy"] == "no-referrer"
    again = http.get(rich.url, headers={"if-none-match": index.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert httpx.head(f"{rich.url}/page/main.js").status_code == 200
    for path in (
        "/page/",
        "/page/nothing.js",
        "/page/../page.py",
        "/page/..%2fapp.py",
        "/page/%2e",
    ):
        assert http.get(f"{rich.url}{path}").status_code == 404, path
    assert http.post(rich.url).status_code == 405


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing(browser: Any, rich: ApiServer, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    size = {"width": width, "height": 740}
    with opened(browser, rich.url, viewport=size, color_scheme=scheme) as page:
        assert found(axe, page) == [], "welcome"
        ask(page, "Say it")
        page.wait_for_selector(".turn .text h3")
        answered(page)
        page.click("text=Figures")
        assert found(axe, page) == [], "answer"
        page.click(".edit")
        assert found(axe, page) == [], "edit"
        page.keyboard.press("Escape")
        page.click("#open-chats")
        page.check("#chats [name=keepChats]")
        assert page.locator("#chat-list li").count() == 1
        assert found(axe, page) == [], "chats"
        page.keyboard.press("Escape")
        page.route("**/v1/**", lambda route: route.abort())
        ask(page, "Is it gone?")
        page.wait_for_selector("#notice:not([hidden])")
        assert found(axe, page) == [], "gone"
        page.unroute("**/v1/**")
        page.click("#open-settings")
        assert found(axe, page) == [], "settings"


def found(axe: Any, page: Any) -> list[str]:
    """Return what axe complains of."""
    violations = axe.run(page).response["violations"]
    return [
        f"{v['id']}: {json.dumps([node['html'][:160] for node in v['nodes']])}" for v in violations
    ]


def test_a_phone_s_width_has_no_horizontal_scroll(browser: Any, rich: ApiServer) -> None:
    for width in (320, 360, 390):
        with opened(browser, rich.url, viewport={"width": width, "height": 700}) as page:
            assert overflow(page) <= 0
            ask(page, "w" * 400)
            answered(page)
            page.click("text=Figures")
            assert overflow(page) <= 0
            # What does not fit is scrolled within itself.
            assert page.locator(".text pre").evaluate("e => e.scrollWidth > e.clientWidth")
            page.click(".edit")
            assert overflow(page) <= 0
            page.keyboard.press("Escape")
            page.click("#open-chats")
            page.check("#chats [name=keepChats]")
            assert overflow(page) <= 0
            assert page.locator("#chats").evaluate("e => e.scrollWidth - e.clientWidth") <= 0
            page.keyboard.press("Escape")
            page.click("#open-settings")
            assert overflow(page) <= 0
            sheet = "e => e.scrollWidth - e.clientWidth"
            assert page.locator("#settings").evaluate(sheet) <= 0


def overflow(page: Any) -> int:
    return int(page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth"))


def test_dark_mode_follows_the_system(browser: Any, rich: ApiServer) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with opened(browser, rich.url, color_scheme=scheme) as page:
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, b[4:-1].split(", "))) for b in backgrounds)
    assert light > 600
    assert dark < 150


def test_a_screen_reader_hears_sentences_not_tokens(browser: Any) -> None:
    text = "The first sentence is here. The second one follows it. And this is the last one."
    with saying(text, pass_s=0.01) as server, opened(browser, server.url) as page:
        page.evaluate("""() => {
            window.heard = [];
            new MutationObserver(all => all.forEach(m => m.addedNodes.forEach(
                n => window.heard.push(n.textContent))))
                .observe(document.querySelector('#announcer'), { childList: true });
        }""")
        ask(page, "Speak")
        answered(page)
        heard = page.evaluate("window.heard")
        assert heard[0] == "The answer begins."
        assert " ".join(heard[1:-1]) == text
        assert len(heard) <= 6
        assert heard[-1].startswith("This device made all")
        assert page.locator("#announcer").get_attribute("aria-live") == "polite"
        assert page.locator(".turn [aria-live]").count() == 0
        assert page.locator(".turn .timeline").get_attribute("aria-label").startswith("Timeline. ")


def test_reduced_motion_and_paper(browser: Any, rich: ApiServer) -> None:
    slow = saying("word " * 60, pass_s=0.05)
    with slow as server, opened(browser, server.url, reduced_motion="reduce") as page:
        ask(page, "Say it")
        page.wait_for_selector(".turn .text p")
        caret = "getComputedStyle(document.querySelector('.text > :last-child'), '::after')"
        assert page.evaluate(f"{caret}.animationName") == "none"
        page.press("#prompt", "Escape")
        answered(page)
        page.emulate_media(media="print")
        assert page.is_hidden("#composer")
        assert page.is_hidden(".tools")
        assert page.is_visible(".turn .text")
        assert page.is_visible(".turn .timeline")
