"""A server that streams scripted bytes at scripted times, without a socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pd_bench.endpoint.http_pool import Reply, text_lines, whole_text


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


class ScriptedHttp:
    """Answers every request by the same steps of (seconds to wait, bytes to send).

    `bodies` records what was asked.
    """

    def __init__(self, steps: Sequence[tuple[float, bytes]], status: int = 200) -> None:
        self._steps = steps
        self._status = status
        self.bodies: list[dict[str, Any]] = []

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[Reply]:
        """Record what is asked, and begin the answer."""
        assert (method, path) == (("GET", "models") if body is None else ("POST", "completions"))
        self.bodies.append(body or {})
        yield ScriptedReply(self._status, self._steps)

    async def close(self) -> None:
        """Close nothing."""


class ScriptedReply:
    """A body that comes in steps."""

    def __init__(self, status: int, steps: Sequence[tuple[float, bytes]]) -> None:
        self.status = status
        self._steps = steps

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield the lines as the steps complete them."""
        async with aclosing(self._parts()) as parts, aclosing(text_lines(parts)) as lines:
            async for line in lines:
                yield line

    async def text(self) -> str:
        """Return the whole body."""
        async with aclosing(self._parts()) as parts:
            return await whole_text(parts)

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        for wait_s, data in self._steps:
            await asyncio.sleep(wait_s)
            yield data
