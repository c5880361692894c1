"""Rows made from a fit: any number of them, the same ones for the same seed."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from statistics import NormalDist

from pd_bench.traces.fit import Lengths, Prefixes, TraceFit
from pd_bench.traces.row import BLOCK_TOKENS, TraceRow

__all__ = ["generate_rows"]

_RECENT_ROWS = 1024  # a shared prefix is that of one of them
_CANDIDATES = 8  # of which the first that is long enough is taken
_NORMAL = NormalDist()
# A Beta distribution with parameters of a larger sum is practically its mean, and the terms of the
# Gamma sampler's test would be lost in rounding.
_CERTAIN = 1e9
_SMALLEST = 2.0**-54  # a uniform number of 0 has no logarithm


def generate_rows(fit: TraceFit, num_rows: int, seed: int) -> Iterator[TraceRow]:
    """Yield rows one by one, in memory that does not grow with their number.

    Only `random.random` is drawn from, whose sequence Python keeps from version to version, so a
    seed gives the same rows everywhere that rounds floating point alike.

    Args:
        fit: the fit to draw from.
        num_rows: number of rows.
        seed: different seeds give different rows.
    """
    numbers = _Numbers(seed)
    prefixes = None if fit.prefixes is None else _PrefixMaker(fit.prefixes, numbers)
    arrival_s = 0.0
    for line in range(1, num_rows + 1):
        if line > 1:
            scale = 1 / (fit.arrivals.rate_per_s * fit.arrivals.shape)
            arrival_s += numbers.gamma(fit.arrivals.shape) * scale
        first, second = numbers.correlated_normals(fit.length_correlation)
        prompt_tokens = _length(fit.prompt_tokens, first)
        yield TraceRow(
            line,
            arrival_s,
            prompt_tokens,
            _length(fit.output_tokens, second),
            None if prefixes is None else prefixes.blocks(prompt_tokens),
            block_tokens=BLOCK_TOKENS if fit.prefixes is None else fit.prefixes.block_tokens,
        )


def _length(lengths: Lengths, normal: float) -> int:
    # A deviation far outside the range would overflow before it is cut.
    exponent = min(lengths.log_mean + lengths.log_deviation * normal, math.log(lengths.most))
    return max(min(round(math.exp(exponent)), lengths.most), lengths.least)


class _PrefixMaker:
    """Makes the blocks of prompts, some of which begin as a recent one did."""

    def __init__(self, prefixes: Prefixes, numbers: "_Numbers") -> None:
        self._prefixes = prefixes
        self._numbers = numbers
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_RECENT_ROWS)
        self._next_id = 0

    def blocks(self, prompt_tokens: int) -> tuple[int, ...]:
        num_blocks = -(-prompt_tokens // self._prefixes.block_tokens)
        shared = self._shared(num_blocks)
        fresh = num_blocks - len(shared)
        blocks = (*shared, *range(self._next_id, self._next_id + fresh))
        self._next_id += fresh
        self._recent.append(blocks)
        return blocks

    def _shared(self, num_blocks: int) -> tuple[int, ...]:
        prefixes, numbers = self._prefixes, self._numbers
        if not self._recent or numbers.uniform() >= prefixes.share:
            return ()
        kept = numbers.beta(prefixes.kept_mean, prefixes.kept_variance)
        wanted = min(max(round(kept * num_blocks), 1), num_blocks)
        best: tuple[int, ...] = ()
        for _ in range(_CANDIDATES):
            other = self._recent[int(numbers.uniform() * len(self._recent))]
            best = max(best, other, key=len)
            if len(best) >= wanted:
                break
        return best[:wanted]


class _Numbers:
    """Random numbers of the shapes needed, all from one uniform sequence."""

    def __init__(self, seed: int) -> None:
        self.uniform: Callable[[], float] = random.Random(seed).random

    def normal(self) -> float:
        return _NORMAL.inv_cdf(max(self.uniform(), _SMALLEST))

    def correlated_normals(self, correlation: float) -> tuple[float, float]:
        first, second = self.normal(), self.normal()
        return first, correlation * first + math.sqrt(1 - correlation * correlation) * second

    def gamma(self, shape: float) -> float:
        """Draw from a Gamma distribution of scale 1 (Marsaglia and Tsang, 2000)."""
        if shape < _SMALLEST:
            return 0.0  # what the boost would come to
        if shape < 1:
            boost = math.pow(max(self.uniform(), _SMALLEST), 1 / shape)
            return self.gamma(shape + 1) * boost
        d = shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self.normal()
            v = math.pow(1 + c * x, 3)
            if v <= 0:
                continue
            if math.log(max(self.uniform(), _SMALLEST)) < 0.5 * x * x + d * (1 - v + math.log(v)):
                return d * v

    def beta(self, mean: float, variance: float) -> float:
        """Draw from the Beta distribution of this mean and variance; their bounds are kept."""
        room = mean * (1 - mean)
        if variance <= 0 or room <= 0:
            return mean
        if variance >= room:
            return 1.0 if self.uniform() < mean else 0.0
        total = room / variance - 1
        if total > _CERTAIN:
            return mean
        first, second = self.gamma(mean * total), self.gamma((1 - mean) * total)
        return first / (first + second) if first + second > 0 else mean
