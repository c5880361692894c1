"""Guesses at the next tokens from the text itself: what followed the last time these came.

Answers often repeat their prompt: code that is changed, a text that is summed up, a name. No second
model is needed to guess such tokens, and a wrong guess costs little, as it is checked in the same
pass that makes the next token.
"""

from collections.abc import Iterable

__all__ = ["PromptLookup"]

_LENGTHS = (3, 2, 1)  # tokens that must agree, the longest match first


class PromptLookup:
    """Prompt and answer, with where each short run of tokens last came.

    Args:
        token_ids: the tokens so far.
    """

    __slots__ = ("_after", "_token_ids")

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._token_ids = list[int]()
        # Run of tokens -> index of the token that followed it the last time.
        self._after = dict[tuple[int, ...], int]()
        self.extend(token_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens it holds."""
        return len(self._token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Add the tokens that follow."""
        known, after = self._token_ids, self._after
        for token_id in token_ids:
            for length in _LENGTHS:
                if len(known) >= length:
                    after[tuple(known[-length:])] = len(known)
            known.append(token_id)

    def draft(self, most: int) -> list[int]:
        """Return a guess at the next tokens: at most that many, none where nothing came before.

        A guess that reaches the end of the text goes on with itself, as in a loop.
        """
        known = self._token_ids
        for length in _LENGTHS:
            if len(known) < length:
                continue
            at = self._after.get(tuple(known[-length:]))
            if at is not None:
                guess = list[int]()
                for index in range(at, at + most):
                    back = index - len(known)
                    guess.append(known[index] if back < 0 else guess[back])
                return guess
        return []
