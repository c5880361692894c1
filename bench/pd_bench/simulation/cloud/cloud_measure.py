"""Measures a running server and makes a cloud profile: prefills, decode steps, round trip.

Prefill seconds are the server's own, from `Finished`; decode steps are the gaps between arriving
tokens. Every prompt is new, so that no cached prefix shortens a prefill. The server should be
otherwise idle.
"""

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from pd_bench.simulation.cloud.cloud_fit import DecodeSample, PrefillSample, fitted
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_core.errors import CloudTimeout, CloudUnavailable, ConfigError
from pd_core.generation import Finished, ServerInfo, Start, Tokens
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import CloudLink
from pd_server.scheduling.block_budget import BLOCK_TOKENS

__all__ = ["CloudMeasurement", "measure_cloud"]

_LENGTHS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_USUAL_LONGEST = 4096
_SHORT_TOKENS = 16
_STEPS = 48
_CARD_CALLS = 20
_CARD_TRIES = 6
_ROOM_TOKENS = 512  # the embedded engine's


@dataclass(frozen=True, slots=True)
class CloudMeasurement:
    """The measurements, and the profile made from them.

    Attributes:
        rtt_s: median seconds of a call for the card, including the service's share.
        prefills: medians by prompt length.
        decodes: medians by number of streams; the last one late in a context.
        profile: the fitted profile.
    """

    rtt_s: float
    prefills: tuple[PrefillSample, ...]
    decodes: tuple[DecodeSample, ...]
    profile: CloudProfile


@dataclass(slots=True)
class _Answer:
    """One measured stream."""

    finished: Finished
    first_token_s: float
    arrivals_s: list[float] = field(default_factory=list)


