"""The simulated cloud: durations by hand, the server's bounds, and links as the shaped one."""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.shaped_link import ShapedCloudLink
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES, CloudProfile, read_cloud_profile
from pd_bench.simulation.cloud.simulated_cloud import (
    EOS_TOKEN_ID,
    VOCAB_SIZE,
    SimulatedCloud,
    SimulatedLink,
)
from pd_core.errors import ConfigError, PdError, QueueFull, RequestExpired, TokenLimitTooHigh
from pd_core.generation import Admitted, CloudEvent, Extend, Finished, FinishReason, Start, Stop
from pd_core.generation import Tokens as TokensEvent
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import CloudLink, CloudStream
from pd_device_client.planning.speeds.profiles import LINK_PROFILES, LinkProfile, SpeedProfile

T = TypeVar("T")

PLAIN = LINK_PROFILES["loopback"]
CLOUD = CloudProfile(
    name="test",
    source="a test",
    step_s=0.01,
    prefill_token_s=0.001,
    decode_s=0.002,
    kv_bytes_per_token=100,
    kv_tokens=64 * 100,
    max_num_seqs=4,
    max_num_batched_tokens=256,
    max_num_waiting=2,
    max_context_tokens=4096,
    max_output_tokens=1024,
)


def _start(name: str, prompt_tokens: int, token_limit: int, *, length: int = 500) -> Start:
    prompt = tuple(3 + (i * 7 + len(name)) % 1000 for i in range(prompt_tokens))
    sampling = SamplingParams(forced_length=length)
    return Start(name, prompt, token_limit, sampling=sampling, cache_salt=name)


async def _events(stream: CloudStream) -> list[tuple[float, CloudEvent]]:
    loop = asyncio.get_running_loop()
    return [(round(loop.time(), 9), event) async for event in stream.events()]


def _run(main: Coroutine[Any, Any, T]) -> T:
    return run_virtual(main)


def test_a_lone_request_takes_what_its_profile_says() -> None:
    async def main() -> None:
        cloud = SimulatedCloud(CLOUD)
        start = _start("a", 300, 3)
        events = await _events(await SimulatedLink(cloud, PLAIN).open(start))
        assert isinstance(events[0][1], Admitted)
        assert events[0][0] == 0.0
        # 256 tokens, then 44: two chunks; then a decode step at a time.
        first_s = (0.01 + 0.256) + (0.01 + 0.044)
        tokens = [(at_s, e) for at_s, e in events if isinstance(e, TokensEvent)]
        assert [at_s for at_s, _ in tokens] == pytest.approx(
            [first_s, first_s + 0.012, first_s + 0.024]
        )
        made = [token_id for _, e in tokens for token_id in e.token_ids]
        state = RollingHash(VOCAB_SIZE, (EOS_TOKEN_ID,), start.prompt_token_ids)
        for position, token_id in enumerate(made):
            assert token_id == state.next_token(position, start.sampling)
            state.extend((token_id,))
        finished = events[-1][1]
        assert isinstance(finished, Finished)
        assert (finished.reason, finished.tokens_generated) == (FinishReason.LENGTH, 3)
        assert finished.prefill_s == pytest.approx(first_s)
        load = cloud.load()
        assert load.engine_busy_s == pytest.approx(first_s + 0.024)
        assert load.tokens_generated == 3
        assert load.num_running == load.num_waiting == 0
        cloud.engine.check_integrity()

    _run(main())


def test_cloud_and_device_make_the_same_stand_ins_for_logprobs() -> None:
    async def main() -> None:
        start = _start("a", 30, 6)
        start = replace(start, sampling=replace(start.sampling, logprobs=3))
        events = await _events(await SimulatedLink(SimulatedCloud(CLOUD), PLAIN).open(start))
        told = [e for _, e in events if isinstance(e, TokensEvent)]
        device = EmulatedDeviceEngine(
            SpeedProfile("test", "a test", 1e-6, 1e-6),
            vocab_size=VOCAB_SIZE,
            eos_token_ids=[EOS_TOKEN_ID],
        )
        sequence, fed = device.open(start.sampling), list(start.prompt_token_ids)
        for position, event in enumerate(told):
            assert (await sequence.feed(fed, position),) == event.token_ids
            assert (sequence.logprobs,) == event.logprobs
            fed = list(event.token_ids)
        assert len({event.logprobs for event in told}) == 6, "each has its own"

    _run(main())


def test_a_batch_shares_its_steps() -> None:
    """Two streams that decode together pay the step's base once."""

    async def main() -> None:
        cloud = SimulatedCloud(CLOUD)
        streams = [
            await SimulatedLink(cloud, PLAIN).open(_start(name, 20, 50)) for name in ("a", "b")
        ]
        both = await asyncio.gather(*map(_events, streams))
        gaps = [
            later[0] - earlier[0]
            for events in both
            for earlier, later in itertools.pairwise(events[20:41])
        ]
        assert gaps == pytest.approx([0.01 + 2 * 0.002] * len(gaps))

    _run(main())


def test_over_its_bounds_it_refuses_at_once_as_the_server_does() -> None:
    async def main() -> None:
        cloud = SimulatedCloud(CLOUD)
        tasks = []
        for i in range(6):
            stream = await SimulatedLink(cloud, PLAIN).open(_start(f"r{i}", 50, 20))
            tasks.append(asyncio.ensure_future(_events(stream)))
        with pytest.raises(QueueFull, match="all slots are taken"):
            await _events(await SimulatedLink(cloud, PLAIN).open(_start("late", 50, 20)))
        assert all(isinstance(events[-1][1], Finished) for events in await asyncio.gather(*tasks))
        with pytest.raises(TokenLimitTooHigh):
            await _events(await SimulatedLink(cloud, PLAIN).open(_start("long", 50, 2000)))
        assert cloud.admission.num_in_flight == cloud.admission.num_tokens_in_flight == 0

    _run(main())


