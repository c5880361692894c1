"""HTTP for the endpoint client: a request, its status, and the body's lines as they come.

aiohttp, because the client's own time before the first token counts as the server's TTFT, and
aiohttp takes half of httpx's.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp

from pd_core.errors import CloudTimeout, CloudUnavailable, ProtocolError
from pd_core.sockets.loopback import is_loopback_url

__all__ = ["Http", "HttpPool", "Reply", "text_lines", "whole_text"]

_CONNECT_S = 10.0
_MAX_LINE_BYTES = 16 << 20
_MAX_TEXT_BYTES = 4 << 20


class Reply(Protocol):
    """A server's response, with its body still unread."""

    @property
    def status(self) -> int:
        """The status code."""

    def lines(self) -> AsyncGenerator[str, None]:
        """Yield the body's lines, without line ends, as they come."""

    async def text(self) -> str:
        """Read the whole body.

        Raises:
            ProtocolError: it is too long.
        """


class Http(Protocol):
    """Sends requests, each on a connection of its own."""

    def request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request, and return when the response's head has arrived.

        Args:
            method: GET or POST.
            path: relative to the server's base, such as "completions".
            body: sent as JSON.

        Raises:
            CloudTimeout: no connection in time.
            CloudUnavailable: the server cannot be reached, or disconnected, also in the context.
        """

    async def close(self) -> None:
        """Close every connection."""


class HttpPool:
    """The real network; create it on a running loop.

    Args:
        base_url: such as "http://127.0.0.1:8000/v1".
        api_key: bearer key, or None.
    """

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self._session = aiohttp.ClientSession(
            base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # Requests stand for different devices, so each opens its own connection.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            # A proxy's loopback is another machine's.
            trust_env=not is_loopback_url(base_url),
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
    """Join and decode a body's parts.

    Raises:
        ProtocolError: it is too long.
    """
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > _MAX_TEXT_BYTES:
            raise ProtocolError(f"the server sent a body of more than {_MAX_TEXT_BYTES} bytes")
    return body.decode(errors="replace")


async def text_lines(parts: AsyncIterable[bytes]) -> AsyncGenerator[str, None]:
    """Yield the lines of a body's parts, without line ends.

    Raises:
        ProtocolError: a line is too long.
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
