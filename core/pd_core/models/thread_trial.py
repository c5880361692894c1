"""How long passes take with different numbers of threads, tried out on the machine at hand."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pd_core.identity.numerics import Numerics
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment
from pd_core.models.numerics_probe import checked_threads

__all__ = ["PassTimes", "fewest_near_best", "thread_counts", "try_threads"]

_CHUNK = 64
_FAR = 1024  # tokens before the passes, as in the middle of a prompt
_STEPS = 3
_ROUNDS = 3  # the first is a warm-up
_LONG_S = 1.0  # a counted round that takes longer is the last
_NEAR = 1.05


class _Model(Protocol):
    @property
    def config(self) -> ModelConfig: ...
    def make_cache(self, capacity_tokens: int) -> KVCache: ...
    def forward(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class PassTimes:
    """How fast a number of threads is.

    Attributes:
        threads: the number.
        token_s: seconds per token of a prefill pass.
        step_s: seconds of a decode pass.
    """

    threads: int
    token_s: float
    step_s: float


def thread_counts(numerics: Numerics, most: int) -> list[int]:
    """Return the numbers of threads that a model may run with, rising, for which its bits hold.

    Args:
        numerics: the model's; floats were checked for few numbers, tiles for the present one alone.
        most: the highest; at least 1.
    """
    present = torch.get_num_threads()
    if numerics.tile_rows:
        return [present]
    if numerics.reproducible and numerics.isa != "any":
        return [count for count in checked_threads() if count <= most] or [present]
    return sorted({*(1 << bit for bit in range(most.bit_length())), most})


def try_threads(model: _Model, counts: Sequence[int], *, sequences: int = 1) -> list[PassTimes]:
    """Time a chunk and decode steps with each number of threads, by turns; the shortest count.

    Leaves the calling thread with another number of threads.

    Args:
        model: its weights are in memory.
        counts: the numbers to try.
        sequences: decoded together in a step.
    """
    chunk = min(_CHUNK, model.config.max_context_tokens // 2)
    first = min(_FAR, model.config.max_context_tokens - chunk)
    cache = model.make_cache(first + chunk)

    def seconds(segments: list[Segment]) -> float:
        token_ids = torch.zeros(sum(s.num_tokens for s in segments), dtype=torch.int64)
        began_s = time.perf_counter()
        model.logits(model.forward(token_ids, segments)[-len(segments) :])
        return time.perf_counter() - began_s

    best = {count: (float("inf"), float("inf")) for count in counts}
    for round_ in range(_ROUNDS):
        began_s = time.perf_counter()
        for count in counts:
            torch.set_num_threads(count)
            step = [Segment(cache, first, 1)] * sequences
            seconds(step)  # wakes the threads
            if round_ == 0:
                seconds([Segment(cache, first, chunk)])
                continue
            step_s = min(seconds(step) for _ in range(_STEPS))
            chunk_s = seconds([Segment(cache, first, chunk)])
            best[count] = min(best[count][0], chunk_s / chunk), min(best[count][1], step_s)
        if round_ > 0 and time.perf_counter() - began_s > _LONG_S:
            break
    return [PassTimes(count, *best[count]) for count in counts]


def fewest_near_best(times: Sequence[PassTimes], cost: Callable[[PassTimes], float]) -> PassTimes:
    """Return the fewest threads that are as good as the best, but for a twentieth.

    Args:
        times: with rising numbers of threads.
        cost: what is to be small.
    """
    least = min(map(cost, times))
    return next(t for t in times if cost(t) <= least * _NEAR)
