"""Times two ways of doing the same in turns, so that other load on the machine affects both alike.

The unit is a round: both ways take turns step by step, and which one goes first alternates from
step to step. A round gives one ratio; the figure is the median ratio.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["WARM_UP_ROUNDS", "PairedTiming", "median_interval", "time_paired"]

Step = Callable[[], object]

WARM_UP_ROUNDS = 2
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class PairedTiming:
    """A variant's times compared with a plain model's.

    Attributes:
        context_tokens: context of the step, or length of the prompt.
        num_rounds: rounds behind the figures.
        variant_s: median seconds of the variant's rounds.
        plain_s: median seconds of the plain model's rounds.
        ratio: median of the rounds' ratios, variant over plain.
        ratio_low: lower end of the median's 95 % confidence interval, by order statistics; with
            fewer than 6 rounds the smallest ratio.
        ratio_high: the upper end, or the largest ratio.
    """

    context_tokens: int
    num_rounds: int
    variant_s: float
    plain_s: float
    ratio: float
    ratio_low: float
    ratio_high: float

    @classmethod
    def of(
        cls, context_tokens: int, variant_s: Sequence[float], plain_s: Sequence[float]
    ) -> "PairedTiming":
        """Describe rounds, the seconds of each way in their order."""
        ratios = [a / b for a, b in zip(variant_s, plain_s, strict=True)]
        low, high = median_interval(ratios)
        return cls(
            context_tokens=context_tokens,
            num_rounds=len(ratios),
            variant_s=statistics.median(variant_s),
            plain_s=statistics.median(plain_s),
            ratio=statistics.median(ratios),
            ratio_low=low,
            ratio_high=high,
        )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median, whatever the values' distribution.

    The k-th smallest and k-th largest value hold the median between them, unless fewer than k of
    n values fall on one side of it, and each falls there like a coin. Too few values for 95 %
    give their smallest and largest.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 1, 2 * 0.5**n
    while True:
        outside += 2 * math.comb(n, k) * 0.5**n
        if outside > 1 - _CONFIDENCE:
            return ordered[k - 1], ordered[n - k]
        k += 1


def time_paired(
    variant: Sequence[Step],
    plain: Sequence[Step],
    *,
    context_tokens: int,
    num_rounds: int,
    now_s: Callable[[], float],
    after_round: Callable[[], None],
) -> PairedTiming:
    """Time both ways in turns, after rounds that do not count.

    Args:
        variant: the steps of one way.
        plain: as many steps of the other.
        context_tokens: for the result.
        num_rounds: rounds that count.
        now_s: the clock, in seconds.
        after_round: called untimed after every round, those of the warm-up too.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(-WARM_UP_ROUNDS, num_rounds):
        spent = [0.0, 0.0]
        for i, steps in enumerate(zip(variant, plain, strict=True)):
            for way in ((0, 1), (1, 0))[(number + i) % 2]:
                began_s = now_s()
                steps[way]()
                spent[way] += now_s() - began_s
        after_round()
        if number >= 0:
            for way in (0, 1):
                seconds[way].append(spent[way])
    return PairedTiming.of(context_tokens, *seconds)
