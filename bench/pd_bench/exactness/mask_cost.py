"""What holding an answer to its form costs at each token, beside the step that makes it.

Both are one thread's processor time, which other programs on the machine do not add to.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.constraint import Constraint
from pd_core.grammar.grammars import Grammars
from pd_core.models import Segment
from pd_core.sampling.allowed import only_allowed

__all__ = ["MaskCost", "decode_step_s", "measure_masks"]

_STEPS = 40


@dataclass(frozen=True, slots=True)
class MaskCost:
    """Milliseconds of a processor a token: finding the mask, and putting it over one row of logits.

    Attributes:
        vocab_size: ids of the vocabulary.
        tokens: how many masks were found.
        mean_ms, p50_ms, p99_ms: of them.
        step_ms: a decode step of the model alone, on one thread, the median.
        share: the mean as a share of that step.
    """

    vocab_size: int
    tokens: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    step_ms: float
    share: float


def measure_masks(
    loaded: LoadedModel, grammars: Grammars, answers: list[tuple[Constraint, list[int]]]
) -> MaskCost:
    """Go through answers token by token, as they were made.

    Args:
        loaded: the model.
        grammars: of the model; forms are compiled before their first mask is timed.
        answers: forms and the tokens of answers to them.
    """
    logits = torch.randn(1, loaded.num_token_ids)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        took_s = _masks_s(grammars, answers, logits)
        step_ms = decode_step_s(loaded) * 1e3
    finally:
        torch.set_num_threads(threads)
    ms = np.array(took_s) * 1e3
    return MaskCost(
        loaded.num_token_ids,
        len(ms),
        mean_ms=float(ms.mean()),
        p50_ms=float(np.quantile(ms, 0.5)),
        p99_ms=float(np.quantile(ms, 0.99)),
        step_ms=step_ms,
        share=float(ms.mean()) / step_ms,
    )


def _masks_s(
    grammars: Grammars, answers: list[tuple[Constraint, list[int]]], logits: torch.Tensor
) -> list[float]:
    took_s = list[float]()
    for constraint, token_ids in answers:
        matcher = grammars.matcher(constraint)
        matcher.form.result()
        for length in range(len(token_ids)):
            began_s = time.thread_time()
            only_allowed(logits, [matcher.mask(token_ids[:length])])
            took_s.append(time.thread_time() - began_s)
    return took_s


@torch.inference_mode()
def decode_step_s(loaded: LoadedModel, context: int = 64) -> float:
    """Return the median time of one token behind a context, its logits included."""
    cache = loaded.model.make_cache(context + _STEPS)
    loaded.model.forward(torch.arange(context) % loaded.num_token_ids, [Segment(cache, 0, context)])
    took_s = list[float]()
    for step in range(_STEPS):
        began_s = time.thread_time()
        hidden = loaded.model.forward(torch.tensor([5]), [Segment(cache, context + step, 1)])
        loaded.model.logits(hidden)
        took_s.append(time.thread_time() - began_s)
    return float(np.median(took_s))
