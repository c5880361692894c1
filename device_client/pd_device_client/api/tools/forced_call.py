"""An answer that is nothing but one function's arguments, because it can be nothing else."""

from collections.abc import Callable

from pd_device_client.api.tools.parts import Part, ToolCallArguments, ToolCallStart

__all__ = ["ForcedCallParser"]


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
