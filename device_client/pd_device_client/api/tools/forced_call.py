"""Answers that are nothing but one function's arguments, or calls, as they can be nothing else."""

from collections.abc import Callable

from pd_device_client.api.tools.parts import (
    Part,
    PartsParser,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
)

__all__ = ["ForcedCallParser", "ForcedCallsParser"]


class ForcedCallParser:
    """Takes all text for the arguments of one call, which begins with the first of it.

    Args:
        name: the function's.
        call_id: returns a call's id by its number.
    """

    def __init__(self, name: str, call_id: Callable[[int], str]) -> None:
        self._start: Part | None = ToolCallStart(0, call_id(0), name)
        self._space = ""  # held back: at the end it is none of the arguments

    def push(self, text: str) -> list[Part]:
        """See `PartsParser`."""
        text = self._space + text if self._start is None else text.lstrip()
        stripped = text.rstrip()
        self._space = text[len(stripped) :]
        if not stripped:
            return []
        arguments = ToolCallArguments(0, stripped)
        start, self._start = self._start, None
        return [arguments] if start is None else [start, arguments]

    def end(self) -> list[Part]:
        """See `PartsParser`."""
        return []


class ForcedCallsParser:
    """Takes the calls of an answer that has nothing else.

    An answer that is cut off inside a call, before its function is known, has text left that is
    no call. It is half of one, and nothing for a reader.

    Args:
        calls: finds the calls.
    """

    def __init__(self, calls: PartsParser) -> None:
        self._calls = calls

    def push(self, text: str) -> list[Part]:
        """See `PartsParser`."""
        return _without_text(self._calls.push(text))

    def end(self) -> list[Part]:
        """See `PartsParser`."""
        return _without_text(self._calls.end())


def _without_text(parts: list[Part]) -> list[Part]:
    return [part for part in parts if not isinstance(part, TextPart)]
