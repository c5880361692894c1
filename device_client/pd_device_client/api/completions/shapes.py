"""The two forms of an answer: a chat message, and a completion's text."""

from collections.abc import Sequence
from typing import Any, Protocol

from pd_device_client.api.tools.message_parts import message_content, message_delta, text_of
from pd_device_client.api.tools.parts import Part

__all__ = ["CHAT", "TEXT", "Shape"]


class Shape(Protocol):
    """The JSON form of one endpoint's answers.

    Attributes:
        id_prefix: prefix of the answer's id.
        whole_object: the key "object" of a complete answer.
        chunk_object: the key "object" of a stream's chunk.
    """

    id_prefix: str
    whole_object: str
    chunk_object: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return a choice's first delta in a stream, before any text; None: there is none."""
        ...

    def delta(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        """Return a choice with more of its parts; without any it has no text."""
        ...

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """Return a choice's last delta."""
        ...

    def whole(self, index: int, parts: Sequence[Part], finish_reason: str) -> dict[str, Any]:
        """Return a complete choice."""
        ...


def _choice(index: int, finish_reason: str | None = None, **content: object) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}


class _Chat:
    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any] | None:
        return _choice(index, delta={"role": "assistant", "content": ""})

    def delta(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        return _choice(index, delta=message_delta(parts))

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, delta={})

    def whole(self, index: int, parts: Sequence[Part], finish_reason: str) -> dict[str, Any]:
        message = {"role": "assistant", **message_content(parts), "refusal": None}
        return _choice(index, finish_reason, message=message)


class _Text:
    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def delta(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        return _choice(index, text=text_of(parts))

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, text="")

    def whole(self, index: int, parts: Sequence[Part], finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, text=text_of(parts))


CHAT: Shape = _Chat()
"""The form of /v1/chat/completions."""

TEXT: Shape = _Text()
"""The form of /v1/completions."""
