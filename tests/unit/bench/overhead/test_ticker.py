import asyncio
import time
from collections.abc import Sequence

import pytest

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.overhead.ticker import Jitter, measure_ticker, ticker_table
from pd_core.errors import EngineError
from pd_core.generation import Fingerprints, ModelCard, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_device_client.planning.speeds.profiles import SpeedProfile


class _BlockingSequence:
    def __init__(self, pass_s: float) -> None:
        self._pass_s = pass_s

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return None

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        if self._pass_s < 0:
            raise EngineError("out of memory")
        time.sleep(self._pass_s)  # noqa: ASYNC251 - what the ticker is to notice
        await asyncio.sleep(0)
        return None

    def close(self) -> None:
        """Nothing is held."""


class BlockingEngine:
    """Holds the event loop for `pass_s` in every pass; a negative one fails."""

    card = ModelCard("blocking", "blocking", Fingerprints(), 8, (0,), 1024)
    chunk_tokens = 16

    def __init__(self, pass_s: float) -> None:
        self._pass_s = pass_s

    @property
    def leaves_out(self) -> bool:
        return False

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        return 0

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> _BlockingSequence:
        return _BlockingSequence(self._pass_s)

    async def close(self) -> None:
        """Nothing is held."""


def test_jitter_of_known_ticks() -> None:
    jitter = Jitter.of([0.0, 0.001, 0.002])
    assert (jitter.num_ticks, jitter.p50_s, jitter.max_s) == (3, 0.001, 0.002)
    assert jitter.p99_s == pytest.approx(0.00198)


def test_an_engine_off_the_loop_leaves_the_ticker_alone() -> None:
    profile = SpeedProfile("p", "test", prefill_b_s=0.0001, decode_s=0.001)
    engine = EmulatedDeviceEngine(profile, vocab_size=8, eos_token_ids=[0], chunk_tokens=16)
    # On a virtual clock, where only the engine could make a tick late.
    result = run_virtual(measure_ticker(engine, prompt_tokens=64, duration_s=0.2))
    assert result.prefill_tokens > 64
    assert result.idle.num_ticks > 10
    assert result.prefill.max_s == pytest.approx(0.0, abs=1e-9)


async def test_an_engine_on_the_loop_is_found_out() -> None:
    result = await measure_ticker(BlockingEngine(0.15), prompt_tokens=64, duration_s=0.5)
    assert result.prefill.p50_s > 0.1
    assert result.prefill.p50_s > result.idle.p50_s
    column = list(ticker_table(result).columns[-1].cells)
    assert column == ["", "MISSED"]


async def test_an_engine_that_fails_is_no_quiet_engine() -> None:
    with pytest.raises(EngineError, match="out of memory"):
        await measure_ticker(BlockingEngine(-1.0), prompt_tokens=64, duration_s=0.05)
