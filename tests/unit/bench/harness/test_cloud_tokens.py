"""A stream's tokens: the stream is over with Finished, whatever the call does after it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.harness.cloud_tokens import cloud_tokens
from pd_core.errors import CloudUnavailable
from pd_core.generation import (
    CloudEvent,
    Extend,
    Finished,
    FinishReason,
    ServerInfo,
    Start,
    Stop,
    Tokens,
)
from pd_core.sampling_params import SamplingParams

START = Start("one", (1, 2, 3), 8, SamplingParams())


class Cloud:
    """A link of one stream, whose call stays open for a second after the last message."""

    def __init__(self, *events: CloudEvent) -> None:
        self.cancelled = False
        self._events = events

    async def open(self, start: Start) -> "Cloud":
        assert start is START
        return self

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        for event in self._events:
            await asyncio.sleep(0.1)
            yield event
        await asyncio.sleep(1)

    async def send(self, message: Start | Extend | Stop) -> None:
        raise AssertionError(f"{message} was sent")

    def cancel(self) -> None:
        self.cancelled = True

    async def info(self) -> ServerInfo:
        raise AssertionError("the card was asked for")

    async def close(self) -> None:
        raise AssertionError("the link was closed")


async def _read(cloud: Cloud, at_most: int = 99) -> tuple[list[int], float]:
    loop = asyncio.get_running_loop()
    found: list[int] = []
    began_s = loop.time()
    async with aclosing(cloud_tokens(cloud, START)) as tokens:
        async for made in tokens:
            found += made.token_ids
            if len(found) >= at_most:
                break
    return found, loop.time() - began_s


def test_the_end_of_the_call_is_not_waited_for() -> None:
    cloud = Cloud(Tokens(0, (5, 6)), Tokens(2, (7,)), Finished(FinishReason.LENGTH, 3))
    found, took_s = run_virtual(_read(cloud))
    assert found == [5, 6, 7]
    assert took_s == pytest.approx(0.3)
    assert cloud.cancelled


def test_a_stream_that_is_left_is_broken_off() -> None:
    cloud = Cloud(Tokens(0, (5, 6)), Tokens(2, (7,)))
    found, took_s = run_virtual(_read(cloud, at_most=2))
    assert found == [5, 6]
    assert took_s == pytest.approx(0.1)
    assert cloud.cancelled


def test_an_end_without_finished_is_an_error() -> None:
    cloud = Cloud(Tokens(0, (5,)))
    with pytest.raises(CloudUnavailable, match="without Finished"):
        run_virtual(_read(cloud))
    assert cloud.cancelled
