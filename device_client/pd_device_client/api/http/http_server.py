"""uvicorn on a socket that was bound before the model was loaded."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pd_core.sockets.listening import format_address
from pd_core.sockets.reception import Reception

__all__ = ["HttpServer"]

_DRAIN_S = 5
# Longer than the pools of clients keep a connection (60 s is usual): the side that sends next must
# not be the one that learns too late that it is closed.
_KEEP_ALIVE_S = 75
_MOST = 512


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
        open_files: how many this process may have; at most half are this server's connections.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, open_files: int = 2 * _MOST) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=H11Protocol,
                timeout_keep_alive=_KEEP_ALIVE_S,
                log_config=None,
                log_level="error",  # below are lines that anyone can cause with a bad request
                access_log=False,  # paths and addresses are private
                lifespan="off",
                ws="none",
                server_header=False,
                h11_max_incomplete_event_size=64 << 10,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self._most = min(_MOST, open_files // 2)
        self._reception: Reception[H11Protocol] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The "host:port" it listens on."""
        host, port = self._listener.getsockname()[:2]
        return format_address(host, port)

    async def start(self) -> None:
        """Return once it answers."""
        self._task = asyncio.create_task(self._server.serve(sockets=[]))
        while not self._server.started:
            if self._task.done():
                await self._task  # raises what went wrong
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.005)
        config, state = self._server.config, self._server.server_state
        self._reception = Reception(
            self._listener,
            lambda: H11Protocol(config, state, app_state={}),
            _answers,
            self._most,
            awaits_body=_awaits_body,
        )
        self._reception.open()

    async def stop(self, *, at_once: bool = False) -> None:
        """Accept no more connections; running responses get a few seconds.

        Args:
            at_once: they get none, since no model is there that could make them.
        """
        if at_once:
            self._server.config.timeout_graceful_shutdown = 0
            logging.getLogger("uvicorn.error").disabled = True  # it would list what was cut off
        if self._reception is not None:
            self._reception.close()
        self._listener.close()
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _answers(protocol: H11Protocol) -> bool:
    return protocol.cycle is not None and not protocol.cycle.response_complete


def _awaits_body(protocol: H11Protocol) -> bool:
    return _answers(protocol) and protocol.cycle.more_body
