"""The whole server in one object: engine thread, gRPC, control plane, drain."""

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as aio_health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from starlette.types import ASGIApp

from pd_core.errors import EngineDead, ShuttingDown
from pd_core.generation import ServerInfo
from pd_core.host.open_files import raise_open_files
from pd_core.process.loading_thread import in_loading_thread
from pd_core.process.tracing import Tracing
from pd_core.sockets.listening import format_address
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from pd_server.config import ServerConfig
from pd_server.engine.contract import Engine
from pd_server.engine.thread import EngineThread
from pd_server.gate.admission import Admission
from pd_server.gate.server_card import server_card
from pd_server.gate.validation import RequestValidator
from pd_server.keys.key_watch import watch_keys
from pd_server.keys.keyring import Keyring
from pd_server.operations.connection_caps import connection_caps
from pd_server.operations.control_plane import make_control_plane
from pd_server.operations.http_server import HttpServer
from pd_server.operations.lifecycle import Phase
from pd_server.operations.listen import add_grpc_port, bind_http
from pd_server.operations.metrics import Metrics
from pd_server.operations.strangers import Strangers
from pd_server.rpc.grpc_server import make_grpc_server
from pd_server.rpc.interceptors import AuthInterceptor, ErrorInterceptor
from pd_server.rpc.service import GenerationService

__all__ = ["MAX_MESSAGE_BYTES", "Server"]

logger = logging.getLogger(__name__)

# A Start with a million-token prompt is 3 to 5 MB; gRPC's default of 4 MiB is too close.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Two servers on one port would each get half of the calls; fail to bind instead.
    ("grpc.so_reuseport", 0),
    # Pings detect a device that vanished without closing; its request is then aborted.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Clients ping every 30 s; gRPC's default would end their connection for that.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    # A connection needs no key to be open. One that does not begin to speak is closed, and one that
    # has had no call for long: its device may be gone, and else makes a new one.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 1_800_000),
)
_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GenerationService"].full_name


