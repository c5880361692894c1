"""What integer numerics compute, bit for bit: the definition, in plain numpy, slow and short.

Sums of many terms differ in their last bits by their order, and the order differs with chunks,
batches, threads and processors. Here every such sum runs over integers and is exact in any order.
All else is elementwise float32 (or float64 for a few numbers of a row) in operations that IEEE 754
rounds exactly: add, subtract, multiply, divide, square root; no fused multiply-add, and `exp` is
written out. So one definition holds on every machine:

* a row of activations becomes integers of 12 bits, or (before gate and up, the half of all
  products) of 8 bits: then groups of 32 elements share a shift of 0 to 4 bits, so that a small
  group beside a large one keeps its bits;
* weights are integers with a scale for each row (`weights.py`);
* queries, keys and values have 8 bits and a scale for each token and head, and the softmax's
  weights of values 15 bits, after its exact maximum is known;
* a norm's sum of squares is of integers of 16 bits.

Legend: R rows, K elements of a row, T tokens of one sequence, H query heads, g of a KV head, D head
dim, S positions so far.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "attend",
    "exponential",
    "gated",
    "linear",
    "normalise",
    "quantise_heads",
    "quantise_rows",
    "rotate",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
_F = np.float32

_TOP = 127 * 16
_WIDE_TOP = 2047
_GROUP = 32
_NORM_TOP = 32767
_HEAD_TOP = 127
_MIX_TOP = 32767
_ZERO = _F(2.0**-100)
"""Rows whose largest element is smaller count as zeros: their factor would overflow."""

_POWERS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3)
_LOWER_POWERS = (4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def _codes(x: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale rows (..., K) to at most `top`; return those and what a unit stands for, (..., 1)."""
    most = np.abs(x).max(-1, keepdims=True)
    zero = most < _ZERO
    factor = _F(top) / np.where(zero, _F(1), most)
    return np.where(zero, _F(0), x * factor), np.where(zero, _F(0), most / _F(top))


def quantise_rows(x: Floats, planes: int) -> tuple[Integers, Floats]:
    """Turn rows x: (R, K) into integers (R, K) and scales (R, 1).

    Args:
        x: the rows.
        planes: 2: of 12 bits; 1: of 8 bits and a shift for each group.
    """
    if planes == 2:
        scaled, scales = _codes(x, _WIDE_TOP)
        return np.rint(scaled).astype(np.int64), scales
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % _GROUP)))
    scaled, scales = _codes(padded, _TOP)
    groups = scaled.reshape(len(x), -1, _GROUP)
    most = np.abs(groups).max(-1, keepdims=True)
    shift = sum((most >= _F(limit)).astype(np.int64) for limit in (127.5, 255, 510, 1020))
    codes = np.rint(groups * (_F(1) / (1 << shift).astype(_F))).astype(np.int64) << shift
    return codes.reshape(len(x), -1)[:, : x.shape[1]], scales


def linear(
    x: Floats, codes: Integers, scales: Floats, bias: Floats | None = None, *, planes: int = 2
) -> Floats:
    """Map rows x: (R, K) to (R, N) by integer weights (N, K) with scales (N,)."""
    rows, row_scales = quantise_rows(x, planes)
    out: Floats = (rows @ codes.T).astype(_F) * row_scales * scales
    return out if bias is None else out + bias


def normalise(x: Floats, weight: Floats, eps: float) -> Floats:
    """Divide each row x: (R, K) by its root mean square, and multiply by weight (K,)."""
    codes, units = _codes(x, _NORM_TOP)
    squares = (np.rint(codes).astype(np.int64) ** 2).sum(-1, keepdims=True)
    # float(unit) of the row is most / top in float64, not the float32 that `_codes` returns
    unit = np.abs(x).max(-1, keepdims=True).astype(np.float64) / np.float64(_NORM_TOP)
    mean = squares.astype(np.float64) * (unit * unit) / np.float64(x.shape[-1])
    scale = (1.0 / np.sqrt(mean + np.float64(_F(eps)))).astype(_F)
    out: Floats = np.where(units == 0, _F(0), (x * scale) * weight)
    return out


def rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotate heads x: (T, H, D) by cos and sin, (T, 1, D / 2); pairs are i and i + D / 2."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


def quantise_heads(x: Floats) -> tuple[Integers, Floats]:
    """Turn heads x: (..., D) into integers of 8 bits and scales (..., 1)."""
    scaled, scales = _codes(x, _HEAD_TOP)
    return np.rint(scaled).astype(np.int64), scales


def exponential(x: Floats) -> Floats:
    """exp(x), with x clamped to -87 .. 88, by the polynomial of Cephes."""
    x = np.clip(x, _F(-87), _F(88))
    n = np.rint(x * _F(1.44269504088896341))
    x = x - n * _F(0.693359375)
    x = x - n * _F(-2.12194440e-4)
    y = np.full_like(x, _POWERS[0])
    for power in (*_POWERS[1:], *_LOWER_POWERS):
        y = y * x + _F(power)
    y = y * (x * x) + x + _F(1)
    exponent: Floats = ((n.astype(np.int32) + 127) << 23).view(_F)
    return y * exponent


def gated(gate: Floats, up: Floats) -> Floats:
    """SiLU of gate, times up."""
    return gate / (_F(1) + exponential(-gate)) * up


def attend(
    queries: Floats, keys: tuple[Integers, Floats], values: tuple[Integers, Floats], start: int
) -> Floats:
    """Mix one KV head's values by the queries (T, g, D) of its group: (T, g, D).

    Args:
        queries: of positions start, start + 1, ...
        keys, values: integers (S, D) and scales (S, 1) of all positions so far.
        start: position of the first query.
    """
    out = np.zeros_like(queries)
    root = _F(1.0 / np.sqrt(np.float64(queries.shape[-1])))
    for t, head in np.ndindex(queries.shape[:2]):
        seen = start + t + 1
        (query,), (scale,) = quantise_heads(queries[t, head][None])
        scores = (keys[0][:seen] @ query).astype(_F) * keys[1][:seen, 0]
        p = exponential((scores - scores.max()) * (scale[0] * root))
        total = np.rint(p * _F(1 << 22)).astype(np.int64).sum()
        weights, unit = _codes(p * values[1][:seen, 0], _MIX_TOP)
        if not unit[0]:
            continue
        mixed: Any = np.rint(weights).astype(np.int64) @ values[0][:seen]
        largest = np.float64((p * values[1][:seen, 0]).max())
        factor = (largest / np.float64(_MIX_TOP)) / (np.float64(total) * 2.0**-22)
        out[t, head] = (mixed.astype(np.float64) * factor).astype(_F)
    return out
