"""What one server process costs per open stream: memory, and a token's transit time.

The engine is emulated (`pd_bench.emulation.cloud_engine`): it stamps each token with the time it
was made, and a client in a different process, on different cores, computes its age on arrival. So
the latency includes the engine's thread, the event loop, gRPC on both sides and the client.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pd_bench.emulation.cloud_engine import age_s
from pd_bench.emulation.emulated_server import command
from pd_bench.harness.cores import split_cores
from pd_bench.harness.process_meter import rss_bytes
from pd_bench.harness.server_process import server_process
from pd_bench.overhead.settings import StreamsSettings
from pd_bench.results.quantiles import quantiles
from pd_core.files.ready_file import ReadyServer
from pd_core.generation import Start, Tokens
from pd_core.host.affinity import available_cores, pinned
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink

__all__ = ["ManyStreams", "measure_streams", "streams_table"]

_STREAMS_PER_CONNECTION = 50  # about as many devices as share a proxy
_OPENED_TOGETHER = 32
_PROMPT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ManyStreams:
    """The figures for one number of streams.

    Attributes:
        num_streams: streams open at once.
        num_tokens: tokens behind the latency.
        rss_bytes: memory of the server's process while all were open.
        bytes_per_stream: memory growth per stream; None for a single stream.
        p50_s: median transit time of the tokens.
        p99_s: its 99th percentile.
        max_s: the longest.
    """

    num_streams: int
    num_tokens: int
    rss_bytes: int
    bytes_per_stream: float | None
    p50_s: float
    p99_s: float
    max_s: float


async def measure_streams(
    settings: StreamsSettings, tick: Callable[[str], None] = lambda _: None
) -> list[ManyStreams]:
    """Measure each number of streams on a new server process.

    Args:
        settings: what to measure.
        tick: called with what is being done.

    Raises:
        PdError: the server could not be started, or a stream failed.
    """
    found = []
    for count in settings.counts:
        tick(f"{count} streams")
        found.append(await _measure(settings, count))
    return found


async def _measure(settings: StreamsSettings, count: int) -> ManyStreams:
    cores = split_cores(available_cores())

    def words(ready_file: Path) -> Sequence[str]:
        return command(ready_file, settings.step_s, count + 1, settings.groups)

    with pinned(cores.client):
        async with server_process(words, cores.server) as server, AsyncExitStack() as stack:
            links = []
            for _ in range(-(-count // _STREAMS_PER_CONNECTION)):
                link = GrpcCloudLink(server.address)
                stack.push_async_callback(link.close)
                links.append(link)
            return await _read_all(settings, count, server, links)


async def _read_all(
    settings: StreamsSettings, count: int, server: ReadyServer, links: list[GrpcCloudLink]
) -> ManyStreams:
    opening, begun = asyncio.Semaphore(_OPENED_TOGETHER), _Countdown(count)
    await _read_one(links[0], -1, 1, [], opening, _Countdown(1))  # warm-up
    before = rss_bytes(server.pid)
    ages: list[list[float]] = [[] for _ in range(count)]
    # Skip a stream's first tokens: they come while other streams are still being opened.
    head = 2 + count // 500
    limit = head + settings.num_tokens
    reading = asyncio.gather(
        *(
            _read_one(links[n // _STREAMS_PER_CONNECTION], n, limit, ages[n], opening, begun)
            for n in range(count)
        )
    )
    all_begun = asyncio.ensure_future(begun.wait())
    try:
        await asyncio.wait((all_begun, reading), return_when=asyncio.FIRST_COMPLETED)
        during = rss_bytes(server.pid)
        await reading
    finally:
        reading.cancel()
        all_begun.cancel()
    late = [age for of_one in ages for age in of_one[head:]]
    p50, p99, most = quantiles(late, (0.5, 0.99, 1.0)).tolist()
    grown = (during - before) / count if count > 1 else None
    return ManyStreams(count, len(late), during, grown, p50, p99, most)


class _Countdown:
    """An event that is set by the last of `count` calls of `one`."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._over = asyncio.Event()

    def one(self) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()

    async def wait(self) -> None:
        await self._over.wait()


async def _read_one(
    link: GrpcCloudLink,
    number: int,
    limit: int,
    ages: list[float],
    opening: asyncio.Semaphore,
    begun: _Countdown,
) -> None:
    """Read a stream to its end, recording each token's age on arrival."""
    start = Start(
        f"stream-{number}", tuple(range(_PROMPT_TOKENS)), limit, SamplingParams(ignore_eos=True)
    )
    async with opening:
        stream = await link.open(start)
    async with aclosing(stream.events()) as events:
        async for event in events:
            if isinstance(event, Tokens):
                if not ages:
                    begun.one()
                ages.extend(map(age_s, event.token_ids))


def streams_table(found: Sequence[ManyStreams], settings: StreamsSettings) -> Table:
    """Return the figures as a table."""
    table = Table(
        title=f"Open streams on one server process (emulated engine: a token every "
        f"{settings.step_s:g} s, in {settings.groups} turns)"
    )
    for name in ("streams", "server MiB", "KiB a stream", "tokens", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    for row in found:
        grown = "" if row.bytes_per_stream is None else f"{row.bytes_per_stream / 1024:.1f}"
        late = [f"{seconds * 1e3:.2f}" for seconds in (row.p50_s, row.p99_s, row.max_s)]
        memory = f"{row.rss_bytes / 2**20:.0f}"
        table.add_row(str(row.num_streams), memory, grown, str(row.num_tokens), *late)
    return table
