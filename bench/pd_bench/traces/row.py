"""One request of a trace, independent of its format."""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["BLOCK_TOKENS", "Parsed", "TraceRow"]

BLOCK_TOKENS = 512
"""Default number of prompt tokens per hashed block (Mooncake's)."""


class Parsed(NamedTuple):
    """A parsed line.

    Attributes:
        at_ns: nanoseconds on the trace's own clock.
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
        block_hashes: as in TraceRow.
        session: as in TraceRow.
        block_tokens: as in TraceRow.
    """

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] | None = None
    session: str | None = None
    block_tokens: int = BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A request's arrival and lengths, without its text.

    Attributes:
        line: line number in the file, from 1.
        arrival_s: seconds since the first row.
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
        block_hashes: one id per block of block_tokens prompt tokens, the last possibly partial;
            equal ids mean equal blocks; None when the trace has none.
        session: its conversation, which also identifies its device; None when unknown.
        block_tokens: prompt tokens per block.
    """

    line: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] | None = None
    session: str | None = None
    block_tokens: int = BLOCK_TOKENS
