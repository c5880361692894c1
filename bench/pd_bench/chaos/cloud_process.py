"""A real server that is killed and started again, at a new address each time."""

import asyncio
from contextlib import suppress

from pd_bench.harness.server_process import ServerOptions, serving
from pd_core.errors import CloudUnavailable
from pd_core.host.signals import kill_at_once

__all__ = ["CloudProcess"]


class CloudProcess:
    """One server after another.

        async with CloudProcess(options) as cloud:
            cloud.address  # of the present one, or of the one that has just died
            cloud.kill()

    Args:
        options: how to start each.

    Attributes:
        address: "host:port" of the newest server.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._killed = asyncio.Event()
        self._ready = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._pid = 0
        self.address = ""

    async def __aenter__(self) -> "CloudProcess":
        self._running = asyncio.create_task(self._run())
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None, "entered before it is left"
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running

    async def ready(self) -> None:
        """Wait until a server runs.

        Raises:
            PdError: it could not be started.
        """
        assert self._running is not None, "entered first"
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._running.done():
            self._running.result()

    def kill(self) -> None:
        """Kill the server, if one runs, as a machine that loses its power; start another."""
        if self._ready.is_set():
            self._ready.clear()
            kill_at_once(self._pid)
            self._killed.set()

    async def _run(self) -> None:
        while True:
            self._killed.clear()
            with suppress(CloudUnavailable):  # said of a server that was killed
                async with serving(self._options) as server:
                    self.address, self._pid = server.address, server.pid
                    self._ready.set()
                    await self._killed.wait()
