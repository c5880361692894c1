"""JSON read character by character, as a model writes it: one value, and one string's text."""

from enum import Enum, auto

__all__ = ["JsonString", "JsonValue", "Scan"]

_OPENS = {"{": "}", "[": "]"}
_LITERAL_STARTS = frozenset("-0123456789tfn")
_LITERAL = frozenset("-+.0123456789eEtrufalsn")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = frozenset("0123456789abcdefABCDEF")
_REPLACEMENT = "\ufffd"


class Scan(Enum):
    """What a character was to a value.

    Attributes:
        MORE: it belongs to the value, which goes on.
        LAST: it belongs to the value and ends it.
        PAST: the value had ended before it.
        WRONG: no value goes on, or begins, with it.
    """

    MORE = auto()
    LAST = auto()
    PAST = auto()
    WRONG = auto()


class JsonValue:
    """Finds the end of a value.

    Inside brackets only strings and brackets are looked at, so what a model writes wrong there is
    left to whoever reads the value.
    """

    def __init__(self) -> None:
        self._closers: list[str] = []
        self._in_string = False
        self._escaped = False
        self._literal = False

    def take(self, character: str) -> Scan:
        """Take the next character, white space before the value excepted."""
        if self._in_string:
            return self._take_in_string(character)
        if self._literal:
            return Scan.MORE if character in _LITERAL else Scan.PAST
        if character == '"':
            self._in_string = True
        elif character in _OPENS:
            self._closers.append(_OPENS[character])
        elif not self._closers:
            self._literal = character in _LITERAL_STARTS
            return Scan.MORE if self._literal else Scan.WRONG
        elif character in _OPENS.values():
            if self._closers.pop() != character:
                return Scan.WRONG
            return Scan.MORE if self._closers else Scan.LAST
        return Scan.MORE

    def _take_in_string(self, character: str) -> Scan:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
            return Scan.MORE if self._closers else Scan.LAST
        return Scan.MORE


class JsonString:
    """Reads a string behind its opening quote, with its escapes.

    Half of a surrogate pair becomes U+FFFD, because no UTF-8 can hold it. What an incomplete escape
    stands for is not known before its last character, so until then it has no text.

    Attributes:
        closed: the closing quote was taken; nothing may follow.
    """

    def __init__(self) -> None:
        self.closed = False
        self._escape = ""  # from the backslash on
        self._high = 0  # the first half of a surrogate pair, waiting for the second

    def take(self, character: str) -> str:
        """Take the next character; return the text that is now known."""
        if self._escape:
            return self._take_in_escape(character)
        if character == "\\":
            self._escape = character
            return ""
        self.closed = character == '"'
        return self._lone() + ("" if self.closed else _whole(character))

    def _take_in_escape(self, character: str) -> str:
        if self._escape == "\\" and character != "u":
            self._escape = ""
            return self._lone() + _whole(_ESCAPES.get(character, character))
        if self._escape != "\\" and character not in _HEX:
            broken, self._escape = self._escape[1:], ""  # no escape: its characters are text
            return self._lone() + broken + self.take(character)
        self._escape += character
        if len(self._escape) < len("\\u0000"):
            return ""
        code, self._escape = int(self._escape[2:], 16), ""
        return self._unit(code)

    def _unit(self, code: int) -> str:
        """Return the text of a UTF-16 unit, joined with the half before it."""
        if 0xDC00 <= code < 0xE000 and self._high:
            high, self._high = self._high, 0
            return chr(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00))
        before = self._lone()
        if 0xD800 <= code < 0xDC00:
            self._high = code
            return before
        return before + _whole(chr(code))

    def _lone(self) -> str:
        """Return what stands for a first half without a second, and forget it."""
        before, self._high = (_REPLACEMENT if self._high else ""), 0
        return before


def _whole(character: str) -> str:
    return _REPLACEMENT if 0xD800 <= ord(character) < 0xE000 else character
