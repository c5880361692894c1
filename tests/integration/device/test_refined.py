"""A refined prompt from a real cloud process to a real local engine, over real gRPC."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import torch

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.generation import CloudEvent, Finished, RefinedPrompt
from pd_core.models import Segment
from pd_core.refinement import Ranges, check_kept, num_positions
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.integration.device.test_carry import BOTH, carry
from tests.real_server import RealServer, real_server

LENGTH = 24
PACE_S = 0.004
K = 8


@pytest.fixture(scope="module", params=["float32", "integer"])
def numerics(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def loaded(numerics: str) -> LoadedModel:
    return load_model("random-tiny", numerics=numerics)


@pytest.fixture(scope="module")
def server(numerics: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    options = ("--numerics", numerics)
    with real_server(tmp_path_factory.mktemp("server"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def prompt(loaded: LoadedModel) -> tuple[int, ...]:
    words = (f"Part {i} of the text says {i * i % 97}. " for i in range(60))
    return tuple(loaded.tokenizer.encode("".join(words)))


def continued(
    loaded: LoadedModel, prompt: Sequence[int], kept: Ranges, first: list[int], s: SamplingParams
) -> list[int]:
    """The answer that begins with these tokens, by one pass over what is kept."""
    positions = [i for a, b in kept for i in range(a, b)]
    fed = [prompt[i] for i in positions] + first
    positions += range(len(prompt), len(prompt) + len(first))
    model, made, start = loaded.model, list(first), 0
    cache = model.make_cache(len(prompt) + LENGTH)
    history = History(list(prompt), len(prompt))
    while len(made) < LENGTH:
        with torch.inference_mode():
            segment = Segment(cache, start, len(fed), tuple(positions))
            logits = model.logits(model.forward(torch.tensor(fed), [segment])[-1:])
        made += sample(logits, [s], [len(made)], loaded.eos_token_ids, [history.followed_by(made)])
        start, fed, positions = start + len(fed), made[-1:], [len(prompt) + len(made) - 1]
    return made


@BOTH
async def test_the_device_goes_on_from_what_the_cloud_kept(
    sampling: SamplingParams, server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    inner = TorchLocalEngine(loaded, chunk_tokens=64, speculate=3)
    alone = Ask("alone", prompt, LENGTH, sampling)
    exact = (await carry(alone, Plan(Mode.DEVICE_ONLY, 0, PACE_S), None, inner, loaded)).token_ids
    released, kept = asyncio.Event(), list[Ranges]()

    def watch(event: CloudEvent, _: int) -> None:
        if isinstance(event, RefinedPrompt):
            kept.append(event.kept_ranges)
        if isinstance(event, Finished):
            released.set()  # the device has read nothing before

    link = WatchedLink(GrpcCloudLink(server.address), watch)
    plan = Plan(Mode.PD_DEVICE, K, PACE_S, keep_ratio=0.5, adapts=False)
    ask = Ask("refined", prompt, LENGTH, sampling)
    outcome = await carry(ask, plan, link, HeldEngine(inner, released.wait), loaded)
    [ranges] = kept
    check_kept(ranges, len(prompt))
    assert 0.5 * len(prompt) <= num_positions(ranges) <= 0.5 * len(prompt) + 64
    assert outcome.left_out_tokens == len(prompt) - num_positions(ranges)
    assert outcome.exactness == "refined"
    assert outcome.handoff_position == K
    assert outcome.token_ids[:K] == exact[:K]
    assert outcome.token_ids == continued(loaded, prompt, ranges, exact[:K], sampling)
    await link.close()
    await inner.close()


async def test_a_client_that_may_leave_out_nothing_is_exact_and_one_that_may_says_so(
    server: RealServer, loaded: LoadedModel, prompt: tuple[int, ...]
) -> None:
    slow = SpeedProfile("slow", "a test", 0.01, 0.001)  # plans with the cloud for long
    sampling = SamplingParams(ignore_eos=True)
    told = {}
    for floor in (1.0, 0.5):
        client = DeviceClient(
            cloud=GrpcCloudLink(server.address),
            engine=TorchLocalEngine(loaded, chunk_tokens=16, kept_kv_bytes=0),
            pace_s=0.2,
            device_profile=slow,
            promise=Promise(0.2, quality_floor=floor),
        )
        await client.start()
        session = client.session(Ask(f"floor-{floor}", prompt, 40, sampling, read_along=False))
        async for _ in session.run():
            pass
        told[floor] = session
        await client.close()
    assert told[1.0].plan.keep_ratio == 1.0
    assert told[1.0].outcome.exactness == "identical"
    assert told[0.5].plan.keep_ratio == 0.5
    assert told[0.5].plan.cloud_tokens < told[1.0].plan.cloud_tokens
    left_out = told[0.5].outcome.left_out_tokens
    assert (told[0.5].outcome.exactness == "refined") <= (left_out > 0)
