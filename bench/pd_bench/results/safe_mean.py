"""A mean over many rows of which few were measured and all were predicted, and its interval.

The safe aggregation estimator (SADA, arXiv 2509.21707) with K predictors of n measured rows out of
N. In its notation, with Y measured, Z (K) predicted and means over measured (l) and other rows (u):

    theta = Y_l + w' (Z_u - Z_l)         w = (N - n) / N  Cov(Z)^-1 Cov(Z, Y)
    Var   = Var(Y - w' Z) / n + w' Cov(Z) w / (N - n)

Cov(Z) alone is over all rows, the others over the measured ones. For many rows Var is the paper's
Var(Y) / n - (1/n - 1/N) Cov(Y, Z) Cov(Z)^-1 Cov(Z, Y), which for few claims too much: it takes the
sample's covariances for the truth. Var(Y - w' Z) is corrected for the K weights that were fitted
to n rows. Predictors may be wrong by any amount: only how they vary with Y matters. Where the
interval is not narrower than that of the measured rows, these alone decide.
"""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np

from pd_bench.results.bootstrap import CONFIDENCE, Interval, Values

__all__ = ["LEAST_MEASURED", "SafeMean", "mean_interval", "safe_mean", "student_quantile"]

LEAST_MEASURED: Final = 3
"""Fewest measured rows of an interval."""


@dataclass(frozen=True, slots=True)
class SafeMean:
    """A mean over all rows.

    Attributes:
        alone: the measured rows' mean, with its interval.
        combined: the estimate with the predictions; `alone` where they do not help.
        weights: w of each predictor; zeros where they do not help.
        helped: whether the predictions made the interval narrower.
    """

    alone: Interval
    combined: Interval
    weights: tuple[float, ...]
    helped: bool


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of at least LEAST_MEASURED values, with Student's interval."""
    half = student_quantile((1 + confidence) / 2, len(values) - 1)
    half *= float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half, len(values))


def safe_mean(
    measured: Values, predicted: Values, others: Values, confidence: float = CONFIDENCE
) -> SafeMean:
    """Estimate the mean of a figure over all rows.

    Args:
        measured: (n,), the figure of the measured rows, a random part of all; n >= LEAST_MEASURED.
        predicted: (n, K), predictions for the same rows.
        others: (N - n, K), predictions for the rows that were not measured.
        confidence: of the interval.
    """
    assert len(measured) >= LEAST_MEASURED, "too few rows for an interval"
    alone = mean_interval(measured, confidence)
    n, num_predictors = predicted.shape
    total = n + len(others)
    nothing = SafeMean(alone, alone, (0.0,) * num_predictors, helped=False)
    freedom = n - num_predictors - 1
    if freedom < 1 or not len(others) or not float(measured.var()) > 0:
        return nothing
    among = np.atleast_2d(np.cov(np.concatenate((predicted, others)), rowvar=False))
    centred = predicted - predicted.mean(axis=0)
    with_measured = centred.T @ (measured - measured.mean()) / (n - 1)
    slopes = np.linalg.pinv(among, rcond=1e-10, hermitian=True) @ with_measured
    weights = (total - n) / total * slopes
    value = alone.value + float(weights @ (others.mean(axis=0) - predicted.mean(axis=0)))
    unexplained = float((measured - predicted @ weights).var(ddof=1)) * (n - 1) / freedom
    spread = math.sqrt(unexplained / n + float(weights @ among @ weights) / (total - n))
    half = student_quantile((1 + confidence) / 2, freedom) * spread
    if not 2 * half < alone.high - alone.low:
        return nothing
    combined = Interval(value, value - half, value + half, n)
    return SafeMean(alone, combined, tuple(weights.tolist()), helped=True)


@cache
def student_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, for a share above one half.

    The distribution function is the regularised incomplete beta function; it is inverted by
    bisection, and for many degrees of freedom by the normal quantile with two further terms
    (Abramowitz and Stegun, 26.7.5).
    """
    assert share > 0.5, "the upper half"
    normal = NormalDist().inv_cdf(share)
    if freedom > 200:
        cube = (normal**3 + normal) / (4 * freedom)
        return normal + cube + (5 * normal**5 + 16 * normal**3 + 3 * normal) / (96 * freedom**2)
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    """Return the probability of at most t >= 0, by the finite sums of 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    if freedom % 2:
        term = cosine
        for k in range(1, freedom - 1, 2):
            total += term
            term *= (k + 1) / (k + 2) * cosine**2
        within = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        for k in range(0, freedom - 1, 2):
            total += term
            term *= (k + 1) / (k + 2) * cosine**2
        within = math.sin(angle) * total
    return (1 + within) / 2
