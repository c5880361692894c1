"""Turns at the local engine: order, forecasts, leaving; and answers that share one engine."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.engine_turns import EngineTurns
from tests.scripted_cloud import EOS, VOCAB_SIZE, ScriptedCloud

PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)


async def _work(turns: EngineTurns, name: str, seconds: float, log: list[str]) -> None:
    turn = turns.join()
    try:
        await turn.begin()
        log.append(f"+{name}")
        await asyncio.sleep(seconds)
        log.append(f"-{name}")
    finally:
        turn.end()


def _run(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


def test_turns_come_in_the_order_of_asking() -> None:
    log: list[str] = []

    async def main() -> None:
        turns = EngineTurns(1)
        async with asyncio.TaskGroup() as group:
            for name, seconds in (("a", 3), ("b", 1), ("c", 2)):
                group.create_task(_work(turns, name, seconds, log))
        assert (turns.num_running, turns.num_waiting) == (0, 0)

    _run(main())
    assert log == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_leaving_the_queue_disturbs_nobody_in_it() -> None:
    log: list[str] = []

    async def main() -> None:
        turns = EngineTurns(1)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        tasks = [asyncio.ensure_future(_work(turns, name, 1, log)) for name in "abcd"]
        await asyncio.sleep(0.5)
        tasks[1].cancel()  # waits
        tasks[0].cancel()  # has its turn
        await asyncio.wait(tasks)
        assert loop.time() - began_s == pytest.approx(2.5)

    _run(main())
    assert log == ["+a", "+c", "-c", "+d", "-d"]


def test_the_forecast_is_the_wait_when_turns_are_alike() -> None:
    async def main() -> None:
        turns = EngineTurns(2)
        loop = asyncio.get_running_loop()
        assert turns.forecast_s() == 0.0
        await _work(turns, "first", 4.0, [])  # from now on the length of a turn is known
        tasks = [asyncio.ensure_future(_work(turns, "x", 4.0, [])) for _ in range(2)]
        await asyncio.sleep(1.0)
        queued = [turns.join() for _ in range(3)]
        assert [turn.wait_s() for turn in queued] == [3.0, 3.0, 7.0]
        assert turns.forecast_s() == 7.0
        asked_s = loop.time()
        await queued[0].begin()
        assert loop.time() - asked_s == pytest.approx(3.0)
        assert queued[0].wait_s() == 0.0
        for turn in queued:
            turn.end()
        await asyncio.wait(tasks)

    _run(main())


@given(
    at_once=st.integers(1, 3),
    jobs=st.lists(st.tuples(st.floats(0.01, 5), st.booleans()), min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=50)
def test_everybody_gets_a_turn_and_never_more_at_once_than_allowed(
    at_once: int, jobs: list[tuple[float, bool]]
) -> None:
    async def main() -> None:
        turns, most, served = EngineTurns(at_once), 0, 0

        async def work(seconds: float) -> None:
            nonlocal most, served
            turn = turns.join()
            try:
                assert turn.wait_s() >= 0.0
                await turn.begin()
                most = max(most, turns.num_running)
                await asyncio.sleep(seconds)
                served += 1
            finally:
                turn.end()

        tasks = [asyncio.ensure_future(work(seconds)) for seconds, _ in jobs]
        await asyncio.sleep(0.005)
        leaving = [task for task, (_, leaves) in zip(tasks, jobs, strict=True) if leaves]
        for task in leaving:
            task.cancel()
        await asyncio.wait(tasks)
        assert most <= at_once
        assert served == len(jobs) - len(leaving)
        assert (turns.num_running, turns.num_waiting) == (0, 0)

    _run(main())


def _client(cloud: ScriptedCloud | None) -> DeviceClient:
    engine = EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    return DeviceClient(cloud=cloud, engine=engine, pace_s=0.1, device_profile=PROFILE)


def _ask(number: int, length: int = 40, read_along: bool = True) -> Ask:
    prompt = tuple((i + number) % 40 for i in range(200))
    sampling = SamplingParams(forced_length=length)
    return Ask(f"r{number}", prompt, 60, sampling, read_along=read_along)


async def _carry(client: DeviceClient, number: int, read_along: bool = True) -> Outcome:
    session = client.session(_ask(number, read_along=read_along))
    async for _ in session.run():
        pass
    return session.outcome


def test_many_answers_share_one_engine_and_the_cloud_keeps_their_pace() -> None:
    async def main() -> None:
        cloud = ScriptedCloud()
        client = _client(cloud)
        await client.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_carry(client, n)) for n in range(12)]
        outcomes = [task.result() for task in tasks]
        for outcome in outcomes:
            assert (len(outcome.shown), outcome.finish_reason) == (40, "stop")
            assert outcome.largest_gap_s is not None
            assert outcome.largest_gap_s < 0.15
        assert any(o.handoff_position for o in outcomes), "the engine was of use to somebody"
        assert cloud.open_streams == 0
        await client.close()

    _run(main())


def test_without_a_cloud_answers_come_one_after_another() -> None:
    async def main() -> None:
        client = _client(None)
        await client.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_carry(client, n)) for n in range(3)]
        first, second, third = (task.result().ttft_s or 0.0 for task in tasks)
        # 0.5 s of prefill and 40 steps of 0.05 s are a turn.
        assert first == pytest.approx(0.55, abs=0.06)
        assert second - first == pytest.approx(2.5, abs=0.1)
        assert third - second == pytest.approx(2.5, abs=0.1)
        await client.close()

    _run(main())


def test_who_does_not_read_along_gets_the_same_answer_as_soon_as_it_is_complete() -> None:
    async def main() -> None:
        client = _client(ScriptedCloud())
        await client.start()
        paced = await _carry(client, 1)
        at_once = await _carry(client, 1, read_along=False)
        assert at_once.token_ids == paced.token_ids
        assert at_once.e2e_s is not None
        assert paced.e2e_s is not None
        assert at_once.e2e_s < 0.75 * paced.e2e_s
        assert at_once.cloud_tokens <= paced.cloud_tokens + 1
        await client.close()

    _run(main())
