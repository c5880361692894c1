"""A server that streams scripted bytes at scripted times, without a socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx


def event(
    *,
    text: str = "",
    token_ids: Sequence[int] | None = None,
    finish_reason: str | None = None,
    usage: int | None = None,
) -> bytes:
    """One server-sent event of a completion."""
    choice: dict[str, Any] = {"text": text, "finish_reason": finish_reason}
    if token_ids is not None:
        choice["token_ids"] = list(token_ids)
    body: dict[str, Any] = {"choices": [] if usage is not None else [choice]}
    if usage is not None:
        body["usage"] = {"completion_tokens": usage}
    return f"data: {json.dumps(body)}\n\n".encode()


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Answers every request by the same steps of (seconds to wait, bytes to send).

    `bodies` records what was asked.
    """

    def __init__(self, steps: Sequence[tuple[float, bytes]], status: int = 200) -> None:
        self._steps = steps
        self._status = status
        self.bodies: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        return httpx.Response(self._status, stream=_Stream(self))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Send the steps."""
        for wait_s, data in self._steps:
            await asyncio.sleep(wait_s)
            yield data


class _Stream(httpx.AsyncByteStream):
    def __init__(self, transport: ScriptedTransport) -> None:
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._transport.stream():
            yield data
