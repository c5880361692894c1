"""The lines of a trace file, plain or gzip, in bounded memory however long the file or a line."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pd_bench.traces.utf16 import UTF16_MARKS, Utf16AsUtf8
from pd_core.errors import TraceError

__all__ = ["MAX_LINE_BYTES", "Line", "trace_lines"]

MAX_LINE_BYTES = 1 << 20
"""A longer line is broken: a row of a million prompt tokens takes about 25 kB."""

_GZIP = b"\x1f\x8b"
_UNPACK = "unpack it, or use gzip"
_OTHERS = {
    b"PK\x03\x04": f"compressed by zip; {_UNPACK}; a spreadsheet is such a file, save it as CSV",
    b"\x28\xb5\x2f\xfd": f"compressed by zstd; {_UNPACK}",
    b"\xfd7zXZ": f"compressed by xz; {_UNPACK}",
    b"BZh": f"compressed by bzip2; {_UNPACK}",
    b"PAR1": "in Parquet's format; write it as CSV or JSON lines",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; save it as CSV",
}


class Line(NamedTuple):
    """One line.

    Attributes:
        number: line number, from 1.
        text: the line without its end; "" when there is a problem.
        problem: why it cannot be read, or None.
    """

    number: int
    text: str
    problem: str | None = None


def trace_lines(path: Path) -> Iterator[Line]:
    """Yield every line, without holding the file in memory.

    A line that is too long or not text is yielded with its problem, so that the caller can decide
    to skip it. CRLF and a byte order mark are removed; UTF-16 with such a mark is text too.

    Raises:
        TraceError: there is no such plain file, or it cannot be read or unpacked.
    """
    number = 0
    try:
        with _opened(path) as file:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield _line(file, number, data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise TraceError(
            f"{path}, line {number + 1}: the gzip file is cut short or damaged; get it again"
        ) from None
    except OSError as error:
        raise TraceError(f"{path}, line {number + 1}: cannot be read: {error.strerror}") from None


def _line(file: BinaryIO, number: int, data: bytes) -> Line:
    if len(data) > MAX_LINE_BYTES:
        _skip_to_line_end(file, data)
        return Line(number, "", f"is longer than {MAX_LINE_BYTES} bytes{_why(data)}")
    try:
        text = data.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        return Line(number, "", "is not UTF-8 text; save the file as UTF-8")
    return Line(number, text.rstrip("\r\n"))


def _why(data: bytes) -> str:
    """Say what may have made a line so long."""
    if b"\r" in data[:-1]:
        return ", with carriage returns in it; save the file with line ends of LF or CRLF"
    return "; a row is one line, and needs no text of its prompt"


def _skip_to_line_end(file: BinaryIO, data: bytes) -> None:
    while data and not data.endswith(b"\n"):
        data = file.readline(MAX_LINE_BYTES)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise TraceError(f"{path}: this is a directory; name one trace file in it")
    if not path.exists():
        raise TraceError(f"{path}: there is no such file")
    if not path.is_file():
        raise TraceError(f"{path}: this is not a plain file")
    try:
        plain = path.open("rb")
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None
    with plain:
        start = _start(plain)
        for magic, what in _OTHERS.items():
            if start.startswith(magic):
                raise TraceError(f"{path}: the file is {what}")
        if start.startswith(_GZIP):
            with gzip.GzipFile(fileobj=plain) as unpacked:
                yield _as_utf8(cast(BinaryIO, unpacked))
        else:
            yield _as_utf8(plain)


def _as_utf8(file: BinaryIO) -> BinaryIO:
    if (encoding := UTF16_MARKS.get(_start(file)[:2])) is None:
        return file
    file.seek(2)
    return io.BufferedReader(Utf16AsUtf8(file, encoding))


def _start(file: BinaryIO) -> bytes:
    start = file.read(8)
    file.seek(0)
    return start
