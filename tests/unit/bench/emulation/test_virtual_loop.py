"""The virtual loop: time jumps, order is kept, and nothing from outside gets in."""

import asyncio
import contextvars
import socket
import threading
import time

import pytest

from pd_bench.emulation.virtual_loop import Deadlock, VirtualLoop, VirtualTimeError, run_virtual


def test_an_hour_of_timers_takes_no_time() -> None:
    async def sleep_for_an_hour() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(3600):
            await asyncio.sleep(1.0)
        return loop.time()

    began_s = time.perf_counter()
    assert run_virtual(sleep_for_an_hour()) == 3600.0
    assert time.perf_counter() - began_s < 50.0


def test_calls_run_by_time_and_then_in_the_order_they_were_scheduled() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_later(2.0, seen.append, "later")
        loop.call_later(1.0, seen.append, "first")
        loop.call_at(1.0, seen.append, "second")
        loop.call_later(1.5, seen.append, "never").cancel()
        loop.call_at(-5.0, seen.append, "overdue")
        loop.call_soon(seen.append, "soon")
        await asyncio.sleep(3.0)
        return seen

    assert run_virtual(main()) == ["soon", "overdue", "first", "second", "later"]


def test_it_does_what_the_real_loop_does() -> None:
    """A program of tasks, timeouts, a queue and a context variable, on both clocks."""
    name = contextvars.ContextVar("name", default="none")

    async def worker(queue: asyncio.Queue[int], seen: list[str], who: str) -> None:
        name.set(who)
        while True:
            number = await queue.get()
            await asyncio.sleep(0.01 * number)
            seen.append(f"{name.get()} did {number}")
            queue.task_done()

    async def main() -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        seen: list[str] = []
        for number in (3, 1, 2, 5):
            queue.put_nowait(number)
        tasks = [asyncio.create_task(worker(queue, seen, who)) for who in ("a", "b")]
        try:
            async with asyncio.timeout(0.002):
                await queue.join()
        except TimeoutError:
            seen.append("waited")
        await queue.join()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    assert run_virtual(main()) == asyncio.run(main())


def test_many_cancelled_timers_are_swept_out() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for _ in range(100_000):
            loop.call_later(60.0, lambda: None).cancel()
        return loop.num_timers

    assert run_virtual(main()) < 10_000


def test_a_deadlock_is_found_and_names_who_waits() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.create_task(wait_for_ever(), name="the forgotten one")

    with pytest.raises(Deadlock, match=r"the forgotten one in .*wait_for_ever"):
        run_virtual(main())


def test_what_leads_out_of_the_clock_is_refused() -> None:
    async def executor() -> None:
        await asyncio.to_thread(time.sleep, 0.0)

    async def thread() -> None:
        asyncio.get_running_loop().call_soon_threadsafe(print)

    async def connection() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def server() -> None:
        await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)

    async def readable() -> None:
        ours, theirs = socket.socketpair()
        try:
            asyncio.get_running_loop().add_reader(ours, print)
        finally:
            ours.close()
            theirs.close()

    before = set(threading.enumerate())
    for main in (executor, thread, connection, server, readable):
        with pytest.raises(VirtualTimeError):
            run_virtual(main())
    assert not set(threading.enumerate()) - before  # an earlier test's may end meanwhile


def test_an_error_ends_the_run_and_cancels_what_is_left() -> None:
    ended: list[str] = []

    async def beside() -> None:
        try:
            await asyncio.sleep(100.0)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.create_task(beside())
        await asyncio.sleep(1.0)
        assert not task.done()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_virtual(main())
    assert ended == ["cancelled"]
