"""From the items of /v1/responses to the messages of a chat."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pd_device_client.api.http.errors import Refusal

__all__ = ["Conversation", "input_items"]

_TEXTS = ("input_text", "output_text", "text")


def input_items(given: str | Sequence[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Return an input's items, each with a type and an id.

    Args:
        given: as in the request.
        prefix: of the ids of those that have none.
    """
    items = given
    if isinstance(items, str):
        content = [{"type": "input_text", "text": items}]
        items = [{"role": "user", "content": content, "status": "completed"}]
    return [
        {"id": f"{prefix}_{i}", **_typed(item)} if item.get("id") is None else _typed(item)
        for i, item in enumerate(items)
    ]


def _typed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", **item} if "role" in item else item


@dataclass(slots=True)
class Conversation:
    """Messages of a chat, made of items one after the other.

    Attributes:
        messages: the messages.
        sources: for each the path of the item that it began with.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(self, item: dict[str, Any], where: str) -> None:
        """Add an item.

        Args:
            item: a message, a function's call or its output, or reasoning.
            where: its path, for refusals.

        Raises:
            Refusal: it is of another type, or lacks something.
        """
        kind = item.get("type")
        if kind == "message":
            role = item.get("role")
            content = _content(item.get("content"), f"{where}.content")
            self._append({"role": role, "content": content}, where)
        elif kind == "function_call":
            self._add_call(item, where)
        elif kind == "function_call_output":
            output = _content(item.get("output"), f"{where}.output")
            call_id = _text(item, "call_id", where)
            self._append({"role": "tool", "tool_call_id": call_id, "content": output}, where)
        elif kind != "reasoning":  # a model's earlier thoughts are no part of its next prompt
            raise Refusal(
                f"{where}.type is {str(kind)[:40]!a}; items are message, function_call, "
                "function_call_output and reasoning here",
                f"{where}.type",
            )

    def _append(self, message: dict[str, Any], where: str) -> None:
        self.messages.append(message)
        self.sources.append(where)

    def _add_call(self, item: dict[str, Any], where: str) -> None:
        function = {
            "name": _text(item, "name", where),
            "arguments": _text(item, "arguments", where),
        }
        call = {"id": _text(item, "call_id", where), "type": "function", "function": function}
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant":
            self._append({"role": "assistant", "content": None}, where)
        self.messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: object, where: str) -> object:
    """Return a content as a chat has it; what is wrong with it is left to the chat to say."""
    if not isinstance(content, list):
        return content
    parts = list[object]()
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "refusal":
            parts.append({"type": "text", "text": part.get("refusal")})
        elif kind in _TEXTS:
            parts.append({"type": "text", "text": part.get("text")})
        else:
            raise Refusal(
                f"{where}[{i}] is not a part of text; images, audio and files are not supported, "
                "and no address is ever fetched",
                f"{where}[{i}]",
            )
    return parts


def _text(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Refusal(f"{where}.{name} is missing; it must be text", f"{where}.{name}")
    return value
