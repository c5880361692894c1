"""Logprobs over a real wire: the same figures at every position, whichever side made the token."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.generation import CloudEvent, Finished, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Origin
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from tests.integration.device.test_carry import PACE_S, SEEDED, carry
from tests.real_server import RealServer, real_server

pytestmark = pytest.mark.heavy

LENGTH = 16
GREEDY = SamplingParams(ignore_eos=True, logprobs=3)
BIASED = replace(
    SEEDED,
    ignore_eos=False,
    min_tokens=LENGTH,
    late_token_ids=(40, 41),
    logit_bias=((40, 100.0), (264, -100.0), (511, 2.5), (601, -1.25)),
    logprobs=20,
)
FORMED = SamplingParams(
    temperature=1.0,
    seed=4,
    constraint=Constraint(ConstraintKind.REGEX, "[a-z ]{60,}"),
    logit_bias=((264, 4.0),),
    logprobs=2,
)
ALONE = Plan(Mode.DEVICE_ONLY, 0, 0.0001)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module", params=["0", "3"], ids=["plain", "guessing"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealServer]:
    """A cloud; with guesses several tokens come from one step."""
    with real_server(tmp_path_factory.mktemp("server"), "--speculate", request.param) as running:
        yield running


@pytest.fixture(scope="module")
def prompt(loaded: LoadedModel) -> tuple[int, ...]:
    return tuple(loaded.tokenizer.encode("The device and the cloud carry one answer. " * 20))


async def alone(
    loaded: LoadedModel, prompt: tuple[int, ...], sampling: SamplingParams, speculate: int = 0
) -> tuple[list[int], list[TokenLogprobs | None]]:
    engine = TorchLocalEngine(loaded, chunk_tokens=100, speculate=speculate)
    outcome = await carry(Ask("alone", prompt, LENGTH, sampling), ALONE, None, engine, loaded)
    await engine.close()
    return outcome.token_ids, [shown.logprobs for shown in outcome.shown]


@pytest.mark.parametrize("sampling", [GREEDY, BIASED, FORMED], ids=["greedy", "biased", "formed"])
@pytest.mark.usefixtures("forced_budget")
async def test_every_handoff_gives_the_same_figures(
    sampling: SamplingParams, server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    token_ids, logprobs = await alone(loaded, prompt, sampling)
    assert len(token_ids) == LENGTH
    assert all(one is not None and len(one.top_ids) == sampling.logprobs for one in logprobs)
    link, inner = GrpcCloudLink(server.address), TorchLocalEngine(loaded, chunk_tokens=64)
    info = await link.info()
    assert info.model.logprobs
    for position in range(LENGTH + 1):
        released = asyncio.Event()

        def release(event: CloudEvent, _: int, released: asyncio.Event = released) -> None:
            if isinstance(event, Finished):
                released.set()

        if position == 0:
            released.set()
        engine, watched = HeldEngine(inner, released.wait), WatchedLink(link, release)
        request = Ask(f"at-{position}", prompt, LENGTH, sampling)
        plan = Plan(Mode.PD_DEVICE, position, PACE_S)
        outcome = await carry(request, plan, watched, engine, loaded)
        assert outcome.token_ids == token_ids
        assert [shown.logprobs for shown in outcome.shown] == logprobs, "to the last bit"
        made = [shown.origin for shown in outcome.shown]
        assert made == [Origin.CLOUD] * position + [Origin.DEVICE] * (LENGTH - position)
    await link.close()
    await inner.close()


async def test_each_parameter_changes_the_biased_answer(
    loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    """Else the test above would not see whether both sides follow it."""
    token_ids, _ = await alone(loaded, prompt, BIASED)
    assert not {40, 264} & set(token_ids)
    for without in (
        replace(BIASED, logit_bias=()),
        replace(BIASED, late_token_ids=()),
        replace(BIASED, min_tokens=1),
    ):
        assert (await alone(loaded, prompt, without))[0] != token_ids, without


async def test_guesses_change_no_figure(loaded: LoadedModel, prompt: tuple[int, ...]) -> None:
    plain = await alone(loaded, prompt, GREEDY)
    assert await alone(loaded, prompt, GREEDY, speculate=4) == plain


async def test_they_change_no_token(loaded: LoadedModel, prompt: tuple[int, ...]) -> None:
    asked = await alone(loaded, prompt, BIASED)
    silent = await alone(loaded, prompt, replace(BIASED, logprobs=None))
    assert silent == (asked[0], [None] * LENGTH)


async def test_a_prompts_tokens_are_as_likely_as_the_same_tokens_of_an_answer(
    loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    token_ids, logprobs = await alone(loaded, prompt, GREEDY)
    engine = TorchLocalEngine(loaded, chunk_tokens=50)
    told = await engine.prompt_logprobs([*prompt, *token_ids], 3)
    await engine.close()
    assert len(told) == len(prompt) + LENGTH - 1
    assert told[-LENGTH:] == logprobs
