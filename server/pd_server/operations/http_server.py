"""uvicorn inside our event loop, with our socket and our signal handling."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from pd_server.config import TlsConfig

__all__ = ["HttpServer"]


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's entry point, which drains both servers."""
        yield


class HttpServer:
    """Serves one app on one socket.

    Args:
        app: the app.
        listener: a listening socket; closed at the end.
        tls: certificate and key; None: plain HTTP.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, tls: TlsConfig | None) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
                ssl_certfile=None if tls is None else tls.cert,
                ssl_keyfile=None if tls is None else str(tls.key),
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        """Start serving; return once it answers."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task  # raises the cause
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop serving; open requests get two seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listener.close()
