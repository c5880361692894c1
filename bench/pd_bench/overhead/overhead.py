"""What gRPC, session and pacing add to a token on loopback, above a bare timer.

Two figures, since pacing hides the cost of the wire:

- *paced*: the lateness of shown tokens through a real server process, a gRPC stream and a session,
  less that of a bare timer loop with the same pace in the same run;
- *unpaced*: the time between two tokens that are shown as they come, less the engine's own time
  per token.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from pd_bench.harness.bounds import check_pace
from pd_bench.harness.cores import split_cores
from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.overhead.lateness import UNJUDGED_TOKENS, lateness_s
from pd_bench.replay.cloud_meter import CloudMeter
from pd_bench.results.quantiles import quantiles
from pd_core.host.affinity import available_cores, pinned
from pd_core.sampling_params import SamplingParams
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome

__all__ = [
    "GOAL_P50_S",
    "GOAL_P99_S",
    "Latency",
    "Overhead",
    "bare_answer",
    "measure_overhead",
    "overhead_table",
]

GOAL_P50_S = 0.001
GOAL_P99_S = 0.005

_ROUNDS = 4
_UNPACED_S = 1e-6  # shorter than any step, so nothing ever waits
_PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and tail of a latency, in seconds."""

    p50_s: float
    p99_s: float

    @classmethod
    def of(cls, values_s: Sequence[float]) -> "Latency":
        """Describe the values."""
        p50, p99 = quantiles(values_s, (0.5, 0.99)).tolist()
        return cls(p50, p99)

    def above(self, other: "Latency") -> "Latency":
        """Return the difference of each figure."""
        return Latency(self.p50_s - other.p50_s, self.p99_s - other.p99_s)

    @property
    def within_goal(self) -> bool:
        """Whether both figures meet the goal."""
        return self.p50_s <= GOAL_P50_S and self.p99_s <= GOAL_P99_S


@dataclass(frozen=True, slots=True)
class Overhead:
    """The measurement.

    Attributes:
        pace_s: seconds between tokens of the paced rounds.
        num_tokens: shown tokens behind each figure.
        bare: lateness of the bare timer.
        paced: lateness of shown tokens.
        unpaced: time between tokens above the engine's own.
    """

    pace_s: float
    num_tokens: int
    bare: Latency
    paced: Latency
    unpaced: Latency

    @property
    def added(self) -> Latency:
        """What pacing, session and gRPC add to the bare timer."""
        return self.paced.above(self.bare)


async def measure_overhead(pace_s: float, num_tokens: int) -> Overhead:
    """Measure on a server process of our own; bare and paced rounds alternate.

    Args:
        pace_s: seconds between tokens.
        num_tokens: tokens of all paced rounds.

    Raises:
        ConfigError: the pace is out of bounds.
        PdError: the server could not be started, or a request failed.
    """
    check_pace(pace_s)
    per_round = max(num_tokens // _ROUNDS, 2 * UNJUDGED_TOKENS)
    cores = split_cores(available_cores())
    # The fastest engine shows best what is added to it.
    options = ServerOptions(model=RANDOM_TINY, sampler="rolling-hash", cores=cores.server)
    bare: list[float] = []
    paced: list[float] = []
    with pinned(cores.client):
        async with own_server(options) as target:
            await bare_answer(target, _UNPACED_S, 16)  # warm-up
            for _ in range(_ROUNDS):
                bare += await _bare_lateness(pace_s, per_round)
                outcome = await bare_answer(target, pace_s, per_round)
                paced += lateness_s([shown.at_s for shown in outcome.shown], pace_s)
            unpaced = await _unpaced(target, per_round * _ROUNDS)
    return Overhead(pace_s, len(paced), Latency.of(bare), Latency.of(paced), Latency.of(unpaced))


async def _bare_lateness(pace_s: float, num_tokens: int) -> list[float]:
    """Return the lateness of each tick of a loop that only sleeps."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    came_s = []
    for i in range(num_tokens):
        await asyncio.sleep(began_s + i * pace_s - loop.time())
        came_s.append(loop.time())
    return lateness_s(came_s, pace_s)


async def bare_answer(target: str, pace_s: float, num_tokens: int) -> Outcome:
    """Run one request through a cloud-only session."""
    client = DeviceClient(cloud=GrpcCloudLink(target), engine=None, pace_s=pace_s)
    try:
        await client.start()
        ask = Ask(
            request_id="overhead",
            prompt_token_ids=tuple(range(10, 10 + _PROMPT_TOKENS)),
            max_tokens=num_tokens,
            sampling=SamplingParams(ignore_eos=True),
            mode=Mode.CLOUD_ONLY,
        )
        session = client.session(ask)
        async for _ in session.run():
            pass
        return session.outcome
    finally:
        await client.close()


async def _unpaced(target: str, num_tokens: int) -> list[float]:
    """Return each gap of an unpaced answer, less the engine's time per token."""
    link = GrpcCloudLink(target)
    try:
        meter = CloudMeter(link)
        await meter.start()
        outcome = await bare_answer(target, _UNPACED_S, num_tokens)
        engine_s = (await meter.totals()).busy_s / num_tokens
    finally:
        await link.close()
    return [gap - engine_s for gap in outcome.gaps_s]


def overhead_table(overhead: Overhead) -> Table:
    """Return the figures with their goal."""
    table = Table(
        title=f"added to a token on loopback ({overhead.num_tokens} tokens)",
        caption=f"goal: p50 at most {GOAL_P50_S * 1000:g} ms, p99 at most {GOAL_P99_S * 1000:g} ms",
    )
    table.add_column("ms")
    for column in ("p50", "p99", "goal"):
        table.add_column(column, justify="right")
    pace = f"pace {overhead.pace_s * 1000:g} ms"
    for name, latency, judged in (
        (f"bare timer, {pace}: late by", overhead.bare, False),
        (f"session, {pace}: late by", overhead.paced, False),
        ("session above the bare timer", overhead.added, True),
        ("unpaced: gap above the engine's step", overhead.unpaced, True),
    ):
        verdict = ("met" if latency.within_goal else "MISSED") if judged else ""
        table.add_row(name, f"{latency.p50_s * 1000:.3f}", f"{latency.p99_s * 1000:.3f}", verdict)
    return table
