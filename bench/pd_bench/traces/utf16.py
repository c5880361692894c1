"""A UTF-16 file, as spreadsheets save "Unicode text", read as UTF-8."""

import codecs
import io
from typing import BinaryIO

__all__ = ["UTF16_MARKS", "Utf16AsUtf8"]

UTF16_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""The byte order marks at a file's beginning, with their encodings."""

_CHUNK_BYTES = 1 << 16
_NEVER_UTF8 = b"\xff"


class Utf16AsUtf8(io.RawIOBase):
    """Reads a UTF-16 file in little memory; what is no text comes out as what is no UTF-8.

    Args:
        file: the file, after its byte order mark.
        encoding: one of UTF16_MARKS.
    """

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._file = file
        # Half of a pair of units is passed on: its line is then broken, and no other.
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill a buffer; return the number of bytes, 0 at the end."""
        while not self._rest and not self._ended:
            data = self._file.read(_CHUNK_BYTES)
            self._ended = not data
            text = self._decoder.decode(data)
            self._rest = text.encode("utf-8", "surrogatepass")
            if self._ended and self._decoder.getstate()[0]:
                self._rest += _NEVER_UTF8
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
