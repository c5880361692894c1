"""Which two tokens BPE makes one, and in what order."""

from collections.abc import Sequence
from reprlib import repr as _short  # a file may hold a token of megabytes

from pd_core.errors import ModelError

__all__ = ["listed_merges", "scored_merges"]

# Each letter costs a look-up of a pair; the largest vocabularies have two million.
_MOST_LETTERS = 8 << 20
_MOST_TOKEN_LETTERS = 512


def listed_merges(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of a file that lists them, first merged first.

    Raises:
        ModelError: a line is not two tokens with a space between.
    """
    pairs = []
    for i, line in enumerate(lines):
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise ModelError(f"merge {i} is {_short(line)}; it must be two tokens and a space")
        pairs.append((left, right))
    return pairs


def scored_merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the pairs that a sentencepiece vocabulary implies, in the order of `transformers`.

    Two tokens merge when the text of both together is a token; that with the highest score first.

    Args:
        tokens: texts by id.
        scores: a finite number for each.

    Raises:
        ModelError: the tokens are longer than those of any model.
    """
    letters, longest = sum(map(len, tokens)), max(map(len, tokens), default=0)
    if letters > _MOST_LETTERS or longest > _MOST_TOKEN_LETTERS:
        raise ModelError(
            f"its tokens have {letters} letters, the longest {longest}; no model's have more than "
            f"{_MOST_LETTERS} and {_MOST_TOKEN_LETTERS}"
        )
    ids = {text: i for i, text in enumerate(tokens)}
    found: list[tuple[float, int, int, str, str]] = []
    for text, score in zip(tokens, scores, strict=True):
        pairs = [
            (ids[text[:cut]], ids[text[cut:]], text[:cut], text[cut:])
            for cut in range(1, len(text))
            if text[:cut] in ids and text[cut:] in ids
        ]
        pairs.sort(key=lambda pair: pair[:2])
        found += [(score, len(left), len(right), left, right) for _, _, left, right in pairs]
    # A stable sort: pairs of one token stay in the order of their ids.
    found.sort(key=lambda pair: pair[:3], reverse=True)
    return [(left, right) for *_, left, right in found]
