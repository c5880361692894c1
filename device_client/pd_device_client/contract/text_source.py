"""Where a session gets its text from: a stream of tokens in, released text out."""

from typing import Protocol

__all__ = ["TextSource"]


class TextSource(Protocol):
    """Turns committed tokens into text (`pd_core.text.tokenizer.TextStream`)."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        ...

    def push(self, token_id: int) -> list[tuple[int, str]]:
        """Take in the next token; return (position, text) of tokens whose text is released."""
        ...

    def flush(self) -> list[tuple[int, str]]:
        """Release what was held back."""
        ...
