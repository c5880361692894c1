"""A reader's own speed, in words, as a gap between tokens."""

import math

__all__ = ["USUAL_TOKENS_PER_WORD", "ReadingPace", "usual_gap_s"]

_MOST_TOKENS_PER_WORD = 6.0
_SURE_OF = 20.0  # words that weigh as much as what is usual
USUAL_TOKENS_PER_WORD = 1.3
"""Of English prose, in the tokenizers of today; what counts is what an answer turns out to have."""


class ReadingPace:
    """The gap that shows an answer at a reading speed, from the answer's own tokens per word.

    Until there are words enough, the usual number of tokens per word counts too. White space
    separates words; where there is hardly any, 6 tokens count as a word.

    Args:
        words_per_minute: the reader's speed.
        shortest_s: no gap is shorter, as the plan stretched the pace.
        longest_s: no gap is longer, as that is promised.
    """

    def __init__(
        self, words_per_minute: float, shortest_s: float = 0.0, longest_s: float = math.inf
    ) -> None:
        self._s_per_word = 60 / words_per_minute
        self._shortest_s, self._longest_s = shortest_s, longest_s
        self._tokens = self._words = 0
        self._within = False  # a word

    def add(self, text: str) -> None:
        """Add a shown token with its text, which may be empty."""
        self._tokens += 1
        if not text:
            return
        self._words += len(text.split()) - (self._within and not text[0].isspace())
        self._within = not text[-1].isspace()

    @property
    def gap_s(self) -> float:
        """Seconds between two tokens."""
        words = max(self._words, self._tokens / _MOST_TOKENS_PER_WORD)
        tokens_per_word = (self._tokens + _SURE_OF * USUAL_TOKENS_PER_WORD) / (words + _SURE_OF)
        gap_s = self._s_per_word / tokens_per_word
        return min(max(gap_s, self._shortest_s), self._longest_s)


def usual_gap_s(words_per_minute: float) -> float:
    """Return the gap for usual text, with which an answer is planned."""
    return ReadingPace(words_per_minute).gap_s
