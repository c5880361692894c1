"""The breaker's policy by properties, and a client that leaves a bad cloud alone and comes back."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.errors import CloudUnavailable, PdError, QueueFull
from pd_core.generation import ServerInfo
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Outcome
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.scripted_cloud import EOS, VOCAB_SIZE, ScriptedCloud

POLICY = BreakerPolicy(num_failures=3, num_probes=2, first_wait_s=2.0, longest_wait_s=10.0)
CLOSED, OPEN, PROBING = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.PROBING


def test_it_opens_after_failures_in_a_row_and_closes_after_good_probes_in_a_row() -> None:
    breaker = CircuitBreaker(POLICY)
    breaker.failed(0.0)
    breaker.failed(0.0)
    breaker.carried()
    breaker.failed(0.0)
    breaker.answered()  # says nothing of answers
    breaker.failed(0.0)
    assert breaker.state(0.0) is CLOSED
    breaker.failed(1.0)
    assert breaker.state(2.9) is OPEN
    assert breaker.probe_in_s(2.0) == pytest.approx(1.0)
    assert breaker.state(3.0) is PROBING
    breaker.answered()
    assert breaker.state(3.0) is PROBING
    breaker.answered()
    assert breaker.state(3.0) is CLOSED


def test_a_cloud_that_came_back_is_on_trial_until_it_has_carried_an_answer() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)
    breaker.answered()
    breaker.answered()
    breaker.failed(5.0)
    assert breaker.state(5.0) is OPEN
    assert breaker.probe_in_s(5.0) == 4.0
    breaker.answered()
    breaker.answered()
    breaker.carried()
    breaker.failed(20.0)
    breaker.failed(20.0)
    assert breaker.state(20.0) is CLOSED


def test_a_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    breaker, now_s, waits = CircuitBreaker(POLICY), 0.0, list[float]()
    for _ in range(3):
        breaker.failed(now_s)
    for _ in range(5):
        waits.append(breaker.probe_in_s(now_s))
        now_s += waits[-1]
        breaker.failed(now_s)
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_devices_do_not_probe_at_one_moment() -> None:
    """A thousand devices whose cloud fails at one moment, each with a share of its own."""
    shares = random.Random(5)
    waits = []
    for _ in range(1000):
        breaker = CircuitBreaker(POLICY, shares.random)
        for _ in range(3):
            breaker.failed(0.0)
        waits.append(breaker.probe_in_s(0.0))
    assert 1.0 <= min(waits) < max(waits) <= 2.0
    tenths = Counter(int(wait_s * 10) for wait_s in waits)
    assert max(tenths.values()) < 200


def test_failures_of_what_began_before_it_opened_do_not_count_as_probes() -> None:
    breaker = CircuitBreaker(POLICY)
    for _ in range(20):
        breaker.failed(1.0)
    assert breaker.probe_in_s(1.0) == 2.0


_events = st.lists(
    st.tuples(st.sampled_from(["carried", "answered", "failed"]), st.floats(0, 30)), max_size=60
)


@given(events=_events)
def test_it_never_changes_without_enough_in_a_row_nor_waits_beyond_the_longest(
    events: list[tuple[str, float]],
) -> None:
    breaker, now_s, failures, run = CircuitBreaker(POLICY), 0.0, 0, list[str]()
    for event, later_s in events:
        now_s += later_s
        before = breaker.state(now_s) is CLOSED
        run.append(event)
        if event == "carried":
            failures = 0
            breaker.carried()
        elif event == "answered":
            breaker.answered()
        else:
            failures += 1
            breaker.failed(now_s)
        after = breaker.state(now_s) is CLOSED
        if before and not after:
            assert event == "failed"
            assert failures >= 3
        if after and not before:
            assert event == "carried" or run[-2:] == ["answered"] * 2
        if run[-3:] == ["failed"] * 3:
            assert not after
        longest_s = POLICY.longest_wait_s + 1e-9  # times since the first event are rounded
        assert 0.0 <= breaker.probe_in_s(now_s) <= longest_s


@given(flaps=st.integers(1, 40))
def test_a_cloud_that_comes_and_goes_stays_out(flaps: int) -> None:
    breaker, now_s = CircuitBreaker(POLICY), 0.0
    for _ in range(3):
        breaker.failed(now_s)
    for _ in range(flaps):
        now_s += 60.0
        breaker.answered()
        breaker.failed(now_s)
        assert breaker.state(now_s) is OPEN


PROFILE = SpeedProfile("test", "a test", 1 / 400, 0.05)


class FlakyCloud(ScriptedCloud):
    """Refuses streams, and its card, while it is told to."""

    down = False
    num_cards = 0

    async def info(self) -> ServerInfo:
        self.num_cards += 1
        if self.down:
            raise CloudUnavailable("nobody listens there")
        return await super().info()


def _flaky(error: PdError) -> FlakyCloud:
    cloud = FlakyCloud()
    cloud.script.refuse = lambda _: error if cloud.down else None
    return cloud


async def _ask(client: DeviceClient) -> Outcome:
    prompt = tuple(i % 40 for i in range(200))
    request = Ask("r", prompt, 30, SamplingParams(forced_length=20))
    session = client.session(request)
    async for _ in session.run():
        pass
    return session.outcome


def _client(cloud: FlakyCloud) -> DeviceClient:
    engine = EmulatedDeviceEngine(PROFILE, vocab_size=VOCAB_SIZE, eos_token_ids=[EOS])
    return DeviceClient(cloud=cloud, engine=engine, pace_s=0.1, device_profile=PROFILE)


def test_a_cloud_that_fails_is_left_alone_and_comes_back_by_itself() -> None:
    async def main() -> None:
        cloud = _flaky(CloudUnavailable("the stream broke"))
        client = _client(cloud)
        await client.start()
        assert (await _ask(client)).cloud_tokens > 0
        cloud.down = True
        for _ in range(4):
            assert len((await _ask(client)).shown) == 20
        num_starts = len(cloud.starts)
        outcome = await _ask(client)
        assert len(cloud.starts) == num_starts, "an answer waited for a cloud that is left alone"
        assert any("goes on alone" in note for note in outcome.notes)
        num_cards = cloud.num_cards
        await asyncio.sleep(600)  # no storm while nobody asks
        assert cloud.num_cards - num_cards <= 20
        cloud.down = False
        await asyncio.sleep(70)
        assert (await _ask(client)).cloud_tokens > 0
        await client.close()

    run_virtual(main())


@pytest.mark.parametrize(
    ("error", "fewest", "most"),
    [(QueueFull("full", 0.1), 30, 30), (CloudUnavailable("broken"), 3, 10)],
)
def test_a_busy_cloud_is_asked_every_time_and_one_whose_streams_break_seldom(
    error: PdError, fewest: int, most: int
) -> None:
    """In a minute of answers, though the broken one's card can be had all the time."""

    async def main() -> None:
        cloud = FlakyCloud()
        cloud.script.refuse = lambda _: error
        client = _client(cloud)
        await client.start()
        tried = 0
        for _ in range(30):
            num_starts = len(cloud.starts)
            await _ask(client)
            tried += len(cloud.starts) > num_starts
        assert fewest <= tried <= most
        await client.close()

    run_virtual(main())
