"""How late the device's event loop is while its engine works on another thread."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from pd_bench.results.quantiles import quantiles
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine

__all__ = ["GOAL_P99_S", "PERIOD_S", "Jitter", "TickerResult", "measure_ticker", "ticker_table"]

PERIOD_S = 0.005
GOAL_P99_S = 0.020


@dataclass(frozen=True, slots=True)
class Jitter:
    """The lateness of a timer's ticks, in seconds."""

    num_ticks: int
    p50_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, late_s: Sequence[float]) -> "Jitter":
        """Describe the ticks."""
        p50, p99, most = quantiles(late_s, (0.5, 0.99, 1.0)).tolist()
        return cls(len(late_s), p50, p99, most)


@dataclass(frozen=True, slots=True)
class TickerResult:
    """The measurement.

    Attributes:
        idle: with nothing else on the loop.
        prefill: while the engine prefills.
        prefill_tokens: tokens prefilled meanwhile.
    """

    idle: Jitter
    prefill: Jitter
    prefill_tokens: int


async def measure_ticker(
    engine: LocalEngine, prompt_tokens: int, duration_s: float
) -> TickerResult:
    """Tick while idle, then while the engine prefills one long prompt after another.

    Raises:
        EngineError: the engine failed.
    """
    idle = await _ticks(duration_s)
    fed = [0]
    prefill = asyncio.ensure_future(_prefill(engine, prompt_tokens, fed))
    try:
        busy = await _ticks(duration_s)
        if prefill.done():
            prefill.result()
    finally:
        prefill.cancel()
    return TickerResult(Jitter.of(idle), Jitter.of(busy), fed[0])


async def _ticks(duration_s: float) -> list[float]:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + duration_s
    late_s = []
    while (began_s := loop.time()) < end_s:
        await asyncio.sleep(PERIOD_S)
        late_s.append(loop.time() - began_s - PERIOD_S)
    return late_s


async def _prefill(engine: LocalEngine, prompt_tokens: int, fed: list[int]) -> None:
    """Prefill in the engine's chunks until cancelled; `fed` counts the tokens."""
    card = engine.card
    length = min(prompt_tokens, card.max_context_tokens)
    while True:
        sequence = engine.open(SamplingParams())
        try:
            for first in range(0, length, engine.chunk_tokens):
                num_tokens = min(engine.chunk_tokens, length - first)
                ids = [(first + i) % card.vocab_size for i in range(num_tokens)]
                await sequence.feed(ids, None)
                fed[0] += num_tokens
        finally:
            sequence.close()


def ticker_table(result: TickerResult) -> Table:
    """Return the figures with their goal."""
    table = Table(
        title=f"lateness of a {PERIOD_S * 1000:g} ms ticker on the device's event loop",
        caption=f"goal: p99 below {GOAL_P99_S * 1000:g} ms while a prefill runs",
    )
    table.add_column("ms")
    for column in ("ticks", "p50", "p99", "max", "goal"):
        table.add_column(column, justify="right")
    verdict = "met" if result.prefill.p99_s < GOAL_P99_S else "MISSED"
    for name, jitter, judged in (
        ("idle", result.idle, ""),
        (f"local prefill of {result.prefill_tokens} tokens", result.prefill, verdict),
    ):
        figures = (jitter.p50_s, jitter.p99_s, jitter.max_s)
        cells = (f"{figure * 1000:.2f}" for figure in figures)
        table.add_row(name, str(jitter.num_ticks), *cells, judged)
    return table
