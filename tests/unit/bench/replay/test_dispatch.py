"""Open loop, lag, failures and interruption, with clients that need no server."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import wraps
from typing import ParamSpec

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.replay.dispatch import Dispatcher
from pd_bench.replay.workload import Work
from pd_core.errors import CloudUnavailable, QueueFull
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Origin, Outcome, Shown

P = ParamSpec("P")


def virtual(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test on a virtual clock, where its times are exact however busy the machine is."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


class FakeSession:
    """Shows its tokens `gap_s` apart, then raises `error`."""

    def __init__(self, num_tokens: int, gap_s: float, error: Exception | None) -> None:
        self.outcome = Outcome("r", "pd-device", 0, gap_s)
        self._num_tokens = num_tokens
        self._gap_s = gap_s
        self._error = error

    async def run(self) -> AsyncGenerator[Shown, None]:
        for i in range(self._num_tokens):
            await asyncio.sleep(self._gap_s)
            shown = Shown(i, i, "", Origin.CLOUD, (i + 1) * self._gap_s)
            self.outcome.shown.append(shown)
            yield shown
        if self._error is not None:
            raise self._error


class FakeClient:
    def __init__(
        self,
        num_tokens: int = 2,
        gap_s: float = 0.0,
        error: Exception | None = None,
        start_error: Exception | None = None,
    ) -> None:
        self.closed = False
        self.modes: list[str] = []
        self._made = (num_tokens, gap_s, error)
        self._start_error = start_error

    async def start(self) -> None:
        if self._start_error is not None:
            raise self._start_error

    async def close(self) -> None:
        self.closed = True

    def session(self, request: Ask, mode: str) -> FakeSession:
        self.modes.append(mode)
        return FakeSession(*self._made)


def work(index: int, arrival_s: float = 0.0, output_tokens: int = 2) -> Work:
    return Work(index, index + 2, arrival_s, (1,), output_tokens)


def dispatcher(timeout_s: float = 5.0) -> Dispatcher:
    return Dispatcher(
        "pd-device", 0, lambda w: Ask(str(w.id), w.prompt_token_ids, 9),
        timeout_s=timeout_s,
    )  # fmt: skip


@virtual
async def test_the_next_request_does_not_wait_for_the_one_before_it() -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    clients = [FakeClient(gap_s=0.15), FakeClient(gap_s=0.15), FakeClient(gap_s=0.15)]
    works = [work(0), work(1, 0.02), work(2, 0.04)]
    runner = dispatcher()
    await runner.run_open_loop(works, lambda w: clients[w.id], prepare_s=0.01)
    # One after the other would take 0.9 s; each alone takes 0.3 s, and the last began at 0.04.
    assert loop.time() - began_s == pytest.approx(0.01 + 0.04 + 0.3)
    assert [r.arrival_s for r in sorted(runner.records, key=lambda r: r.id)] == [0.0, 0.02, 0.04]
    assert all(client.closed and client.modes == ["pd-device"] for client in clients)
    assert [r.dispatch_lag_s for r in runner.records] == pytest.approx([0, 0, 0])


@virtual
async def test_ttft_counts_from_the_scheduled_arrival_when_the_dispatch_is_late() -> None:
    class SlowStart(FakeClient):
        async def start(self) -> None:
            await asyncio.sleep(0.2)

    runner = dispatcher()
    await runner.run_open_loop([work(0)], lambda _: SlowStart(gap_s=0.01), prepare_s=0.0)
    (record,) = runner.records
    assert record.dispatch_lag_s == pytest.approx(0.2)
    assert record.ttft_s == pytest.approx(record.dispatch_lag_s + 0.01)
    assert record.largest_gap_s == pytest.approx(0.01)


@virtual
async def test_every_failed_request_has_a_record_and_disturbs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients = [
        FakeClient(),
        FakeClient(num_tokens=0, error=QueueFull("the queue is full")),
        FakeClient(error=ZeroDivisionError("a bug")),
        FakeClient(start_error=CloudUnavailable("no route")),
        FakeClient(num_tokens=1),
        FakeClient(gap_s=9.0),
        FakeClient(start_error=ZeroDivisionError("a bug at the start")),
    ]
    runner = dispatcher(timeout_s=0.3)
    with caplog.at_level(logging.CRITICAL):
        await runner.run_open_loop(
            [work(i) for i in range(7)], lambda w: clients[w.id], prepare_s=0.0
        )
    errors = {r.id: r.error for r in runner.records}
    assert errors == {
        0: None,
        1: "QueueFull: the queue is full",
        2: "ZeroDivisionError: a bug",
        3: "CloudUnavailable: no route",
        4: "the answer has 1 tokens instead of 2",
        5: "TimeoutError: no end within 0.3 s",
        6: "ZeroDivisionError: a bug at the start",
    }


@virtual
async def test_sequential_requests_arrive_one_after_the_other() -> None:
    client = FakeClient(gap_s=0.01)
    runner = dispatcher()
    await runner.run_sequential([work(0, 5.0), work(1, 9.0)], client)
    assert [(r.id, r.arrival_s, r.error) for r in runner.records] == [(0, 0, None), (1, 0, None)]
    assert [r.dispatch_lag_s for r in runner.records] == pytest.approx([0, 0])
    assert not client.closed  # whoever opened it closes it


@virtual
async def test_records_of_ended_requests_survive_an_interruption() -> None:
    clients = [FakeClient(), FakeClient(gap_s=9.0)]
    runner = dispatcher()
    task = asyncio.ensure_future(
        runner.run_open_loop([work(0), work(1)], lambda w: clients[w.id], prepare_s=0.0)
    )
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [r.id for r in runner.records] == [0]
    assert all(client.closed for client in clients)
