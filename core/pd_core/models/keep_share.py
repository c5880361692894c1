"""How much SkipV1 keeps of a layer's values, said as a share and kept in whole heads."""

import math
from fractions import Fraction

from pd_core.errors import ConfigError

__all__ = ["HALF", "own_count", "rounding_note"]

HALF = 0.5
"""The papers' share."""


def own_count(share: float, whole: int) -> int:
    """Return how many KV heads a layer after the first has values of its own for.

    Args:
        share: above 0 and below 1.
        whole: KV heads of a layer, or elements of its latent; from 2 on.

    Returns:
        The nearest whole number (of two the larger), from 1 to whole - 1.

    Raises:
        ConfigError: it is no such share.
    """
    if not 0 < share < 1:  # nor NaN
        raise ConfigError(
            f"--skip-v1-keep is {share}; it is a share of the values that a layer has of its own: "
            "give a number above 0 and below 1"
        )
    nearest = math.floor(_exact(share) * whole + Fraction(1, 2))
    return max(1, min(nearest, whole - 1))


def rounding_note(share: float, whole: int, what: str) -> str | None:
    """Return what to tell a user whose share is no whole number of `what`; None if it is one."""
    own = own_count(share, whole)
    if own == _exact(share) * whole:
        return None
    return (
        f"--skip-v1-keep {share} of {whole} {what} is rounded to {own} of a layer's own and "
        f"{whole - own} of the first layer's"
    )


def _exact(share: float) -> Fraction:
    """Read a share as its decimal digits say, so that 0.3 of 5 lies halfway and not beside it."""
    return Fraction(str(share))
