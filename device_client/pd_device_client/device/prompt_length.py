"""Texts that cannot fit are refused before the whole of them is made into tokens.

Eight million characters become millions of token ids and a gigabyte of memory, only to be refused.
"""

from collections.abc import Iterator

from pd_core.errors import InvalidRequest, PromptTooLong
from pd_core.text.tokenizer import Tokenizer

__all__ = ["check_length"]

_SHORT_CHARACTERS = 1 << 16
_CHARACTERS_PER_TOKEN = 4
_PIECE_CHARACTERS = 1 << 15
_TOKENS_AT_A_CUT = 16


def check_length(tokenizer: Tokenizer, text: str, max_context_tokens: int | None) -> None:
    """Refuse a long text whose tokens are certainly more than a context holds.

    It counts the tokens of pieces, and stops when they are enough. A text in pieces has a few more
    tokens than the whole one at each cut, and never twice as many; what is closer to the limit than
    that is left for the whole text's tokens to decide.

    Args:
        tokenizer: the model's.
        text: the prompt.
        max_context_tokens: the longest context of any side; None: unknown, nothing is refused.

    Raises:
        PromptTooLong: it cannot fit.
    """
    if max_context_tokens is None:
        return
    if len(text) <= max(_SHORT_CHARACTERS, _CHARACTERS_PER_TOKEN * max_context_tokens):
        return
    enough = 2 * max_context_tokens
    for piece in _pieces(text):
        try:
            enough -= len(tokenizer.encode(piece)) - _TOKENS_AT_A_CUT
        except InvalidRequest:
            return  # encoding the whole text says where it is wrong
        if enough < 0:
            raise PromptTooLong(
                f"the prompt's {len(text)} characters do not fit a context of "
                f"{max_context_tokens} tokens, the longest here; shorten the prompt"
            )


def _pieces(text: str) -> Iterator[str]:
    return (text[i : i + _PIECE_CHARACTERS] for i in range(0, len(text), _PIECE_CHARACTERS))
