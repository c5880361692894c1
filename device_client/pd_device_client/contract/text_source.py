"""The source of a session's text: tokens in, released text out."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["TextMaker", "TextSource"]


class TextSource(Protocol):
    """Turns committed tokens into text (`pd_core.text.tokenizer.TextStream`)."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        ...

    @property
    def stop_string(self) -> str | None:
        """The stop string that was found, or None."""
        ...

    def push(self, token_id: int) -> list[tuple[int, str]]:
        """Add the next token; return (position, text) of each token whose text is released."""
        ...

    def flush(self) -> list[tuple[int, str]]:
        """Return the text that was held back, as `push` does."""
        ...


class TextMaker(Protocol):
    """Makes an answer's text source (`pd_core.text.tokenizer.Tokenizer.stream`)."""

    def __call__(
        self, stop_strings: Sequence[str], *, behind: Sequence[int], skip_special_tokens: bool
    ) -> TextSource:
        """Return a new source.

        Args:
            stop_strings: the text ends before the first of these.
            behind: the tokens whose text the answer continues; none for a text of its own.
            skip_special_tokens: give special tokens no text.
        """
        ...
