"""Splits what a model thinks off the answer: the text between `<think>` and `</think>`."""

from collections.abc import Callable

from pd_device_client.api.tools.parts import Part, PartsParser, ReasoningPart, TextPart, joined

__all__ = ["PlainParser", "ReasoningParser"]

_OPEN, _CLOSE = "<think>", "</think>"
_SPACE = " \t\r\n"


class PlainParser:
    """Takes all text for text."""

    def push(self, text: str) -> list[Part]:
        """See `PartsParser`."""
        return [TextPart(text)] if text else []

    def end(self) -> list[Part]:
        """See `PartsParser`."""
        return []


class ReasoningParser:
    """Takes the thoughts at an answer's beginning, and leaves what follows to another parser.

    White space next to the tags belongs to them. A tag later in the answer is text like any other,
    and thoughts without an end are thoughts to the end.

    Args:
        rest: parses the text behind the thoughts.
        begun: the prompt has opened the thoughts already, as some templates do.
    """

    def __init__(self, rest: PartsParser, *, begun: bool = False) -> None:
        self._rest = rest
        self._take: Callable[[str], list[Part]] = self._in_thoughts if begun else self._before
        self._held = ""  # white space, and what was taken of a tag
        self._any = False  # thoughts so far

    def push(self, text: str) -> list[Part]:
        """See `PartsParser`."""
        parts: list[Part] = []
        for position, character in enumerate(text):
            if self._take == self._rest.push:
                parts += self._rest.push(text[position:])
                break
            parts += self._take(character)
        return joined(parts)

    def end(self) -> list[Part]:
        """See `PartsParser`."""
        held, self._held = self._held, ""
        if self._take != self._in_thoughts:
            return joined([*self._rest.push(held), *self._rest.end()])
        return [*self._thought(held.rstrip(_SPACE)), *self._rest.end()]

    def _before(self, character: str) -> list[Part]:
        self._held += character
        tag = self._held.lstrip(_SPACE)
        if tag == _OPEN:
            self._held, self._take = "", self._in_thoughts
        elif not _OPEN.startswith(tag):
            held, self._held, self._take = self._held, "", self._rest.push
            return self._rest.push(held)
        return []

    def _in_thoughts(self, character: str) -> list[Part]:
        tag = self._held.lstrip(_SPACE)
        if _CLOSE.startswith(tag + character):
            self._held += character
            if tag + character == _CLOSE:
                self._held, self._take = "", self._behind
            return []
        if character in _SPACE and not tag:
            self._held += character
            return []
        held, self._held = self._held, ""
        if character in _SPACE or character == _CLOSE[0]:
            self._held = character
            return self._thought(held)
        return self._thought(held + character)

    def _behind(self, character: str) -> list[Part]:
        if character in _SPACE:
            return []
        self._take = self._rest.push
        return self._rest.push(character)

    def _thought(self, text: str) -> list[Part]:
        if not self._any:
            text = text.lstrip(_SPACE)
        self._any = self._any or bool(text)
        return [ReasoningPart(text)] if text else []
