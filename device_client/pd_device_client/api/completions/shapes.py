"""The two forms of an answer: a chat message, and a completion's text."""

from typing import Any, Protocol

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

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """Return a choice with more text."""
        ...

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """Return a choice's last delta."""
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
"""The form of /v1/chat/completions."""

TEXT: Shape = _Text()
"""The form of /v1/completions."""
