"""An answer's parts as OpenAI's clients expect them: in a message, and in a stream's delta."""

from collections.abc import Sequence
from typing import Any

from pd_device_client.api.tools.parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
)

__all__ = ["message_content", "message_delta", "text_of"]


def text_of(parts: Sequence[Part]) -> str:
    """Return the text that a reader is shown."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def message_content(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what a message says: its content, its thoughts, and its calls.

    The content is None where a message has only calls.
    """
    text, calls = text_of(parts), _calls(parts)
    content: dict[str, Any] = {"content": text if text or not calls else None, **_thoughts(parts)}
    if calls:
        content["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": call["function"]} for call in calls
        ]
    return content


def message_delta(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what a delta adds: each call's id and name once, its arguments in pieces."""
    text, calls, delta = text_of(parts), _calls(parts), _thoughts(parts)
    if text or not (calls or delta):
        delta = {"content": text, **delta}
    return {**delta, "tool_calls": calls} if calls else delta


def _thoughts(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the thoughts under both names that clients look for; nothing without any."""
    text = "".join(part.text for part in parts if isinstance(part, ReasoningPart))
    return {"reasoning": text, "reasoning_content": text} if text else {}


def _calls(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the parts of calls, each call's joined; id, type and name come with its start."""
    calls = dict[int, dict[str, Any]]()
    for part in parts:
        if isinstance(part, ToolCallStart):
            calls[part.index] = {
                "index": part.index,
                "id": part.call_id,
                "type": "function",
                "function": {"name": part.name, "arguments": ""},
            }
        elif isinstance(part, ToolCallArguments):
            fresh = {"index": part.index, "function": {"arguments": ""}}
            call = calls.setdefault(part.index, fresh)
            call["function"]["arguments"] += part.text
    return list(calls.values())