class Server:
    """One server; make it, `start` it, `wait` for its end, `stop` it.

    Args:
        config: its settings.
        build_engine: makes the engine; called in a worker thread, because loading takes long.
    """

    def __init__(self, config: ServerConfig, build_engine: Callable[[], Engine]) -> None:
        self._config = config
        self._build_engine = build_engine
        self._keyring = Keyring(config.keys())
        self._tracing = Tracing("pd-server") if config.otel else None
        self._phase = Phase.LOADING
        self._died = asyncio.Event()
        self._error: EngineDead | None = None
        self._engine: EngineThread | None = None
        self._service: GenerationService | None = None
        self._metrics: Metrics | None = None
        self._health = aio_health.HealthServicer()
        self._caps = connection_caps(raise_open_files())
        self._grpc: grpc.aio.Server | None = None
        self._grpc_port = 0
        self._http: HttpServer | None = None
        self._strangers: Strangers | None = None
        self._watches = list[asyncio.Task[None]]()

    @property
    def grpc_address(self) -> str:
        """host:port of the gRPC service."""
        return format_address(self._config.host, self._grpc_port)

    @property
    def http_address(self) -> str:
        """host:port of the control plane."""
        assert self._http is not None, "the server was not started"
        return format_address(self._config.host, self._http.port)

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self._phase

    async def start(self) -> None:
        """Bind both ports, load the model, and serve.

        Raises:
            PortInUse: a port is taken.
            ConfigError: the settings do not fit the model or the machine.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> EngineDead:
        """Wait until the engine has failed for good; return the error."""
        await self._died.wait()
        await self._health.enter_graceful_shutdown()
        assert self._error is not None, "died without an error"
        return self._error

    async def drain(self) -> bool:
        """Refuse new requests and let running ones end; return whether all did in time."""
        logger.info("draining: running requests get %g s", self._config.drain_s)
        self._phase = Phase.DRAINING
        await self._health.enter_graceful_shutdown()
        if self._service is None:
            return True
        self._service.drain()
        try:
            async with asyncio.timeout(self._config.drain_s):
                await self._service.wait_idle()
        except TimeoutError:
            logger.warning("%d requests did not end in time", self._service.num_open)
            return False
        return True

    async def stop(self) -> None:
        """End everything at once; requests still running get ShuttingDown. Safe at any time."""
        if self._phase is not Phase.DEAD:
            self._phase = Phase.DRAINING
        if self._engine is not None:
            self._engine.abort_all(
                ShuttingDown("the server was stopped before the answer ended; use another one")
            )
        for watch in self._watches:
            watch.cancel()
        if self._grpc is not None:
            await self._grpc.stop(grace=1.0)
        if self._http is not None:
            await self._http.stop()
        if self._engine is not None:
            await self._engine.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def _start(self) -> None:
        config = self._config
        listener = bind_http(config.host, config.http_port)
        self._http = HttpServer(self._control_plane(), listener, config.tls, self._caps.http)
        self._grpc = self._make_grpc()
        self._grpc_port = add_grpc_port(self._grpc, config.host, config.grpc_port, config.tls)
        self._strangers = Strangers(self._grpc_port, self._caps.grpc)
        await self._http.start()
        if config.api_keys_file is not None:
            self._watches.append(asyncio.create_task(watch_keys(self._keyring, config.keys)))
        service = self._make_service(await in_loading_thread(self._build_engine))

        add_GenerationServiceServicer_to_server(service, self._grpc)
        add_HealthServicer_to_server(self._health, self._grpc)
        if config.reflection:
            names = (_SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
        await self._grpc.start()
        self._watches.append(asyncio.create_task(self._strangers.watch()))
        for name in ("", _SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._phase = Phase.SERVING
        logger.info("serving gRPC on %s, HTTP on %s", self.grpc_address, self.http_address)

    def _make_grpc(self) -> grpc.aio.Server:
        return make_grpc_server(
            (
                AuthInterceptor(self._keyring, self._count_error),
                ErrorInterceptor(self._count_error, self._on_call),
            ),
            (*_GRPC_OPTIONS, ("grpc.max_allowed_incoming_connections", self._caps.grpc)),
        )

    def _make_service(self, engine: Engine) -> GenerationService:
        config = self._config
        card = server_card(
            version("pd-device"),
            engine.card,
            config.engine.max_num_seqs,
            config.max_num_waiting,
            config.max_context_tokens,
            config.max_output_tokens,
        )
        limits = card.limits
        self._engine = EngineThread(engine, self._on_dead)
        self._engine.start()
        thread = self._engine
        self._metrics = Metrics(lambda: thread.load)
        max_tokens = config.max_tokens_in_flight
        if max_tokens is None:
            max_requests = limits.max_num_seqs + limits.max_num_waiting
            max_tokens = max_requests * card.model.max_context_tokens
        self._service = GenerationService(
            self._engine,
            Admission(limits.max_num_seqs, limits.max_num_waiting, max_tokens),
            RequestValidator(card),
            card,
            self._metrics,
            self._keyring,
            share_prefixes=config.share_prefixes,
            tracing=self._tracing,
            start_timeout_s=config.start_timeout_s,
        )
        return self._service

    def _control_plane(self) -> ASGIApp:
        return make_control_plane(
            phase=lambda: self._phase,
            info=self._info,
            metrics=self._render,
            keyring=self._keyring,
            certified_only=self._config.tls is not None and self._config.tls.client_ca is not None,
        )

    def _info(self) -> ServerInfo | None:
        return None if self._service is None else self._service.info()

    def _render(self) -> bytes:
        return b"" if self._metrics is None else self._metrics.render()

    def _on_call(self, peer: str) -> None:
        assert self._strangers is not None, "a call came before the port was bound"
        self._strangers.made_a_call(peer)

    def _count_error(self, error: Exception) -> None:
        if self._metrics is not None:
            self._metrics.error(error)

    def _on_dead(self, error: EngineDead) -> None:
        self._phase = Phase.DEAD
        self._error = error
        self._died.set()
