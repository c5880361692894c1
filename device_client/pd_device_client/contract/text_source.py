"""The source of a session's text: tokens in, released text out."""

from typing import Protocol

__all__ = ["TextSource"]


class TextSource(Protocol):
    """Turns committed tokens into text (`pd_core.text.tokenizer.TextStream`)."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        ...

    def push(self, token_id: int) -> list[tuple[int, str]]:
        """Add the next token; return (position, text) of each token whose text is released."""
        ...

    def flush(self) -> list[tuple[int, str]]:
        """Return the text that was held back, as `push` does."""
        ...
