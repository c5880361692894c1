"""Prompts of words, for servers that accept no token ids: the same ids give the same words."""

from collections.abc import Sequence
from functools import cache

__all__ = ["words_of"]

# Words that common tokenizers encode as one token each after a space.
_WORDS = """
the of and to in is that it for was on are as with his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know get through back much before go good new write our used me
man too any day same right look think also around another came come work three word must because
does part even place well such here take why things help put years different away again off went
old number great tell men say small every found still between name should home big give air line
"""


@cache
def _words() -> tuple[str, ...]:
    return tuple(_WORDS.split())


def words_of(token_ids: Sequence[int]) -> str:
    """Return one word for each id."""
    words = _words()
    return " ".join(words[token_id % len(words)] for token_id in token_ids)
