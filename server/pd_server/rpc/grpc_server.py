"""The server of grpc.aio, mended so that no call ends it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

__all__ = ["make_grpc_server"]


def make_grpc_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, object]]
) -> grpc.aio.Server:
    """Return a server as `grpc.aio.server` makes it, but one that no method's name can end.

    Its services must register their methods, as generated code does. A call of any other method
    meets the same interceptors, by an empty name, and then ends as UNIMPLEMENTED. A header that is
    no text leaves no line in the log: anyone can send them, 60 MB of tracebacks in ten seconds, and
    one may be a key.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_of_our_doing)
    usual = cygrpc.AioServer
    cygrpc.AioServer = _RefusingServer  # grpc.aio looks it up when it makes a server
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = usual


def _of_our_doing(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's tells of something else than a header that is not UTF-8."""
    return not str(record.msg).startswith("Invalid encoding on")


class _RefusingServer(cygrpc.AioServer):  # type: ignore[misc]
    """Refuses calls of unknown methods before grpc.aio reads their names.

    grpc.aio decodes such a name as UTF-8, and a name that is not, from any client or by a changed
    bit, ends its main loop (grpcio 1.85). It then frees what the calls to come are written to,
    while gRPC's core still writes there: often the process ends with a segmentation fault.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread_pool: object,
        handlers: object,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        *more: object,
    ) -> None:
        super().__init__(loop, thread_pool, handlers, interceptors, *more)
        self._asked = tuple(interceptors)

    async def _request_call(self) -> NoReturn:
        """Wait for calls of methods that are not registered; grpc.aio awaits one here."""
        refusals = set[asyncio.Task[None]]()
        while True:
            call = await super()._request_call()
            refusal = asyncio.create_task(_refuse(call, self._asked))
            refusals.add(refusal)  # or it could be freed before its end
            refusal.add_done_callback(refusals.discard)


async def _refuse(call: Any, interceptors: tuple[grpc.aio.ServerInterceptor, ...]) -> None:
    """Answer a call as grpc.aio answers one of a method that it does not find.

    An interceptor may refuse it before, as that of the key does: without one nobody learns names.
    """
    loop = asyncio.get_running_loop()
    nothing = cygrpc._MethodResolver([], {})
    refusal = cygrpc._handle_rpc("", nothing, interceptors, call, loop, False)
    await cygrpc._schedule_rpc_coro(refusal, call, loop, "unknown")
