"""The name that was meant by one that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["nearest_name"]

_LIKELY = 5
_LIKENESS = 0.6
_SHOWN_CHARACTERS = 200  # nobody types more, and comparing takes the square of it


def nearest_name(name: str, known: Iterable[str], likeness: float = _LIKENESS) -> str | None:
    """Return the known name that takes the fewest slips of the keyboard to become the other.

    A letter too many, one too few, another one, and two in the wrong order are a slip each; of
    names equally near the longest is meant, as letters are left out more often than added.

    Args:
        name: what was written.
        known: the names that mean something.
        likeness: how alike a name must be at all: 0 any, 1 the same.
    """
    written = name[:_SHOWN_CHARACTERS]
    likely = get_close_matches(written, sorted(set(known)), _LIKELY, likeness)
    return min(likely, key=lambda each: (_slips(written, each), -len(each)), default=None)


def _slips(written: str, meant: str) -> int:
    """Return the least number of slips from one text to another."""
    before, last = list[int](), list(range(len(meant) + 1))
    for i, letter in enumerate(written, 1):
        row = [i]
        for j, other in enumerate(meant, 1):
            least = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and written[i - 2 : i] == other + meant[j - 2]:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]
