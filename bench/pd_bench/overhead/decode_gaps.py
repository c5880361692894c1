"""The gaps between a running stream's tokens with and without long prompts arriving.

Quiet and busy rounds alternate on one real server process, so that other work on the machine
affects both alike.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise

from rich.table import Table

from pd_bench.harness.cloud_tokens import cloud_tokens
from pd_bench.harness.cores import split_cores
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.overhead.settings import LEADING_GAPS, GapsSettings
from pd_bench.results.quantiles import quantiles
from pd_core.generation import Start, Tokens
from pd_core.host.affinity import available_cores, pinned
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink

__all__ = ["GOAL", "DecodeGaps", "gaps_table", "measure_gaps"]

GOAL = 2.0  # p99 while prefills arrive, over p99 without
_ids = count()


@dataclass(frozen=True, slots=True)
class DecodeGaps:
    """Gaps in seconds, of all rounds together.

    Attributes:
        num_prefills: long prompts fully prefilled in the busy rounds.
    """

    quiet_s: tuple[float, ...]
    busy_s: tuple[float, ...]
    num_prefills: int

    def percentiles(self, busy: bool) -> tuple[float, float, float]:
        """Return p50, p99 and the largest."""
        values = self.busy_s if busy else self.quiet_s
        p50, p99, most = quantiles(values, (0.5, 0.99, 1.0)).tolist()
        return p50, p99, most

    @property
    def ratio(self) -> float:
        """p99 while prefills arrive, over p99 without."""
        return self.percentiles(True)[1] / self.percentiles(False)[1]


@dataclass(slots=True)
class _Rounds:
    quiet_s: list[float] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    num_prefills: int = 0


async def measure_gaps(
    settings: GapsSettings, tick: Callable[[str], None] = lambda _: None
) -> DecodeGaps:
    """Measure on a server process of our own.

    Raises:
        PdError: the server could not be started, or a request failed.
    """
    cores = split_cores(available_cores())
    slots = settings.num_decodes + settings.num_prefills
    options = ServerOptions(model=settings.model, max_num_seqs=slots, cores=cores.server)
    found = _Rounds()
    with pinned(cores.client):
        async with own_server(options) as target:
            link = GrpcCloudLink(target)
            try:
                await _decodes(link, settings)  # warm-up
                for number in range(settings.rounds):
                    tick(f"round {number + 1} of {settings.rounds}, quiet")
                    found.quiet_s += await _decodes(link, settings)
                    tick(f"round {number + 1} of {settings.rounds}, with prefills")
                    async with _prefills(link, settings, found):
                        found.busy_s += await _decodes(link, settings)
            finally:
                await link.close()
    return DecodeGaps(tuple(found.quiet_s), tuple(found.busy_s), found.num_prefills)


async def _decodes(link: GrpcCloudLink, settings: GapsSettings) -> list[float]:
    """Run the measured streams at the same time; return all their gaps."""
    streams = [_gaps(link, settings.num_tokens) for _ in range(settings.num_decodes)]
    return [gap for gaps in await asyncio.gather(*streams) for gap in gaps]


async def _gaps(link: GrpcCloudLink, num_tokens: int) -> list[float]:
    """Stream one answer to a short prompt; return the gaps between its tokens on arrival."""
    loop = asyncio.get_running_loop()
    at_s: list[float] = []
    async with aclosing(_tokens(link, 32, num_tokens)) as arrivals:
        async for tokens in arrivals:
            at_s += [loop.time()] * len(tokens.token_ids)
    return [b - a for a, b in pairwise(at_s)][LEADING_GAPS:]


def _tokens(
    link: GrpcCloudLink, prompt_tokens: int, num_tokens: int
) -> AsyncGenerator[Tokens, None]:
    number = next(_ids)
    # All prompts begin differently, so the prefix cache never hits.
    prompt = tuple((number * 7919 + i * 31) % 997 + 1 for i in range(prompt_tokens))
    sampling = SamplingParams(ignore_eos=True)
    return cloud_tokens(link, Start(f"gaps-{number}", prompt, num_tokens, sampling))


@asynccontextmanager
async def _prefills(
    link: GrpcCloudLink, settings: GapsSettings, found: _Rounds
) -> AsyncIterator[None]:
    """Keep long prompts in flight: when one gets its only token, send the next."""

    async def keep_asking() -> None:
        while True:
            async with aclosing(_tokens(link, settings.prompt_tokens, 1)) as arrivals:
                async for _ in arrivals:
                    found.num_prefills += 1

    tasks = [asyncio.create_task(keep_asking()) for _ in range(settings.num_prefills)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def gaps_table(found: DecodeGaps, settings: GapsSettings) -> Table:
    """Return the figures as a table."""
    table = Table(
        title=f"Gaps of {settings.num_decodes} running streams, with and without "
        f"{settings.num_prefills} prompts of {settings.prompt_tokens} tokens in flight",
        caption=f"goal: a ratio of at most {GOAL:g}; {found.num_prefills} prompts were prefilled",
    )
    for name in ("", "gaps", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    for name, busy in (("quiet", False), ("prefills arriving", True)):
        values: Sequence[float] = found.busy_s if busy else found.quiet_s
        figures = [f"{seconds * 1e3:.2f}" for seconds in found.percentiles(busy)]
        table.add_row(name, str(len(values)), *figures)
    ratios = [
        busy / quiet
        for busy, quiet in zip(found.percentiles(True), found.percentiles(False), strict=True)
    ]
    table.add_row("ratio", "", *(f"{ratio:.2f}" for ratio in ratios))
    return table
