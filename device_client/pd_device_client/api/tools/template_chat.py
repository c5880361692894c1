"""A chat with functions in the form that a model's own template takes."""

import json
from collections.abc import Sequence
from typing import Any

from pd_core.text.tool_style import ToolStyle
from pd_device_client.api.tools.call_ids import nine_letters
from pd_device_client.api.tools.turns import Call, Turn

__all__ = ["template_messages"]


def template_messages(
    turns: Sequence[Turn], style: ToolStyle, *, short_ids: bool = False
) -> list[dict[str, Any]]:
    """Return a template's messages.

    Args:
        turns: the chat.
        style: what the template takes.
        short_ids: ids of calls have nine letters and digits.
    """
    return [_message(turn, style, short_ids=short_ids) for turn in turns]


def _message(turn: Turn, style: ToolStyle, *, short_ids: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text or ""}
    if turn.reasoning is not None:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        if not turn.text and style.null_content:
            message["content"] = None
        message["tool_calls"] = [
            {
                "id": nine_letters(call.call_id) if short_ids else call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call, style)},
            }
            for call in turn.calls
        ]
    if (call := turn.answers) is not None:
        call_id = nine_letters(call.call_id) if short_ids else call.call_id
        message |= {"tool_call_id": call_id, "name": call.name}
    return message


def _arguments(call: Call, style: ToolStyle) -> Any:
    """Return arguments as the template wants them; what is no object stays the model's text."""
    if style.text_arguments:
        return call.arguments
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return _encodable(arguments) if isinstance(arguments, dict) else call.arguments


def _encodable(value: Any) -> Any:
    """Return a JSON value without halves of surrogate pairs, which models write as escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return value
