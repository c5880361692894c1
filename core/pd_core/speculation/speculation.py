"""Whether guessing tokens pays, as measured while it is done, and how much it has brought.

A pass over one token and N guesses makes one token and those guesses that were right. It pays where
it makes more tokens a second than a pass over one token alone.
"""

from pd_core.errors import ConfigError

__all__ = ["DEFAULT_DRAFT_TOKENS", "MAX_DRAFT_TOKENS", "Speculation"]

DEFAULT_DRAFT_TOKENS = 3
"""Guesses a pass: with them it has four rows, the fewest that the exact products are made of."""
MAX_DRAFT_TOKENS = 32

_DECAY = 0.9  # a pass weighs half after about seven later ones
_GAIN = 1.05  # below this, noise decides
_TRIAL_PASSES = 4  # with guesses, before anything is decided
_LEAST_PAUSE = 16  # passes without guesses, after they did not pay
_LONGEST_PAUSE = 256


class _Rate:
    """Tokens and seconds of passes, the older the lighter."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0
        self.num_passes = 0

    def record(self, tokens: float, seconds: float) -> None:
        self._tokens = self._tokens * _DECAY + tokens
        self._seconds = self._seconds * _DECAY + seconds
        self.num_passes += 1

    @property
    def tokens_per_s(self) -> float:
        return self._tokens / self._seconds if self._seconds else 0.0


class Speculation:
    """The account of one engine's guesses. Not thread-safe: the engine's thread owns it.

    Args:
        draft_tokens: most guesses in a pass; 0: never guess.

    Attributes:
        num_drafted: tokens guessed so far.
        num_accepted: guesses that were right.

    Raises:
        ConfigError: draft_tokens is out of range.
    """

    def __init__(self, draft_tokens: int) -> None:
        if not 0 <= draft_tokens <= MAX_DRAFT_TOKENS:
            raise ConfigError(
                f"speculate is {draft_tokens}; it must lie between 0 (off) and {MAX_DRAFT_TOKENS}"
            )
        self._draft_tokens = draft_tokens
        self.num_drafted = self.num_accepted = 0
        self._plain, self._drafted = _Rate(), _Rate()
        self._next_pause = _LEAST_PAUSE
        self._pause = 0  # passes left without guesses

    @property
    def may_draft(self) -> bool:
        """Whether guesses are ever made, so that it is worth remembering where tokens came."""
        return self._draft_tokens > 0

    def draft_tokens(self) -> int:
        """Return how many tokens to guess for the next pass; 0 while that does not pay."""
        return 0 if self._pause else self._draft_tokens

    def passed(
        self, num_drafted: int, num_accepted: int, seconds: float, num_sequences: int = 1
    ) -> None:
        """Record a pass that only decoded.

        Args:
            num_drafted: guesses in it; 0: a pass over one token of each sequence.
            num_accepted: how many were right.
            seconds: its duration, sampling included.
            num_sequences: sequences in it.
        """
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        if not num_drafted:
            self._plain.record(num_sequences, seconds)
            self._pause = max(0, self._pause - 1)
            return
        self._drafted.record(num_sequences + num_accepted, seconds)
        if self._drafted.num_passes % _TRIAL_PASSES:
            return
        if not self._plain.num_passes:
            self._pause = 1  # nothing to compare with yet
        elif self._drafted.tokens_per_s < _GAIN * self._plain.tokens_per_s:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
            self._drafted = _Rate()
        else:
            self._next_pause = _LEAST_PAUSE
