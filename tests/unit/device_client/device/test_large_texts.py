"""Large texts become tokens one at a time, and hold up nobody who has a small one."""

import asyncio
import contextlib
import threading

import pytest

from pd_device_client.client.client import DeviceClient
from pd_device_client.device.device import Device
from tests.api_server import QUICK, emulated_engine, loaded_model

LARGE = 8 << 20


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
        assert self.may_end.wait(10)
        with self._lock:
            self.running -= 1
            self.ended += 1
        return self.ended


async def until_one_runs(encoder: Encoder) -> None:
    for _ in range(500):
        if encoder.running:
            return
        await asyncio.sleep(0.01)
    pytest.fail("none began")


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
