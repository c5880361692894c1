"""Exact products of small integers, on any device that torch serves.

Integers of up to 12 bits are split into two planes of 6, so that each product of planes fits
int8. torch multiplies int8 into int32 where the processor can do that; where it cannot, its
libraries may saturate sums at 16 bits without a word (oneDNN on x86 without VNNI) or refuse. So
that is tried once on each kind of device, and float32 serves the others: a sum of integers is exact
in any order, and with or without fused operations, while it stays below 2^24.

Legend: R rows, K elements of a row, N output features.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["exact_product", "multiplies_int8"]

_LOW_BITS = 6
_MOST = 63 * 127  # of the product of two elements of planes
_FLOAT_COLS = 2048  # _MOST times that is below 2^24
_INT8_COLS = 1 << 18  # _MOST times that is below 2^31
_TOGETHER = 1 << 20  # numbers of a weight that are floats at a time
_LEAST_CUDA_ROWS = 17  # its product of int8 takes no fewer


def exact_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x times weight transposed, (R, N), int64.

    Args:
        x: (R, K), int32, within -2048 .. 2047; K is a multiple of 8.
        weight: (N, K), int8 and not -128; or int16, within -2048 .. 2047. N is a multiple of 8.
    """
    by = (weight,) if weight.dtype == torch.int8 else _planes(weight)
    multiply = _by_int8 if multiplies_int8(x.device.type) else _by_floats
    both = torch.cat(_planes(x))  # (2R, K): a weight is read once for both
    out = torch.zeros(len(x), len(weight), dtype=torch.int64, device=x.device)
    for j, plane in enumerate(by):
        low, high = multiply(both, plane).chunk(2)
        out += (low + (high << _LOW_BITS)) << (_LOW_BITS * j)
    return out


@functools.cache
def multiplies_int8(kind: str) -> bool:
    """Whether a kind of device, such as "cpu", multiplies int8 exactly, as far as trying tells.

    Few and many rows are tried, with the largest sums and with those of both signs.
    """
    try:
        return all(_is_exact(rows, value, kind) for rows in (1, 40) for value in (63, -32, 31))
    except (RuntimeError, NotImplementedError):
        return False


def _is_exact(rows: int, value: int, kind: str) -> bool:
    x = torch.full((rows, 576), value, dtype=torch.int8, device=kind)
    weight = torch.full((64, 576), 127, dtype=torch.int8, device=kind)
    weight[::3] = -127
    weight[1::3, ::2] = -3
    expected = value * weight.long().sum(1)
    return bool((_by_int8(x, weight) == expected).all())


def _planes(whole: Tensor) -> tuple[Tensor, Tensor]:
    """Split integers of up to 12 bits into two of int8, the low one (0 .. 63) first."""
    low = whole & ((1 << _LOW_BITS) - 1)
    return low.to(torch.int8), (whole >> _LOW_BITS).to(torch.int8)


def _by_int8(x: Tensor, weight: Tensor) -> Tensor:
    rows = len(x)
    if x.is_cuda:
        x = F.pad(x, (0, 0, 0, max(0, _LEAST_CUDA_ROWS - rows)))
    return _in_parts(x, weight, _INT8_COLS, lambda a, b: torch._int_mm(a, b.T))[:rows]


def _by_floats(x: Tensor, weight: Tensor) -> Tensor:
    def multiply(a: Tensor, b: Tensor) -> Tensor:
        floats = a.float()
        at_once = max(1, _TOGETHER // b.shape[1])
        return torch.cat([floats @ some.float().T for some in torch.split(b, at_once)], 1)

    return _in_parts(x, weight, _FLOAT_COLS, multiply)


def _in_parts(
    x: Tensor, weight: Tensor, cols: int, multiply: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Add up products of at most `cols` columns, in int64."""
    if x.shape[1] <= cols:
        return multiply(x, weight).long()
    out = torch.zeros(len(x), len(weight), dtype=torch.int64, device=x.device)
    for first in range(0, x.shape[1], cols):
        part = slice(first, first + cols)
        out += multiply(x[:, part].contiguous(), weight[:, part].contiguous()).long()
    return out
