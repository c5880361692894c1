"""uvicorn on a socket that was bound before the model was loaded."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from pd_core.host.listening import format_address

__all__ = ["HttpServer"]

_DRAIN_S = 5


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's entry point."""
        yield


class HttpServer:
    """Serves one application on one socket.

    Args:
        app: the application.
        listener: a listening socket; closed at the end.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # paths and addresses are private
                lifespan="off",
                ws="none",
                server_header=False,
                h11_max_incomplete_event_size=64 << 10,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The "host:port" it listens on."""
        host, port = self._listener.getsockname()[:2]
        return format_address(host, port)

    async def start(self) -> None:
        """Return once it answers."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task  # raises what went wrong
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Accept no more connections; running responses get a few seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listener.close()
