"""`pd-device serve --demo` as a user runs it: one command, both sides, and nothing left behind.

With PD_SCREENSHOTS=FOLDER the pictures of the documentation are written there (`make screenshots`).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pd_core.store.model_names import DEFAULT_MODEL
from tests.browser import ask, opened
from tests.real_device import RealDevice, real_device

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(900)]

MAX_PICTURE_BYTES = 200_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDevice]:
    folder = tmp_path_factory.mktemp("demo")
    options = ("--demo", "--model", DEFAULT_MODEL)
    with real_device(folder, *options, ready_within_s=400) as device:
        yield device


def handed_over(page: Any, example: int) -> str:
    """Let an example be answered; return what became of it, in words.

    On a busy machine the cloud may be later than the device, or the device too slow for an answer
    of this length. Then it is asked with another text, as the device has read this one by now and
    would answer alone.
    """
    page.locator("#examples button").nth(example).click()
    for attempt in range(8):
        page.wait_for_selector(".turn:last-child[aria-busy=false]", timeout=120_000)
        course = str(page.locator(".turn:last-child .course").inner_text())
        if "This device went on from token" in course:
            break
        ask(page, f"Chapter {attempt}: modules and their names. " * 60)
    return course


def test_one_command_shows_an_answer_carried_by_both(
    demo: RealDevice, browser: Any, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("PD_SCREENSHOTS", tmp_path))
    size: Any = {"width": 1120, "height": 1092}
    with opened(browser, demo.url, viewport=size, color_scheme="light") as page:
        page.wait_for_selector("#example-run:not(.playing)")
        page.set_viewport_size({"width": 1120, "height": 800})
        picture(page, folder / "page-start.png")
        page.set_viewport_size(size)
        page.click("#open-settings")
        page.fill("#settings [name=maxTokens]", "160")
        page.fill("#settings [name=seed]", "4")
        page.press("#settings [name=seed]", "Escape")
        assert "throttled to slow" in page.locator("#model-state").inner_text()
        assert "connected" in page.locator("#cloud-state").inner_text()
        course = handed_over(page, 0)
        assert "The cloud made" in course
        assert "This device went on from token" in course
        page.locator(".turn:last-child .more summary").click()
        page.wait_for_selector("#saved:not(:empty)")
        picture(page, folder / "page-light.png")
    phone = {"width": 390, "height": 844}
    with opened(browser, demo.url, viewport=phone, color_scheme="dark") as page:
        page.evaluate("""localStorage.setItem("pd-device.settings", JSON.stringify(
            {maxTokens: "160", seed: "5"}))""")
        page.reload()
        page.wait_for_selector("#send:not([disabled])")
        assert "This device went on from token" in handed_over(page, 1)
        picture(page, folder / "page-phone-dark.png")


def picture(page: Any, path: Path) -> None:
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.screenshot(path=path)
    assert path.stat().st_size < MAX_PICTURE_BYTES


def test_a_closed_terminal_stops_both(demo: RealDevice) -> None:
    children = psutil.Process(demo.process.pid).children(recursive=True)
    servers = [child for child in children if "pd_server" in " ".join(child.cmdline())]
    assert len(servers) == 1
    demo.process.send_signal(signal.SIGHUP)
    assert demo.process.wait(90) == 0
    assert not any(server.is_running() for server in servers)
    assert "Traceback" not in demo.log.read_text()
