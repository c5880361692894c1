"""The real cloud link: gRPC over TLS, or plaintext on loopback."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Self

import grpc
import grpc.aio

from pd_core.errors import CloudUnavailable, ConfigError, PdError, TransportError
from pd_core.files.api_key import checked_api_key
from pd_core.generation import CloudEvent, Extend, ServerInfo, Start, Stop
from pd_core.process.tracing import TRACEPARENT
from pd_core.sockets.loopback import is_loopback
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.authority import read_authority
from pd_device_client.cloud.client_certificate import ClientCertificate
from pd_device_client.cloud.convert import (
    error_from_call,
    info_from_pb,
    request_to_pb,
)
from pd_device_client.cloud.proxy import proxy_options, proxy_words
from pd_device_client.cloud.seal_check import SealCheck, readable
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1 import generation_pb2_grpc as pb_grpc

__all__ = ["GrpcCloudLink"]

logger = logging.getLogger(__name__)

# Idle connections are probed often enough to notice a suspended laptop or a lost network, but not
# so often that a server's default policy closes them.
_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]

_Call = grpc.aio.StreamStreamCall[pb.GenerateRequest, pb.GenerateResponse]


class GrpcCloudLink:
    """A gRPC channel to one server.

    Args:
        target: "host:port".
        tls_ca, tls, api_key, insecure, client: as in CloudAddress.
        info_timeout_s: deadline of a card request.
        stream_timeout_s: deadline of a whole stream.

    Raises:
        ConfigError: the target is malformed, or plaintext would leave this machine.
    """

    def __init__(
        self,
        target: str,
        *,
        tls_ca: Path | None = None,
        tls: bool = False,
        api_key: str | None = None,
        insecure: bool = False,
        client: ClientCertificate | None = None,
        info_timeout_s: float = 3.0,
        stream_timeout_s: float = 1800.0,
    ) -> None:
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"the cloud's address is {target!r}; it must be HOST:PORT")
        self.target = target
        self._info_timeout_s = info_timeout_s
        self._stream_timeout_s = stream_timeout_s
        self._sealed = False  # until its card says so
        key = checked_api_key(api_key) if api_key is not None else None
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._host = host
        about = ("grpc.primary_user_agent", f"pd-device/{version('pd-device')}")
        options = [about, *_CHANNEL_OPTIONS, *proxy_options(host)]
        if tls_ca is not None or tls:
            authority = read_authority(tls_ca).encode() if tls_ca else None
            certificate, own_key = (None, None) if client is None else client.read()
            credentials = grpc.ssl_channel_credentials(authority, own_key, certificate)
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            if not insecure and not is_loopback(host):
                raise ConfigError(
                    f"{target} is not on this machine and the link would be plaintext; give the "
                    "server's certificate authority (--tls-ca), or --insecure by name"
                )
            self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub = pb_grpc.GenerationServiceStub(self._channel)

    @classmethod
    def to(cls, address: CloudAddress) -> Self:
        """Return a link to an address.

        Raises:
            ConfigError: as the constructor.
        """
        return cls(
            address.target,
            tls_ca=address.tls_ca,
            tls=address.tls,
            api_key=address.api_key,
            insecure=address.insecure,
            client=address.client,
        )

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card."""
        try:
            response = await self._stub.GetServerInfo(
                pb.GetServerInfoRequest(), timeout=self._info_timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise _told(error, self._host) from error
        except asyncio.CancelledError:
            _check_closed()
            raise
        info = info_from_pb(readable(response, pb.GetServerInfoResponse))
        self._sealed = info.sealed
        return info

    async def open(self, start: Start) -> "_GrpcStream":
        """Open a stream and send `start`."""
        traceparent = TRACEPARENT.get()
        metadata = (*self._metadata, *([("traceparent", traceparent)] if traceparent else ()))
        call = self._stub.Generate(timeout=self._stream_timeout_s, metadata=metadata)
        stream = _GrpcStream(call, SealCheck(start, sealed=self._sealed), self._host)
        try:
            await stream.send(start)
        except BaseException:
            call.cancel()  # a call that is never read would stay open for ever
            raise
        return stream

    async def close(self) -> None:
        """Close the channel; open streams break."""
        await self._channel.close()


class _GrpcStream:
    def __init__(self, call: _Call, check: SealCheck, host: str) -> None:
        self._call = call
        self._check = check
        self._host = host

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                yield self._check.event(readable(message, pb.GenerateResponse))
        except grpc.aio.AioRpcError as error:
            raise _told(error, self._host) from error
        except asyncio.CancelledError:
            _check_closed()
            raise

    async def send(self, message: Start | Extend | Stop) -> None:
        try:
            await self._call.write(request_to_pb(message))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            # The stream has ended; its reader gets the reason.
            logger.debug(
                "a %s came after the end: %s", type(message).__name__, type(error).__name__
            )

    def cancel(self) -> None:
        self._call.cancel()


def _check_closed() -> None:
    """Tell a closed channel from a task that is cancelled: grpc.aio raises the same for both.

    Raises:
        CloudUnavailable: nobody cancels this task.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        raise CloudUnavailable("the link was closed") from None


def _told(error: grpc.aio.AioRpcError, host: str) -> PdError:
    """Return the error that a call's failure becomes; a proxy between is named."""
    told = error_from_call(error)
    through = proxy_words(host)
    if through and isinstance(told, TransportError):
        told.args = (f"{told} ({through})", *told.args[1:])
    return told
