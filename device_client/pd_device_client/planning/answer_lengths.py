"""The lengths of past answers, from which the next one is planned."""

from collections import deque

__all__ = ["AnswerLengths"]

_QUANTILE = 0.9
_WINDOW = 256


class AnswerLengths:
    """The lengths of the last answers."""

    def __init__(self) -> None:
        self._lengths: deque[int] = deque(maxlen=_WINDOW)

    def add(self, num_tokens: int) -> None:
        """Add an answer that reached its end."""
        self._lengths.append(num_tokens)

    def expected(self, max_tokens: int) -> int:
        """N for planning: a quantile of past answer lengths; the limit before there are any."""
        if not self._lengths:
            return max_tokens
        ordered = sorted(self._lengths)
        return min(ordered[int(_QUANTILE * (len(ordered) - 1))], max_tokens)
