"""How a CSV file separates its cells: as it was published, or as a spreadsheet wrote it again."""

import csv
import re
from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple, Self

from pd_bench.traces.lines import MAX_LINE_BYTES, Line

__all__ = ["Dialect", "separator_named", "whole_records"]

_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?')
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]+")
_SHOWN_COLUMNS = 12


class Dialect(NamedTuple):
    """A file's columns and what separates them.

    Attributes:
        delimiter: one of `,` `;` tab `|`.
        columns: the header's names, in order.
    """

    delimiter: str
    columns: tuple[str, ...]

    @classmethod
    def told_by(cls, header: str, wanted: Collection[str], delimiter: str | None = None) -> Self:
        """Return the dialect whose header has the wanted columns, or else the most columns.

        Args:
            header: the header's line.
            wanted: names of columns.
            delimiter: known beforehand, from a line `sep=;`.
        """
        each = [
            cls(d, tuple(cell.strip() for cell in _cells(header, d)))
            for d in ([delimiter] if delimiter else _DELIMITERS)
        ]
        fitting = [dialect for dialect in each if set(wanted) <= set(dialect.columns)]
        return max(fitting or each, key=lambda dialect: len(dialect.columns))

    @property
    def named(self) -> str:
        """The names of its columns, for errors."""
        more = ", ..." if len(self.columns) > _SHOWN_COLUMNS else ""
        return ", ".join(repr(name[:40]) for name in self.columns[:_SHOWN_COLUMNS]) + more

    def place(self, name: str) -> int:
        """Return where a column is.

        Raises:
            ValueError: there is none of this name, or more than one.
        """
        if (found := self.columns.count(name)) != 1:
            there = "no" if not found else "more than one"
            raise ValueError(f"has {there} column {name!r}; its columns are {self.named}")
        return self.columns.index(name)

    def cells(self, text: str) -> list[str]:
        """Split a record.

        Raises:
            ValueError: it has another number of cells than the header, or cannot be split.
        """
        cells = _cells(text, self.delimiter)
        if len(cells) != len(self.columns):
            raise ValueError(f"has {len(cells)} columns; the header has {len(self.columns)}")
        return cells

    def number(self, cell: str) -> str:
        """Return a cell's number with a decimal point, where the file has decimal commas."""
        if self.delimiter != "," and _DECIMAL_COMMA.fullmatch(cell.strip()):
            return cell.replace(",", ".")
        return cell


def separator_named(text: str) -> str | None:
    """Return the delimiter that a line such as `sep=;`, written for a spreadsheet, names."""
    match = _SEPARATOR.fullmatch(text.strip(" "))
    return None if match is None else match[1]


def whole_records(lines: Iterator[Line], delimiter: str) -> Iterator[Line]:
    """Join the lines of a record whose quoted cells have line ends in them.

    A quote that never closes breaks its own line only; those after it are records again.
    """
    waiting: deque[Line] = deque()
    while True:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            return
        opened = not line.problem and _opens(line.text, delimiter)
        yield _joined(line, waiting, lines) if opened else line


def _joined(first: Line, waiting: deque[Line], lines: Iterator[Line]) -> Line:
    parts, size, taken = [first.text], len(first.text), deque[Line]()
    while size <= MAX_LINE_BYTES:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            break
        taken.append(line)
        if line.problem:
            break
        parts.append(line.text)
        size += len(line.text) + 1
        if line.text.count('"') % 2:  # quotes within quotes are doubled
            return Line(first.number, "\n".join(parts))
    waiting.extendleft(reversed(taken))
    return Line(first.number, "", "has a quote that is not closed")


def _opens(text: str, delimiter: str) -> bool:
    """Whether a record's first line ends inside quotes; a quote opens a cell only at its start,
    after spaces."""
    if '"' not in text:
        return False
    try:
        next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True), None)
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _cells(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f"cannot be split into columns: {error}") from None
