"""A refined prompt: which positions of a prompt a device reads, and which it leaves out.

The cloud chooses them from its scores of the prompt (`pd_core.models.prompt_scores`), whatever
engine made these; the device checks what it is told. Positions are kept in ranges [first, end).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pd_core.errors import ProtocolError

__all__ = [
    "FIRST_TOKENS",
    "LAST_TOKENS",
    "MOST_CHUNKS",
    "MOST_PROTECTED",
    "Ranges",
    "check_kept",
    "chosen_ranges",
    "num_positions",
    "ordered",
    "ranges_of",
]

Ranges = tuple[tuple[int, int], ...]
"""Positions as [first, end) ranges."""

FIRST_TOKENS = 4
"""Always kept: attention rests on a text's first tokens, whatever they say (arXiv 2309.17453)."""

LAST_TOKENS = 32
"""Always kept: the end of a prompt mostly says what is wanted."""

MOST_CHUNKS = 1024
"""A prompt is cut into at most so many chunks, which bounds the ranges."""

MOST_PROTECTED = 1024
"""The most ranges that a request may protect."""

_CHUNK_TOKENS = 32
_POOL_TOKENS = 13


def chosen_ranges(
    scores: Sequence[float] | NDArray[np.float64],
    keep_ratio: float,
    protected: Ranges = (),
    *,
    chunk_tokens: int = _CHUNK_TOKENS,
    pool_tokens: int = _POOL_TOKENS,
) -> Ranges:
    """Choose the positions to keep, at least keep_ratio of all.

    Scores are averaged over neighbours; then whole chunks are taken, the best first, so that what
    is kept can be read as text. Beside the protected ones, the first and the last tokens are kept.

    Args:
        scores: one a position; only their order counts, and one that is not finite counts as 0.
        keep_ratio: in (0, 1].
        protected: positions that are kept in any case; they may overlap, and exceed the prompt.
        chunk_tokens, pool_tokens: of a chunk, and of an average.

    Returns:
        Ranges in rising order that do not touch, at most one a chunk and one a protected range;
        none for an empty prompt.
    """
    num_tokens = len(scores)
    kept = np.zeros(num_tokens, dtype=bool)
    kept[:FIRST_TOKENS] = kept[max(num_tokens - LAST_TOKENS, 0) :] = True
    for first, end in protected:
        kept[max(first, 0) : max(end, 0)] = True
    wanted = math.ceil(keep_ratio * num_tokens) - int(kept.sum())
    if wanted > 0:
        size = max(chunk_tokens, -(-num_tokens // MOST_CHUNKS))
        pooled = _pooled(np.asarray(scores, dtype=np.float64), pool_tokens)
        starts = np.arange(0, num_tokens, size)
        free = np.add.reduceat(~kept, starts, dtype=np.int64)
        sums = np.add.reduceat(np.where(kept, 0.0, pooled), starts)
        means = np.where(free > 0, sums / np.maximum(free, 1), -1.0)
        for chunk in np.argsort(-means, kind="stable"):  # equal ones in their order
            if wanted <= 0:
                break
            wanted -= int(free[chunk])
            kept[starts[chunk] : starts[chunk] + size] = True
    return ranges_of(kept)


def _pooled(scores: NDArray[np.float64], pool_tokens: int) -> NDArray[np.float64]:
    """Average each score over up to pool_tokens neighbours, itself in the middle."""
    finite = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    sums = np.concatenate(([0.0], np.cumsum(finite)))
    middle = np.arange(len(finite))
    first = np.maximum(middle - pool_tokens // 2, 0)
    end = np.minimum(middle + pool_tokens // 2 + 1, len(finite))
    averages: NDArray[np.float64] = (sums[end] - sums[first]) / (end - first)
    return averages


def ranges_of(kept: NDArray[np.bool_]) -> Ranges:
    """Return the positions that are True, as ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])).astype(np.int8)))
    return tuple((int(first), int(end)) for first, end in edges.reshape(-1, 2))


def num_positions(ranges: Ranges) -> int:
    """Return how many positions there are in ranges that do not overlap."""
    return sum(end - first for first, end in ranges)


def ordered(ranges: Ranges, num_tokens: int) -> str | None:
    """Return None if all ranges lie within a prompt, rising and apart; else what is wrong."""
    last_end = 0
    for first, end in ranges:
        if not 0 <= first < end <= num_tokens:
            return f"the range {first} to {end} does not lie within the prompt's {num_tokens}"
        if first < last_end:
            return f"the range {first} to {end} begins before the end of the one before, {last_end}"
        last_end = end
    return None


def check_kept(ranges: Ranges, num_tokens: int, protected: Ranges = ()) -> None:
    """Check a refined prompt.

    Args:
        ranges: the positions to keep.
        num_tokens: of the prompt.
        protected: positions that must be kept.

    Raises:
        ProtocolError: it names positions outside the prompt, out of order or twice; it leaves out
            a protected one, or the last, from which the answer comes.
    """
    if (wrong := ordered(ranges, num_tokens)) is not None:
        raise ProtocolError(f"the refined prompt is of no use: {wrong}")
    kept = np.zeros(num_tokens, dtype=bool)
    for first, end in ranges:
        kept[first:end] = True
    for first, end in (*protected, (num_tokens - 1, num_tokens)):
        if not kept[first:end].all():
            raise ProtocolError(
                "the refined prompt is of no use: it leaves out positions that must be kept, "
                f"among {first} to {end}"
            )
