"""A bit that changes between device and cloud: a typed fault, and the right answer all the same."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from pd_bench.chaos.fault_proxy import FaultProxy
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import LinkCorrupted, PdError
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.session.session import Session
from pd_device_client.session.sides import CloudTimeouts, Sides
from tests.bit_flips import relay
from tests.real_server import RealServer, real_server
from tests.server_harness import plain_loop, prompt_of

pytestmark = pytest.mark.heavy

LENGTH = 12
PROMPT = tuple(prompt_of(40))
SEEDED = SamplingParams(temperature=1.0, seed=7, ignore_eos=True)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def right(loaded: LoadedModel) -> list[int]:
    return plain_loop(loaded, PROMPT, LENGTH, SEEDED)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def _prompt(message: Any) -> bool:
    if not message.HasField("start"):
        return False
    message.start.prompt_token_ids[20] ^= 1
    return True


def _seed(message: Any) -> bool:
    if not message.HasField("start"):
        return False
    message.start.sampling.seed ^= 1 << 40
    return True


def _start_and_its_seal(message: Any) -> bool:
    """As a flip in the field's tag would leave it: unknown to the server, so not checked there."""
    if not _seed(message):
        return False
    message.start.ClearField("seal")
    return True


def _token(message: Any) -> bool:
    if not message.HasField("tokens") or message.tokens.first_position < 3:
        return False
    message.tokens.token_ids[0] ^= 2
    return True


def _position(message: Any) -> bool:
    if not message.HasField("tokens"):
        return False
    message.tokens.first_position ^= 1
    return True


def _token_seal(message: Any) -> bool:
    if not message.HasField("tokens"):
        return False
    message.tokens.ClearField("seal")
    return True


def _finished(message: Any) -> bool:
    if not message.HasField("finished"):
        return False
    message.finished.tokens_generated ^= 1
    return True


UP = [_prompt, _seed, _start_and_its_seal]
DOWN = [_token, _position, _token_seal]


class _Flips:
    """Does a change to the first message that it fits, or to each."""

    def __init__(self, change: Callable[[Any], bool], *, again: bool = False) -> None:
        self._change = change
        self._again = again
        self.count = 0

    def __call__(self, message: Any) -> None:
        # The card has none of these fields.
        if type(message).__name__ != "GetServerInfoResponse" and (self._again or not self.count):
            self.count += self._change(message)


async def _carry(
    link: GrpcCloudLink, mode: Mode, engine: LocalEngine | None, loaded: LoadedModel
) -> Outcome:
    """Carry one answer; an error is in the outcome."""
    await link.info()  # which says that streams are sealed
    client = DeviceClient(cloud=link, engine=engine, pace_s=0.002)
    sides = Sides(
        link=link,
        engine=engine,
        cloud_estimate=client.cloud.estimate,
        device_estimate=client.device_estimate,
        fingerprints=loaded.fingerprints,
        eos_token_ids=loaded.eos_token_ids,
        timeouts=CloudTimeouts(admitted_s=2, first_token_s=10, idle_s=2, finish_s=0.5),
    )
    session = Session(
        Ask("r", PROMPT, LENGTH, SEEDED), Plan(mode, LENGTH, 0.002), sides, expected_tokens=LENGTH
    )
    try:
        async with aclosing(session.run()) as answer:
            async for _ in answer:
                pass
    except PdError:
        pass
    return session.outcome


