"""Measure a local engine's speed at start: a few passes, well under a second on a usable device."""

import asyncio
import statistics

from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine, LocalSequence
from pd_device_client.planning.profiles import SpeedProfile

__all__ = ["measure_engine"]

_CHUNKS = 3
_STEPS = 6


async def measure_engine(engine: LocalEngine) -> SpeedProfile:
    """Return the engine's profile: medians of a few chunks and decode steps after a warm-up.

    Raises:
        EngineError: the engine failed.
    """
    card = engine.card
    chunk = [
        i % card.vocab_size for i in range(min(card.chunk_tokens, card.max_context_tokens // 4))
    ]
    warm_up = engine.open(SamplingParams())
    await _timed(warm_up, chunk)
    await _timed(warm_up, chunk[:1])
    warm_up.close()
    sequence = engine.open(SamplingParams())
    chunk_s = statistics.median([await _timed(sequence, chunk) for _ in range(_CHUNKS)])
    step_s = statistics.median([await _timed(sequence, chunk[:1]) for _ in range(_STEPS)])
    sequence.close()
    return SpeedProfile(
        name="measured",
        source=f"{_CHUNKS} chunks of {len(chunk)} tokens and {_STEPS} decode steps at start",
        prefill_b_s=chunk_s / len(chunk),
        decode_s=step_s,
    )


async def _timed(sequence: LocalSequence, token_ids: list[int]) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await sequence.feed(token_ids, 0)
    return loop.time() - began_s
