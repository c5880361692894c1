"""A speed profile from timed passes: prefill a + b n + c n^2, decode d + e l, robustly fitted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["PassTime", "SpeedFit", "fit_speeds"]

_ROUNDS = 20  # of re-weighting; it settles in a handful
_UP = 1 / 3  # weight of a row that took longer than the fit says, against one that took less
_WIDE = 1.5  # what a third of the rows spread below the fit, made as wide as all of them
_LONGER = 1.2  # than a decode step
_TUKEY = 4.685  # residuals beyond this many deviations count nothing
_FLOOR = 1e-3  # the least relative deviation that a timer can show


@dataclass(frozen=True, slots=True)
class PassTime:
    """One timed pass.

    Attributes:
        first_position: tokens in the cache before it.
        num_tokens: tokens of the pass; one is a decode step.
        seconds: how long it took.
    """

    first_position: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeedFit:
    """A fitted profile, and how far passes stray from it.

    Attributes:
        profile: the fit; its spread is that of one prefill pass.
        prefill_spread: relative deviation of one prefill pass, robustly estimated.
        decode_spread: relative deviation of one decode step.
        num_outliers: passes that counted nothing.
    """

    profile: SpeedProfile
    prefill_spread: float
    decode_spread: float
    num_outliers: int


def fit_speeds(passes: Sequence[PassTime], name: str, source: str) -> SpeedFit:
    """Fit a profile to passes; those of several tokens are prefill, those of one are decode.

    Relative errors count, so that short passes weigh as much as long ones, and an outlier (another
    program ran) counts little or nothing. No coefficient is negative.

    Args:
        passes: at least one of either kind, of positive seconds.
        name: of the profile.
        source: where the figures come from, in words.
    """
    prefill = [p for p in passes if p.num_tokens > 1]
    decode = [p for p in passes if p.num_tokens == 1]
    assert prefill, "passes of several tokens are fitted"
    assert decode, "and decode steps"
    rows = np.array([[1.0, p.first_position] for p in decode])
    (d, e), decode_spread, odd_steps = _robust(rows, _seconds(decode), needed=0)
    # A pass costs at least a decode step, and one that costs no more shows nothing of its tokens.
    longer = [p for p in prefill if p.seconds > _LONGER * (d + e * p.first_position)]
    prefill = longer if len(longer) > len(prefill) / 2 else prefill
    rows = np.array([_prefill_row(p) for p in prefill])
    (a, b, c), prefill_spread, odd = _robust(rows, _seconds(prefill), needed=1)
    profile = SpeedProfile(
        name,
        source,
        prefill_a_s=a,
        prefill_b_s=b,
        prefill_c_s=c,
        decode_s=d,
        decode_l_s=e,
        spread=round(prefill_spread, 4),
    )
    return SpeedFit(profile, prefill_spread, decode_spread, odd + odd_steps)


def _prefill_row(p: PassTime) -> list[float]:
    """What the coefficients a, b, c are multiplied by for one pass; a counts once a prefill."""
    end = p.first_position + p.num_tokens
    return [float(p.first_position == 0), p.num_tokens, end**2 - p.first_position**2]


def _seconds(passes: Sequence[PassTime]) -> NDArray[np.float64]:
    return np.array([p.seconds for p in passes])


def _robust(
    rows: NDArray[np.float64], seconds: NDArray[np.float64], needed: int
) -> tuple[tuple[float, ...], float, int]:
    """Return non-negative coefficients, the relative deviation, and how many rows count nothing.

    Args:
        rows: (n, k), the factors of each coefficient.
        seconds: (n,).
        needed: the column whose coefficient is not 0.
    """
    ones = np.ones(len(seconds))
    weights, relative = ones, rows / seconds[:, None]
    for _ in range(_ROUNDS):  # the third of the rows below: another program only makes them longer
        found = _non_negative(relative, ones, weights, needed)
        over = 1 - relative @ found
        weights = np.where(over > 0, _UP, 1 - _UP) / np.maximum(np.abs(over), _FLOOR)
    for cut in (_WIDE, 1.0):
        told = np.maximum(rows @ found, 1e-12)
        error = seconds / told - 1
        below = np.abs(error[error <= 0]) if cut > 1 else np.abs(error[weights > 0])
        deviation = max(1.4826 * cut * float(np.median(below)), _FLOOR) if len(below) else _FLOOR
        weights = np.clip(1 - (error / (_TUKEY * deviation)) ** 2, 0, None) ** 2
        found = _non_negative(rows / told[:, None], seconds / told, weights, needed)
    return tuple(map(float, found)), deviation, int((weights == 0).sum())


def _non_negative(
    rows: NDArray[np.float64],
    wanted: NDArray[np.float64],
    weights: NDArray[np.float64],
    needed: int,
) -> NDArray[np.float64]:
    """Return the weighted least squares without negative coefficients.

    There are three at most, so all choices of which are 0 are tried, and the best one kept.
    """
    root = np.sqrt(weights)
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    scaled, target = rows / scale * root[:, None], wanted * root
    best, least = np.zeros(rows.shape[1]), math.inf
    for chosen in range(1, 1 << rows.shape[1]):
        columns = [i for i in range(rows.shape[1]) if chosen >> i & 1]
        if needed not in columns:
            continue
        part, *_ = np.linalg.lstsq(scaled[:, columns], target, rcond=None)
        if (part < 0).any():
            continue
        error = float(((scaled[:, columns] @ part - target) ** 2).sum())
        if error < least * (1 - 1e-12):
            best, least = np.zeros(rows.shape[1]), error
            best[columns] = part
    return np.asarray(best / scale, dtype=np.float64)
