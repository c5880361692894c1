"""Large texts become tokens, and templates render, one at a time; nobody else is held up."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from pd_core.errors import InvalidRequest
from pd_core.text.chat_template import ChatTemplate
from pd_device_client.api.completions.prompts import chat_prompt
from pd_device_client.api.tools.prompt import ChatPrompt
from pd_device_client.api.tools.turns import Turn
from pd_device_client.client.client import DeviceClient
from pd_device_client.device.device import Device
from tests.api_server import QUICK, emulated_engine, loaded_model
from tests.eventually import eventually

LARGE = 8 << 20

T = TypeVar("T")


class Encoder:
    """Works until it is let go; counts how many work at once."""

    def __init__(self) -> None:
        self.running = self.most = self.ended = 0
        self.may_end = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.may_end.wait(60)
        with self._lock:
            self.running -= 1
            self.ended += 1
        return self.ended


async def until_one_runs(encoder: Encoder) -> None:
    await eventually(lambda: encoder.running > 0)


def device() -> Device:
    client = DeviceClient(cloud=None, engine=emulated_engine(), pace_s=1.0, device_profile=QUICK)
    return Device(loaded_model(), client)


async def test_large_texts_wait_for_each_other_and_small_ones_for_nobody() -> None:
    asked, encoder = device(), Encoder()
    large = [asyncio.ensure_future(asked.encoded(LARGE, encoder)) for _ in range(3)]
    await until_one_runs(encoder)
    assert await asked.encoded(10, lambda: "small") == "small"
    assert encoder.running == 1
    encoder.may_end.set()
    assert await asyncio.gather(*large) == [1, 2, 3]
    assert encoder.most == 1


async def test_who_goes_away_does_not_let_the_next_one_in_before_the_work_has_ended() -> None:
    asked, encoder = device(), Encoder()
    gone = asyncio.ensure_future(asked.encoded(LARGE, encoder))
    await until_one_runs(encoder)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    following = asyncio.ensure_future(asked.encoded(LARGE, encoder))
    await asyncio.sleep(0.1)
    assert encoder.most == 1
    encoder.may_end.set()
    assert await following == 2
    assert encoder.most == 1


async def test_an_error_is_told_and_the_next_one_begins() -> None:
    asked = device()

    def fails() -> int:
        raise ValueError("no text")

    with pytest.raises(ValueError, match="no text"):
        await asked.encoded(LARGE, fails)
    assert await asked.encoded(LARGE, lambda: 5) == 5


@pytest.mark.slow
async def test_chats_that_render_for_long_leave_threads_for_everything_else() -> None:
    asked = device()
    template = ChatTemplate("{{ (messages | length + 9) ** (10 ** 8) % 7 }}", time_limit_s=0.5)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(3))

    def render() -> str:
        return template.render([{"role": "user", "content": "x"}])

    may_render = threading.Event()

    def wait_and_render() -> str:
        assert may_render.wait(60)
        return render()

    chats = [
        asyncio.ensure_future(asked.encoded(1, wait_and_render, renders=True)) for _ in range(6)
    ]
    await asyncio.sleep(0.1)  # all have come
    assert await asked.encoded(10, lambda: "small") == "small"
    assert not any(chat.done() for chat in chats)
    may_render.set()
    ended = await asyncio.gather(*chats, return_exceptions=True)
    assert all(isinstance(error, InvalidRequest) for error in ended)


async def test_the_chats_of_a_server_render_behind_each_other() -> None:
    loaded = loaded_model(ChatTemplate("{{ messages[0].content }}"))
    told = list[bool]()

    class Told(Device):
        async def encoded(
            self, num_characters: int, encode: Callable[[], T], *, renders: bool = False
        ) -> T:
            told.append(renders)
            return encode()

    asked = Told(loaded, device().client)
    await chat_prompt(asked, ChatPrompt([Turn("user", "x")]))
    await chat_prompt(Told(loaded_model(), asked.client), ChatPrompt([Turn("user", "x")]))
    assert told == [True, False]