def test_stop_extend_and_cancel_take_effect_within_a_step() -> None:
    async def main() -> None:
        cloud = SimulatedCloud(CLOUD)
        link = SimulatedLink(cloud, PLAIN)
        stream = await link.open(_start("extended", 20, 2))
        await stream.send(Extend(5))
        assert len([e for _, e in await _events(stream) if isinstance(e, TokensEvent)]) == 5
        stream = await link.open(_start("stopped", 20, 500))
        stopped = asyncio.ensure_future(_events(stream))
        await asyncio.sleep(0.1)
        sent_s = asyncio.get_running_loop().time()
        await stream.send(Stop())
        end_s, finished = (await stopped)[-1]
        assert isinstance(finished, Finished)
        assert finished.reason is FinishReason.CANCELLED
        assert end_s - sent_s <= 0.012 + 1e-9
        stream = await link.open(_start("cancelled", 20, 500))
        await asyncio.sleep(0.1)
        assert cloud.load().num_running == 1
        stream.cancel()
        await asyncio.sleep(0.012)
        assert cloud.load().num_running == 0
        cloud.engine.check_integrity()

    _run(main())


def test_a_request_that_waited_too_long_is_dropped() -> None:
    async def main() -> None:
        profile = CLOUD.model_copy(update={"max_num_seqs": 1})
        cloud = SimulatedCloud(profile)
        first = await SimulatedLink(cloud, PLAIN).open(_start("first", 50, 100))
        task = asyncio.ensure_future(_events(first))
        start = _start("second", 50, 100)
        stream = await SimulatedLink(cloud, PLAIN).open(
            Start(start.request_id, start.prompt_token_ids, 100, useful_for_s=0.2)
        )
        with pytest.raises(RequestExpired):
            await _events(stream)
        assert len(await task) == 102

    _run(main())


def test_prefixes_are_found_again_and_memory_runs_out_without_losing_a_token() -> None:
    async def main() -> None:
        cloud = SimulatedCloud(CLOUD.model_copy(update={"kv_tokens": 64 * 12}))
        starts = [_start(f"{i}", 100 + i, 300, length=250) for i in range(4)]
        streams = [await SimulatedLink(cloud, PLAIN).open(start) for start in starts]
        for start, events in zip(starts, await asyncio.gather(*map(_events, streams)), strict=True):
            made = [t for _, e in events if isinstance(e, TokensEvent) for t in e.token_ids]
            state = RollingHash(VOCAB_SIZE, (EOS_TOKEN_ID,), start.prompt_token_ids)
            for position, token_id in enumerate(made):
                assert token_id == state.next_token(position, start.sampling)
                state.extend((token_id,))
            assert len(made) == 250
        assert cloud.load().num_preemptions > 0
        before = cloud.load().prefix_hit_tokens
        await _events(await SimulatedLink(cloud, PLAIN).open(starts[-1]))
        assert cloud.load().prefix_hit_tokens == before + 64
        assert cloud.load().kv_bytes_peak <= 64 * 12 * 100
        cloud.engine.check_integrity()

    _run(main())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from(["wifi", "lte", "lan"]),
    st.integers(1, 40),
    st.booleans(),
)
def test_a_simulated_link_delays_as_the_shaped_link_does(
    seed: int, name: str, token_limit: int, stop: bool
) -> None:
    profile = LINK_PROFILES[name]

    async def talk(shaped: bool) -> list[tuple[float, CloudEvent | PdError]]:
        cloud = SimulatedCloud(CLOUD, seed)
        link: CloudLink = SimulatedLink(cloud, profile, seed)
        if shaped:
            link = ShapedCloudLink(SimulatedLink(cloud, PLAIN), profile, seed)
        loop, seen = asyncio.get_running_loop(), list[tuple[float, CloudEvent | PdError]]()
        await link.info()
        stream = await link.open(_start("a", 90, token_limit, length=30))
        if stop:
            loop.call_later(0.5, lambda: asyncio.ensure_future(stream.send(Stop())))
        async for event in stream.events():
            seen.append((loop.time(), event))
        return seen

    ours, theirs = _run(talk(shaped=False)), _run(talk(shaped=True))
    assert [event for _, event in ours] == [event for _, event in theirs]
    assert [at_s for at_s, _ in ours] == pytest.approx([at_s for at_s, _ in theirs])


def test_a_lossless_link_without_jitter_adds_half_an_rtt_each_way() -> None:
    link = LinkProfile("plain", "a test", rtt_s=0.2)

    async def main() -> None:
        cloud = SimulatedCloud(CLOUD)
        events = await _events(await SimulatedLink(cloud, link).open(_start("a", 100, 1)))
        assert [at_s for at_s, _ in events] == pytest.approx([0.2, 0.2 + 0.11, 0.2 + 0.11])

    _run(main())


def test_profiles_are_read_by_name_and_from_files(tmp_path: Any) -> None:
    assert read_cloud_profile("gpu-8b") is CLOUD_PROFILES["gpu-8b"]
    file = tmp_path / "cloud.json"
    file.write_text(CLOUD.model_dump_json())
    assert read_cloud_profile(str(file)) == CLOUD
    file.write_text(CLOUD.model_dump_json().replace("0.01", '"x"', 1))
    with pytest.raises(ConfigError, match="step_s"):
        read_cloud_profile(str(file))
    file.write_text("{")
    with pytest.raises(ConfigError, match="not a JSON document"):
        read_cloud_profile(str(file))
    with pytest.raises(ConfigError, match=r"gpu-8b, small-gpu-8b.*No such file"):
        read_cloud_profile(str(tmp_path / "missing.json"))
