"""A few steps before the first request, to pay its start-up cost and to measure what steps cost."""

import time

from pd_server.scheduling.speed_meter import SpeedMeter
from pd_server.scheduling.step_cost import StepCost, StepSample
from pd_server.torch_engine.model_runner import ModelRunner, model_failed, nobodys_work

__all__ = ["warm_up"]

_CHUNK_TOKENS = 64
_FAR_TOKENS = 2048
_SEQUENCES = 8


def warm_up(runner: ModelRunner, speeds: SpeedMeter, max_context_tokens: int) -> StepCost:
    """Measure chunks and decodes, of one and several sequences, early and late in a context.

    Args:
        runner: runs the steps.
        speeds: records the steps too, so that the first devices have speeds to plan with.
        max_context_tokens: the context the steps stay within.

    Raises:
        PdError: the model failed.
    """
    chunk = min(_CHUNK_TOKENS, max_context_tokens // 2)
    far = min(_FAR_TOKENS, max_context_tokens - chunk)
    cache = runner.make_cache(far + chunk)
    samples = []
    shapes = [
        (first, *shape) for first in (0, far) for shape in ((1, chunk), (1, 1), (_SEQUENCES, 1))
    ]
    for first, sequences, tokens in [shapes[0], *shapes * 3]:
        # All sequences write to the same place of one cache, because the results are not used.
        work = nobodys_work(cache, first, tokens)
        began_at_s = time.perf_counter()
        results = runner.run([work] * sequences)
        for result in results:
            if result.failure is not None:
                raise model_failed("failed in its warm-up", result.failure)
        seconds = time.perf_counter() - began_at_s
        computed = sequences * tokens
        samples.append(StepSample(sequences, computed, computed * (first + tokens), seconds))
        if sequences == 1 and (first == 0 or tokens == 1):
            speeds.record(seconds, tokens if tokens > 1 else 0, int(tokens == 1))
    return StepCost.fitted(samples[1:])  # the first step includes start-up costs
