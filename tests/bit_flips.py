"""A gRPC relay between device and server that changes messages as they pass."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from pd_proto.v1 import generation_pb2 as pb

__all__ = ["relay"]

Change = Callable[[Any], None]


@asynccontextmanager
async def relay(
    address: str, *, up: Change = lambda _: None, down: Change = lambda _: None
) -> AsyncIterator[str]:
    """Yield the address of a relay to a server.

    Args:
        address: the server's.
        up: called with every GenerateRequest, to change it in place.
        down: called with every GenerateResponse and GetServerInfoResponse, likewise.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Relay(channel, up, down),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace=None)


class _Relay(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel, up: Change, down: Change) -> None:
        self._channel = channel
        self._up = up
        self._down = down

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        if method.endswith("/GetServerInfo"):

            async def card(raw: bytes, _context: Any) -> bytes:
                ask: Any = self._channel.unary_unary(method)
                info: bytes = await ask(raw)
                return self._changed(pb.GetServerInfoResponse.FromString(info))

            return grpc.unary_unary_rpc_method_handler(card)

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call: Any = self._channel.stream_stream(method)()
            writer = asyncio.create_task(self._write(requests, call))
            try:
                while (raw := await call.read()) is not grpc.aio.EOF:
                    yield self._changed(pb.GenerateResponse.FromString(raw))
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailing)
            finally:
                writer.cancel()
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(stream)

    async def _write(self, requests: AsyncIterator[bytes], call: Any) -> None:
        async for raw in requests:
            message = pb.GenerateRequest.FromString(raw)
            self._up(message)
            await call.write(message.SerializeToString())
        await call.done_writing()

    def _changed(self, message: Any) -> bytes:
        self._down(message)
        raw: bytes = message.SerializeToString()
        return raw
