"""HTTP as an endpoint's client speaks it: a request, the status, the body's lines as they come.

By aiohttp: what a client itself takes before the first token counts as the server's TTFT, and
that is half of what httpx takes.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp

from pd_core.errors import CloudTimeout, CloudUnavailable, ProtocolError

__all__ = ["Http", "HttpPool", "Reply", "text_lines", "whole_text"]

_CONNECT_S = 10.0
_MAX_LINE_BYTES = 16 << 20
_MAX_TEXT_BYTES = 4 << 20


class Reply(Protocol):
    """A server's answer, its body still to be read."""

    @property
    def status(self) -> int:
        """The status code."""

    def lines(self) -> AsyncGenerator[str, None]:
        """Yield the body's lines, without their ends, as they come."""

    async def text(self) -> str:
        """Read the whole body.

        Raises:
            ProtocolError: it is endless.
        """


class Http(Protocol):
    """Where requests go; every one has its connection."""

    def request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request, and return when the answer's head is there.

        Args:
            method: GET or POST.
            path: below the server's base, such as "completions".
            body: sent as JSON.

        Raises:
            CloudTimeout: no connection in time.
            CloudUnavailable: the server cannot be reached, or broke off; inside the context too.
        """

    async def close(self) -> None:
        """Close every connection."""


class HttpPool:
    """The network. Make it where a loop runs.

    Args:
        base_url: such as "http://127.0.0.1:8000/v1".
        api_key: bearer key, or None.
    """

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self._session = aiohttp.ClientSession(
            base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # Another device each: every request opens a connection of its own.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            trust_env=True,
        )

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request; see `Http`."""
        sending = self._session.request(method, path, json=body, allow_redirects=False)
        try:
            async with sending as response:
                yield _PoolReply(response)
        except aiohttp.ServerTimeoutError as error:
            raise CloudTimeout(f"the server did not answer: {type(error).__name__}") from None
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise CloudUnavailable(f"the server cannot be reached: {why}") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


class _PoolReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def lines(self) -> AsyncGenerator[str, None]:
        return text_lines(self._response.content.iter_any())

    async def text(self) -> str:
        return await whole_text(self._response.content.iter_any())


async def whole_text(parts: AsyncIterable[bytes]) -> str:
    """Return a body that comes in parts.

    Raises:
        ProtocolError: it is endless.
    """
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > _MAX_TEXT_BYTES:
            raise ProtocolError(f"the server sent a body of more than {_MAX_TEXT_BYTES} bytes")
    return body.decode(errors="replace")


async def text_lines(parts: AsyncIterable[bytes]) -> AsyncGenerator[str, None]:
    """Yield the lines of a body that comes in parts, without their ends.

    Raises:
        ProtocolError: a line is endless.
    """
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > _MAX_LINE_BYTES:
            raise ProtocolError(f"the server sent a line of more than {_MAX_LINE_BYTES} bytes")
    if rest:
        yield rest.decode(errors="replace")
