"""A local engine's speed at start: kept from an earlier start, or measured in a few passes.

A kept speed makes the first plan possible at once. If it is out of date, the passes of the first
request correct it, the plan adapts, and the corrected speed is kept for the next start.
"""

import asyncio
import logging
import statistics

from pd_core.errors import ConfigError
from pd_core.files.kept_results import keep, kept
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine, LocalSequence
from pd_device_client.planning.speeds.profile_values import profile_from, profile_values
from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["keep_profile", "kept_profile", "measure_engine"]

logger = logging.getLogger(__name__)

_CHUNKS = 3
_STEPS = 6
_KIND = "speeds"


async def measure_engine(engine: LocalEngine) -> SpeedProfile:
    """Return the engine's profile: medians of a few chunks and decode steps after a warm-up.

    Raises:
        EngineError: the engine failed.
    """
    card = engine.card
    length = min(engine.chunk_tokens, card.max_context_tokens // 4)
    chunk = [i % card.vocab_size for i in range(length)]
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


def kept_profile(key: object) -> SpeedProfile | None:
    """Return the profile that an earlier process kept under `key`, or None."""
    found = kept(_KIND, key)
    if not isinstance(found, dict):
        return None
    source = "what this device did at an earlier start"
    try:
        return profile_from(found, "the kept speeds", name="measured", source=source)
    except ConfigError as error:
        logger.warning("this device is measured anew: %s", error)
        return None


def keep_profile(key: object, profile: SpeedProfile) -> None:
    """Keep a measured profile for the next start.

    Args:
        key: everything the speed depends on, as JSON values.
        profile: what was measured.
    """
    keep(_KIND, key, profile_values(profile))


async def _timed(sequence: LocalSequence, token_ids: list[int]) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await sequence.feed(token_ids, 0)
    return loop.time() - began_s
