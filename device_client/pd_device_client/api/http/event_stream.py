"""Server-sent events with keep-alive comments; the work stops when the reader disconnects.

A stream that fails ends with an error event, since OpenAI clients take a silent end for the end of
the answer.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from pd_core.errors import EngineError, PdError
from pd_device_client.api.http.error_forms import error_event, error_response

__all__ = ["EventStream", "until_disconnect"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """A response that sends events as they come.

    The status is sent with the first event or keep-alive comment. An earlier error becomes an
    ordinary error response, which clients may retry.

    Args:
        events: complete events; closed at the end, and at once when the reader disconnects.
        headers: more headers.
        keep_alive_s: seconds of silence after which a comment is sent.
        write_timeout_s: a reader that takes nothing for this long counts as disconnected.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] | None = None,
        keep_alive_s: float = 10.0,
        write_timeout_s: float = 30.0,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._events = events
        more = (headers or {}).items()
        self._first_headers = [*_HEADERS, *((n.encode(), v.encode("latin-1")) for n, v in more)]
        self._keep_alive_s = keep_alive_s
        self._write_timeout_s = write_timeout_s
        self._began = False
        self._wrote_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._wrote_s = asyncio.get_running_loop().time()
        try:
            await until_disconnect(receive, self._serve(scope, receive, send))
        except ConnectionError:
            logger.debug("a reader disconnected")
        except TimeoutError:
            logger.info("a reader took nothing for %g s and was given up", self._write_timeout_s)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        heart = asyncio.ensure_future(self._beat(send))
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await self._write(send, event)
        except PdError as error:
            if not self._began:
                await error_response(error, scope["path"])(scope, receive, send)
                return
            await self._write(send, error_event(error, scope["path"]))
        except TimeoutError:
            raise
        except Exception:  # the outermost frame of a response
            logger.exception("an answer failed")
            failed = EngineError("the answer failed for a reason of this device; see its log")
            if not self._began:
                await error_response(failed, scope["path"])(scope, receive, send)
                return
            await self._write(send, error_event(failed, scope["path"]))
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _beat(self, send: Send) -> None:
        """Send a comment after every `keep_alive_s` of silence."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._wrote_s + self._keep_alive_s - loop.time())
            if loop.time() >= self._wrote_s + self._keep_alive_s:
                await self._write(send, _KEEP_ALIVE)

    async def _write(self, send: Send, content: bytes) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            if not self._began:
                self._began = True
                start = {"type": "http.response.start", "status": 200}
                await send({**start, "headers": self._first_headers})
            await send({"type": "http.response.body", "body": content, "more_body": True})
        self._wrote_s = asyncio.get_running_loop().time()


async def until_disconnect(receive: Callable[[], Awaitable[Message]], work: Awaitable[T]) -> T:
    """Do the work, and cancel it as soon as the client disconnects.

    Raises:
        ConnectionError: the client has disconnected; the cancelled work has ended.
    """
    gone = asyncio.ensure_future(_disconnected(receive))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(gone, task, return_exceptions=True)
    if task.cancelled():
        raise ConnectionError("the client has gone")
    return task.result()


async def _disconnected(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
