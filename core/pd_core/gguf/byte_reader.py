"""Reading a GGUF file's header byte by byte, never past its end and never without bound."""

import struct
from reprlib import repr as _short  # a file may hold a text of megabytes

from pd_core.errors import ModelError

__all__ = ["ByteReader", "Value", "damaged"]

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
"""What a key of the header may have: one number or text, or a list of them."""

# Of one list: the largest vocabularies have a quarter, and their merges half.
_MOST_ITEMS = 1 << 20
_MOST_HEADER_BYTES = 64 << 20  # vocabulary and merges of the largest models take 15 MB
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_FLOAT32, _TEXT, _LIST = 6, 8, 9
_LENGTH = struct.Struct("<Q")


def damaged(what: str) -> ModelError:
    """Return the error about a file that cannot be what its writer wrote."""
    return ModelError(f"{what}; it is truncated or damaged: get it again from where it is from")


class ByteReader:
    """Numbers and texts one after the other, little-endian.

    Args:
        content: the file's bytes.

    Attributes:
        place: offset of the next byte.
    """

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._end = min(len(content), _MOST_HEADER_BYTES)
        self.place = 0

    def number(self, code: str) -> int | float | bool:
        """Return the next number, by the letter that `struct` has for its kind.

        Raises:
            ModelError: the file ends before it.
        """
        size = struct.calcsize(f"<{code}")
        at = self._take(size)
        value: int | float | bool = struct.unpack_from(f"<{code}", self._content, at)[0]
        return value

    def whole(self, code: str) -> int:
        """Return the next whole number.

        Raises:
            ModelError: the file ends before it.
        """
        return int(self.number(code))

    def text(self) -> str:
        """Return the next text.

        Raises:
            ModelError: the file ends before its end, or it is not UTF-8.
        """
        size = self.whole("Q")
        at = self._take(size)
        return _decoded(self._content[at : at + size])

    def value(self, kind: int) -> Value:
        """Return the next value of a kind, which is a number in the file.

        Raises:
            ModelError: there is no such kind, the value is a list of lists, or it is longer than
                the file.
        """
        if kind == _FLOAT32:
            return _shortest(float(self.number("f")))
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            return self._items(self.whole("I"), self.whole("Q"))
        raise damaged(f"a value of kind {kind}, which the format does not have")

    def _items(self, kind: int, count: int) -> Value:
        if kind != _TEXT and kind not in _SCALARS:
            raise damaged(f"a list whose items are of kind {kind}, which is not supported")
        if count > _MOST_ITEMS:
            raise damaged(f"a list of {count} items, and no model's has more than {_MOST_ITEMS}")
        if kind == _TEXT:
            return self._texts(count)
        layout = f"<{count}{_SCALARS[kind]}"
        at = self._take(struct.calcsize(layout))
        return list(struct.unpack_from(layout, self._content, at))

    def _texts(self, count: int) -> list[str]:
        """Return so many texts; a loop without calls of ours, as vocabularies are long."""
        content, at, end = self._content, self.place, self._end
        found, unpack = [], _LENGTH.unpack_from
        for _ in range(count):
            if at + 8 > end:
                self._refuse_end(at + 8)
            (size,) = unpack(content, at)
            begin, at = at + 8, at + 8 + size
            if at > end:
                self._refuse_end(at)
            found.append(_decoded(content[begin:at]))
        self.place = at
        return found

    def _take(self, size_bytes: int) -> int:
        """Move over the next bytes; return where they begin."""
        at = self.place
        if at + size_bytes > self._end:
            self._refuse_end(at + size_bytes)
        self.place = at + size_bytes
        return at

    def _refuse_end(self, wanted: int) -> None:
        if wanted > len(self._content):
            raise damaged(
                f"the file ends at byte {len(self._content)}, but its header goes on to byte "
                f"{wanted}"
            )
        raise damaged(
            f"the header is larger than {_MOST_HEADER_BYTES >> 20} MiB, and no model's is"
        )


def _decoded(part: memoryview) -> str:
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise damaged(f"a text that is not UTF-8: {_short(bytes(part))}") from error


def _shortest(number: float) -> float:
    """Return the shortest decimal that is this float32: 1e-5 is 1e-5, as in a config.json."""
    packed = struct.pack("<f", number)
    for digits in range(1, 9):
        rounded = float(f"{number:.{digits}g}")
        try:
            if struct.pack("<f", rounded) == packed:
                return rounded
        except OverflowError:  # rounded up beyond the largest
            continue
    return number
