"""What happens around every RPC: the key is checked, and errors become statuses.

Messages of our own service are parsed here, not by gRPC, so that malformed bytes end as
INVALID_ARGUMENT like any other bad input.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pd_core.errors import InvalidRequest, PdError, Unauthenticated, drop_frames
from pd_server.keys.keyring import Keyring
from pd_server.rpc.grpc_errors import abort_arguments

__all__ = ["AuthInterceptor", "ErrorInterceptor"]

logger = logging.getLogger(__name__)

_OWN_SERVICE = "/pd_proto.v1."
_HEALTH_SERVICE = "/grpc.health.v1.Health/"

Handler = Any  # grpc.RpcMethodHandler, whose published type lacks most of its attributes
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a key; health checks need none.

    Args:
        keyring: the keys.
        on_refused: called with every refusal, for the metrics.
    """

    def __init__(self, keyring: Keyring, on_refused: Callable[[PdError], None]) -> None:
        self._keyring = keyring
        self._on_refused = on_refused

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Check the call's `authorization` metadata before any of its messages is read."""
        if handler_call_details.method.startswith(_HEALTH_SERVICE):
            return await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata or ())
        try:
            self._keyring.account(metadata.get("authorization"))
        except Unauthenticated as error:
            self._on_refused(error)
            return _refusal(error)
        return await continuation(handler_call_details)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps every exception of our service to one status, by `pd_core.errors.STATUS`.

    Args:
        on_error: called with every error that ends a call, for the metrics.
        on_call: called with the client's address of every call of our service.
    """

    def __init__(
        self,
        on_error: Callable[[Exception], None],
        on_call: Callable[[str], None] = lambda peer: None,
    ) -> None:
        self._on_error = on_error
        self._on_call = on_call

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Wrap the handlers of our own service."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OWN_SERVICE):
            return handler
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._wrap_stream(handler), None, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap_unary(handler), None, handler.response_serializer
        )

    def _wrap_stream(self, handler: Handler) -> Callable[..., AsyncIterator[Any]]:
        async def behaviour(raw: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            self._on_call(context.peer())
            received: Any = aiter(raw)
            messages = _parsed(handler.request_deserializer, received)
            responses = handler.stream_stream(messages, context)
            try:
                async for response in responses:
                    yield response
            except Exception as error:
                await self._abort(context, error)
            finally:
                # Also when the client is gone: abort the request now, not at garbage collection.
                await responses.aclose()
                # Each is part of a cycle and holds the last message, perhaps a prompt of megabytes.
                await messages.aclose()
                await received.aclose()

        return behaviour

    def _wrap_unary(self, handler: Handler) -> Callable[..., Awaitable[Any]]:
        async def behaviour(raw: bytes, context: Any) -> Any:
            self._on_call(context.peer())
            try:
                request = _parse(handler.request_deserializer, raw)
                return await handler.unary_unary(request, context)
            except Exception as error:
                await self._abort(context, error)

        return behaviour

    async def _abort(self, context: Any, error: Exception) -> None:
        if context.cancelled():
            raise asyncio.CancelledError from error
        if not isinstance(error, PdError):
            logger.error("an RPC failed", exc_info=error)
        self._on_error(error)
        arguments = abort_arguments(error)
        drop_frames(error)  # gRPC's own error, a cycle, refers to this one
        await context.abort(*arguments)


async def _parsed(
    deserializer: Callable[[bytes], Any], raw: AsyncIterator[bytes]
) -> AsyncGenerator[Any, None]:
    async for data in raw:
        yield _parse(deserializer, data)


def _parse(deserializer: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserializer(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "a message cannot be parsed; send messages of pd_proto.v1 as published"
        ) from error


def _refusal(error: PdError) -> Handler:
    """Return a handler that ends any kind of call with the error without reading from it."""

    async def refuse(_requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(*abort_arguments(error))
        yield b""  # never reached; it makes this an async generator

    return grpc.stream_stream_rpc_method_handler(refuse)
