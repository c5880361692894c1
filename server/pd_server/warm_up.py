"""A few steps for nobody: the first request pays no start-up cost, and what steps cost is known."""

import time

from pd_core.sampling_params import SamplingParams
from pd_server.model_runner import ModelRunner, Work, model_failed
from pd_server.speed_meter import SpeedMeter
from pd_server.step_cost import StepCost, StepSample

__all__ = ["warm_up"]

_CHUNK_TOKENS = 64
_FAR_TOKENS = 2048


def warm_up(runner: ModelRunner, speeds: SpeedMeter, max_context_tokens: int) -> StepCost:
    """Measure chunks and single tokens, at the start of a context and far into it.

    Args:
        runner: runs them.
        speeds: gets them too, so that the first devices have speeds to plan with.
        max_context_tokens: they stay within.

    Raises:
        PdError: the model failed.
    """
    chunk = min(_CHUNK_TOKENS, max_context_tokens // 2)
    far = min(_FAR_TOKENS, max_context_tokens - chunk)
    cache = runner.make_cache(far + chunk)
    samples = []
    for first, tokens in [(0, chunk), *((0, chunk), (far, chunk), (0, 1), (far, 1)) * 3]:
        work = Work(-1, [0] * tokens, first, cache, SamplingParams(), 0)
        began_at_s = time.perf_counter()
        result = runner.run([work])[0]
        if result.failure is not None:
            raise model_failed("failed in its warm-up", result.failure)
        seconds = time.perf_counter() - began_at_s
        samples.append(StepSample(tokens, tokens * (first + tokens), seconds))
        if first == 0 or tokens == 1:
            speeds.record(seconds, tokens if tokens > 1 else 0, int(tokens == 1))
    return StepCost.fitted(samples[1:])  # the very first step also starts the machine up
