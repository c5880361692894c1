"""uvicorn on this machine, with a socket of our own that is taken before a model is loaded."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from pd_core.errors import ConfigError, PortInUse

__all__ = ["HttpServer", "bind"]

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
                access_log=False,  # paths and addresses are nobody's business
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
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Return once it answers."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task  # raises what went wrong
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Take no more connections; running answers get a few seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listener.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        PortInUse: somebody else listens there.
        ConfigError: the address is not one of this machine, or may not be used.
    """
    bare = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(
            f"--host {host} is no address; use 127.0.0.1 or one of this machine"
        ) from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use; stop what listens there, or give --port "
                "another (0 picks a free one)"
            ) from error
        raise ConfigError(
            f"cannot listen on port {port} of {host} ({error.strerror}); choose another --host "
            "or --port"
        ) from error
    listener.setblocking(False)
    return listener
