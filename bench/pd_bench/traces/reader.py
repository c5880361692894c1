"""Traces: arrivals and lengths of requests, read row by row from a published format.

A trace has no text. A broken row is an error that names its line, since silently skipping it would
change the measured load. The caller may choose to skip broken rows, which are then counted.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from pd_bench.traces.columns import Columns
from pd_bench.traces.dialect import separator_named, whole_records
from pd_bench.traces.formats import TraceFormat, told_by
from pd_bench.traces.lines import Line, trace_lines
from pd_bench.traces.row import BLOCK_TOKENS, Parsed, TraceRow
from pd_core.errors import TraceError

__all__ = ["BLOCK_TOKENS", "SkippedRows", "TraceRow", "format_name", "read_trace"]

_KEPT_REASONS = 5
_BLANK = " ,;|\t"  # a spreadsheet writes its empty rows too


@dataclass(slots=True)
class SkippedRows:
    """Broken rows that were left out.

    Attributes:
        count: number of rows left out.
        first: line and problem of each of the first few.
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
        """A sentence on the rows left out."""
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count} broken rows of the trace left out ({'; '.join(self.first)}{more})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The label; empty if no row was left out."""
        return (self.label,) if self.count else ()


def read_trace(
    path: Path,
    limit: int | None = None,
    *,
    skipped: SkippedRows | None = None,
    any_order: bool = False,
    columns: Columns | None = None,
) -> Iterator[TraceRow]:
    """Yield the rows of a trace in order, without holding the file in memory.

    Args:
        path: a plain or gzip file in one of the formats of `pd_bench.traces.formats`.
        limit: stop after this many rows, and do not read further.
        skipped: leave broken rows out and count them here; without it they are errors. A row
            that arrives before the one above it is also broken.
        any_order: accept rows that are not sorted by time; arrivals may then be below 0.
        columns: what the file's columns mean; None: it has one of the known formats.

    Raises:
        TraceError: the file cannot be read, its format is unknown, it has no rows, or a row is
            broken (the message names the line).
    """
    if limit is not None and limit < 1:
        raise TraceError(f"the limit of rows is {limit}; it must be 1 or more")
    # islice accepts no larger number.
    most = None if limit is None else min(limit, sys.maxsize)
    return islice(_rows(path, columns, skipped, any_order), most)


def format_name(path: Path, columns: Columns | None = None) -> str:
    """Return the name of a trace's format, after reading its first line.

    Raises:
        TraceError: the file cannot be read, or its format is unknown.
    """
    trace_format, _ = _begun(path, columns)
    return trace_format.name


def _rows(
    path: Path, columns: Columns | None, skipped: SkippedRows | None, any_order: bool
) -> Iterator[TraceRow]:
    first_ns: int | None = None
    last_ns = 0
    for line, parsed in _parsed(path, columns, skipped):
        if first_ns is None:
            first_ns = parsed.at_ns
        elif parsed.at_ns < last_ns and not any_order:
            late_s = (last_ns - parsed.at_ns) / 1e9
            why = f"arrives {late_s:g} s before the row above it; sort the trace by time"
            _broken(path, line, f"{why} (pd-bench trace convert --sort)", skipped)
            continue
        last_ns = parsed.at_ns
        yield TraceRow(line, (parsed.at_ns - first_ns) / 1e9, *parsed[1:])
    if first_ns is None:
        raise TraceError(f"{path}: the trace has no rows")


def _parsed(
    path: Path, columns: Columns | None, skipped: SkippedRows | None
) -> Iterator[tuple[int, Parsed]]:
    """Yield (line number, parsed row)."""
    trace_format, lines = _begun(path, columns)
    empty_line: int | None = None
    if trace_format.delimiter is not None:
        lines = whole_records(lines, trace_format.delimiter)
    for line in lines:
        if _is_blank(line):
            empty_line = empty_line or line.number
            continue
        if empty_line is not None:
            _broken(path, empty_line, "is empty, yet rows follow it; take it out", skipped)
            empty_line = None
        yield from _row(path, line, trace_format, skipped)


def _begun(path: Path, columns: Columns | None) -> tuple[TraceFormat, Iterator[Line]]:
    """Return the format, which the first line determines, and the lines of the rows."""
    lines = trace_lines(path)
    first = _first(lines)
    delimiter = None if first is None else separator_named(first.text)
    if delimiter is not None:
        first = _first(lines)
    if first is None:
        raise TraceError(f"{path}: the file is empty; it has neither a header nor a row")
    try:
        if first.problem is not None:
            raise ValueError(first.problem)
        trace_format = told_by(first.text, columns, delimiter)
    except ValueError as error:
        raise TraceError(f"{path}, line {first.number}: {error}") from None
    return trace_format, lines if trace_format.has_header else chain([first], lines)


def _first(lines: Iterator[Line]) -> Line | None:
    return next((line for line in lines if not _is_blank(line)), None)


def _is_blank(line: Line) -> bool:
    return line.problem is None and not line.text.strip(_BLANK)


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
