"""A part of a trace: a stretch of time, every n-th row, shorter rows."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pd_bench.harness.bounds import check_counts
from pd_bench.traces.row import TraceRow
from pd_core.errors import ConfigError

__all__ = ["TraceSlice", "sorted_rows"]


@dataclass(frozen=True, slots=True)
class TraceSlice:
    """What to keep of a trace.

    Attributes:
        from_s: rows that arrive before are left out; those kept count from the first of them.
        to_s: rows that arrive then or later are left out.
        every: keep the first of every N rows, which scales the load at all hours alike.
        max_prompt_tokens: longer prompts are cut to this, and their hashes with them.
        max_output_tokens: longer answers are cut to this.
        limit: most rows to keep.

    Raises:
        ConfigError: a value is out of range.
    """

    from_s: float = 0.0
    to_s: float = math.inf
    every: int = 1
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.from_s < self.to_s:
            raise ConfigError(
                f"--from-s {self.from_s:g} and --to-s {self.to_s:g} are no stretch of time: "
                "0 or more, and the first below the second"
            )
        check_counts(
            {
                "--every": self.every,
                "--max-prompt-tokens": self.max_prompt_tokens,
                "--max-output-tokens": self.max_output_tokens,
                "--limit": self.limit,
            }
        )

    def of(self, rows: Iterable[TraceRow]) -> Iterator[TraceRow]:
        """Yield what is kept; arrivals count from the first row kept."""
        first_s: float | None = None
        kept = looked_at = 0
        for row in rows:
            if row.arrival_s >= self.to_s or kept == self.limit:
                return
            if row.arrival_s < self.from_s:
                continue
            looked_at += 1
            if (looked_at - 1) % self.every:
                continue
            first_s = row.arrival_s if first_s is None else first_s
            kept += 1
            yield self._cut(replace(row, arrival_s=row.arrival_s - first_s))

    def _cut(self, row: TraceRow) -> TraceRow:
        prompt = min(row.prompt_tokens, self.max_prompt_tokens or row.prompt_tokens)
        output = min(row.output_tokens, self.max_output_tokens or row.output_tokens)
        hashes = row.block_hashes
        if hashes is not None:
            hashes = hashes[: -(-prompt // row.block_tokens)]
        return replace(row, prompt_tokens=prompt, output_tokens=output, block_hashes=hashes)


def sorted_rows(rows: Iterable[TraceRow]) -> Iterator[TraceRow]:
    """Yield the rows by arrival, counted from the earliest; holds them all in memory.

    Rows of one instant stay in their order.
    """
    ordered = sorted(rows, key=lambda row: row.arrival_s)
    return (replace(row, arrival_s=row.arrival_s - ordered[0].arrival_s) for row in ordered)
