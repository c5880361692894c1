"""An answer of a given form, carried by a real cloud and a real device, cut anywhere."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import CloudUnavailable, InvalidConstraint, LinkCorrupted, PdError
from pd_core.generation import CloudEvent, Finished
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import CloudLink, LocalEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.plan import Plan
from tests.bit_flips import relay
from tests.forms import FORMS, SCHEMAS, fits
from tests.integration.device.test_carry import OPTIMISTIC, carry
from tests.real_server import RealServer, real_server
from tests.server_harness import plain_loop

pytestmark = pytest.mark.heavy

MOST = 100
PROMPT = tuple(range(8, 60))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def params(name: str, seed: int = 3) -> SamplingParams:
    return SamplingParams(temperature=1.0, top_p=0.95, seed=seed, constraint=FORMS[name])


def broken_after(link: CloudLink, num_tokens: int) -> WatchedLink:
    """A link that breaks with the first tokens beyond some."""

    def told(_event: CloudEvent, received: int) -> None:
        if received > num_tokens:
            raise CloudUnavailable("a fault of the test")

    return WatchedLink(link, told)


async def ask(
    link: CloudLink | None,
    engine: LocalEngine | None,
    loaded: LoadedModel,
    sampling: SamplingParams,
    mode: Mode = Mode.PD_DEVICE,
) -> Outcome:
    """Ask a client for an answer; an error is in the outcome."""
    grammars = TorchLocalEngine(loaded).grammars
    client = DeviceClient(
        cloud=link,
        engine=engine,
        pace_s=0.002,
        device_profile=OPTIMISTIC,
        grammars=grammars,
    )
    await client.start()
    session = client.session(Ask("form", PROMPT, MOST, sampling, mode=mode))
    try:
        async with aclosing(session.run()) as answer:
            async for _ in answer:
                pass
    except PdError:
        pass
    await client.close()
    return session.outcome


@pytest.mark.parametrize("name", ["person", "lark"])
async def test_every_handoff_gives_the_same_answer(
    name: str, server: RealServer, loaded: LoadedModel
) -> None:
    right = plain_loop(loaded, PROMPT, MOST, params(name))
    engine = TorchLocalEngine(loaded, chunk_tokens=16, speculate=3)
    link = GrpcCloudLink(server.address)
    for position in range(len(right) + 1):
        released = asyncio.Event()

        def release(event: CloudEvent, _: int, released: asyncio.Event = released) -> None:
            if isinstance(event, Finished):
                released.set()

        if position == 0:
            released.set()
        outcome = await carry(
            Ask(f"at-{position}", PROMPT, len(right), params(name)),
            Plan(Mode.PD_DEVICE, position, 0.001, adapts=False),
            WatchedLink(link, release),
            HeldEngine(engine, released.wait),
            loaded,
        )
        assert outcome.token_ids == right
        assert outcome.cloud_tokens == position
    await engine.close()
    await link.close()


@pytest.mark.parametrize("seed", range(6))
async def test_a_cloud_that_breaks_anywhere_leaves_an_answer_of_the_form(
    seed: int, server: RealServer, loaded: LoadedModel
) -> None:
    chance = random.Random(seed)
    name = chance.choice(sorted(SCHEMAS))
    right = plain_loop(loaded, PROMPT, MOST, params(name, seed))
    link = broken_after(GrpcCloudLink(server.address), chance.randrange(len(right)))
    outcome = await ask(link, TorchLocalEngine(loaded), loaded, params(name, seed))
    assert outcome.error is None
    assert outcome.token_ids == right
    if right[-1] in loaded.eos_token_ids:
        assert fits(SCHEMAS[name], loaded.tokenizer.decode(right))


async def test_a_form_s_tokens_keep_what_the_cloud_tells_of_them(
    server: RealServer, loaded: LoadedModel
) -> None:
    sampling = replace(params("person"), logprobs=2)
    link = GrpcCloudLink(server.address)
    outcome = await ask(link, None, loaded, sampling, Mode.CLOUD_ONLY)
    assert outcome.error is None
    assert outcome.token_ids == plain_loop(loaded, PROMPT, MOST, params("person"))
    assert all(one.logprobs is not None for one in outcome.shown)
    await link.close()


@pytest.mark.parametrize("mode", Mode)
async def test_every_mode_gives_the_same_answer(
    mode: Mode, server: RealServer, loaded: LoadedModel
) -> None:
    right = plain_loop(loaded, PROMPT, MOST, params("union"))
    link, engine = GrpcCloudLink(server.address), TorchLocalEngine(loaded)
    outcome = await ask(link, engine, loaded, params("union"), mode)
    assert outcome.token_ids == right
    assert outcome.exactness == "identical"


class _Misfit:
    """Puts a token that fits no form into one message, or into each, and takes the seals away."""

    def __init__(self, *, again: bool) -> None:
        self.again = again
        self.count = 0

    def __call__(self, message: Any) -> None:
        if type(message).__name__ == "GetServerInfoResponse":
            message.sealed = False
            return
        for part in ("tokens", "finished", "refined_prompt"):
            if message.HasField(part):
                getattr(message, part).ClearField("seal")
        late = message.HasField("tokens") and message.tokens.first_position >= 4
        if late and (self.again or not self.count):
            message.tokens.token_ids[0] = 0  # the beginning of a sequence
            self.count += 1


async def test_a_token_that_does_not_fit_is_never_shown_and_the_cloud_tries_again(
    server: RealServer, loaded: LoadedModel
) -> None:
    right = plain_loop(loaded, PROMPT, MOST, params("person"))
    misfit = _Misfit(again=False)
    async with relay(server.address, down=misfit) as address:
        link = GrpcCloudLink(address)
        outcome = await ask(link, None, loaded, params("person"), Mode.CLOUD_ONLY)
    assert misfit.count == 1
    assert isinstance(outcome.cloud_error, LinkCorrupted)
    assert "does not fit the form" in str(outcome.cloud_error)
    assert outcome.token_ids == right


async def test_the_device_takes_over_from_a_cloud_whose_tokens_do_not_fit(
    server: RealServer, loaded: LoadedModel
) -> None:
    right = plain_loop(loaded, PROMPT, MOST, params("person"))
    misfit = _Misfit(again=True)
    async with relay(server.address, down=misfit) as address:
        link = GrpcCloudLink(address)
        outcome = await ask(link, TorchLocalEngine(loaded), loaded, params("person"))
    assert outcome.error is None
    assert outcome.token_ids == right
    assert 0 not in outcome.token_ids


def _card(library: str) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        if type(message).__name__ == "GetServerInfoResponse":
            message.grammar_library = library

    return change


@pytest.mark.parametrize(
    ("library", "words"), [("", "holds no answer to a form"), ("llguidance-0.1/1", "same version")]
)
async def test_a_cloud_that_compiles_otherwise_is_not_used_for_a_form(
    library: str, words: str, server: RealServer, loaded: LoadedModel
) -> None:
    async with relay(server.address, down=_card(library)) as address:
        link, engine = GrpcCloudLink(address), TorchLocalEngine(loaded)
        outcome = await ask(link, engine, loaded, params("union"))
        assert outcome.token_ids == plain_loop(loaded, PROMPT, MOST, params("union"))
        assert outcome.cloud_tokens_generated == 0
        assert any(words in note for note in outcome.notes)
        if not library:
            with pytest.raises(InvalidConstraint, match=words):
                await ask(GrpcCloudLink(address), None, loaded, params("union"), Mode.CLOUD_ONLY)
        link, engine = GrpcCloudLink(address), TorchLocalEngine(loaded)
        plain = SamplingParams(ignore_eos=True)
        outcome = await ask(link, engine, loaded, plain, Mode.CLOUD_ONLY)
        assert len(outcome.token_ids) == MOST


async def test_a_form_that_cannot_be_used_is_refused_by_both_and_harms_no_one(
    server: RealServer, loaded: LoadedModel
) -> None:
    wrong = SamplingParams(constraint=Constraint(ConstraintKind.REGEX, "(a"))
    for mode in Mode:
        engine = TorchLocalEngine(loaded)
        outcome = await ask(GrpcCloudLink(server.address), engine, loaded, wrong, mode)
        assert isinstance(outcome.error, InvalidConstraint)
        assert outcome.token_ids == []
    engine = TorchLocalEngine(loaded)
    outcome = await ask(GrpcCloudLink(server.address), engine, loaded, params("union"))
    assert outcome.token_ids == plain_loop(loaded, PROMPT, MOST, params("union"))
