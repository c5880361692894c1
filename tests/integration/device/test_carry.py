"""One answer carried by a real cloud process and a real local engine, exact to the token."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from pd_bench.chaos.fault_proxy import FaultProxy
from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import EngineError, PdError
from pd_core.generation import (
    CloudEvent,
    Extend,
    Finished,
    FinishReason,
    Start,
    Stop,
    TokenLogprobs,
)
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome, Shown
from pd_device_client.contract.ports import CloudLink, LocalEngine, LocalSequence
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.session.session import Session
from pd_device_client.session.sides import CloudTimeouts, Sides
from tests.eventually import eventually
from tests.real_server import RealServer, real_server
from tests.wrapped_engine import WrappedEngine

LENGTH = 24
PACE_S = 0.004
GREEDY = SamplingParams(ignore_eos=True)
SEEDED = SamplingParams(
    temperature=0.4,
    top_p=0.95,
    seed=2**63 + 5,
    ignore_eos=True,
    dry_multiplier=1.0,
    dry_allowed_length=1,
    min_p=0.1,
    repetition_penalty=1.02,
    presence_penalty=-0.5,
    frequency_penalty=0.1,
)
BOTH = pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])

OPTIMISTIC = SpeedProfile("optimistic", "a test", 1e-7, 1e-7)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def prompt(loaded: LoadedModel) -> tuple[int, ...]:
    ids = loaded.tokenizer.encode("The device and the cloud carry one answer together. " * 60)
    assert len(ids) > 512, "the prompt must pass the first tile of keys"
    return tuple(ids)


class FailingEngine(WrappedEngine):
    """The real engine, which fails when it is fed more than so many tokens."""

    def __init__(self, engine: LocalEngine, fail_after: int) -> None:
        super().__init__(engine)
        self.fail_after = fail_after

    def open(self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()) -> LocalSequence:
        return _FailingSequence(self.fail_after, self.inner.open(sampling, prompt_token_ids))


class _FailingSequence:
    def __init__(self, left: int, sequence: LocalSequence) -> None:
        self._left = left
        self._sequence = sequence

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        self._left -= len(token_ids)
        if self._left < 0:
            raise EngineError("a fault of the test")
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()


async def carry(
    request: Ask,
    plan: Plan,
    link: CloudLink | None,
    engine: LocalEngine | None,
    loaded: LoadedModel,
    timeouts: CloudTimeouts | None = None,
) -> Outcome:
    """Run one session to its end."""
    sides = Sides(
        link=link,
        engine=engine,
        cloud_estimate=CloudEstimate(),
        device_estimate=DeviceEstimate(OPTIMISTIC),
        fingerprints=loaded.fingerprints,
        eos_token_ids=loaded.eos_token_ids,
        timeouts=timeouts or CloudTimeouts(admitted_s=2, first_token_s=10, idle_s=2, finish_s=0.5),
    )
    session = Session(request, plan, sides, expected_tokens=request.max_tokens)
    async with aclosing(session.run()) as answer:
        async for _ in answer:
            pass
    return session.outcome


@pytest.fixture(scope="module")
def references(loaded: LoadedModel, prompt: tuple[int, ...]) -> dict[SamplingParams, list[int]]:
    """The answers of the device alone."""

    async def alone(sampling: SamplingParams) -> list[int]:
        engine = TorchLocalEngine(loaded, chunk_tokens=100)
        request = Ask("reference", prompt, LENGTH, sampling)
        plan = Plan(Mode.DEVICE_ONLY, 0, 0.0001)
        outcome = await carry(request, plan, None, engine, loaded)
        await engine.close()
        return outcome.token_ids

    return {sampling: asyncio.run(alone(sampling)) for sampling in (GREEDY, SEEDED)}


async def test_each_cost_of_the_seeded_answer_changes_it(
    loaded: LoadedModel, prompt: tuple[int, ...], references: dict[SamplingParams, list[int]]
) -> None:
    """Else the other tests would not see whether both sides compute it."""
    for without in (
        replace(SEEDED, dry_multiplier=0.0),
        replace(SEEDED, repetition_penalty=1.0),
        replace(SEEDED, presence_penalty=0.0),
        replace(SEEDED, frequency_penalty=0.0),
        replace(SEEDED, min_p=0.0),
    ):
        engine = TorchLocalEngine(loaded)
        request = Ask("without", prompt, LENGTH, without)
        outcome = await carry(request, Plan(Mode.DEVICE_ONLY, 0, 0.0001), None, engine, loaded)
        await engine.close()
        assert outcome.token_ids != references[SEEDED], without


@BOTH
async def test_the_three_modes_give_the_same_tokens(
    sampling: SamplingParams,
    server: RealServer,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    link = GrpcCloudLink(server.address)
    engine = TorchLocalEngine(loaded, chunk_tokens=37, speculate=3)
    client = DeviceClient(cloud=link, engine=engine, pace_s=PACE_S, device_profile=OPTIMISTIC)
    await client.start()
    assert client.cloud.info is not None
    assert client.cloud.info.model.fingerprints == loaded.fingerprints
    for mode in Mode:
        session = client.session(Ask(f"mode-{mode}", prompt, LENGTH, sampling, mode=mode))
        shown = [t.token_id async for t in session.run() if isinstance(t, Shown)]
        assert shown == references[sampling]
        assert session.outcome.exactness == "identical"
    await client.close()


async def check_every_handoff(
    link: CloudLink,
    inner: LocalEngine,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    sampling: SamplingParams,
    expected: list[int],
) -> None:
    """Hand an answer over at every position; it is the expected one each time."""
    length = len(expected)
    for position in range(length + 1):
        released = asyncio.Event()

        def release(event: CloudEvent, _: int, released: asyncio.Event = released) -> None:
            if isinstance(event, Finished):
                released.set()

        engine = HeldEngine(inner, released.wait)
        if position == 0:
            released.set()
        request = Ask(f"at-{position}", prompt, length, sampling)
        plan = Plan(Mode.PD_DEVICE, position, PACE_S)
        outcome = await carry(request, plan, WatchedLink(link, release), engine, loaded)
        assert outcome.token_ids == expected
        assert outcome.cloud_tokens == position
        assert outcome.disagreed == 0
        inside = 0 < position < length
        assert outcome.handoff_position == (position if inside else None)


@BOTH
@pytest.mark.usefixtures("forced_budget")
async def test_every_forced_handoff_position_gives_the_same_tokens(
    sampling: SamplingParams,
    server: RealServer,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    link, inner = GrpcCloudLink(server.address), TorchLocalEngine(loaded, chunk_tokens=128)
    assert len(references[sampling]) == LENGTH
    await check_every_handoff(link, inner, loaded, prompt, sampling, references[sampling])
    await link.close()
    await inner.close()


@pytest.mark.heavy
@pytest.mark.parametrize("kill_at", ["admitted", "first", "middle", "last"])
@BOTH
@pytest.mark.usefixtures("forced_budget")
async def test_the_cloud_process_is_killed(
    sampling: SamplingParams,
    kill_at: str,
    tmp_path_factory: pytest.TempPathFactory,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    budget = 12
    threshold = {"admitted": 0, "first": 1, "middle": budget // 2, "last": budget}[kill_at]
    with real_server(tmp_path_factory.mktemp("killed")) as victim:
        released = asyncio.Event()

        def kill(_: CloudEvent, received: int) -> None:
            if received >= threshold:
                victim.process.kill()  # SIGKILL
                released.set()

        inner = TorchLocalEngine(loaded, speculate=3)
        link = WatchedLink(GrpcCloudLink(victim.address), kill)
        request = Ask("killed", prompt, LENGTH, sampling)
        plan = Plan(Mode.PD_DEVICE, budget, PACE_S)
        outcome = await carry(request, plan, link, HeldEngine(inner, released.wait), loaded)
        assert victim.process.wait(60) == -9
        assert outcome.token_ids == references[sampling]
        assert outcome.finish_reason == "length"
        assert outcome.cloud_tokens >= (threshold if kill_at != "admitted" else 0)
        await link.close()
        await inner.close()


@pytest.mark.parametrize("extra", [-200, 0, 1, 7])
@BOTH
@pytest.mark.usefixtures("forced_budget")
async def test_the_device_engine_raises_and_the_cloud_finishes(
    sampling: SamplingParams,
    extra: int,
    server: RealServer,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    # In prefill (extra < 0), in the pass that absorbs, in the first decode step, in a later one.
    released = asyncio.Event()

    def release(event: CloudEvent, _: int) -> None:
        if isinstance(event, Finished):
            released.set()

    budget = 5
    fail_after = len(prompt) + (extra if extra < 0 else budget + extra - 1)
    inner = TorchLocalEngine(loaded, speculate=3)
    engine = HeldEngine(FailingEngine(inner, fail_after), released.wait)
    link = WatchedLink(GrpcCloudLink(server.address), release)
    request = Ask("failing", prompt, LENGTH, sampling)
    outcome = await carry(request, Plan(Mode.PD_DEVICE, budget, PACE_S), link, engine, loaded)
    assert outcome.token_ids == references[sampling]
    assert outcome.notes == ["device: a fault of the test"]
    await link.close()
    await inner.close()


@pytest.mark.parametrize("fault", ["delay", "slices", "cut", "stall", "refuse", "half-cut"])
async def test_races_through_a_bad_network(
    fault: str,
    server: RealServer,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        link = GrpcCloudLink(f"127.0.0.1:{proxy.port}")

        def act(_: CloudEvent, received: int) -> None:
            if fault == "cut" and received == 3:
                proxy.cut()
            if fault == "stall" and received == 3:
                proxy.stall()

        match fault:
            case "delay":
                proxy.faults.up.delay_s = proxy.faults.down.delay_s = 0.05
            case "slices":
                proxy.faults.down.slice_bytes = proxy.faults.up.slice_bytes = 7
            case "refuse":
                proxy.faults.refuse = True
            case "half-cut":
                proxy.faults.down.cut_after_bytes = 300
        engine = TorchLocalEngine(loaded, speculate=3)
        request = Ask(fault, prompt, LENGTH, SEEDED)
        plan = Plan(Mode.PD_DEVICE, 12, PACE_S)
        timeouts = CloudTimeouts(admitted_s=0.5, first_token_s=1, idle_s=0.5, finish_s=0.1)
        outcome = await carry(request, plan, WatchedLink(link, act), engine, loaded, timeouts)
        assert outcome.token_ids == references[SEEDED]
        if fault in {"delay", "slices"}:
            assert outcome.notes == []
        await link.close()
        await engine.close()


async def test_a_reader_who_leaves_frees_the_cloud_within_a_step(
    server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    link, engine = GrpcCloudLink(server.address), TorchLocalEngine(loaded, speculate=3)
    client = DeviceClient(cloud=link, engine=engine, pace_s=0.02, device_profile=OPTIMISTIC)
    await client.start()
    session = client.session(Ask("leaver", prompt, 1000, GREEDY, mode=Mode.CLOUD_ONLY))
    async with aclosing(session.run()) as answer:
        async for shown in answer:
            if isinstance(shown, Shown) and shown.position == 2:
                break
    assert session.outcome.finish_reason == "cancelled"
    async with asyncio.timeout(60):  # or else the cloud still runs the request
        while True:
            if not (await link.info()).load.num_running:
                break
            await asyncio.sleep(0.01)
    made = (await link.info()).load.tokens_generated
    await asyncio.sleep(0.1)
    assert (await link.info()).load.tokens_generated == made, "the cloud goes on for nobody"
    await client.close()


async def test_the_cloud_finish_reason_and_totals_reach_the_outcome(
    server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    link, finished = GrpcCloudLink(server.address), list[Finished]()

    def note(event: CloudEvent, _: int) -> None:
        if isinstance(event, Finished):
            finished.append(event)

    request = Ask("totals", prompt, LENGTH, GREEDY)
    plan = Plan(Mode.CLOUD_ONLY, LENGTH, PACE_S)
    outcome = await carry(request, plan, WatchedLink(link, note), None, loaded)
    assert [f.reason for f in finished] == [FinishReason.LENGTH]
    assert outcome.cloud_tokens_generated == finished[0].tokens_generated == LENGTH
    await link.close()


async def test_an_unreachable_cloud_without_a_device_is_a_typed_error() -> None:
    link = GrpcCloudLink("127.0.0.1:1")
    client = DeviceClient(cloud=link, engine=None, pace_s=0.05)
    await client.start()
    with pytest.raises(PdError, match="cannot be reached"):
        client.session(Ask("r", (1, 2), 5, mode=Mode.CLOUD_ONLY))
    await client.close()


@pytest.mark.parametrize("mode", [Mode.CLOUD_ONLY, Mode.PD_DEVICE])
async def test_a_link_closed_under_a_session_leaves_the_answer_to_the_device(
    mode: Mode,
    server: RealServer,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    references: dict[SamplingParams, list[int]],
) -> None:
    link, engine = GrpcCloudLink(server.address), TorchLocalEngine(loaded, speculate=3)
    request = Ask("closed", prompt, LENGTH, SEEDED)
    answer = asyncio.ensure_future(carry(request, Plan(mode, LENGTH, 0.05), link, engine, loaded))
    await asyncio.sleep(0.15)
    await link.close()
    async with asyncio.timeout(60):
        outcome = await answer
    assert outcome.token_ids == references[SEEDED]
    await engine.close()


async def test_a_peer_that_says_nothing_is_left_and_its_call_with_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait there for ever
        link = GrpcCloudLink(f"127.0.0.1:{silent.getsockname()[1]}")
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await link.open(Start("r", (1,), 5))
        await eventually(lambda: not asyncio.all_tasks() - before)
        await link.close()


async def test_what_is_sent_after_the_end_is_dropped(
    server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    link = GrpcCloudLink(server.address)
    stream = await link.open(Start("r", prompt, 1))
    async with aclosing(stream.events()) as events:
        async for event in events:
            if isinstance(event, Finished):
                break
    stream.cancel()
    await asyncio.sleep(0.1)
    await stream.send(Extend(5))
    await stream.send(Stop())
    assert (await link.info()).load.num_running == 0, "the link lives, and nothing was begun anew"
    await link.close()
