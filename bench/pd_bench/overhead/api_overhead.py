"""What the device's HTTP API adds to a token, and how it handles many chats at once.

- *added*: the lateness of tokens that a client reads from a real `pd-device serve`, less that of a
  bare session with the same pace; rounds of both alternate on one real cloud.
- *many chats*: two waves of simultaneous chats against one device process. Times to the first and
  last token show whether a chat is left waiting; memory after each wave shows leaks.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.table import Table

from pd_bench.harness.cores import split_cores
from pd_bench.harness.process_meter import rss_bytes
from pd_bench.harness.server_process import ServerOptions, own_server, server_process
from pd_bench.overhead.lateness import lateness_s
from pd_bench.overhead.overhead import Latency, bare_answer
from pd_bench.overhead.settings import ApiSettings
from pd_core.errors import CloudUnavailable
from pd_core.host.affinity import available_cores, pinned
from pd_core.store.model_names import RANDOM_TINY

__all__ = ["ApiOverhead", "Wave", "api_tables", "measure_api"]

GOAL_P50_S, GOAL_P99_S = 0.0005, 0.003
_WARM_UP_TOKENS = 16
_TOKEN = b'"token_id"'
_PROMPT = "the same words for everybody"


@dataclass(frozen=True, slots=True)
class Wave:
    """Many chats at once; times in seconds since all were sent.

    Attributes:
        failed: chats that did not get their whole answer.
        first_s: time of the first token, over the chats.
        last_s: time of the last token, over the chats.
        gap_s: largest gap between two tokens, over the chats.
        rss_bytes: memory of the device's process after the wave.
    """

    failed: int
    first_s: Latency
    last_s: Latency
    gap_s: Latency
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class ApiOverhead:
    """The measurement.

    Attributes:
        num_tokens: tokens behind each latency.
        session: lateness of tokens of a bare session.
        api: lateness of tokens that a client read.
        rss_bytes: memory of the device's process before the waves.
        waves: the waves, in order.
    """

    num_tokens: int
    session: Latency
    api: Latency
    rss_bytes: int
    waves: tuple[Wave, ...]

    @property
    def added(self) -> Latency:
        """What the API adds to a session."""
        return self.api.above(self.session)

    @property
    def within_goal(self) -> bool:
        """Whether the added latency meets the goal."""
        return self.added.p50_s <= GOAL_P50_S and self.added.p99_s <= GOAL_P99_S


async def measure_api(
    settings: ApiSettings, tick: Callable[[str], None] = lambda _: None
) -> ApiOverhead:
    """Measure on a cloud and a device process of our own.

    Args:
        settings: what to measure.
        tick: called with what is being done.

    Raises:
        PdError: a process could not be started, or a request failed.
    """
    cores = split_cores(available_cores())
    options = ServerOptions(
        model=RANDOM_TINY, sampler="rolling-hash", max_num_seqs=64, cores=cores.server
    )
    with pinned(cores.client):
        async with own_server(options) as cloud:

            def words(ready_file: Path) -> Sequence[str]:
                return _command(ready_file, cloud, settings)

            async with (
                server_process(words, cores.client) as device,
                httpx.AsyncClient(
                    base_url=f"http://{device.http_address}/v1",
                    timeout=None,
                    limits=httpx.Limits(max_connections=None),
                    trust_env=False,  # it is this machine: no proxy
                ) as http,
            ):
                return await _measured(settings, cloud, device.pid, http, tick)


async def _measured(
    settings: ApiSettings,
    cloud: str,
    device_pid: int,
    http: httpx.AsyncClient,
    tick: Callable[[str], None],
) -> ApiOverhead:
    await _chat(http, _WARM_UP_TOKENS)
    await bare_answer(cloud, settings.pace_s, _WARM_UP_TOKENS)
    session: list[float] = []
    api: list[float] = []
    for number in range(settings.rounds):
        tick(f"round {number + 1} of {settings.rounds}")
        outcome = await bare_answer(cloud, settings.pace_s, settings.num_tokens)
        session += lateness_s([shown.at_s for shown in outcome.shown], settings.pace_s)
        came_s = await _chat(http, settings.num_tokens)
        api += lateness_s(came_s, settings.pace_s)
    before = rss_bytes(device_pid)
    waves = []
    for number in range(2):
        tick(f"{settings.chats} chats, wave {number + 1} of 2")
        waves.append(await _wave(http, settings, device_pid))
    return ApiOverhead(len(api), Latency.of(session), Latency.of(api), before, tuple(waves))


def _command(ready_file: Path, cloud: str, settings: ApiSettings) -> list[str]:
    return [
        *(sys.executable, "-m", "pd_device_client", "serve", "--port", "0"),
        *("--cloud", cloud, "--mode", "cloud-only", "--model", RANDOM_TINY, "--threads", "1"),
        *("--pace", str(settings.pace_s), "--max-requests", str(settings.chats)),
        *("--ready-file", str(ready_file)),
    ]


async def _wave(http: httpx.AsyncClient, settings: ApiSettings, device_pid: int) -> Wave:
    began_s = time.perf_counter()
    chats = [_chat(http, settings.chat_tokens) for _ in range(settings.chats)]
    answers = await asyncio.gather(*chats, return_exceptions=True)
    whole = [a for a in answers if not isinstance(a, BaseException)]
    if not whole:
        raise CloudUnavailable(f"all {settings.chats} chats failed: {answers[0]}")
    return Wave(
        failed=settings.chats - len(whole),
        first_s=Latency.of([came_s[0] - began_s for came_s in whole]),
        last_s=Latency.of([came_s[-1] - began_s for came_s in whole]),
        gap_s=Latency.of([max(_gaps(came_s)) for came_s in whole]),
        rss_bytes=rss_bytes(device_pid),
    )


async def _chat(http: httpx.AsyncClient, num_tokens: int) -> list[float]:
    """Return when each token of an answer was read.

    Raises:
        CloudUnavailable: the answer was refused, or has the wrong length.
    """
    body = {
        "model": RANDOM_TINY,
        "prompt": _PROMPT,
        "max_tokens": num_tokens,
        "stream": True,
        "ignore_eos": True,
        "pd": {"tokens": True},
    }
    came_s = []
    async with http.stream("POST", "/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise CloudUnavailable(f"the device answered {response.status_code}")
        # Raw bytes: the client's parsing must not count.
        rest = b""
        async for part in response.aiter_raw():
            now_s = time.perf_counter()
            known = rest + part
            came_s += [now_s] * known.count(_TOKEN)  # one event per token, even without text
            rest = known[1 - len(_TOKEN) :]
    if len(came_s) != num_tokens:
        raise CloudUnavailable(f"{len(came_s)} of {num_tokens} tokens came")
    return came_s


def _gaps(came_s: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(came_s)]


def api_tables(found: ApiOverhead, settings: ApiSettings) -> list[Table]:
    """Return two tables: the API's added latency with its goal, and the waves of chats."""
    verdict = "met" if found.within_goal else "MISSED"
    added = Table(
        title=f"lateness of a token at a pace of {settings.pace_s * 1e3:g} ms "
        f"({found.num_tokens} tokens)",
        caption=f"goal of what it adds: p50 at most {GOAL_P50_S * 1e3:g} ms, p99 at most "
        f"{GOAL_P99_S * 1e3:g} ms: {verdict}",
    )
    waves = Table(
        title=f"{settings.chats} chats of {settings.chat_tokens} tokens at once",
        caption=f"resident memory before: {found.rss_bytes / 2**20:.1f} MiB",
    )
    for table, columns in (
        (added, ("ms", "p50", "p99")),
        (waves, ("wave", "failed", "first token, s", "whole answer, s", "largest gap, s", "MiB")),
    ):
        for column in columns:
            table.add_column(column, justify="right")
    for name, latency in (
        ("bare session", found.session),
        ("read over HTTP", found.api),
        ("added", found.added),
    ):
        added.add_row(name, f"{latency.p50_s * 1e3:.3f}", f"{latency.p99_s * 1e3:.3f}")
    for number, wave in enumerate(found.waves, 1):
        waves.add_row(
            str(number),
            str(wave.failed),
            *(f"{x.p50_s:.3f} / {x.p99_s:.3f}" for x in (wave.first_s, wave.last_s, wave.gap_s)),
            f"{wave.rss_bytes / 2**20:.1f}",
        )
    return [added, waves]
