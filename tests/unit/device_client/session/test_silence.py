"""A limit on silence: it ends a wait when it should, whatever was heard before."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from pd_bench.emulation.virtual_loop import VirtualLoop, run_virtual
from pd_device_client.session.silence import Silence


async def _hear(first_wait_s: float, heard: Sequence[tuple[float, float]]) -> None:
    """Wait, with (instant, further wait) all that is heard."""
    loop = asyncio.get_running_loop()
    async with Silence(first_wait_s) as silence:
        for at_s, wait_s in heard:
            await asyncio.sleep(at_s - loop.time())
            silence.heard(loop.time(), wait_s)
        await asyncio.sleep(1000)


async def _hear_by_asyncio(first_wait_s: float, heard: Sequence[tuple[float, float]]) -> None:
    """The same by asyncio's own timeout."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(first_wait_s) as timeout:
        for at_s, wait_s in heard:
            await asyncio.sleep(at_s - loop.time())
            timeout.reschedule(loop.time() + wait_s)
        await asyncio.sleep(1000)


def _ends_at_s(wait: Coroutine[Any, Any, None]) -> float:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await wait
        return asyncio.get_running_loop().time()

    return run_virtual(main())


@pytest.mark.parametrize(
    ("first_wait_s", "heard", "ends_at_s"),
    [
        (5.0, [], 5.0),
        (5.0, [(1.0, 10.0)], 11.0),
        (5.0, [(4.0, 5.0), (8.0, 5.0), (12.0, 5.0)], 17.0),
        (60.0, [(1.0, 2.0)], 3.0),  # less patience than before
        (60.0, [(1.0, 2.0), (2.0, 50.0)], 52.0),
        (5.0, [(5.0, 10.0)], 5.0),  # in the instant in which it was over
    ],
)
def test_a_wait_ends_after_so_much_silence(
    first_wait_s: float, heard: list[tuple[float, float]], ends_at_s: float
) -> None:
    assert _ends_at_s(_hear(first_wait_s, heard)) == ends_at_s
    assert _ends_at_s(_hear_by_asyncio(first_wait_s, heard)) == ends_at_s


def _timers_after(main: Coroutine[Any, Any, None]) -> int:
    async def count() -> int:
        await main
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.num_timers

    return run_virtual(count())


def test_a_message_costs_no_timer_and_the_end_leaves_none_that_rings() -> None:
    async def hear_often() -> None:
        loop = asyncio.get_running_loop()
        async with Silence(10.0) as silence:
            for _ in range(100):
                silence.heard(loop.time(), 10.0)
        await asyncio.sleep(100.0)  # a timer that still rang would cancel this

    assert _timers_after(hear_often()) == 0


def test_a_cancellation_from_outside_is_passed_on() -> None:
    async def main() -> None:
        async def wait() -> None:
            async with Silence(10.0):
                await asyncio.sleep(1000)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
