"""A chat's messages, checked: text, calls of functions, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pd_device_client.api.completions.message import Message
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.tools.turns import Call, Turn

__all__ = ["turns"]

# OpenAI has called the system role "developer" since 2024; templates know the old name.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def turns(messages: Sequence[Message]) -> list[Turn]:
    """Return what was said; several text parts are joined by line breaks.

    Raises:
        Refusal: a role is unknown, a content is missing, a part is not text, or a tool's message
            answers no call.
    """
    reader = _Reader()
    return [reader.turn(message, f"messages[{i}]") for i, message in enumerate(messages)]


@dataclass(slots=True)
class _Reader:
    """Reads messages in their order.

    Attributes:
        calls: those made so far, by their ids.
    """

    calls: dict[str, Call] = field(default_factory=dict)

    def turn(self, message: Message, where: str) -> Turn:
        role = _ROLES.get(message.role)
        if role is None:
            raise Refusal(
                f"{where}.role is {message.role[:40]!a}; it must be system, developer, user, "
                "assistant or tool",
                f"{where}.role",
            )
        calls = self._made(message, where)
        if calls and role != "assistant":
            raise Refusal(
                f"{where} has tool_calls; only an assistant's message has them",
                f"{where}.tool_calls",
            )
        return Turn(
            role,
            _text(message, where, needed=role != "assistant"),
            calls,
            self._answered(message, where) if role == "tool" else None,
            message.thoughts if role == "assistant" else None,
        )

    def _made(self, message: Message, where: str) -> tuple[Call, ...]:
        if message.function_call is not None:
            raise Refusal(
                f"{where}.function_call is the older form; use tool_calls", f"{where}.function_call"
            )
        made, ids = list[Call](), set[str]()
        for i, asked in enumerate(message.tool_calls or ()):
            if asked.id in ids:
                name = f"{where}.tool_calls[{i}].id"
                raise Refusal(f"{name} is that of an earlier call; give each its own", name)
            ids.add(asked.id)
            made.append(Call(asked.id, asked.function.name, asked.function.text))
        self.calls.update((call.call_id, call) for call in made)
        return tuple(made)

    def _answered(self, message: Message, where: str) -> Call:
        name = f"{where}.tool_call_id"
        if message.tool_call_id is None:
            raise Refusal(f"{name} is missing; it names the call that this answers", name)
        call = self.calls.get(message.tool_call_id)
        if call is None:
            raise Refusal(
                f"{name} is {message.tool_call_id[:80]!a}, and no earlier message has such a "
                "call; send that message too",
                name,
            )
        return call


def _text(message: Message, where: str, *, needed: bool) -> str | None:
    content = message.content
    if content is None:
        if needed:
            raise Refusal(f"{where}.content is missing; a message needs text", f"{where}.content")
        return None
    if isinstance(content, list):
        return "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    return content


def _part(part: dict[str, Any], where: str) -> str:
    if part.get("type") != "text":
        raise Refusal(
            f"{where} is not a part of text; images, audio and files are not supported, and no "
            "address is ever fetched",
            where,
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise Refusal(f"{where}.text is no text", f"{where}.text")
    return text
