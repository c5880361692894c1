"""KV caches of finished answers, so that a conversation's next turn prefills only new text."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["KeptPrefixes"]


class _Cache(Protocol):
    @property
    def allocated_bytes(self) -> int: ...


CacheT = TypeVar("CacheT", bound=_Cache)


class KeptPrefixes(Generic[CacheT]):
    """The most recently used caches, bounded in bytes; the least recently used is evicted first.

    A kept cache is never written again: a new sequence copies the prefix it shares. So several
    answers may continue one conversation. The copied bits equal those of a new prefill, as keys and
    values do not depend on how a prefix was split into passes.

    Args:
        max_bytes: limit of all kept caches together, as allocated.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[int, ...], CacheT] = {}  # in order of last use

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(cache.allocated_bytes for cache in self._kept.values())

    def shared_tokens(self, prompt: Sequence[int]) -> int:
        """Number of leading prompt tokens in a kept cache, never the last: an answer feeds it."""
        return self._find(tuple(prompt))[1]

    def take(self, prompt: Sequence[int]) -> tuple[CacheT | None, int]:
        """Return the cache that shares the most tokens with a prompt, and how many."""
        found, shared = self._find(tuple(prompt))
        if found is None:
            return None, 0
        cache = self._kept[found] = self._kept.pop(found)  # now the most recently used
        return cache, shared

    def keep(self, token_ids: Sequence[int], cache: CacheT) -> None:
        """Keep the cache of these tokens; it must not be written any more.

        It replaces caches of its own prefixes. It is dropped if it is itself a prefix of a kept
        cache, or larger than the whole bound.
        """
        if cache.allocated_bytes > self._max_bytes:
            return
        token_ids = tuple(token_ids)
        for other in list(self._kept):
            shared = _common(token_ids, other)
            if shared == len(token_ids):
                return
            if shared == len(other):
                del self._kept[other]
        self._kept[token_ids] = cache
        while self.num_bytes > self._max_bytes:
            del self._kept[next(iter(self._kept))]

    def _find(self, prompt: tuple[int, ...]) -> tuple[tuple[int, ...] | None, int]:
        best, most = None, 0
        for token_ids in self._kept:
            shared = min(_common(prompt, token_ids), len(prompt) - 1)
            if shared > most:
                best, most = token_ids, shared
        return best, most


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Return the length of the common prefix, by bisection: slices compare at C speed."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
