"""How long an answer will be, given its prompt's length: learned from past answers.

Answers are counted by their prompt's length, in bins of an octave and of its halves, quarters and
eighths. A bin's distribution is shrunk to that of the wider bin around it, and the widest to that
of all answers, so a bin with few answers says little. How fine the bins should be differs between
users: each depth forecasts every new answer before it is counted, and the depth whose forecasts of
the guarded quantile have cost the least is used. Old answers are forgotten one by one.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice

__all__ = ["AnswerLengths", "pinball"]

_QUANTILE = 0.9
_WINDOW = 2048  # answers
_SHRINK = 30.0  # answers of the wider bin that weigh as much as one bin
_BINS_PER_OCTAVE = (1, 2, 4, 8)
_FADE = 0.999  # of a depth's cost, for each answer
_MOST_TOKENS = 10_000_000

_Bins = dict[int, Counter[int]]


def pinball(quantile: float, length: int, forecast: int) -> float:
    """Return what a forecast of this quantile costs: least on average if it is right."""
    missing = length - forecast
    return quantile * missing if missing > 0 else (quantile - 1) * missing


class AnswerLengths:
    """The lengths of the last answers, and of their prompts.

    Args:
        past: prompt and answer tokens of answers to begin with, the oldest first. What is no pair
            of counts is left out.
    """

    def __init__(self, past: Iterable[object] = ()) -> None:
        self._last: deque[tuple[int, int]] = deque()
        self._all: Counter[int] = Counter()  # answers by the bucket of their length
        self._depths: tuple[_Bins, ...] = tuple({} for _ in _BINS_PER_OCTAVE)
        self._costs = [0.0] * (len(_BINS_PER_OCTAVE) + 1)
        for pair in past:
            if isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_count, pair)):
                self.add(pair[0], pair[1])

    @property
    def past(self) -> list[tuple[int, int]]:
        """Prompt and answer tokens of the answers that count, the oldest first."""
        return list(self._last)

    @property
    def num_past(self) -> int:
        """The number of answers that count."""
        return len(self._last)

    def add(self, prompt_tokens: int, num_tokens: int) -> None:
        """Add an answer that reached its end."""
        if self._last:
            buckets = sorted(self._all)
            for depth, shares in enumerate(self._shares(prompt_tokens, buckets)):
                cost = pinball(_QUANTILE, num_tokens, _at(buckets, shares, _QUANTILE))
                self._costs[depth] = _FADE * self._costs[depth] + cost
        if len(self._last) == _WINDOW:
            self._count(*self._last.popleft(), -1)
        self._last.append((prompt_tokens, num_tokens))
        self._count(prompt_tokens, num_tokens, 1)

    def expected(self, prompt_tokens: int, max_tokens: int) -> int:
        """N for planning: a quantile of past answer lengths; the limit before there are any."""
        return self.quantile(prompt_tokens, _QUANTILE, max_tokens)

    def quantile(self, prompt_tokens: int, quantile: float, max_tokens: int) -> int:
        """Return the length that this share of such answers does not exceed.

        Args:
            prompt_tokens: the prompt's length.
            quantile: the share.
            max_tokens: the answer's limit, and the forecast without any past answer.
        """
        if not self._last:
            return max_tokens
        depth = min(range(len(self._costs)), key=self._costs.__getitem__)
        buckets = sorted(self._all)
        *_, shares = islice(self._shares(prompt_tokens, buckets), depth + 1)
        return min(_at(buckets, shares, quantile), max_tokens)

    def quantile_of_all(self, quantile: float) -> int:
        """Return the length that this share of all answers, of which there must be one, keeps."""
        buckets = sorted(self._all)
        return _at(buckets, [self._all[b] / len(self._last) for b in buckets], quantile)

    def _shares(self, prompt_tokens: int, buckets: list[int]) -> Iterator[list[float]]:
        """Yield each depth's shares of such answers in the buckets, that of all answers first."""
        total = len(self._last)
        shares = [self._all[bucket] / total for bucket in buckets]
        yield shares
        for bins, per_octave in zip(self._depths, _BINS_PER_OCTAVE, strict=True):
            counted = bins.get(_bin(prompt_tokens, per_octave))
            if counted:
                weight = counted.total() + _SHRINK
                shares = [
                    (counted[bucket] + _SHRINK * share) / weight
                    for bucket, share in zip(buckets, shares, strict=True)
                ]
            yield shares

    def _count(self, prompt_tokens: int, num_tokens: int, sign: int) -> None:
        bucket = _bucket(num_tokens)
        _change(self._all, bucket, sign)
        for bins, per_octave in zip(self._depths, _BINS_PER_OCTAVE, strict=True):
            at = _bin(prompt_tokens, per_octave)
            _change(bins.setdefault(at, Counter()), bucket, sign)
            if not bins[at]:
                del bins[at]


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number <= _MOST_TOKENS


def _bin(prompt_tokens: int, per_octave: int) -> int:
    return int(math.log2(max(prompt_tokens, 1)) * per_octave)


# Lengths up to 32 are counted one by one, longer ones in buckets of at most a thirty-second.
_EXACT_BITS = 5


def _bucket(num_tokens: int) -> int:
    """Return the largest length that is counted together with this one."""
    shift = max(num_tokens.bit_length() - 1 - _EXACT_BITS, 0)
    return (num_tokens >> shift << shift) + (1 << shift) - 1


def _at(buckets: list[int], shares: list[float], quantile: float) -> int:
    sum_of_shares = 0.0
    for bucket, share in zip(buckets, shares, strict=True):
        sum_of_shares += share
        if sum_of_shares >= quantile - 1e-9:
            return bucket
    return buckets[-1]


def _change(counts: Counter[int], key: int, sign: int) -> None:
    counts[key] += sign
    if not counts[key]:
        del counts[key]
