"""The tokens before a position: what sampling looks back at where a repetition costs something."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set

__all__ = ["History"]


class History:
    """Every token so far, and how often each came; counted only as far as someone asks.

    Args:
        token_ids: the prompt, then the response. The owner's own list: it may grow at its end, and
            each answer here is about what it holds then.
        num_prompt_tokens: how many of them are the prompt's.
    """

    __slots__ = ("_counts", "_first", "_num_counted", "_num_seen", "_seen", "_token_ids")

    def __init__(self, token_ids: Sequence[int], num_prompt_tokens: int) -> None:
        self._token_ids = token_ids
        self._first = self._num_counted = num_prompt_tokens
        self._counts = Counter[int]()
        self._seen = set[int]()
        self._num_seen = 0

    def followed_by(self, token_ids: Sequence[int]) -> "History":
        """Return a history of its own: of these tokens, then some more of the response."""
        return History([*self._token_ids, *token_ids], self._first)

    def response_end(self, num_tokens: int) -> Sequence[int]:
        """Return the response's last tokens, at most num_tokens."""
        return self._token_ids[max(self._first, len(self._token_ids) - num_tokens) :]

    def counts(self) -> Mapping[int, int]:
        """Return how often each token stands in the response."""
        self._counts.update(self._token_ids[self._num_counted :])
        self._num_counted = len(self._token_ids)
        return self._counts

    def seen(self) -> Set[int]:
        """Return the tokens that stand in the prompt or the response."""
        self._seen.update(self._token_ids[self._num_seen :])
        self._num_seen = len(self._token_ids)
        return self._seen
