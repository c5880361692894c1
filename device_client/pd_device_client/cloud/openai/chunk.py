"""One event of a stream, in the forms that servers give it."""

from dataclasses import dataclass
from typing import Any

from pd_core.errors import CloudUnavailable, ProtocolError, RequestError
from pd_core.generation import FinishReason

__all__ = ["Chunk", "chat_chunk", "completion_chunk", "llama_chunk"]

_MOST_ID = 2**31 - 1
_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}
_FAILURES = ("abort", "error")
_STOP_TYPES = {
    "eos": FinishReason.STOP,
    "word": FinishReason.STOP,
    "limit": FinishReason.LENGTH,
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What an event adds to an answer.

    Attributes:
        text: its text.
        token_ids: its ids; None where the server gives none.
        reason: why the answer ended; None while it goes on.
        model: the model's name as the server says it; "" if it does not.
        made: tokens of the whole answer by the server's count; None if it does not say.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    reason: FinishReason | None = None
    model: str = ""
    made: int | None = None


def completion_chunk(event: dict[str, Any]) -> Chunk:
    """Read an event of /v1/completions.

    Raises:
        ProtocolError: it is none.
        RequestError: the server ended the answer for a reason of its own.
        CloudUnavailable: the server failed.
    """
    choice = _choice(event)
    return Chunk(
        _text(choice.get("text")),
        _ids(choice.get("token_ids")),
        _reason(choice.get("finish_reason")),
        _text(event.get("model")),
        _made(event),
    )


def chat_chunk(event: dict[str, Any]) -> Chunk:
    """Read an event of /v1/chat/completions; raises as `completion_chunk`.

    What a model thinks is no part of the answer.
    """
    choice = _choice(event)
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise _wrong("a delta is no object")
    return Chunk(
        _text(delta.get("content")),
        None,
        _reason(choice.get("finish_reason")),
        _text(event.get("model")),
        _made(event),
    )


def llama_chunk(event: dict[str, Any]) -> Chunk:
    """Read an event of llama-server's /completion; raises as `completion_chunk`."""
    reason = None
    if event.get("stop") is True:
        kind = event.get("stop_type", "eos" if event.get("stopped_eos") else "limit")
        reason = _STOP_TYPES.get(kind) if isinstance(kind, str) else None
        if reason is None:
            raise _wrong("it ended for an unknown reason")
    predicted = event.get("tokens_predicted") if reason is not None else None
    return Chunk(
        _text(event.get("content")),
        _ids(event.get("tokens")),
        reason,
        _text(event.get("model")),
        predicted if type(predicted) is int and 0 <= predicted <= _MOST_ID else None,
    )


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise _wrong("an event has no choices")
    choice = choices[0] if choices else {}
    if not isinstance(choice, dict):
        raise _wrong("a choice is no object")
    return choice


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong("a text is none")
    return value


def _ids(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i <= _MOST_ID for i in value):
        raise _wrong("its token ids are none")
    return tuple(value)


def _reason(value: Any) -> FinishReason | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _wrong("it ended for a reason that is no text")
    if value in _FAILURES:
        raise CloudUnavailable(f"the cloud broke the answer off ({value!a})")
    if value not in _REASONS:
        raise RequestError(f"the cloud ended the answer by itself ({value[:40]!a})")
    return _REASONS[value]


def _made(event: dict[str, Any]) -> int | None:
    usage = event.get("usage")
    made = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return made if type(made) is int and 0 <= made <= _MOST_ID else None


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(f"the cloud's stream cannot be read: {what}")
