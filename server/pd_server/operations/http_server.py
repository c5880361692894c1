"""uvicorn inside our event loop, with our socket and our signal handling."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pd_core.sockets.reception import Reception
from pd_server.config import TlsConfig
from pd_server.operations.control_plane import CERTIFIED

__all__ = ["HttpServer"]

# Longer than the pools of clients and load balancers keep a connection (60 s is usual): the side
# that sends next must not be the one that learns too late that it is closed.
_KEEP_ALIVE_S = 75


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's entry point, which drains both servers."""
        yield


class _Protocol(H11Protocol):
    """Tells the app whether the client has a certificate; one not trusted gets no TLS."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state[CERTIFIED] = tls is not None and bool(tls.getpeercert())


class HttpServer:
    """Serves one app on one socket.

    Args:
        app: the app.
        listener: a listening socket; closed at the end.
        tls: certificate and key; None: plain HTTP.
        most: connections open at once.
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, tls: TlsConfig | None, most: int
    ) -> None:
        self._listener = listener
        ca = None if tls is None else tls.client_ca
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=H11Protocol,
                timeout_keep_alive=_KEEP_ALIVE_S,
                log_config=None,
                log_level="error",  # below are lines that anyone can cause with a bad request
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
                ssl_certfile=None if tls is None else tls.cert,
                ssl_keyfile=None if tls is None else str(tls.key),
                ssl_ca_certs=None if ca is None else str(ca),
                # Probes have none: which routes ask for one is the control plane's.
                ssl_cert_reqs=ssl.CERT_NONE if ca is None else ssl.CERT_OPTIONAL,
            )
        )
        self._most = most
        self._reception: Reception[H11Protocol] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        """Start serving; return once it answers."""
        self._task = asyncio.create_task(self._server.serve(sockets=[]))
        while not self._server.started:
            if self._task.done():
                await self._task  # raises the cause
                raise RuntimeError("the HTTP server ended before it had started")
            await asyncio.sleep(0.005)
        config, state = self._server.config, self._server.server_state
        self._reception = Reception(
            self._listener,
            lambda: _Protocol(config, state, app_state={}),
            _answers,
            self._most,
            config.ssl,
        )
        self._reception.open()

    async def stop(self) -> None:
        """Stop serving; open requests get two seconds."""
        if self._reception is not None:
            self._reception.close()
        self._listener.close()
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _answers(protocol: H11Protocol) -> bool:
    return protocol.cycle is not None and not protocol.cycle.response_complete
