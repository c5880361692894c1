"""A prompt as the device reads it: all of it, or only what the cloud's refined prompt keeps."""

from collections.abc import Sequence
from typing import NamedTuple

from pd_core.refinement import Ranges

__all__ = ["KeptPrompt", "Reading"]


class Reading(NamedTuple):
    """Tokens to read, and their positions in the prompt where they are not simply the next ones."""

    token_ids: list[int]
    positions: list[int] | None


class KeptPrompt:
    """What there is to read, in order; `refine` leaves out some of what is not read yet.

    Args:
        token_ids: the prompt.
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = token_ids
        self._positions: list[int] | None = None  # of all that is read; None: of the whole prompt

    @property
    def num_tokens(self) -> int:
        """Tokens to read in all."""
        return len(self._token_ids if self._positions is None else self._positions)

    @property
    def num_left_out(self) -> int:
        """Tokens of the prompt that are not read."""
        return len(self._token_ids) - self.num_tokens

    def refine(self, kept: Ranges, num_read: int) -> int:
        """Leave out what the ranges do not keep; what is read, or is being read, stays.

        Args:
            kept: positions, checked; see `pd_core.refinement.check_kept`.
            num_read: tokens read, or being read.

        Returns:
            How many tokens are left out by it; 0: it came too late to help.
        """
        if self._positions is not None or num_read >= len(self._token_ids):
            return 0
        rest = [i for first, end in kept for i in range(max(first, num_read), end)]
        if num_read + len(rest) < len(self._token_ids):
            self._positions = [*range(num_read), *rest]
        return self.num_left_out

    def reading(self, first: int, num_tokens: int, following: Sequence[int]) -> Reading:
        """Return the next tokens to read, the first of them number `first`.

        Args:
            first: tokens read so far, those after the prompt included.
            num_tokens: at most so many are returned.
            following: the tokens after the prompt so far.
        """
        if first >= self.num_tokens:
            first -= self.num_tokens
            return Reading(list(following[first : first + num_tokens]), None)
        if self._positions is None:
            token_ids = list(self._token_ids[first : first + num_tokens])
            return Reading([*token_ids, *following[: num_tokens - len(token_ids)]], None)
        positions = self._positions[first : first + num_tokens]
        token_ids = [self._token_ids[i] for i in positions]
        more = list(following[: num_tokens - len(token_ids)])
        end = len(self._token_ids)
        return Reading([*token_ids, *more], [*positions, *range(end, end + len(more))])
