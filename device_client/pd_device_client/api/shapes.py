"""The two forms an answer takes: a chat's message, and a completion's text."""

from typing import Any, Protocol

__all__ = ["CHAT", "TEXT", "Shape"]


class Shape(Protocol):
    """How answers of one endpoint look.

    Attributes:
        id_prefix: of the answer's id.
        whole_object: what a complete answer says it is.
        chunk_object: what a chunk of a stream says it is.
    """

    id_prefix: str
    whole_object: str
    chunk_object: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return what a choice begins with in a stream, before its first text."""
        ...

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """Return a choice with more text."""
        ...

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """Return a choice that ends."""
        ...

    def whole(self, index: int, text: str, finish_reason: str) -> dict[str, Any]:
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

    def delta(self, index: int, text: str) -> dict[str, Any]:
        return _choice(index, delta={"content": text})

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, delta={})

    def whole(self, index: int, text: str, finish_reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return _choice(index, finish_reason, message=message)


class _Text:
    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def delta(self, index: int, text: str) -> dict[str, Any]:
        return _choice(index, text=text)

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, text="")

    def whole(self, index: int, text: str, finish_reason: str) -> dict[str, Any]:
        return _choice(index, finish_reason, text=text)


CHAT: Shape = _Chat()
"""Of /v1/chat/completions."""

TEXT: Shape = _Text()
"""Of /v1/completions."""
