"""One call of a function, read character by character as models write it."""

import re
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Protocol

from pd_device_client.api.tools.json_scan import JsonString, JsonValue, Scan

__all__ = ["CallHeading", "CallObject", "CallReader"]

_SPACE = " \t\r\n"
_ARGUMENTS = frozenset({"arguments", "parameters"})
_NO_ARGUMENTS = "{}"
_HEADING = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*")
_MAX_HEADING = 256  # characters


class CallReader(Protocol):
    """Reads a call.

    Attributes:
        name: the function's name as soon as this is known to be a call, before that "".
    """

    name: str

    def take(self, character: str) -> Scan:
        """Take the next character; LAST ends the call.

        WRONG is no character of the call: as long as it has no name, this is none at all.
        """
        ...

    def arguments(self) -> str:
        """Return the text of the arguments that is new since the last time."""
        ...


class _At(Enum):
    """What comes next in an object."""

    BRACE = auto()
    KEY = auto()
    IN_KEY = auto()
    COLON = auto()
    VALUE = auto()
    IN_VALUE = auto()
    COMMA = auto()


class CallObject:
    """A call as a JSON object: {"name": ..., "arguments": {...}}, perhaps with other keys.

    The arguments may also stand under "parameters", before the name, as a string that holds an
    object, or not at all. An object that names no function that there is, is no call.

    Args:
        names: of the functions that there are.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.name = ""
        self._names = names
        self._at = _At.BRACE
        self._key = ""
        self._called = ""  # the name, as far as it was read
        self._has_arguments = False  # they have begun
        self._any, self._new = False, ""  # text of theirs
        self._string, self._value = JsonString(), JsonValue()
        self._take_in: Callable[[str], Scan] = self._in_other

    def take(self, character: str) -> Scan:
        """See `CallReader`."""
        match self._at:
            case _At.IN_KEY:
                self._key += self._string.take(character)
                self._at = _At.COLON if self._string.closed else _At.IN_KEY
            case _At.IN_VALUE:
                return self._take_in(character)
            case _ if character in _SPACE:
                pass
            case _At.VALUE:
                return self._begin_value(character)
            case _At.KEY | _At.COMMA if character == "}":
                return self._close()
            case _:
                return self._take_mark(character)
        return Scan.MORE

    def arguments(self) -> str:
        """See `CallReader`."""
        if not self.name:
            return ""
        new, self._new = self._new, ""
        return new

    def _take_mark(self, character: str) -> Scan:
        match self._at, character:
            case _At.BRACE, "{":
                self._at = _At.KEY
            case _At.KEY, '"':
                self._at, self._key, self._string = _At.IN_KEY, "", JsonString()
            case _At.COLON, ":":
                self._at = _At.VALUE
            case _At.COMMA, ",":
                self._at = _At.KEY
            case _:
                return Scan.WRONG
        return Scan.MORE

    def _begin_value(self, character: str) -> Scan:
        self._at, self._string, self._value = _At.IN_VALUE, JsonString(), JsonValue()
        self._take_in = self._in_other
        if self._key == "name" and not self._called:
            self._take_in = self._in_name
            return Scan.MORE if character == '"' else Scan.WRONG
        if self._key in _ARGUMENTS and not self._has_arguments:
            if character not in '{"n':
                return Scan.WRONG
            self._has_arguments = True
            self._reveal()
            if character == '"':
                self._take_in = self._in_text
                return Scan.MORE
            if character == "{":
                self._take_in = self._in_raw
        return self._take_in(character)

    def _in_name(self, character: str) -> Scan:
        self._called += self._string.take(character)
        if self._string.closed:
            if self._called not in self._names:
                return Scan.WRONG
            self._at = _At.COMMA
            self._reveal()
        return Scan.MORE

    def _in_text(self, character: str) -> Scan:
        self._add(self._string.take(character))
        if self._string.closed:
            self._at = _At.COMMA
        return Scan.MORE

    def _in_raw(self, character: str) -> Scan:
        scan = self._value.take(character)
        if scan is Scan.WRONG:
            return scan
        self._add(character)
        if scan is Scan.LAST:
            self._at = _At.COMMA
        return Scan.MORE

    def _in_other(self, character: str) -> Scan:
        scan = self._value.take(character)
        if scan is Scan.PAST:
            self._at = _At.COMMA
            return self.take(character)
        if scan is Scan.LAST:
            self._at = _At.COMMA
            return Scan.MORE
        return scan

    def _add(self, text: str) -> None:
        self._new += text
        self._any = self._any or bool(text)

    def _reveal(self) -> None:
        if self._has_arguments and self._called in self._names:
            self.name = self._called

    def _close(self) -> Scan:
        if self._called not in self._names:
            return Scan.WRONG
        self._has_arguments = True
        self._reveal()
        if not self._any:
            self._add(_NO_ARGUMENTS)
        return Scan.LAST


class CallHeading:
    """A call as newer Mistral models write it: NAME[ARGS]{...}, perhaps with [CALL_ID]ID between.

    Args:
        names: of the functions that there are.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.name = ""
        self._names = names
        self._heading = ""
        self._value = JsonValue()
        self._new = ""

    def take(self, character: str) -> Scan:
        """See `CallReader`."""
        if not self.name and not self._take_heading(character):
            return Scan.MORE if len(self._heading) <= _MAX_HEADING else Scan.WRONG
        if not self.name:
            return Scan.WRONG
        scan = self._value.take(character)
        if scan is not Scan.WRONG:
            self._new += character
        return scan

    def arguments(self) -> str:
        """See `CallReader`."""
        new, self._new = self._new, ""
        return new

    def _take_heading(self, character: str) -> bool:
        """Return whether the heading ends before this character."""
        if character != "{":
            self._heading += character
            return False
        found = _HEADING.fullmatch(self._heading)
        if found and found[1] in self._names:
            self.name = found[1]
        return True
