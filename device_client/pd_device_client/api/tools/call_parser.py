"""Finds calls of functions in an answer's text."""

from collections.abc import Callable, Collection

from pd_device_client.api.tools.call_readers import CallHeading, CallObject, CallReader
from pd_device_client.api.tools.families import Family
from pd_device_client.api.tools.json_scan import Scan
from pd_device_client.api.tools.parts import (
    Part,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
    joined,
)

__all__ = ["CallParser"]

_SPACE = " \t\r\n"
_BETWEEN = _SPACE + "[],;"
_MAX_HELD = 1 << 16  # characters of what may become a call; with more it is text


class CallParser:
    """Splits a text into what is shown and the calls in it.

    It reads one character after the other, so the parts do not depend on how the text comes in
    pieces. What may become a call is held back until the function's name is known; what becomes
    none is text. White space next to calls belongs to them, unless it stands between two texts.

    Args:
        family: how calls are written.
        names: of the functions that there are; nothing else can be called.
        call_id: returns a call's id by its number.
        parallel: every call counts; False: the first alone, and further ones are left out.
    """

    def __init__(
        self,
        family: Family,
        names: Collection[str],
        call_id: Callable[[int], str],
        *,
        parallel: bool = True,
    ) -> None:
        self._family = family
        self._names = names
        self._call_id = call_id
        self._most_calls = None if parallel else 1
        self._parts: list[Part] = []
        self._take: Callable[[str], None] = self._in_text
        # Of the text.
        self._space = ""  # held back
        self._opener = ""  # what was taken of one
        self._line_start = True
        self._any_text = self._after_call = False
        # Behind an opener.
        self._held = ""  # since the opener, or since the last call
        self._closer = self._closing = ""  # of this opener, and what was taken of it
        self._calls_here = self._num_calls = 0
        self._reader: CallReader = CallObject(names)
        self._begun = False  # the reader's call

    def push(self, text: str) -> list[Part]:
        """See `PartsParser`."""
        for character in text:
            self._take(character)
        return self._given()

    def end(self) -> list[Part]:
        """See `PartsParser`."""
        if self._take != self._in_text:
            self._leave()
        self._show(self._opener)
        if not self._after_call and self._space:
            self._parts.append(TextPart(self._space))
        return self._given()

    def _given(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return joined(parts)

    # Text

    def _in_text(self, character: str) -> None:
        opener, self._opener = self._opener + character, ""
        while opener:
            if opener in self._family.brackets:
                self._open(opener)
                return
            if any(whole.startswith(opener) for whole in self._family.brackets):
                self._opener = opener
                return
            self._in_plain_text(opener[0])
            opener = opener[1:]

    def _in_plain_text(self, character: str) -> None:
        if character in _SPACE:
            self._space += character
            self._line_start = self._line_start or character == "\n"
        elif self._family.bare and self._line_start and character in "{[":
            self._open("")
            self._in_body(character)
        else:
            self._show(character)

    def _show(self, text: str) -> None:
        if not text:
            return
        if self._any_text or not self._after_call:
            text = self._space + text
        self._parts.append(TextPart(text))
        self._space, self._any_text, self._after_call = "", True, False
        self._line_start = text.endswith("\n")

    # Behind an opener

    def _open(self, opener: str) -> None:
        self._held, self._calls_here = opener, 0
        self._closer, self._closing = self._family.brackets.get(opener, ""), ""
        self._take = self._in_body

    def _in_body(self, character: str) -> None:
        """Take what stands before, between and behind calls."""
        closing = self._closing + character
        if closing == self._closer:
            self._held += character
            self._leave(closed=True)
        elif self._closer.startswith(closing):
            self._held, self._closing = self._held + character, closing
        elif self._closing:
            self._leave_before(character)
        elif character == "{":
            self._begin(CallObject(self._names), character)
        elif self._family.headed and (character.isalpha() or character == "_"):
            self._begin(CallHeading(self._names), character)
        elif self._between(character):
            self._held += character
        else:
            self._leave_before(character)

    def _between(self, character: str) -> bool:
        """Return whether a character may stand outside calls; an array begins before the first."""
        if character == "[" and self._calls_here:
            return False
        return character in _BETWEEN and len(self._held) < _MAX_HELD

    def _leave_before(self, character: str) -> None:
        self._leave()
        self._take(character)

    def _leave(self, *, closed: bool = False) -> None:
        """Go back to the text; what was held is text, unless a call makes it a part of calls."""
        held, self._held = self._held, ""
        self._take, self._begun = self._in_text, False
        if self._calls_here:
            held = "" if closed else held
            rest = held.lstrip(_SPACE)
            self._space, held = held[: len(held) - len(rest)], rest.lstrip(_SPACE + "]")
            self._line_start = True
        self._show(held)

    # In a call

    def _begin(self, reader: CallReader, character: str) -> None:
        self._reader, self._begun = reader, False
        self._take = self._in_call
        self._in_call(character)

    def _in_call(self, character: str) -> None:
        scan = self._reader.take(character)
        if self._reader.name and not self._begun:
            self._start_call()
        if not self._begun:
            if scan is Scan.WRONG or len(self._held) >= _MAX_HELD:
                self._leave_before(character)
            else:
                self._held += character
            return
        if arguments := self._reader.arguments():
            self._give(ToolCallArguments(self._num_calls - 1, arguments))
        if scan is not Scan.MORE:  # a call that is written wrong ends where it is wrong
            self._take, self._begun = self._in_body, False
            if scan is not Scan.LAST:
                self._in_body(character)

    def _start_call(self) -> None:
        index, self._num_calls = self._num_calls, self._num_calls + 1
        self._calls_here += 1
        self._begun, self._after_call = True, True
        self._held = self._space = self._closing = ""
        self._give(ToolCallStart(index, self._call_id(index), self._reader.name))

    def _give(self, part: ToolCallStart | ToolCallArguments) -> None:
        if self._most_calls is None or part.index < self._most_calls:
            self._parts.append(part)
