"""From the messages of /v1/messages to those of a chat."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pd_device_client.api.anthropic.parameters import Turn
from pd_device_client.api.http.errors import Refusal

__all__ = ["Conversation"]


@dataclass(slots=True)
class Conversation:
    """Messages of a chat, made of turns one after the other.

    Attributes:
        messages: the messages.
        sources: for each the path of what it was made of.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add_system(self, content: str | Sequence[dict[str, Any]]) -> None:
        """Add the system text.

        Raises:
            Refusal: a block is no text.
        """
        if not isinstance(content, str):
            content = "\n".join(_text(b, f"system[{i}]") for i, b in enumerate(content))
        if content:
            self._append({"role": "system", "content": content}, "system")

    def add(self, turn: Turn, where: str) -> None:
        """Add a turn; the results of tools become messages of their own, before its text.

        Args:
            turn: the turn.
            where: its path, for refusals.

        Raises:
            Refusal: its role or a block is not supported here.
        """
        if turn.role not in ("user", "assistant"):
            raise Refusal(
                f"{where}.role is {turn.role[:40]!a}; it must be user or assistant, and what the "
                "system says goes into system",
                f"{where}.role",
            )
        if isinstance(turn.content, str):
            self._append({"role": turn.role, "content": turn.content}, where)
            return
        add = self._add_user if turn.role == "user" else self._add_assistant
        add(turn.content, f"{where}.content")

    def _append(self, message: dict[str, Any], where: str) -> None:
        self.messages.append(message)
        self.sources.append(where)

    def _add_user(self, blocks: Sequence[dict[str, Any]], where: str) -> None:
        texts = list[str]()
        for i, block in enumerate(blocks):
            place = f"{where}[{i}]"
            if block.get("type") == "tool_result":
                result = {
                    "role": "tool",
                    "tool_call_id": _string(block, "tool_use_id", place),
                    "content": _result(block.get("content"), f"{place}.content"),
                }
                self._append(result, place)
            else:
                texts.append(_text(block, place))
        if texts or not blocks:
            self._append({"role": "user", "content": "\n".join(texts)}, where)

    def _add_assistant(self, blocks: Sequence[dict[str, Any]], where: str) -> None:
        texts, calls = list[str](), list[dict[str, Any]]()
        for i, block in enumerate(blocks):
            kind, place = block.get("type"), f"{where}[{i}]"
            if kind == "tool_use":
                calls.append(_call(block, place))
            elif kind not in ("thinking", "redacted_thinking"):  # no part of a next prompt
                texts.append(_text(block, place))
        message: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        self._append(message, where)


def _call(block: dict[str, Any], where: str) -> dict[str, Any]:
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise Refusal(f"{where}.input is missing; it must be an object", f"{where}.input")
    function = {
        "name": _string(block, "name", where),
        "arguments": json.dumps(arguments, ensure_ascii=False),
    }
    return {"id": _string(block, "id", where), "type": "function", "function": function}


def _result(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(_text(block, f"{where}[{i}]") for i, block in enumerate(content))
    if not isinstance(content, str):
        raise Refusal(f"{where} must be text or blocks of text", where)
    return content


def _text(block: object, where: str) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(block, dict) or kind != "text":
        raise Refusal(
            f"{where}.type is {str(kind)[:40]!a}; blocks are text, tool_use and tool_result here: "
            "images and documents are not supported, and no address is ever fetched",
            f"{where}.type",
        )
    return _string(block, "text", where)


def _string(block: dict[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise Refusal(f"{where}.{name} is missing; it must be text", f"{where}.{name}")
    return value