@pytest.mark.parametrize("change", [*UP, *DOWN])
async def test_the_cloud_alone_tries_again(
    change: Callable[[Any], bool], server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    flips = _Flips(change)
    way = {"up": flips} if change in UP else {"down": flips}
    async with relay(server.address, **way) as address:
        link = GrpcCloudLink(address)
        outcome = await _carry(link, Mode.CLOUD_ONLY, None, loaded)
        await link.close()
    assert flips.count == 1
    assert isinstance(outcome.cloud_error, LinkCorrupted)
    assert outcome.error is None
    assert outcome.token_ids == right


@pytest.mark.parametrize("change", [*UP, *DOWN])
async def test_a_link_that_goes_on_changing_bits_leaves_the_answer_to_the_device(
    change: Callable[[Any], bool], server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    flips = _Flips(change, again=True)
    way = {"up": flips} if change in UP else {"down": flips}
    engine = TorchLocalEngine(loaded)
    async with relay(server.address, **way) as address:
        link = GrpcCloudLink(address)
        outcome = await _carry(link, Mode.PD_DEVICE, engine, loaded)
        await link.close()
    await engine.close()
    assert outcome.error is None
    assert outcome.token_ids == right


async def test_without_a_device_it_is_a_typed_error_after_the_right_tokens(
    server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    async with relay(server.address, down=_Flips(_token, again=True)) as address:
        link = GrpcCloudLink(address)
        outcome = await _carry(link, Mode.CLOUD_ONLY, None, loaded)
        await link.close()
    assert isinstance(outcome.error, LinkCorrupted)
    assert 0 < len(outcome.token_ids) < LENGTH
    assert outcome.token_ids == right[: len(outcome.token_ids)]


async def test_a_changed_end_does_not_count(
    server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    flips = _Flips(_finished)
    async with relay(server.address, down=flips) as address:
        link = GrpcCloudLink(address)
        outcome = await _carry(link, Mode.CLOUD_ONLY, None, loaded)
        await link.close()
    assert flips.count == 1
    assert outcome.token_ids == right
    assert outcome.cloud_tokens_generated == LENGTH


async def test_a_cloud_without_seals_is_used_but_nothing_is_called_identical(
    server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    def old(message: Any) -> None:
        message.ClearField("sealed") if hasattr(message, "sealed") else None
        for part in ("tokens", "finished"):
            if hasattr(message, part) and message.HasField(part):
                getattr(message, part).ClearField("seal")

    engine = TorchLocalEngine(loaded)
    async with relay(server.address, down=old) as address:
        link = GrpcCloudLink(address)
        client = DeviceClient(cloud=link, engine=engine, pace_s=0.002)
        await client.start()
        session = client.session(Ask("r", PROMPT, LENGTH, SEEDED, mode=Mode.CLOUD_ONLY))
        async with aclosing(session.run()) as answer:
            async for _ in answer:
                pass
        await client.close()
    assert session.outcome.token_ids == right
    assert session.outcome.cloud_error is None
    assert session.outcome.cloud_tokens == LENGTH
    assert session.outcome.exactness == "consistent"


@pytest.mark.parametrize("upwards", [True, False], ids=["up", "down"])
async def test_any_bit_of_the_connection(
    upwards: bool, server: RealServer, loaded: LoadedModel, right: list[int]
) -> None:
    """Wherever it is, in frames, headers or messages: the answer stays right."""
    engine = TorchLocalEngine(loaded)
    async with FaultProxy("127.0.0.1", server.port) as whole:
        link = GrpcCloudLink(f"127.0.0.1:{whole.port}")
        assert (await _carry(link, Mode.CLOUD_ONLY, None, loaded)).token_ids == right
        await link.close()
        num_bytes = whole.bytes_up if upwards else whole.bytes_down
    faults = 0
    for offset in range(40, num_bytes, max(1, num_bytes // 24)):
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            fault = proxy.faults.up if upwards else proxy.faults.down
            # Not the eighth: a method's name that is no UTF-8 has a test of its own.
            fault.flip_bit = 8 * offset + offset % 7
            link = GrpcCloudLink(f"127.0.0.1:{proxy.port}")
            try:
                async with asyncio.timeout(60):
                    outcome = await _carry(link, Mode.PD_DEVICE, engine, loaded)
            except PdError:
                faults += 1  # the card could not be had
            else:
                assert outcome.token_ids == right, f"byte {offset}"
                faults += outcome.cloud_error is not None
            await link.close()
    await engine.close()
    assert faults > 0
