"""One server in one process: from the ready file to the last signal."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from pd_core.files.ready_file import check_ready_file, write_ready_file
from pd_core.host.signals import begin_obeying
from pd_server.config import ServerConfig
from pd_server.engine.contract import Engine
from pd_server.server import Server

__all__ = ["run_server"]


async def run_server(
    config: ServerConfig, build_engine: Callable[[], Engine], ready_file: Path | None
) -> int:
    """Serve until a signal; return the exit code.

    The first SIGTERM or SIGINT drains (0 at its end), a second one stops at once (1).

    Args:
        config: the server's settings.
        build_engine: makes the engine, in a worker thread.
        ready_file: while serving, this file holds addresses and process id as JSON.

    Raises:
        EngineDead: the engine failed for good; requests were told.
        ConfigError: the server could not start, or the ready file cannot be written.
    """
    if ready_file is not None:
        check_ready_file(ready_file)  # before loading, which may take minutes
    server = Server(config, build_engine)
    signals = _SignalCounter()
    start = asyncio.create_task(server.start())
    await _first(start, asyncio.create_task(signals.first.wait()))
    if not start.done():  # a signal while the model loads
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        return 0
    await start
    try:
        if ready_file is None:
            return await _serve(server, signals)
        write_ready_file(ready_file, grpc=server.grpc_address, http=server.http_address)
        try:
            return await _serve(server, signals)
        finally:
            _remove(ready_file)
    finally:
        await server.stop()


async def _serve(server: Server, signals: "_SignalCounter") -> int:
    """Wait for a signal and drain; return the exit code."""
    died = asyncio.create_task(server.wait())
    await _first(died, asyncio.create_task(signals.first.wait()))
    if died.done():
        raise died.result()
    drain = asyncio.create_task(server.drain())
    await _first(drain, died, asyncio.create_task(signals.second.wait()))
    if died.done():
        raise died.result()
    return 0 if drain.done() else 1


class _SignalCounter:
    """Turns the first and the second SIGTERM or SIGINT into events."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            begin_obeying(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _first(*tasks: "asyncio.Task[object]") -> None:
    """Wait until one of the tasks is done."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
