"""Which tokens of a prompt are more than its text: the chat template's, and the system's text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

__all__ = ["protected_ranges"]

_ROLE_TOKENS = 4  # after a special token: a role's name and a line's end
_SYSTEM = ("system", "developer")


class _Tokenizer(Protocol):
    @property
    def special_tokens(self) -> Mapping[int, str]: ...
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...


def protected_ranges(
    tokenizer: _Tokenizer, prompt_token_ids: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return the positions that a refined prompt must keep, as [first, end) ranges.

    Special tokens divide a prompt into stretches. A stretch's first tokens may be a role's name, so
    they are kept as the special tokens are. A whole stretch is kept where the words before its text
    speak of a system: it is what the application told the model, not what it is asked about.
    """
    special = tokenizer.special_tokens
    found: list[tuple[int, int]] = []
    words = ""  # of the template, since the last text
    for first, end in _stretches(prompt_token_ids, special):
        words += "".join(special.get(i, "") for i in prompt_token_ids[max(first - 1, 0) : first])
        head = min(first + _ROLE_TOKENS, end) if first else 0
        words += tokenizer.decode(prompt_token_ids[first:head])
        if head == end:  # no text, only words of the template
            _add(found, max(first - 1, 0), end)
            continue
        system = any(name in words.lower() for name in _SYSTEM)
        _add(found, max(first - 1, 0), end if system else head)
        words = ""
    return tuple(found)


def _stretches(
    prompt_token_ids: Sequence[int], special: Mapping[int, str]
) -> Iterator[tuple[int, int]]:
    """Yield [first, end) between special tokens, empty ones included; each ends at a special."""
    first = 0
    for position, token_id in enumerate(prompt_token_ids):
        if token_id in special:
            yield first, position
            first = position + 1
    yield first, len(prompt_token_ids)


def _add(found: list[tuple[int, int]], first: int, end: int) -> None:
    """Add a range, joined with the last one if they touch."""
    if first >= end:
        return
    if found and found[-1][1] >= first:
        found[-1] = (found[-1][0], end)
    else:
        found.append((first, end))
