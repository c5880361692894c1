"""Counts the different keys of a long stream, and how many are repeated, in fixed memory."""

import math

from pd_core.sampling.splitmix import mixed

__all__ = ["MAX_KEYS", "DistinctKeys"]

MAX_KEYS = 1 << 18
"""Most keys held; a stream with no more different keys than this is counted exactly."""


class DistinctKeys:
    """Counts the different keys of a stream and the share of keys seen before.

    Only keys whose hash lies below a threshold are looked at, and the threshold halves when too
    many are held (spatially hashed sampling: Waldspurger et al., *Efficient MRC construction with
    SHARDS*, FAST 2015). A key is either always looked at or never, so the share of repeated ones
    is estimated without bias; with 131,072 keys or more its error is below one per cent.

    Args:
        max_keys: held at most.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._threshold = 1 << 64
        self._held: set[int] = set()
        self._seen = 0.0  # keys looked at, at the present threshold
        self.num_keys = 0

    def add(self, key: int) -> None:
        """Take in one key."""
        self.num_keys += 1
        hashed = mixed(key)
        if hashed >= self._threshold:
            return
        self._seen += 1
        self._held.add(hashed)
        if len(self._held) > self._max_keys:
            self._threshold >>= 1
            before = len(self._held)
            self._held = {held for held in self._held if held < self._threshold}
            self._seen *= len(self._held) / before

    @property
    def exact(self) -> bool:
        """Whether every key was looked at."""
        return self._threshold == 1 << 64

    @property
    def distinct(self) -> int:
        """How many different keys there were (an estimate unless `exact`)."""
        return round(len(self._held) * ((1 << 64) / self._threshold))

    @property
    def repeated_share(self) -> float:
        """Share of the keys that had come before, of 1; 0 when there are none."""
        if not self._seen:
            return 0.0
        return max(1.0 - len(self._held) / math.floor(self._seen + 0.5), 0.0)
