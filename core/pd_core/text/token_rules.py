"""How a token that stands for itself is found in a text."""

from dataclasses import dataclass

__all__ = ["TokenRules"]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What belongs to a token in a text, and where it is one; the same names as in its file.

    Attributes:
        lstrip: it takes the white space before it in.
        rstrip: it takes the white space behind it in.
        single_word: it is none inside a word.
        normalized: it is looked for after the text was normalised, and not before.
    """

    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
