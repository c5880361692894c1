"""How many threads an engine computes with, where the operator leaves it open."""

import logging

import torch

from pd_core.checkpoints.loading import LoadedModel
from pd_core.models.thread_trial import fewest_near_best, thread_counts, try_threads

__all__ = ["use_best_threads"]

logger = logging.getLogger(__name__)

_MOST_SEQUENCES = 8  # decoded together in the trial
_CHUNK_TOKENS = 64


def use_best_threads(lm: LoadedModel, max_num_seqs: int) -> None:
    """Try out, and set, how many threads serve a chunk and a full batch's decode soonest.

    With one or two threads to choose from (up to torch's present number) it takes less than a
    second for a small model; with only one nothing is tried. Call it before the engine's thread
    first uses torch.

    Args:
        lm: the model, on the CPU.
        max_num_seqs: requests decoded together.
    """
    counts = thread_counts(lm.numerics, torch.get_num_threads())
    if len(counts) == 1:
        return
    times = try_threads(lm.model, counts, sequences=min(max_num_seqs, _MOST_SEQUENCES))
    best = fewest_near_best(times, lambda t: t.token_s * _CHUNK_TOKENS + t.step_s)
    torch.set_num_threads(best.threads)
    logger.info("%d threads compute: the fewest that are about as fast as any", best.threads)
