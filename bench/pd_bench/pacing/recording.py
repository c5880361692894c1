"""Recordings: when the tokens of one answer were there, and when the product showed them."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.pacing.patterns import Situation
from pd_bench.pacing.uneven import ThrottlingEngine, UnevenLink
from pd_bench.results.result import ResultDocument
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.cloud.simulated_cloud import (
    EOS_TOKEN_ID,
    VOCAB_SIZE,
    SimulatedCloud,
    SimulatedLink,
)
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Origin, Outcome

__all__ = ["Recording", "recorded", "recordings_of"]

_MAX_TOKENS = 1024
_WARM_UP = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer. Instants are seconds from the question.

    Attributes:
        pace_s: the pace asked for.
        arrived_at_s: when each token was there, ascending.
        shown_at_s: when the product showed it.
        sources: one letter a token: "c" from the cloud, "d" from the device.
        buffer_tokens: the tokens that a reader reads while the answer moves to the device: the
            buffer of DiSCo.
    """

    pace_s: float
    arrived_at_s: tuple[float, ...]
    shown_at_s: tuple[float, ...]
    sources: str
    buffer_tokens: int


def recorded(situation: Situation, pace_s: float, noise: float) -> Recording:
    """Answer the situation's request with the product's own session, on a virtual clock.

    The device has answered a few questions before: a benchmark alone says little of a device.
    """
    return run_virtual(_record(situation, pace_s, noise))


async def _record(situation: Situation, pace_s: float, noise: float) -> Recording:
    s = situation
    spec = CLOUD_PROFILES["gpu-8b"].model_copy(
        update={"step_s": s.cloud_step_s, "decode_s": 0.0, "decode_key_s": 0.0, "spread": noise}
    )
    even = SimulatedLink(SimulatedCloud(spec, s.seed), s.link, s.seed)
    link = UnevenLink(even, s.unevenness)
    engine = ThrottlingEngine(
        s.device, s.slows_by, vocab_size=VOCAB_SIZE, eos_token_ids=(EOS_TOKEN_ID,), seed=s.seed
    )
    client = DeviceClient(
        cloud=None if s.mode is Mode.DEVICE_ONLY else even,
        engine=None if s.mode is Mode.CLOUD_ONLY else engine,
        pace_s=pace_s,
        device_profile=s.believed,
    )
    await client.start()
    for number in range(_WARM_UP):
        await _answer(client, s, f"before-{number}", s.answer_tokens)
    if s.mode is not Mode.DEVICE_ONLY:
        client.cloud.link = link
    engine.slows_at_s = asyncio.get_running_loop().time() + s.slows_after_s
    outcome = await _answer(client, s, "recorded", s.answer_tokens)
    await client.close()
    return Recording(
        pace_s,
        tuple(outcome.arrived_at_s[: len(outcome.shown)]),
        tuple(shown.at_s for shown in outcome.shown),
        "".join("c" if shown.origin is Origin.CLOUD else "d" for shown in outcome.shown),
        _buffer_tokens(s, pace_s),
    )


async def _answer(client: DeviceClient, s: Situation, name: str, num_tokens: int) -> Outcome:
    prompt = tuple(3 + (i * 7 + len(name)) % 1000 for i in range(s.prompt_tokens))
    ask = Ask(
        request_id=name,
        prompt_token_ids=prompt,
        max_tokens=_MAX_TOKENS,
        sampling=SamplingParams(forced_length=num_tokens),
        cache_salt=name,
        mode=s.mode,
        cloud_tokens=s.cloud_tokens,
    )
    session = client.session(ask)
    async with aclosing(session.run()) as told:
        async for _ in told:
            pass
    return session.outcome


def _buffer_tokens(s: Situation, pace_s: float) -> int:
    """DiSCo's B: the reader's rate times the time to move, here the device's decode steps."""
    return max(1, round((s.link.rtt_s + 2 * s.device.decode_s) / pace_s) + 3)


def recordings_of(document: ResultDocument) -> Iterable[Recording]:
    """Return what a replay's or a simulation's document holds token by token."""
    for t in document.timelines:
        num = min(len(t.shown_at_s), len(t.arrived_at_s))
        if num >= 2 and not t.scheme.startswith("race"):
            arrived = t.arrived_at_s[:num]
            yield Recording(document.pace_s, arrived, t.shown_at_s[:num], t.sources[:num], 6)
