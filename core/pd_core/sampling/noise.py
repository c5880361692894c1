"""Gumbel noise as a hash of seed, position and token: no generator, so no state that could differ.

The hash's upper 52 bits give a uniform value u in (0, 1), offset by a half so that neither
logarithm gets 0; the noise is -log(-log(u)).
"""

import torch
from torch import Tensor

from pd_core.sampling.splitmix import mixed, mixed_tensor, mixed_tensor_, shifted, signed

__all__ = ["BITS", "gumbel", "noise_key", "shares_left"]

BITS = 52
"""Of the hash that are used."""
# Hashed at once on a CPU: small enough for its cache, and for memory that is used again.
_CACHED = 1 << 15
_AT_ONCE = 1 << 24


def noise_key(seed: int, position: int) -> int:
    """Return the key of a position's noise, as a signed 64-bit value."""
    return signed(mixed(mixed(seed) ^ position))


def gumbel(ids: Tensor, keys: Tensor | int) -> Tensor:
    """Return the standard Gumbel noise of ids under their keys (int64, broadcast), float64."""
    bits = shifted(mixed_tensor(ids ^ keys), 64 - BITS)
    uniform = (bits.double() + 0.5) * 2.0**-BITS
    return -torch.log(-torch.log(uniform))


def shares_left(num_ids: int, keys: Tensor) -> Tensor:
    """Return (1 - u) * 2^52 of ids 0 .. num_ids - 1 to a float32's precision, with no logarithm.

    Args:
        num_ids: how many ids.
        keys: (R, 1), int64.

    Returns:
        (R, num_ids), float32, above 0.
    """
    at_once = _CACHED if keys.device.type == "cpu" else _AT_ONCE
    step = max(1, at_once // len(keys))
    left = torch.empty(len(keys), num_ids, device=keys.device)
    for first in range(0, num_ids, step):
        ids = torch.arange(first, min(first + step, num_ids), device=keys.device)
        bits = mixed_tensor_(ids ^ keys)
        # Of bits flipped: 2^52 - 1 - the bits of u.
        left[:, first : first + step] = shifted(bits.bitwise_not_(), 64 - BITS)
    return left.add_(0.5)
