"""The gRPC service on its port, for as long as it is wanted."""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import grpc

from pd_core.errors import PdError
from pd_core.sockets.episode import Episode

__all__ = ["GrpcPort"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.25
_AGAIN_S = 0.05  # until the next try when the port is not yet free


class GrpcPort:
    """A gRPC server, and another in its place when it ends by itself.

    A server of grpc.aio ends for good when the name of a call's method is no UTF-8, and any client
    can send that, or a changed bit. Its open calls go on. So the next server takes the port. The
    first one is never freed: that would end the process with a segmentation fault. About one such
    end in a hundred does so anyway, in gRPC's own code; a service manager then begins anew.

    Args:
        make: makes a server that has bound a port and is not started; returns the port too.
    """

    def __init__(self, make: Callable[[int], tuple[grpc.aio.Server, int]]) -> None:
        self._make = make
        self._add: Callable[[grpc.aio.Server], None] = lambda server: None
        self._server: grpc.aio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ends = Episode(
            logger,
            "the gRPC server ended by itself, as a call came that it cannot read; another has "
            "taken its place",
        )
        self.port = 0

    def bind(self, port: int) -> None:
        """Take a port, before anything is loaded; 0 picks a free one.

        Raises:
            PdError: as `make`.
        """
        self._server, self.port = self._make(port)

    async def start(self, add: Callable[[grpc.aio.Server], None]) -> None:
        """Serve what `add` adds to a server."""
        assert self._server is not None, "bind comes first"
        _keep_tasks(asyncio.get_running_loop())
        self._add = add
        add(self._server)
        await self._server.start()
        self._watch = asyncio.create_task(self._watch_over())

    async def stop(self, grace_s: float) -> None:
        """End all calls; the open ones get a moment to send their last messages."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._ends.close()
        if self._server is not None:
            await self._server.stop(grace=grace_s)

    async def _watch_over(self) -> None:
        while True:
            assert self._server is not None, "started"
            try:
                running = await self._server.wait_for_termination(timeout=_LOOK_S)
            except Exception:  # what ended it; gRPC has logged it
                await self._replace(self._server)
            else:
                if not running:
                    return

    async def _replace(self, ended: grpc.aio.Server) -> None:
        self._ends.happened()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(ended))  # so that it is never freed
        while True:
            try:
                server, _ = self._make(self.port)
                break
            except PdError:  # the port is not free yet
                await asyncio.sleep(_AGAIN_S)
        self._add(server)
        await server.start()
        self._server = server


def _keep_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let no task of this loop be freed before its end.

    A server that ended by itself holds its calls' tasks no longer, and the loop never did:
    a call whose task is freed hangs.
    """
    kept: set[asyncio.Future[Any]] = set()

    def make(
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **more: Any,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        kept.add(task)
        task.add_done_callback(kept.discard)
        return task

    loop.set_task_factory(make)
