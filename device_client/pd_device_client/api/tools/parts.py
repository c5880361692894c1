"""What an answer is made of: text, reasoning and calls of functions, in the order they come."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Part",
    "PartsParser",
    "ReasoningPart",
    "TextPart",
    "ToolCallArguments",
    "ToolCallStart",
    "joined",
]


@dataclass(frozen=True, slots=True)
class TextPart:
    """More of the text that a reader is shown."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins; it comes once for each call, before its arguments.

    Attributes:
        index: the call's number in the answer, from 0.
        call_id: its id, by which its result refers to it.
        name: the function's name.
    """

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of a call's arguments.

    Attributes:
        index: the call's number in the answer.
        text: a piece of a JSON object's text. An answer that is cut off may leave it incomplete.
    """

    index: int
    text: str


Part = TextPart | ReasoningPart | ToolCallStart | ToolCallArguments


class PartsParser(Protocol):
    """Splits one answer's text into parts, as it comes.

    However the text is cut into pieces, the parts are the same once they are `joined`.
    """

    def push(self, text: str) -> list[Part]:
        """Take more text; return the parts that are now certain."""
        ...

    def end(self) -> list[Part]:
        """Return what was held back; nothing may be pushed afterwards."""
        ...


def joined(parts: Iterable[Part]) -> list[Part]:
    """Return parts with neighbours of one kind, and of one call, put together."""
    out: list[Part] = []
    for part in parts:
        match (out[-1] if out else None), part:
            case TextPart(before), TextPart(text):
                out[-1] = TextPart(before + text)
            case ReasoningPart(before), ReasoningPart(text):
                out[-1] = ReasoningPart(before + text)
            case ToolCallArguments(one, before), ToolCallArguments(two, text) if one == two:
                out[-1] = ToolCallArguments(two, before + text)
            case _:
                out.append(part)
    return out