async def measure_cloud(
    link: CloudLink,
    name: str,
    *,
    max_num_batched_tokens: int | None = None,
    kv_tokens: int | None = None,
    max_prompt_tokens: int = _USUAL_LONGEST,
    repeats: int = 5,
    tick: Callable[[str], None] = lambda _: None,
) -> CloudMeasurement:
    """Measure the server behind `link`.

    Args:
        link: the link to it.
        name: name of the profile.
        max_num_batched_tokens: the server's setting; None: it chose for itself.
        kv_tokens: room of its KV cache; None: the longest context in every slot, its default if
            there is enough memory.
        max_prompt_tokens: longest prompt measured; best as long as those to be simulated.
        repeats: repeats of each prefill.
        tick: called with what is measured next.

    Raises:
        PdError: the server cannot be reached, or refused a request.
        ConfigError: its context is too short to measure anything in.
    """
    info = await _card(link, tick)
    if info.model.max_context_tokens < 128 + _STEPS:
        raise ConfigError(
            f"the server's context of {info.model.max_context_tokens} tokens is too short to "
            f"measure in; {128 + _STEPS} are the least"
        )
    server = _Server(link, info, max_prompt_tokens)
    await server.answer(_SHORT_TOKENS, 8)  # warm-up, for one-time costs
    tick("round trips")
    rtt_s = await server.rtt_s()
    tick("prefill")
    answers = {n: [await server.answer(n, 1) for _ in range(repeats)] for n in server.lengths}
    prefills = tuple(
        PrefillSample(n, statistics.median(a.finished.prefill_s for a in found))
        for n, found in answers.items()
    )
    decodes = []
    gaps_alone: Sequence[float] = ()
    for streams in _batch_sizes(info.limits.max_num_seqs):
        tick(f"decode, {streams} at once")
        gaps = await server.gaps(streams, _SHORT_TOKENS)
        if not gaps:  # the first stream ended before the last began
            continue
        gaps_alone = gaps_alone or gaps
        keys = streams * (_SHORT_TOKENS + _STEPS // 2)
        decodes.append(DecodeSample(streams, keys, statistics.median(gaps)))
    tick("decode, far into a context")
    far = server.lengths[-1]
    decodes.append(DecodeSample(1, far + _STEPS // 2, statistics.median(await server.gaps(1, far))))
    messages = [
        a.first_token_s - rtt_s - a.finished.queue_s - a.finished.prefill_s
        for found in answers.values()
        for a in found
    ]
    room_tokens = _ROOM_TOKENS if info.model.engine == "torch" else BLOCK_TOKENS
    draft = CloudProfile(
        name=name,
        source=f"measured: {info.model.name} on the {info.model.engine} engine, alone; KV room "
        + ("given" if kv_tokens else "taken as every slot's longest context"),
        step_s=0.0,
        prefill_token_s=0.0,
        spread=_spread(gaps_alone),
        message_s=max(statistics.median(messages), 0.0),
        kv_bytes_per_token=_kv_bytes_per_token(answers[far], far, room_tokens),
        kv_tokens=kv_tokens or info.limits.max_num_seqs * info.model.max_context_tokens,
        room_tokens=room_tokens,
        max_num_seqs=info.limits.max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_waiting=info.limits.max_num_waiting,
        max_context_tokens=info.model.max_context_tokens,
        max_output_tokens=info.limits.max_output_tokens,
    )
    profile = fitted(draft, prefills, decodes)
    return CloudMeasurement(rtt_s, prefills, tuple(decodes), profile)


async def _card(link: CloudLink, tick: Callable[[str], None]) -> ServerInfo:
    """Return the server's card; a server that has just started may be slow to answer.

    Raises:
        PdError: it cannot be reached, or does not answer.
    """
    for _ in range(_CARD_TRIES - 1):
        with suppress(CloudTimeout):
            return await link.info()
        tick("nothing yet, the server does not answer")
    return await link.info()


class _Server:
    """Sends prompts that were never sent before."""

    def __init__(self, link: CloudLink, info: ServerInfo, max_prompt_tokens: int) -> None:
        self._link = link
        self._info = info
        self._random = random.Random(0)
        ends = set(info.model.eos_token_ids)
        self._ordinary = [i for i in range(min(info.model.vocab_size, 50_000)) if i not in ends]
        self._count = 0
        room = min(info.model.max_context_tokens - _STEPS, max_prompt_tokens)
        self.lengths = [n for n in _LENGTHS if n <= room]

    async def rtt_s(self) -> float:
        loop = asyncio.get_running_loop()
        found = []
        for _ in range(_CARD_CALLS):
            asked_s = loop.time()
            await self._link.info()
            found.append(loop.time() - asked_s)
        return statistics.median(found)

    async def answer(self, prompt_tokens: int, tokens: int) -> _Answer:
        self._count += 1
        start = Start(
            f"profile-{self._count}",
            tuple(self._random.choices(self._ordinary, k=prompt_tokens)),
            token_limit=tokens,
            sampling=SamplingParams(ignore_eos=True),
            cache_salt=f"profile-{self._random.getrandbits(64):x}",
        )
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        arrivals_s: list[float] = []
        stream = await self._link.open(start)
        try:
            async with aclosing(stream.events()) as events:
                async for event in events:
                    if isinstance(event, Tokens):
                        arrivals_s += [loop.time()] * len(event.token_ids)
                    elif isinstance(event, Finished):
                        return _Answer(event, arrivals_s[0] - sent_s, arrivals_s)
        finally:
            stream.cancel()
        raise CloudUnavailable("the server ended a stream without Finished")

    async def gaps(self, streams: int, prompt_tokens: int) -> list[float]:
        """Return the gaps of streams that decode together, while all of them run."""
        # Token limits high enough that no stream ends before the last has begun.
        answers = await asyncio.gather(
            *(self.answer(prompt_tokens, _STEPS) for _ in range(streams))
        )
        began_s = max(answer.arrivals_s[0] for answer in answers)
        ended_s = min(answer.arrivals_s[-1] for answer in answers)
        return [
            later - earlier
            for answer in answers
            for earlier, later in zip(answer.arrivals_s, answer.arrivals_s[1:], strict=False)
            if earlier >= began_s and later <= ended_s
        ]


def _batch_sizes(max_num_seqs: int) -> list[int]:
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size < max_num_seqs]
    return [*sizes, min(max_num_seqs, 64)]


def _spread(gaps_s: Sequence[float]) -> float:
    """Return the relative standard deviation, from the quartiles, so that outliers do not count."""
    first, middle, third = statistics.quantiles(gaps_s, n=4)
    if middle <= 0:  # tokens that come several at a time
        return 1.0
    return min((third - first) / 1.349 / middle, 1.0)


def _kv_bytes_per_token(answers: Sequence[_Answer], prompt_tokens: int, room_tokens: int) -> int:
    """KV bytes by the server's own account: bytes times seconds, over seconds and tokens held."""
    held_tokens = -(-prompt_tokens // room_tokens) * room_tokens
    held_bytes = [
        a.finished.kv_byte_s / a.finished.prefill_s for a in answers if a.finished.prefill_s > 0
    ]
    return round(statistics.median(held_bytes) / held_tokens) if held_bytes else 0
