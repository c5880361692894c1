"""A streamed completion as it comes over the wire: server-sent events, read with their instants.

Only what came is kept: a chunk of several tokens is several tokens of one instant where the server
says how many they are, and one step of unknown size where it does not. Times are never spread
evenly over the tokens of a chunk.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pd_core.errors import CloudUnavailable, InvalidRequest, ProtocolError, QueueFull

__all__ = ["CompletionChunk", "completion_chunks"]

_MOST = 2**31 - 1  # ids are kept in 32 bits; no answer is longer
_END_WITHIN_S = 1.0  # after [DONE]; a server that leaves the body open is left


@dataclass(frozen=True, slots=True)
class CompletionChunk:
    """One event of a completion.

    Attributes:
        text: the text it adds.
        token_ids: the tokens it adds; None if the server does not say.
        finish_reason: "" while the answer goes on.
        output_tokens: length of the whole answer by the server's count; None if not reported.
        prompt_tokens: length of the prompt by the server's count; None if not reported.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    finish_reason: str = ""
    output_tokens: int | None = None
    prompt_tokens: int | None = None

    @property
    def adds(self) -> bool:
        """Whether a token came with it."""
        return bool(self.text) or bool(self.token_ids)


async def completion_chunks(lines: AsyncIterable[str]) -> AsyncGenerator[CompletionChunk, None]:
    """Yield the chunks of a completion until it is over.

    Args:
        lines: of the body, without their ends.

    Raises:
        CloudUnavailable: the body ended before the answer did, or the server reported an error.
        QueueFull: the server reported that it has no room.
        ProtocolError: an event is no completion.
    """
    finished = False
    async with aclosing(_events(lines)) as events:
        async for data in events:
            if data == "[DONE]":
                await _drain(events)
                return
            chunk = _chunk(data)
            finished = finished or bool(chunk.finish_reason)
            yield chunk
    if not finished:
        raise CloudUnavailable("the stream ended before the answer did: no [DONE] came")


async def _drain(events: AsyncIterable[str]) -> None:
    """Read to the body's end, which is due at once, so that the connection ends in order."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_WITHIN_S):
            async for _ in events:
                pass


async def _events(lines: AsyncIterable[str]) -> AsyncGenerator[str, None]:
    """Yield the data of each event; several data lines are one event, comments are none."""
    data: list[str] = []
    async for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data.clear()
    if data:
        yield "\n".join(data)


def _chunk(data: str) -> CompletionChunk:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError(f"an event is no JSON: {data[:80]!r}") from None
    if isinstance(event, dict) and event.get("error"):
        raise _reported(event["error"])
    chunk = _chunk_of(event)
    if chunk is None:
        raise ProtocolError(f"an event is no completion: {data[:80]!r}")
    return chunk


def _chunk_of(event: Any) -> CompletionChunk | None:
    """Return what an event says, or None when a field is not of its kind."""
    choices = event.get("choices") or [{}] if isinstance(event, dict) else None
    choice = choices[0] if isinstance(choices, list) else None
    usage = event.get("usage") or {} if isinstance(event, dict) else None
    if not (isinstance(choice, dict) and isinstance(usage, dict)):
        return None
    text, reason = choice.get("text") or "", choice.get("finish_reason") or ""
    ids = choice.get("token_ids")
    counts = usage.get("completion_tokens"), usage.get("prompt_tokens")
    if not (isinstance(text, str) and isinstance(reason, str)):
        return None
    if not (ids is None or (isinstance(ids, list) and all(map(_is_count, ids)))):
        return None
    if not all(count is None or _is_count(count) for count in counts):
        return None
    return CompletionChunk(text, None if ids is None else tuple(ids), reason, *counts)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _reported(error: Any) -> CloudUnavailable | QueueFull | InvalidRequest:
    """Return the error that a server sent in the middle of a stream."""
    message, code = str(error), ""
    if isinstance(error, dict):
        message, code = str(error.get("message", error)), str(error.get("code", ""))
    if code in ("429", "503"):
        return QueueFull(f"the server reported: {message}")
    if code.startswith("4"):
        return InvalidRequest(f"the server reported: {message}")
    return CloudUnavailable(f"the server reported: {message}")
