"""How much sooner a device is ready when it reads only what a refined prompt keeps.

Measured with the real local engine: its passes, from the beginning of the prompt to the first token
of its own. The refined prompt comes after a given time; what is read by then stays read.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pd_bench.refine.settings import RefineSettings
from pd_core.checkpoints.loading import LoadedModel
from pd_core.refinement import chosen_ranges
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.session.kept_prompt import KeptPrompt

__all__ = ["ReadyTime", "measure_ready_times"]


@dataclass(frozen=True, slots=True)
class ReadyTime:
    """Attributes:
    keep_ratio: what was asked for; 1: the whole prompt.
    ready_s: median seconds until the device has its first token.
    left_out: median number of tokens left out.
    """

    keep_ratio: float
    ready_s: float
    left_out: float


async def measure_ready_times(
    loaded: LoadedModel, prompt: Sequence[int], settings: RefineSettings
) -> list[ReadyTime]:
    """Time all ratios in turns, the whole prompt first; what is kept is random, as it may be."""
    engine = TorchLocalEngine(loaded, num_threads=settings.num_threads)
    ratios = (1.0, *settings.ratios)
    runs: dict[float, list[tuple[float, int]]] = {ratio: [] for ratio in ratios}
    scores = np.random.default_rng(settings.seed).random(len(prompt))
    try:
        for _ in range(settings.rounds):
            for ratio in ratios:
                kept = chosen_ranges(scores, ratio)
                after_s = settings.refined_after_s
                runs[ratio].append(await _ready(engine, prompt, KeptPrompt(prompt), kept, after_s))
    finally:
        await engine.close()
    return [
        ReadyTime(
            ratio,
            statistics.median(seconds for seconds, _ in found),
            statistics.median(left_out for _, left_out in found),
        )
        for ratio, found in runs.items()
        if found
    ]


async def _ready(
    engine: TorchLocalEngine,
    prompt: Sequence[int],
    to_read: KeptPrompt,
    kept: tuple[tuple[int, int], ...],
    after_s: float,
) -> tuple[float, int]:
    """Return the seconds to the first token, and how many tokens were left out."""
    sequence, loop = engine.open(SamplingParams(), prompt), asyncio.get_running_loop()
    began_s, num_fed = loop.time(), 0
    while num_fed < to_read.num_tokens:
        if loop.time() - began_s >= after_s:
            to_read.refine(kept, num_fed)
        reading = to_read.reading(num_fed, engine.chunk_tokens, ())
        num_fed += len(reading.token_ids)
        last = num_fed == to_read.num_tokens
        await sequence.feed(reading.token_ids, 0 if last else None, reading.positions)
    seconds = loop.time() - began_s
    sequence.close()
    return seconds, to_read.num_left_out
