"""A chat's messages, checked and converted to plain text."""

from collections.abc import Sequence
from typing import Any

from pd_device_client.api.completions.parameters import Message
from pd_device_client.api.http.errors import Refusal

__all__ = ["plain_messages"]

# OpenAI has called the system role "developer" since 2024; templates know the old name.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def plain_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return messages as templates take them; several text parts are joined by line breaks.

    Raises:
        Refusal: a role is unknown, a content is missing, or a part is not text.
    """
    return [_plain(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _plain(message: Message, where: str) -> dict[str, str]:
    role = _ROLES.get(message.role)
    if role is None:
        raise Refusal(
            f"{where}.role is {message.role[:40]!a}; it must be system, developer, user or "
            "assistant (tools are not supported)",
            f"{where}.role",
        )
    content = message.content
    if content is None:
        if role != "assistant":
            raise Refusal(f"{where}.content is missing; a message needs text", f"{where}.content")
        content = ""
    if isinstance(content, list):
        content = "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    return {"role": role, "content": content}


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
