"""KV caches of finished answers, kept so that a conversation's next turn prefills only new text."""

from collections.abc import Sequence

from pd_core.models import KVCache

__all__ = ["KeptPrefixes"]


class KeptPrefixes:
    """The caches last used, within a bound of bytes; what was used longest ago goes first.

    A kept cache is never written again: a new sequence copies what it shares with it. So several
    answers may go on from one conversation, and what is copied are the bits that a prefill would
    compute, as keys and values do not depend on how a prefix was cut into passes.

    Args:
        max_bytes: of all kept caches together, as allocated.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[int, ...], KVCache] = {}  # in the order of last use

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(cache.allocated_bytes for cache in self._kept.values())

    def shared_tokens(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that are kept; at least its last is not, as an answer needs it."""
        return self._find(tuple(prompt))[1]

    def take(self, prompt: Sequence[int]) -> tuple[KVCache | None, int]:
        """Return the cache that shares the most tokens with a prompt, and how many."""
        found, shared = self._find(tuple(prompt))
        if found is None:
            return None, 0
        cache = self._kept[found] = self._kept.pop(found)  # it was used now
        return cache, shared

    def keep(self, token_ids: Sequence[int], cache: KVCache) -> None:
        """Keep the cache of these tokens; it must not be written any more.

        What is a beginning of it is let go, and it is itself when it begins another, or when it
        alone is over the bound: the others stay then.
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
    """Return the length of the common beginning, by halving: slices compare at C's speed."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
