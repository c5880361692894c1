"""Traces: when requests came and how long they were, read row by row from a published format.

A trace has times and lengths, never content. A broken row is an error that names its line, because
skipping it silently would change the measured load. The user may choose to skip broken rows; then
they are counted.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pd_bench.traces.formats import Parsed, TraceFormat, told_by
from pd_bench.traces.lines import Line, trace_lines
from pd_bench.traces.row import BLOCK_TOKENS, TraceRow
from pd_core.errors import TraceError

__all__ = ["BLOCK_TOKENS", "SkippedRows", "TraceRow", "format_name", "read_trace"]

_KEPT_REASONS = 5


@dataclass(slots=True)
class SkippedRows:
    """Broken rows that were left out.

    Attributes:
        count: how many.
        first: of the first few, the line and what is wrong with it.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < _KEPT_REASONS:
            self.first.append(f"line {line} {why}")

    @property
    def label(self) -> str:
        """What a reader must know, in words."""
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count} broken rows of the trace left out ({'; '.join(self.first)}{more})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The label, if any row was skipped."""
        return (self.label,) if self.count else ()


def read_trace(
    path: Path,
    limit: int | None = None,
    *,
    skipped: SkippedRows | None = None,
    any_order: bool = False,
) -> Iterator[TraceRow]:
    """Yield the rows of a trace in order, without holding the file in memory.

    Args:
        path: a plain file, or one packed by gzip, in one of the formats of `trace_formats`.
        limit: stop after this many rows; rows behind are not looked at.
        skipped: leave broken rows out and count them here; without it they are errors. A row
            that arrives before the one above it is broken too.
        any_order: take rows that are not sorted by time; arrivals may then be below 0.

    Raises:
        TraceError: the file cannot be read, is in no known format, or has no rows; or a row is
            broken (the message names the line).
    """
    if limit is not None and limit < 1:
        raise TraceError(f"the limit of rows is {limit}; it must be 1 or more")
    # islice takes no larger number, and no file has that many rows.
    most = None if limit is None else min(limit, sys.maxsize)
    return islice(_rows(path, skipped, any_order), most)


def format_name(path: Path) -> str:
    """Return the name of a trace's format, after reading its first line.

    Raises:
        TraceError: as `read_trace`.
    """
    return _format(path, next(trace_lines(path), None)).name


def _rows(path: Path, skipped: SkippedRows | None, any_order: bool) -> Iterator[TraceRow]:
    first_ns: int | None = None
    last_ns = 0
    for line, parsed in _parsed(path, skipped):
        if first_ns is None:
            first_ns = parsed.at_ns
        elif parsed.at_ns < last_ns and not any_order:
            late_s = (last_ns - parsed.at_ns) / 1e9
            why = f"arrives {late_s:g} s before the row above it; sort the trace by time"
            _broken(path, line, why, skipped)
            continue
        last_ns = parsed.at_ns
        yield TraceRow(line, (parsed.at_ns - first_ns) / 1e9, *parsed[1:])
    if first_ns is None:
        raise TraceError(f"{path}: the trace has no rows")


def _parsed(path: Path, skipped: SkippedRows | None) -> Iterator[tuple[int, Parsed]]:
    """Yield (line number, parsed row); the format is told by the first line."""
    lines = trace_lines(path)
    first = next(lines, None)
    trace_format = _format(path, first)
    if first is not None and not trace_format.has_header:
        yield from _row(path, first, trace_format, skipped)
    empty_line: int | None = None
    for line in lines:
        if line.problem is None and not line.text.strip():
            empty_line = empty_line or line.number
            continue
        if empty_line is not None:
            _broken(path, empty_line, "is empty, yet rows follow it", skipped)
            empty_line = None
        yield from _row(path, line, trace_format, skipped)


def _format(path: Path, first: Line | None) -> TraceFormat:
    if first is None or (first.problem is None and not first.text.strip()):
        raise TraceError(f"{path}: the file is empty; it has neither a header nor a row")
    try:
        if first.problem is not None:
            raise ValueError(first.problem)
        return told_by(first.text)
    except ValueError as error:
        raise TraceError(f"{path}, line {first.number}: {error}") from None


def _row(
    path: Path, line: Line, trace_format: TraceFormat, skipped: SkippedRows | None
) -> Iterator[tuple[int, Parsed]]:
    """Yield the row of a line, or nothing when it is broken and may be left out."""
    if line.problem is not None:
        _broken(path, line.number, line.problem, skipped)
        return
    try:
        parsed = trace_format.parse(line.text)
    except ValueError as error:
        _broken(path, line.number, str(error), skipped)
    else:
        yield line.number, parsed


def _broken(path: Path, line: int, why: str, skipped: SkippedRows | None) -> None:
    if skipped is None:
        raise TraceError(
            f"{path}, line {line}: {why} (--skip-broken leaves such rows out and counts them)"
        )
    skipped.add(line, why)
