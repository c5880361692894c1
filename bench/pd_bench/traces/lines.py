"""The lines of a trace file, plain or gzip, in bounded memory however long the file or a line."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pd_core.errors import TraceError

__all__ = ["MAX_LINE_BYTES", "Line", "trace_lines"]

MAX_LINE_BYTES = 1 << 20
"""A longer line is broken: a row of a million prompt tokens takes about 25 kB."""

_GZIP = b"\x1f\x8b"
_OTHERS = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


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
    to skip it. CRLF and a byte order mark are removed.

    Raises:
        TraceError: there is no such plain file, or it cannot be read or unpacked.
    """
    number = 0
    with _opened(path) as file:
        try:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) > MAX_LINE_BYTES:
                    _skip_to_line_end(file, data)
                    yield Line(number, "", f"is longer than {MAX_LINE_BYTES} bytes")
                    continue
                try:
                    text = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    yield Line(number, "", "is not UTF-8 text")
                else:
                    yield Line(number, text.rstrip("\r\n"))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise TraceError(
                f"{path}, line {number + 1}: the gzip file is cut short or damaged; get it again"
            ) from None
        except OSError as error:
            raise TraceError(
                f"{path}, line {number + 1}: cannot be read: {error.strerror}"
            ) from None


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
        start = plain.read(8)
        plain.seek(0)
        for magic, name in _OTHERS.items():
            if start.startswith(magic):
                raise TraceError(
                    f"{path}: the file is compressed by {name}; unpack it, or use gzip"
                )
        if start.startswith(_GZIP):
            with gzip.GzipFile(fileobj=plain) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield plain
