"""Cosines and sines from exactly rounded operations only, so that all machines have the same.

A C library's or torch's own differ in the last bit between processors. Here float64 additions and
multiplications alone are used, with an error of about 1e-15, and the result is rounded to float32.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["cos_and_sin"]

# Pi / 2 in three parts of 33, 33 and 53 bits: multiples below 2^20 of the first two are exact.
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_TERMS = 9  # of each series; the next one is below 1e-17 for angles up to pi / 4


def cos_and_sin(angles: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines of angles from 0 to about 1.6 million, as float32."""
    quarter = np.rint(angles * (1.0 / (2.0 * math.atan(1.0))))
    rest = angles
    for part in _HALF_PI:
        rest = rest - quarter * part
    square = rest * rest
    cos, sin = np.ones_like(rest), np.ones_like(rest)
    for n in range(_TERMS, 0, -1):
        cos = 1.0 - square * (cos * (1.0 / ((2 * n - 1) * (2 * n))))
        sin = 1.0 - square * (sin * (1.0 / ((2 * n) * (2 * n + 1))))
    sin = sin * rest
    turn = quarter.astype(np.int64) % 4
    odd, cos_is_negative, sin_is_negative = turn % 2 == 1, (turn == 1) | (turn == 2), turn >= 2
    turned_cos, turned_sin = np.where(odd, sin, cos), np.where(odd, cos, sin)
    return (
        np.where(cos_is_negative, -turned_cos, turned_cos).astype(np.float32),
        np.where(sin_is_negative, -turned_sin, turned_sin).astype(np.float32),
    )
